"""What a run starts from, as --init names it: found and identified, its weights not read yet. Light to import."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from segport.contract import KEY, Input, ModelContract, Origin
from segport.errors import ModelError
from segport.modelfile import file_sha256, read_contract
from segport.segmenter import default_model

Kind = Literal["none", "resume", "checkpoint", "model", "torchvision"]
NAMED = ("none", "default", "imagenet")  # what --init knows besides paths
SIZE, OUTPUT_STRIDE = 128, 8  # where no model says otherwise

# The weights torchvision's own DeepLabV3 was trained from. Those of its longer recipe (IMAGENET1K_V2: label smoothing,
# mixup, cutmix) classify better, and such features transfer less well (Kornblith et al. 2019, arXiv:1805.08974).
IMAGENET_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
# What all of torchvision's weights expect of pixels in 0..1.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

EMBEDDED_TERMS = "the embedded model is CC-BY-NC-SA-4.0, and so is what is trained from it"


@dataclass(frozen=True)
class Init:
    """A file of weights: a checkpoint of seg-train, a model of seg-export, torchvision's, or the run's own last one.

    `contract`: of all but torchvision's. `name`: what --init said.
    """

    kind: Kind = "none"
    name: str = "none"
    path: Path = Path()
    contract: ModelContract | None = None

    def adapt(self, pixels: Input) -> Input:
        """Return the description of the network's input with the normalisation that the weights were trained with."""
        if self.kind == "torchvision":
            return replace(pixels, scale=1 / 255, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        if self.contract is None:
            return pixels
        own = self.contract.input
        return replace(pixels, scale=own.scale, mean=own.mean, std=own.std)

    def described(self) -> dict[str, str]:
        """Return what a contract says of it: no path, but the SHA-256 of the file."""
        if self.kind == "resume" and self.contract is not None:
            before = self.contract.origin.settings
            return {key: before[key] for key in ("init", "init_sha256") if key in before}
        return {"init": self.kind} | ({} if self.kind == "none" else {"init_sha256": file_sha256(self.path)})

    def differences(self, size: int, output_stride: int) -> list[str]:
        """Return notes on a run that differs from the contract in what seg-train chooses, and on its terms."""
        notes = []
        if self.contract is not None:
            own = self.contract.input.size, self.contract.origin.output_stride
            for what, mine, its in zip(("size", "output stride"), (size, output_stride), own, strict=True):
                if mine != its:
                    notes.append(f"--init {self.name} was trained at {what} {its}, this run at {mine}: weights fit all")
        return notes + ([f"--init default: {EMBEDDED_TERMS}"] if self.name == "default" else [])


def find_init(name: str) -> Init:
    """Return what `name` stands for: "none", "default" (the embedded model), "imagenet", or a path.

    Raises `ModelError` for a file that is missing or damaged, or ImageNet weights that cannot be downloaded.
    """
    if name == "none":
        return Init()
    if name == "default":
        path = default_model()
        return Init("model", name, path, read_contract(path))
    if name == "imagenet":
        return Init("torchvision", name, _download())
    path = Path(name)
    if path.suffix.lower() == ".onnx":
        return Init("model", name, path, read_contract(path))
    if path.suffix.lower() in (".pth", ".pt"):
        if not path.is_file():
            raise ModelError(f"--init {name}: is not a file; expected weights that torch.save wrote")
        return Init("torchvision", name, path)
    if not path.is_file():
        raise ModelError(
            f"--init {name}: is neither {', '.join(NAMED)} nor a file; expected one of these, a .safetensors file of"
            " seg-train, an .onnx of seg-export, or a state dict of torchvision's (.pth, .pt, .safetensors)"
        )
    contract = contract_of_checkpoint(path)
    return Init("torchvision" if contract is None else "checkpoint", name, path, contract)


def contract_of_checkpoint(path: Path) -> ModelContract | None:
    """Return the contract in a .safetensors file's header, None where there is none; raises `ModelError`."""
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path}: is not a readable checkpoint ({error}); expected a .safetensors file that seg-train wrote;"
            " remedy: a copy of it, or another --out with --init from a file that is whole"
        ) from error
    return ModelContract.from_json(header[KEY], str(path)) if KEY in header else None


def follow_model(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run with architecture, size and output stride filled in where they are None.

    They are those of the run that is resumed or of the model that `init` names; else DeepLabV3, 128 pixels and 8.
    """
    last = options["out"] / "last.safetensors"
    if options["resume"]:
        contract = contract_of_checkpoint(last) if last.exists() else None
    else:
        contract = None if options["init"] == "imagenet" else find_init(options["init"]).contract
    size, origin = (contract.input.size, contract.origin) if contract else (SIZE, Origin(output_stride=OUTPUT_STRIDE))
    architecture = origin.architecture.removesuffix("_resnet50")
    own = {"size": size, "output_stride": origin.output_stride, "architecture": architecture}
    return options | {name: value for name, value in own.items() if options[name] is None}


def _download() -> Path:
    """Return torchvision's ImageNet weights from torch's cache, after a download where they are not there yet."""
    import torch.hub

    file = IMAGENET_URL.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir(), "checkpoints", file)
    if path.exists():
        return path
    beginning = re.sub(r".*-|\..*", "", file)  # of the SHA-256, which torchvision puts into its names
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(IMAGENET_URL, str(path), hash_prefix=beginning, progress=False)
    except (OSError, RuntimeError) as error:  # no network, no such page; another hash
        raise ModelError(
            f"--init imagenet: {IMAGENET_URL} could not be downloaded to {path} ({error});"
            " remedy: download it on another machine, then --init with the path of the file"
        ) from error
    return path
