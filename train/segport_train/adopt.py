"""Copy the weights that a run starts from into its network, and say what was taken and what was not."""

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from segport.errors import ModelError
from segport.text import printable
from segport_train.checkpoint import load_checkpoint
from segport_train.init import Init
from segport_train.model import SegmentationNetwork
from segport_train.recover import Folded, recover_convolutions
from segport_train.unfold import unfold

# A network's parts: each comes whole or not at all, save the convolution that gives one map a class. The pyramid is
# the same in both architectures; behind it one has a head, the other a decoder.
PARTS = {
    "backbone": ("net.backbone.",),
    "pyramid": ("net.classifier.0.",),
    "head": ("net.classifier.1.", "net.classifier.2.", "net.classifier.4."),
    "decoder": ("net.decoder.",),
    "aux_classifier": ("net.aux_classifier.",),
}
ENDS = ("head", "decoder")
LAST = ("net.classifier.4.", "net.aux_classifier.4.")
REMEDY = "expected a resnet50 or deeplabv3_resnet50 of torchvision, or a checkpoint of seg-train"

# What torch.load raises over bytes that it does not know, and safetensors (the last)
UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
    pickle.UnpicklingError, SafetensorError,
)  # fmt: skip

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Start:
    """Weights by the network's names, or folded convolutions by its modules'; `note`: what was taken."""

    weights: Tensors = field(default_factory=dict)
    folded: Mapping[str, Folded] = field(default_factory=dict)
    note: str = ""

    def put_into(self, network: SegmentationNetwork, batches: Iterable[torch.Tensor]) -> None:
        """Copy them; `batches`: slices to train on, uint8 [N, size, size, 3], read for folded convolutions alone."""
        network.load_state_dict(self.weights, strict=False)
        if self.folded:
            unfold(network, self.folded, batches)


def load_start(init: Init, network: SegmentationNetwork) -> Start:
    """Read what a run starts from and check that it fits the network (of which names and shapes alone are read).

    Raises `ModelError` for a file that is damaged, or of another architecture.
    """
    if init.kind == "none":
        return Start()
    where = f"--init {init.name}"
    if init.kind == "model":
        return _recover(init, network, where)
    if init.kind == "checkpoint":
        return _fit(load_checkpoint(init.path).weights, network, where)
    return _fit(_rename(_read_foreign(init.path), where), network, where)


def _recover(init: Init, network: SegmentationNetwork, where: str) -> Start:
    """Return the convolutions of a model file that the network has too."""
    assert init.contract is not None
    origin = init.contract.origin
    whole = network
    if origin.architecture != network.architecture:
        with torch.device("meta"):  # names and shapes alone
            whole = SegmentationNetwork(init.contract, output_stride=origin.output_stride, auxiliary=False)
    modules = dict(network.named_modules())
    folded = {n: f for n, f in recover_convolutions(init.path, origin.output_stride, whole).items() if n in modules}
    precision = init.contract.export.precision if init.contract.export else "unknown"
    note = f"{len(folded)} convolutions recovered from {precision}, normalisation measured on the training slices"
    absent = [f"the {p}, " for p in _parts(network.state_dict()) if p not in _parts(whole.state_dict()) and p in ENDS]
    missing = "".join(absent) + "the auxiliary head, which no model has"
    return Start(folded=folded, note=f"{where}: {note}; at random: {missing}")


def _parts(names: Iterable[str]) -> list[str]:
    """Return the parts of a network that tensors of these names are of."""
    listed = list(names)
    return [part for part, beginnings in PARTS.items() if any(n.startswith(beginnings) for n in listed)]


def _read_foreign(path: Path) -> Tensors:
    """Return the tensors of a file that torch.save or safetensors wrote; nothing in it is ever executed."""
    try:
        if path.suffix.lower() in (".pth", ".pt"):
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            state = load_file(path)
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0] if str(error).strip() else type(error).__name__
        reason = printable(reason)
        raise ModelError(
            f"{path}: holds no weights that can be read safely ({reason});"
            " remedy: torch.save(network.state_dict(), PATH), with nothing else in it"
        ) from error
    pairs = state.items() if isinstance(state, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in pairs):
        raise ModelError(f"{path}: holds no state dict (names with their tensors, nothing around it); {REMEDY}")
    return dict(state)


def _rename(weights: Tensors, where: str) -> Tensors:
    """Return torchvision's tensors under the network's names; a classifier of pictures is left out."""
    if "conv1.weight" in weights:
        return {f"net.backbone.{n}": t for n, t in weights.items() if not n.startswith("fc.")}
    if "backbone.conv1.weight" in weights:
        return {f"net.{n}": t for n, t in weights.items()}
    raise ModelError(f"{where}: holds {_some(list(weights)) or 'no tensors'}; {REMEDY}")


def _fit(weights: Tensors, network: SegmentationNetwork, where: str) -> Start:
    """Return the weights that fit; raises `ModelError` where more differs than which parts and classes there are."""
    own = {name: t.shape for name, t in network.state_dict().items()}
    ours, theirs = _parts(own), _parts(weights)
    spare = tuple(name for part in (*ENDS, "aux_classifier") if part not in ours for name in PARTS[part])
    unknown = [n for n in weights if n not in own and not n.startswith(spare)]
    classes = {n: len(t) for n, t in weights.items() if n in own and n.startswith(LAST) and t.shape != own[n]}
    wrong = [f"{n} {list(t.shape)}" for n, t in weights.items() if n in own and n not in classes and t.shape != own[n]]
    taken = {n: t for n, t in weights.items() if n in own and n not in classes}
    left_out = [part for part in ours if part not in theirs]
    not_there = tuple(name for part in left_out for name in PARTS[part])
    # torchvision's older files do not count batches
    absent = [n for n in own if n not in weights and not n.startswith(not_there) and "num_batches" not in n]
    lacking = absent or [PARTS[part][0] for part in left_out if part == "backbone"]
    odd = [n for n, t in taken.items() if not torch.isfinite(t).all()]
    if odd:
        raise ModelError(f"{where}: {_some(odd)}: hold values that are not finite numbers; remedy: another file")
    for problem, names in (("knows no", unknown), ("has other shapes for", wrong), ("also has", lacking)):
        if names:
            raise ModelError(f"{where}: does not fit a DeepLabV3-ResNet50, which {problem} {_some(names)}; {REMEDY}")
    note = f"{where}: took {len(taken)} of the network's {len(own)} tensors"
    note += "".join(f"; the file's {part} is not used" for part in theirs if part not in ours)
    at_random = [f"{part} (not in the file)" for part in left_out]
    at_random += [f"{n.removeprefix('net.')} ({count} classes in the file, 1 here)" for n, count in classes.items()]
    return Start(taken, note=note + (f"; at random: {', '.join(at_random)}" if at_random else ""))


def _some(names: list[str]) -> str:
    """Return three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
