"""Which slices an export may look at: training patients to calibrate on, the others to compare masks on."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.errors import SliceError, UsageError
from segport.preprocess import split_channels, to_display
from segport.reading import read_slice, read_truth
from segport.sources import Slice, SliceTree
from segport.windows import PatientWindows


@dataclass(frozen=True)
class RunData:
    """What lies beside a checkpoint: the folder it was trained on (None when it is not here) and the split.

    `parts`: patient (or relative path, where slices were split) to part. `leave_out`: unusable files are passed over.
    """

    run: Path
    data: Path | None
    masks: Path | None
    patient_pattern: str | None
    parts: dict[str, str]
    leave_out: bool

    @classmethod
    def beside(cls, checkpoint: Path) -> "RunData":
        """Read settings.json and split.csv from the checkpoint's folder, where they are there.

        Raises `UsageError` when they are not as seg-train wrote them.
        """
        run = checkpoint.parent
        settings, split = run / "settings.json", run / "split.csv"
        if not (settings.exists() and split.exists()):
            return cls(run, None, None, None, {}, leave_out=False)
        try:
            recorded = json.loads(settings.read_bytes())["settings"]
            table = pd.read_csv(split, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
            key = table["relative"] if "relative" in table else table["patient"]
            data, masks = Path(recorded["data"]), Path(recorded["masks"]) if recorded["masks"] else None
            parts = dict(zip(key, table["part"], strict=True))
            leave_out = recorded["problems"] == "leave-out"
            return cls(run, data if data.is_dir() else None, masks, recorded["patient_pattern"], parts, leave_out)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{run}: settings.json or split.csv is not as seg-train wrote it ({error!r});"
                " remedy: copy the checkpoint into a folder of its own"
            ) from error

    def calibration(self, folder: Path | None, count: int) -> list[Slice]:
        """Return at most `count` slices, evenly spaced, of `folder` (default: the run's data), training part only.

        Slices that the split does not name count too. Raises `UsageError` when there is no slice to take.
        """
        slices = [s for s in self._list(folder) if self._part(s) in (None, "train")]
        if not slices:
            raise UsageError("int8 needs slices to calibrate on; remedy: --calibration DATA with training slices")
        chosen = np.linspace(0, len(slices) - 1, min(count, len(slices))).round().astype(int)
        return [slices[i] for i in chosen]

    def parity(self, folder: Path | None) -> list[Slice]:
        """Return the slices of `folder` (default: the run's data, then maybe none) that were not trained on.

        Raises `UsageError` when a folder was given and holds none.
        """
        slices = [s for s in self._list(folder) if self._part(s) != "train"]
        if folder is not None and not slices:
            raise UsageError(
                f"--parity {folder}: holds no slice that was not trained on; remedy: slices of other patients, or"
                " a copy of the checkpoint alone in a folder (where nothing says what it was trained on)"
            )
        return slices

    def read_displays(
        self, slices: list[Slice], folder: Path | None, contract: ModelContract
    ) -> list[NDArray[np.uint8]]:
        """Return slices of `folder` (default: the run's data) as uint8 RGB at their own size, in the order given.

        Other dtypes go through the contract's rule over all slices of the patient that are there, as in training and
        in seg-infer, not only over `slices`. Raises `SliceError` with the path of a slice that cannot be used.
        """
        tree = self._tree(folder)
        if tree is None:
            return []
        windows = PatientWindows(tree.slices_of_patient, contract)
        displays = []
        for item in slices:
            try:
                pixels = read_slice(item.path)
                displays.append(to_display(pixels, windows.window_of(item, pixels)))
            except SliceError as error:
                raise SliceError(f"{item.path}: {error}") from error
        return displays

    def _tree(self, folder: Path | None) -> SliceTree | None:
        root = folder or self.data
        if root is None:
            return None
        masks = self.masks if folder is None else None
        return SliceTree(root, masks=masks, patient_pattern=self.patient_pattern, exclude=self.run)

    def _list(self, folder: Path | None) -> list[Slice]:
        tree = self._tree(folder)
        if tree is None:
            return []
        slices = [item for below in tree.folders() for item in tree.slices(below)]
        if folder is not None or not self.leave_out:
            return slices
        return [s for s in slices if self._part(s) is not None and _is_usable(s)]

    def _part(self, item: Slice) -> str | None:
        return self.parts.get(item.patient, self.parts.get(item.relative.as_posix()))


def _is_usable(item: Slice) -> bool:
    try:
        read_truth(item, split_channels(read_slice(item.path)).shape)
    except SliceError:
        return False
    return True
