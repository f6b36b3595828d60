"""What a model file promises: the one JSON document that travels inside checkpoint and model.

`seg-train` writes it into the checkpoint, `seg-export` carries it into the ONNX file's `metadata_props`
and adds what it knows, the runtime reads everything that decides a pixel from it. Standard library only.
"""

import json
import math
import types
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from segport.errors import ModelError

KEY = "segport.contract"
SCHEMA = 2  # 2: output.smallest_component
SIZES = 8, 2048  # at 2048 the goldens alone take 17 MB of the file, and a slice half a gigabyte for each layer's maps
MAX_ENTRIES = 100_000  # of the JSON, a few hundred in ours: 16 MB of "[]" would become 0.4 GB of lists
LARGEST_INTEGER = 2**63


@dataclass(frozen=True)
class Input:
    """How pixels become the network's input.

    `size`: side of the square input in pixels. `scale`, `mean`, `std`: the graph computes
    (pixel * scale - mean) / std per channel. `percentiles` and `levels`: a volume that is not uint8 is mapped
    linearly so that these percentiles of a patient's pixels land on these grey levels (the training patients'
    median levels at the same percentiles), then clipped to 0..255.
    """

    size: int
    channels: tuple[str, ...] = ("pre-contrast", "FLAIR", "post-contrast")
    channel_order: Literal["RGB"] = "RGB"
    fit: Literal["pad-to-square"] = "pad-to-square"
    interpolation: Literal["area-linear"] = "area-linear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    percentiles: tuple[float, float] = (1.0, 99.0)
    levels: tuple[float, float] = (0.0, 140.0)


@dataclass(frozen=True)
class Output:
    """What the logits mean: `classes`, and the probability from which a pixel belongs to the mask.

    `smallest_component`: share of the largest three-dimensional component (26-connected) of a patient's mask, in
    0..1, below which a component is left out of it; 0 leaves all. It applies where all slices of a stack are there.
    """

    classes: tuple[str, ...] = ("tumour",)
    threshold: float = 0.5
    smallest_component: float = 0.0


@dataclass(frozen=True)
class TrainingRange:
    """What the training slices looked like: sizes as [height, width], channel counts, grey levels.

    `intensity`: per channel, the median over patients of the 1st, 50th, 99th percentile and the maximum.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    channel_counts: tuple[int, ...] = ()
    intensity: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where the weights come from. `weights_sha256`: over the tensors in name order.

    `data`: counts and a salted hash of the training data, never a patient's name.
    `dice`: score name (with part and aggregation, e.g. "val/mean-per-patient") to value in 0..1.
    """

    architecture: str = "deeplabv3_resnet50"
    output_stride: int = 8
    weights_sha256: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    dice: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Export:
    """How the graph was made: opset, exporter, precision, exact rewrites, and the parity figures it passed."""

    opset: int
    exporter: str
    precision: Literal["fp32", "fp16", "int8"]
    rewrites: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Golden:
    """Logits the exported graph gives for the shipped synthetic slices.

    `names`: the slices. `logits`: base64 of zlib-compressed little-endian float16 [slices, size, size].
    On another machine a pixel may flip only where its logit is within `tolerance` of the threshold's, and at most
    `flip_share` of the pixels may.
    """

    names: tuple[str, ...]
    logits: str
    tolerance: float
    flip_share: float


