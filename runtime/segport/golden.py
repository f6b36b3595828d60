"""The shipped synthetic slices and the logits a model is expected to give for them."""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segport.contract import Golden
from segport.errors import ModelError
from segport.preprocess import Pixels, binarise, logit, prepare, stack
from segport.reading import read_slice
from segport.segmenter import Segmenter

NAMES = tuple(f"golden_{i}.png" for i in range(1, 9))


@dataclass(frozen=True)
class SelfTest:
    """How a model's logits on this machine compare with those stored in it.

    `flips`: mask pixels that changed. `worst_flip`: the largest distance from the threshold's logit at which a
    pixel flipped, at most `tolerance`; `flip_share`: the share of pixels that may flip.
    """

    pixels: int
    max_difference: float
    flips: int
    worst_flip: float
    tolerance: float
    flip_share: float

    @property
    def passed(self) -> bool:
        """Whether flips are few enough and near enough to the threshold."""
        return self.worst_flip <= self.tolerance and self.flips <= self.flip_share * self.pixels


def golden_slices(names: Sequence[str] = NAMES) -> list[Pixels]:
    """Return shipped slices, uint8 RGB [256, 256, 3]; raises `ModelError` for a name that is not shipped."""
    return [read_slice(_golden_path(name)) for name in names]


def golden_masks(names: Sequence[str] = NAMES) -> list[NDArray[np.uint8]]:
    """Return the true masks of shipped slices, uint8 [256, 256] of 0 and 1."""
    return [binarise(read_slice(_golden_path(name.replace(".png", "_mask.png")))) for name in names]


def golden_logits(segmenter: Segmenter, names: Sequence[str] = NAMES) -> NDArray[np.float32]:
    """Return this segmenter's logits for shipped slices, float32 [slices, size, size]."""
    return segmenter.logits(stack([prepare(p, segmenter.contract) for p in golden_slices(names)]))


def make_golden(segmenter: Segmenter, tolerance: float, flip_share: float) -> Golden:
    """Return the entry for a contract: this segmenter's logits for the shipped slices, and what may differ."""
    packed = zlib.compress(golden_logits(segmenter).astype("<f2").tobytes(), 9)
    return Golden(NAMES, base64.b64encode(packed).decode("ascii"), tolerance, flip_share)


def self_test(segmenter: Segmenter) -> SelfTest:
    """Recompute the golden logits with this segmenter's provider and threads, and compare masks.

    Raises `ModelError` when the model carries no goldens or they cannot be decoded.
    """
    golden = segmenter.contract.golden
    if golden is None:
        raise ModelError(f"{segmenter.model}: carries no golden logits; export it again with seg-export")
    expected = _decode(golden, segmenter.contract.input.size, str(segmenter.model))
    found = golden_logits(segmenter, golden.names)
    limits = golden.tolerance, golden.flip_share
    return compare_logits(expected, found, segmenter.contract.output.threshold, *limits)


def compare_logits(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    threshold: float,
    tolerance: float,
    flip_share: float,
) -> SelfTest:
    """Compare logits of the same shape; see `SelfTest`. NaN in either counts as an infinite difference."""
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return SelfTest(found.size, float("inf"), found.size, float("inf"), tolerance, flip_share)
    centre = logit(threshold)
    flipped = (expected >= centre) != (found >= centre)
    distance = np.abs(expected[flipped] - centre)
    return SelfTest(
        found.size,
        float(np.abs(expected - found).max()),
        int(flipped.sum()),
        float(distance.max()) if distance.size else 0.0,
        tolerance,
        flip_share,
    )


def _decode(golden: Golden, size: int, where: str) -> NDArray[np.float32]:
    if unknown := [name for name in golden.names if name not in NAMES]:
        raise ModelError(
            f"{where}: expects the golden slice {unknown[0][:60]!r}, which this segport does not ship; upgrade segport"
        )
    if len(set(golden.names)) < len(golden.names):  # a list of a million would take all the memory there is
        raise ModelError(f"{where}: names a golden slice twice; export the model again")
    shape = (len(golden.names), size, size)
    wanted = int(np.prod(shape)) * 2
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(golden.logits, validate=True), wanted + 1)
    except (ValueError, zlib.error) as error:
        raise ModelError(f"{where}: its golden logits are damaged ({error}); export the model again") from error
    if len(data) != wanted:
        raise ModelError(f"{where}: its golden logits hold {len(data)} bytes, expected {wanted}; export it again")
    return np.frombuffer(data, "<f2").reshape(shape).astype(np.float32)


def _golden_path(name: str) -> Path:
    if name not in NAMES and name.replace("_mask.png", ".png") not in NAMES:
        raise ModelError(
            f"the model expects the golden slice {name}, which this segport does not ship; upgrade segport"
        )
    with as_file(files("segport") / "golden" / name) as path:
        return Path(path)
