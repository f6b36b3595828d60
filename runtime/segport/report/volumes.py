"""What the report shows of volumes: what the ledger says of them, their voxels and masks read again."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.entry import Entry, FoundVolume
from segport.errors import SliceError
from segport.freshness import pixel_settings
from segport.ledger import Ledger
from segport.plan import Plan
from segport.preprocess import to_display
from segport.report.view import PatientView, SliceFacts, SliceView
from segport.settings import RunSettings
from segport.volumes.job import VolumeJob

Slices = Callable[[NDArray[np.generic]], NDArray[np.generic]]


class VolumeViews:
    """Volumes of a plan as the report shows them. Only what this model found with these settings counts."""

    def __init__(self, plan: Plan, settings: RunSettings, contract: ModelContract, model: str, ledger: Ledger) -> None:
        """`model`: SHA-256 of the model file. `ledger`: opened after the volumes were segmented."""
        self._plan, self._settings, self._contract, self._ledger = plan, settings, contract, ledger
        self._made_by = (model, pixel_settings(settings, contract))

    def patients(self) -> Iterator[PatientView]:
        """Yield each volume as a patient, in the order of the plan."""
        if not self._plan.volumes.jobs:
            return
        taken = {job.patient for folder in self._plan.folders() for job in folder.jobs}
        for job in self._plan.volumes.jobs:
            yield self._patient(f"{job.patient} (volume)" if job.patient in taken else job.patient, job)

    def _patient(self, name: str, job: VolumeJob) -> PatientView:
        entry = self._ledger.find(job.name)
        if entry is not None and (entry.source == job.source or job.is_unchanged(entry, verify=False)):
            if entry.status == "failed":
                failed = SliceFacts(job.stem.as_posix(), None, "failed", None, (), entry.message)
                return PatientView(name, (failed,), entry.message, lambda: iter([SliceView()]))
            if entry.found_volume is not None and (entry.model, entry.settings) == self._made_by:
                return self._written(name, job, entry, entry.found_volume)
        return PatientView(name, (), "", lambda: iter(()), pending=1)

    def _written(self, name: str, job: VolumeJob, entry: Entry, found: FoundVolume) -> PatientView:
        scored, path = self._settings.score, job.stem.as_posix()
        message = entry.message if scored else ""
        facts = tuple(
            SliceFacts(path, number, "written", one if scored else replace(one, agreement=None), warnings, message)
            for number, (one, warnings) in enumerate(zip(found.slices, found.warnings, strict=True), 1)
        )
        there = job.is_unchanged(entry, verify=False)
        contents = [stamp.sha256 for stamp in (entry.read, entry.truth, *entry.outputs.values()) if stamp is not None]
        state = repr((there, scored, contents, found, message))
        return PatientView(name, facts, state, lambda: self._views(job, entry, found, there), spacing=found.spacing)

    def _views(self, job: VolumeJob, entry: Entry, found: FoundVolume, there: bool) -> Iterator[SliceView]:
        """Yield the slices as the network saw them, with the mask and the truth that lie on the disk."""
        from segport.volumes.nifti import read_volume as read_nifti  # these need the extra medical
        from segport.volumes.volume import read_volume

        try:
            if not there:
                raise SliceError("is gone, or was changed since it was segmented; run the command again")
            volume = read_volume(job.case, self._contract, self._settings.window)
            *more, ending = job.case.endings(self._settings)
            mask = np.asarray(volume.view.slices(job.case.read_mask(self._output(job, entry, ending))), np.uint8)
            likely = [volume.view.slices(read_nifti(self._output(job, entry, one)).voxels) for one in more]
            truth = self._truth(job, entry, volume.view.slices)
        except SliceError as error:
            yield from [SliceView(problem=f"no pictures: {error}")] * len(found.slices)
            return
        for i in range(len(found.slices)):
            picture = to_display(volume.pixels(i), volume.window)
            probability = np.asarray(likely[0][i], np.float32) if likely else None
            yield SliceView(picture, mask[i], None if truth is None else truth[i], probability)

    def _output(self, job: VolumeJob, entry: Entry, ending: str) -> Path:
        """Return the path of an output; raises `SliceError` where it is not what the run wrote."""
        path, stamp = job.target(self._plan.out, ending), entry.outputs.get(ending)
        if stamp is None or not stamp.is_of(path, verify=False):
            raise SliceError(f"{path.name} is gone, or was altered; run the command again")
        return path

    def _truth(self, job: VolumeJob, entry: Entry, slices: Slices) -> NDArray[np.uint8] | None:
        if not self._settings.score or entry.truth is None or entry.message or job.truth is None:
            return None
        if not entry.truth.is_of(job.truth, verify=False):
            raise SliceError(f"{job.truth.name} was changed since it was scored; run the command again")
        truth = job.case.read_truth()
        return None if truth is None else np.asarray(slices(truth), np.uint8)
