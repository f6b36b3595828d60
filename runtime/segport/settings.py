"""What a user chooses for one run of `seg-infer`; defaults stand here and the command reads them. Light to import."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from segport.errors import UsageError

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)
Engine = Literal["onnxruntime", "openvino"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
VolumeFormat = Literal["source", "nii"]
VOLUME_FORMATS: tuple[VolumeFormat, ...] = get_args(VolumeFormat)


@dataclass(frozen=True)
class RunSettings:
    """Settings of one run over folders.

    `batch_size`: slices a call of the network. With one call a core, 2 to 8 are equally fast (first model, 2 cores:
    17.9 ms a slice, 1 takes 18.5); 4 give the first mask sooner and take less memory. `threads`: of the
    network on the CPU, None for all cores this process may use. `threshold`: probability, None for the contract's.
    `window`: intensities (LO, HI) that become 0 and 255 in slices that are not uint8. `spacing`: height and width of a
    pixel and distance of the slices, in millimetres. `channel`, `series`: ROLE=GLOB and ROLE=WHAT, which NIfTI files
    and DICOM series are FLAIR, pre and post. `volume_format`: of volumes' masks, "source" for NIfTI from NIfTI and SEG
    from DICOM. `min_volume`: mm3 below which a component of a volume's mask is left out. `all_components`: keep what
    the contract's `smallest_component` leaves out. `keep_identity`: name outputs of DICOM by patient. `overwrite`:
    segment all slices, and replace what is in the way. `verify`: compare contents, not sizes and times, with an
    earlier run. `report`: write the report page. Raises `UsageError`.
    """

    model: Path | None = None
    engine: Engine = "onnxruntime"
    device: Device = "auto"
    allow_fallback: bool = False
    batch_size: int = 4
    threads: int | None = None
    threshold: float | None = None
    all_components: bool = False
    window: tuple[float, float] | None = None
    patient_pattern: str | None = None
    masks: Path | None = None
    overlay: bool = False
    probabilities: bool = False
    score: bool = False
    spacing: tuple[float, float, float] | None = None
    channel: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    volume_format: VolumeFormat = "source"
    min_volume: float | None = None
    keep_identity: bool = False
    overwrite: bool = False
    verify: bool = False
    report: bool = False

    @property
    def asks_for_volumes(self) -> bool:
        """Whether a setting makes sense for volumes alone."""
        return bool(self.channel or self.series or self.min_volume or self.keep_identity or self.volume_format == "nii")

    def __post_init__(self) -> None:
        check_engine(self.engine, self.device)
        if self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}, expected 1 or more")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads is {self.threads}, expected 1 or more")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UsageError(f"--threshold is {self.threshold:g}, expected a probability between 0 and 1")
        if self.spacing is not None and not all(0 < s < math.inf for s in self.spacing):
            raise UsageError(f"--spacing is {' '.join(map(str, self.spacing))}, expected three positive lengths in mm")
        if self.min_volume is not None and not 0 <= self.min_volume < math.inf:
            raise UsageError(f"--min-volume is {self.min_volume:g}, expected mm3, 0 or more")
        if self.masks is not None and not self.score:
            raise UsageError("--masks names true masks to compare with: it needs --score")
        if self.window is not None and not -math.inf < self.window[0] < self.window[1] < math.inf:
            low, high = self.window
            raise UsageError(f"--window is {low:g} {high:g}, expected two finite intensities, LO smaller than HI")


def check_engine(engine: Engine, device: Device) -> None:
    """Raise `UsageError` for an unknown engine or device, and for an engine that does not run on `device`."""
    if device not in DEVICES:
        raise UsageError(f"--device is {device}, expected one of {', '.join(DEVICES)}")
    if engine not in ENGINES:
        raise UsageError(f"--engine is {engine}, expected one of {', '.join(ENGINES)}")
    if engine == "openvino" and device == "cuda":
        raise UsageError(
            "--engine openvino runs on the CPU, not with --device cuda; remedy: --device cpu, or --engine onnxruntime"
        )