@dataclass(frozen=True)
class ModelContract:
    """The whole promise; `export` and `golden` are absent in a checkpoint.

    Raises `ModelError` when values contradict each other.
    """

    input: Input
    output: Output = field(default_factory=Output)
    training_range: TrainingRange = field(default_factory=TrainingRange)
    origin: Origin = field(default_factory=Origin)
    export: Export | None = None
    golden: Golden | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        problems = [
            (
                SIZES[0] <= self.input.size <= SIZES[1],
                f"input.size is {self.input.size}, expected {SIZES[0]} to {SIZES[1]}",
            ),
            (len(self.input.channels) == 3, f"input.channels has {len(self.input.channels)} names, expected 3"),
            (len(self.input.mean) == 3 == len(self.input.std), "input.mean and input.std need 3 values each"),
            (all(s > 0 for s in self.input.std), f"input.std is {self.input.std}, expected positive values"),
            (self.input.scale > 0, f"input.scale is {self.input.scale}, expected a positive value"),
            (
                0 <= self.input.percentiles[0] < self.input.percentiles[1] <= 100,
                f"input.percentiles is {self.input.percentiles}, expected two rising values in 0..100",
            ),
            (
                0 <= self.input.levels[0] < self.input.levels[1] <= 255,
                f"input.levels is {self.input.levels}, expected two rising values in 0..255",
            ),
            (self.output.classes == ("tumour",), f"output.classes is {self.output.classes}, expected ('tumour',)"),
            (0 < self.output.threshold < 1, f"output.threshold is {self.output.threshold}, expected 0 < p < 1"),
            (
                0 <= self.output.smallest_component <= 1,
                f"output.smallest_component is {self.output.smallest_component}, expected a share, 0 to 1",
            ),
        ]
        for fine, problem in problems:
            if not fine:
                raise ModelError(f"the contract contradicts itself: {problem}")

    def to_json(self) -> str:
        """Return the contract as compact JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> "ModelContract":
        """Parse `text`, found in the file `where`; raise `ModelError` naming what was expected."""
        entries = sum(text.count(mark) for mark in ",[{")  # base64 has none of them
        if entries > MAX_ENTRIES:
            raise ModelError(f"{where}: its contract has {entries} entries, at most {MAX_ENTRIES} are read")
        try:
            document = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{where}: its contract is not valid JSON ({error}); export the model again") from error
        schema = document.get("schema") if isinstance(document, dict) else None
        if not isinstance(schema, int) or schema < 1:
            raise ModelError(f"{where}: its contract names no schema version; export the model again with seg-export")
        if schema > SCHEMA:
            raise ModelError(
                f"{where}: its contract has schema {schema}, this segport reads up to {SCHEMA};"
                " remedy: pip install --upgrade segport"
            )
        return cast(ModelContract, _build(cls, document, where, "contract"))


def _refuse(number: str) -> float:
    raise ValueError(f"{number[:40]} is not a number a contract may hold")


def _finite(number: str) -> float:
    return value if math.isfinite(value := float(number)) else _refuse(number)


def _integer(number: str) -> int:
    """Refuse what would overflow a float later; digits are counted first, since int() takes its time over millions."""
    if len(number) > len(str(-LARGEST_INTEGER)) or abs(int(number)) > LARGEST_INTEGER:
        _refuse(number)
    return int(number)


def _build(kind: Any, value: Any, where: str, path: str) -> Any:
    """Return `value` (parsed JSON) as `kind`: dataclass, tuple, dict, Literal, `X | None` or a plain type."""
    if is_dataclass(kind):
        return _build_dataclass(kind, value, where, path)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _build(arguments[0], value, where, path)
    if origin is tuple and isinstance(value, list):
        inner = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(inner) == len(value):
            pairs = enumerate(zip(inner, value, strict=True))
            return tuple(_build(k, v, where, f"{path}[{i}]") for i, (k, v) in pairs)
    elif origin is dict and isinstance(value, dict):
        return {key: _build(arguments[1], item, where, f"{path}.{key}") for key, item in value.items()}
    elif _is_plain(kind, value) or (origin is Literal and value in arguments):
        return float(value) if kind is float else value
    raise _mismatch(where, path, str(getattr(kind, "__name__", kind)), value)


def _build_dataclass(kind: Any, value: Any, where: str, path: str) -> Any:
    """Entries that are not known stay unread: a newer segport may have added them within this schema."""
    if not isinstance(value, dict):
        raise _mismatch(where, path, "an object", value)
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind) if f.name in value]
    entries = {n: _build(hints[n], value[n], where, f"{path}.{n}") for n in known}
    try:
        return kind(**entries)
    except TypeError as error:
        raise ModelError(f"{where}: {path} lacks a required entry ({error}); export the model again") from error
    except ModelError as error:
        raise ModelError(f"{where}: {error}; export the model again") from error


def _is_plain(kind: Any, value: Any) -> bool:
    if kind is Any or isinstance(value, bool):
        return kind in (Any, bool)
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return kind in (int, str) and isinstance(value, kind)


def _mismatch(where: str, path: str, expected: str, value: Any) -> ModelError:
    return ModelError(f"{where}: {path} is {str(value)[:60]!r}, expected {expected}; export the model again")
