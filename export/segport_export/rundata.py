"""Which slices an export may look at: training patients to calibrate on, the others to compare masks on."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.errors import UsageError
from segport.preprocess import Pixels, prepare, to_display
from segport.sources import Slice, list_slices, read_slice
from segport.windows import PatientWindows


@dataclass(frozen=True)
class RunData:
    """What lies beside a checkpoint: the folder it was trained on (None when it is not here) and the split."""

    data: Path | None
    masks: Path | None
    patient_pattern: str | None
    parts: dict[str, str]

    @classmethod
    def beside(cls, checkpoint: Path) -> "RunData":
        """Read settings.json and split.csv from the checkpoint's folder, where they are there."""
        settings, split = checkpoint.parent / "settings.json", checkpoint.parent / "split.csv"
        if not (settings.exists() and split.exists()):
            return cls(None, None, None, {})
        recorded = json.loads(settings.read_bytes())["settings"]
        table = pd.read_csv(split, dtype=str)
        key = table["relative"] if "relative" in table else table["patient"]
        data = Path(recorded["data"])
        masks = Path(recorded["masks"]) if recorded["masks"] else None
        return cls(
            data if data.is_dir() else None,
            masks,
            recorded["patient_pattern"],
            dict(zip(key, table["part"], strict=True)),
        )

    def calibration(self, folder: Path | None, count: int) -> list[Slice]:
        """Return at most `count` slices, evenly spaced, of `folder` (default: the run's data), training part only.

        Where the split names none of them all count. Raises `UsageError` when there is no slice to take.
        """
        slices = [s for s in self._list(folder) if self._part(s) in (None, "train")]
        if not slices:
            raise UsageError("int8 needs slices to calibrate on; remedy: --calibration DATA with training slices")
        chosen = np.linspace(0, len(slices) - 1, min(count, len(slices))).round().astype(int)
        return [slices[i] for i in chosen]

    def parity(self, folder: Path | None) -> list[Slice]:
        """Return the slices of `folder` (default: the run's data) that were not trained on; may be empty."""
        slices = [s for s in self._list(folder) if self._part(s) != "train"]
        return slices if folder is not None or self.parts else []

    def _list(self, folder: Path | None) -> list[Slice]:
        root = folder or self.data
        if root is None:
            return []
        masks = self.masks if folder is None else None
        return list_slices(root, masks=masks, patient_pattern=self.patient_pattern).slices

    def _part(self, item: Slice) -> str | None:
        return self.parts.get(item.patient, self.parts.get(item.relative.as_posix()))


def read_displays(slices: list[Slice], contract: ModelContract) -> list[NDArray[np.uint8]]:
    """Return slices as uint8 RGB at their own size; other dtypes through the contract's rule. Raises `SliceError`."""
    windows = PatientWindows(slices, contract)
    displays = []
    for item in slices:
        pixels: Pixels = read_slice(item.path)
        displays.append(to_display(pixels, windows.window_of(item, pixels)))
    return displays


def prepare_all(displays: list[NDArray[np.uint8]], contract: ModelContract) -> list[NDArray[np.uint8]]:
    """Return prepared slices, uint8 [size, size, 3] each."""
    return [prepare(d, contract) for d in displays]
