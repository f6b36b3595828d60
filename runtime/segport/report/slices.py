"""What the report shows of slices on the disk: what the ledger says of them, their pictures and masks read again."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.deaths import CarefulReader
from segport.entry import Entry, Stamp
from segport.errors import SliceError
from segport.freshness import pixel_settings
from segport.ledger import Ledger
from segport.plan import MASK, PROBABILITY, Job, Plan
from segport.preprocess import to_display
from segport.reading import read_slice, read_truth
from segport.report.view import PatientView, SliceFacts, SliceView
from segport.settings import RunSettings
from segport.windows import PatientWindows
from segport.workspace import Workspace

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class _Known:
    """A planned slice and what the ledger says of it; `there`: whether its file is still the one that was read."""

    job: Job
    entry: Entry
    there: bool


class SliceViews:
    """Patients of a plan as the report shows them. Only what this model found with these settings counts."""

    def __init__(
        self,
        plan: Plan,
        settings: RunSettings,
        contract: ModelContract,
        model: str,
        ledger: Ledger,
        workspace: Workspace,
    ) -> None:
        """`model`: SHA-256 of the model file. `ledger`: opened after the slices were segmented."""
        self._plan, self._settings, self._ledger = plan, settings, ledger
        self._made_by = (model, pixel_settings(settings, contract))
        reader = CarefulReader(ledger, workspace, overwrite=False)
        self._windows = {
            id(tree): PatientWindows(tree.slices_of_patient, contract, settings.window, reader.read)
            for tree in plan.trees.values()
        }

    def patients(self) -> Iterator[PatientView]:
        """Yield the patients in the order of the plan.

        A patient's slices may lie in several folders, so the whole plan is in memory: 1 kB a slice.
        """
        jobs: dict[str, list[Job]] = {}
        for job in (job for folder in self._plan.folders() for job in folder.jobs):
            jobs.setdefault(job.patient, []).append(job)
        for patient, its in jobs.items():
            known = [one for job in its if (one := self._know(job)) is not None]
            facts = tuple(_facts(one) for one in known)
            yield PatientView(patient, facts, _state(known), self._views(known), len(its) - len(known))

    def _know(self, job: Job) -> _Known | None:
        entry = self._ledger.find(job.name)
        if entry is None:
            return None
        there = entry.read is not None and entry.read.is_of(job.slice.path, verify=False)
        if entry.source != job.source and not there:  # a moved folder is still this one
            return None
        if entry.status != "failed" and (entry.model, entry.settings) != self._made_by:
            return None  # of an earlier run; this one did not come to it
        if entry.found is not None and not self._settings.score:  # an earlier run may have scored it
            entry = replace(entry, found=replace(entry.found, agreement=None))
        return _Known(job, entry, there)

    def _views(self, known: list[_Known]) -> Callable[[], Iterator[SliceView]]:
        return lambda: map(self._view, known)

    def _view(self, one: _Known) -> SliceView:
        job, entry = one.job, one.entry
        if entry.found is None:
            return SliceView()  # its file may be what ended an earlier process: it is not read again
        view, problems = SliceView(), list[str]()
        try:
            if not one.there:
                raise SliceError("is gone, or was changed since it was segmented; run the command again")
            pixels = read_slice(job.slice.path)
            window = self._windows[id(job.tree)].window_of(job.slice, pixels)
            view = replace(view, picture=_of_shape(to_display(pixels, window), entry.found.shape))
        except SliceError as error:
            problems.append(f"no picture: {job.slice.path.name} {error}")
        try:
            view = replace(view, mask=np.asarray(self._output(one, MASK), np.uint8))
            if self._settings.probabilities and PROBABILITY in entry.outputs:
                view = replace(view, probability=np.asarray(self._output(one, PROBABILITY) / 65535, np.float32))
        except SliceError as error:
            problems.append(str(error))
        if entry.found.agreement is not None and entry.truth is not None and job.slice.mask is not None:
            try:
                if not entry.truth.is_of(job.slice.mask, verify=False):
                    raise SliceError("was changed since it was scored; run the command again")
                view = replace(view, truth=read_truth(job.slice, entry.found.shape))
            except SliceError as error:
                problems.append(f"no true mask: {error}")
        return replace(view, problem="; ".join(problems))

    def _output(self, one: _Known, ending: str) -> NDArray[Any]:
        """Return an output of the run, [H, W]; raises `SliceError` where it is not what the run wrote."""
        path, stamp = one.job.target(self._plan.out, ending), one.entry.outputs.get(ending)
        if one.entry.found is None or stamp is None or not stamp.is_of(path, verify=False):
            raise SliceError(f"{path.name} is gone, or was altered; run the command again")
        return _of_shape(read_slice(path), one.entry.found.shape)


def _facts(one: _Known) -> SliceFacts:
    entry, item = one.entry, one.job.slice
    if entry.status == "written":
        return SliceFacts(one.job.row_path, item.number, "written", entry.found, entry.warnings, entry.message)
    return SliceFacts(one.job.row_path, item.number, "failed", None, entry.warnings, entry.message)


def _of_shape(pixels: NDArray[T], shape: tuple[int, int]) -> NDArray[T]:
    if pixels.shape[:2] != shape:
        raise SliceError(f"is {pixels.shape[:2]}, expected {shape} (height, width)")
    return pixels


def _state(known: list[_Known]) -> str:
    """Return a hash over all that the pages show; of files their contents, of the true mask as it was scored."""
    state = hashlib.sha256()
    for one in known:
        entry = one.entry
        read: list[Stamp | None] = [entry.read, entry.truth, *entry.outputs.values()]
        hashes = [None if stamp is None else stamp.sha256 for stamp in read]
        shown = [
            one.job.name,
            one.there,
            hashes,
            entry.found,
            entry.warnings,
            entry.message,
            entry.status,
            entry.volume,
        ]
        state.update(repr(shown).encode("utf-8", "surrogatepass"))
    return state.hexdigest()
