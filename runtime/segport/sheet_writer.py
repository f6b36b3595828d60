"""Writes a contact sheet for each patient in a folder when the run leaves that folder."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from segport.entry import Entry
from segport.errors import SliceError
from segport.folders import SHEET
from segport.freshness import Freshness
from segport.ledger import Ledger
from segport.outcome import Outcome
from segport.outputs import encode_png, remove, rename, stage_bytes
from segport.plan import MASK, Job, Plan
from segport.preprocess import to_display
from segport.reading import read_slice, read_truth
from segport.settings import RunSettings
from segport.sheet import choose_slices, contact_sheet, draw_tile
from segport.workspace import Workspace


@dataclass
class _Pages:
    """The slices of one patient in one folder that have masks. `state`: a hash over what the sheet shows of them."""

    jobs: list[Job] = field(default_factory=list)
    state: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, job: Job, entry: Entry) -> None:
        shown = [job.name, entry.read, entry.outputs[MASK], entry.volume, entry.settings, entry.scored, entry.truth]
        self.jobs.append(job)
        self.state.update(repr(shown).encode("utf-8", "surrogatepass"))


class SheetWriter:
    """Collects outcomes and writes sheets, drawn from slices and masks on the disk, whichever run wrote them."""

    def __init__(
        self,
        plan: Plan,
        settings: RunSettings,
        freshness: Freshness,
        ledger: Ledger,
        workspace: Workspace,
        complain: Callable[[str], object],
    ) -> None:
        """`complain`: told why a sheet is not written."""
        self._out, self._settings, self._freshness = plan.out, settings, freshness
        self._ledger, self._workspace, self._complain = ledger, workspace, complain
        self._folder = PurePath()
        self._pages: dict[str, _Pages] = {}

    def add(self, outcome: Outcome[Job]) -> None:
        """Note a slice; raises `OutputError` when a sheet of the folder before cannot be written."""
        folder = outcome.job.stem.parent
        if folder != self._folder:
            self.finish()
            self._folder = folder
        pages = self._pages.setdefault(outcome.job.patient, _Pages())
        if outcome.entry.found is not None:
            pages.add(outcome.job, outcome.entry)

    def drop(self, outcome: Outcome[Job]) -> None:
        """Remove an earlier run's sheet that shows another mask of this slice; raises `OutputError`."""
        if not outcome.reason:
            return
        path = _sheet_of(outcome.job.stem.parent, outcome.job.patient)
        before = self._ledger.find(_key(path))
        stamp = before.outputs.get(SHEET) if before is not None else None
        if stamp is not None and stamp.is_of(self._out / path, verify=False):
            remove(self._out / path)

    def finish(self) -> None:
        """Write the sheets of the folder that the last slice was in; errors as for `add`."""
        for patient, pages in self._pages.items():
            if pages.jobs:
                try:
                    self._write(patient, pages)
                except SliceError as error:
                    self._complain(f"no contact sheet of {patient}: {error}")
        self._pages = {}

    def _write(self, patient: str, pages: _Pages) -> None:
        path = _sheet_of(self._folder, patient)
        target, key = self._out / path, _key(path)
        before = self._ledger.find(key)
        if before is None and os.path.lexists(target) and not self._settings.overwrite:
            raise SliceError(f"{target} is already there and no run of seg-infer wrote it")
        state = pages.state.hexdigest()
        stamp = before.outputs.get(SHEET) if before is not None and before.volume == state else None
        if stamp is not None and stamp.is_of(target, verify=self._settings.verify) and not self._settings.overwrite:
            return
        chosen = [pages.jobs[i] for i in choose_slices(len(pages.jobs))]
        labels = ["" if job.slice.number is None else str(job.slice.number) for job in chosen]
        file = self._workspace.temporary()
        stamp = stage_bytes(file, encode_png(contact_sheet(self._tiles(chosen), labels)))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._ledger.append([Entry(key, patient, "sheet", volume=state, outputs={SHEET: stamp}, time=now)])
        rename(file, target)

    def _tiles(self, jobs: list[Job]) -> Iterator[NDArray[np.uint8]]:
        for job in jobs:
            pixels = read_slice(job.slice.path)
            display = to_display(pixels, self._freshness.windows_of(job).window_of(job.slice, pixels))
            mask = np.asarray(read_slice(job.target(self._out, MASK)), np.uint8)
            try:
                truth = read_truth(job.slice, mask.shape) if self._settings.score and job.slice.mask else None
            except SliceError:  # said in the slice's own row
                truth = None
            yield draw_tile(display, mask, truth)


def _sheet_of(folder: PurePath, patient: str) -> PurePath:
    return folder / f"{PurePath(patient).name}{SHEET}"


def _key(sheet: PurePath) -> str:
    return f"//{sheet.as_posix()}"  # no slice's stem begins so
