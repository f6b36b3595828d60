"""What a run still has to do: whether a slice's outputs are there and are those of this slice, model and settings."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segport.contract import ModelContract
from segport.deaths import CarefulReader
from segport.entry import Entry
from segport.errors import SliceError
from segport.folders import is_picture
from segport.ledger import Ledger
from segport.modelfile import file_sha256
from segport.plan import Job, Plan
from segport.reading import read_slice
from segport.settings import RunSettings
from segport.volumes.job import VolumeJob
from segport.windows import PatientWindows
from segport.work import Work
from segport.workspace import Workspace

PIXEL_RULES = 1  # counts up when prepare, restore or to_mask change what they compute: older masks are then stale
ELSEWHERE = "remedy: --overwrite to replace it, or another --out"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a slice. "fresh": nothing; "stale": segment it; "refused": nothing may be written.

    `reason`: why it is stale or refused, for people. `entry`: the last line of the ledger on it.
    """

    kind: Literal["fresh", "stale", "refused"]
    reason: str
    entry: Entry | None


def pixel_settings(settings: RunSettings, contract: ModelContract) -> str:
    """Return a hash of the settings that decide pixels: not batch size, threads or device."""
    threshold = contract.output.threshold if settings.threshold is None else settings.threshold
    decisive: list[object] = [PIXEL_RULES, settings.engine, threshold, settings.window]
    if settings.min_volume is not None:
        decisive.append(settings.min_volume)
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


class Freshness:
    """Judges slices against the ledger. May be called from threads."""

    def __init__(
        self,
        ledger: Ledger,
        plan: Plan,
        settings: RunSettings,
        model: Path,
        contract: ModelContract,
        workspace: Workspace | None = None,
    ) -> None:
        """`contract`: that of the file `model`. `workspace`: None to judge alone."""
        self._ledger, self._out, self._settings = ledger, plan.out, settings
        self.reader = CarefulReader(ledger, workspace, overwrite=settings.overwrite)
        self._windows = {
            id(tree): PatientWindows(tree.slices_of_patient, contract, settings.window, self.reader.read)
            for tree in plan.trees.values()
        }
        self.model, self.pixels = file_sha256(model), pixel_settings(settings, contract)

    def windows_of(self, job: Job) -> PatientWindows:
        """Return the intensity windows of the input that the slice is from."""
        return self._windows[id(job.tree)]

    def judge(self, job: Work) -> Verdict:
        """Return what to do with it; reads it or its outputs only where sizes and times leave doubt."""
        entry = self._ledger.find(job.name)
        if not self._settings.overwrite and (refusal := self._why_refused(job, entry)):
            return Verdict("refused", refusal, entry)
        if entry is None:
            reason = "new"
        elif self._settings.overwrite:
            reason = "--overwrite"
        else:
            reason = self._why_stale(job, entry) or self._what_is_missing(job, entry)
        if reason and (danger := self._danger(job)):
            return Verdict("refused", danger, entry)
        return Verdict("stale" if reason else "fresh", reason, entry)

    def _danger(self, job: Work) -> str:
        if isinstance(job, VolumeJob):
            return self.reader.why_not_volume(job.source, job.case.files)
        return self.reader.why_not(job.slice.path) if isinstance(job, Job) else ""

    def _why_refused(self, job: Work, entry: Entry | None) -> str:
        named = entry.outputs if entry is not None else {}
        targets = [job.target(self._out, e) for e in job.endings(self._settings) if e not in named]
        foreign = [target.name for target in targets if os.path.lexists(target)]
        if foreign:
            return f"{foreign[-1]} is already there and no run of seg-infer wrote it; {ELSEWHERE}"
        if entry is None:
            return ""
        if altered := [name for e in job.endings(self._settings) if (name := self._altered(job, entry, e))]:
            return (
                f"{altered[-1]} was changed after seg-infer wrote it;"
                " remedy: move it away to keep it, or --overwrite to replace it"
            )
        if entry.outputs and entry.source != job.source and not self._is_same(job, entry):
            return f"its mask would replace that of {entry.source}; {ELSEWHERE}"
        return ""

    def _altered(self, job: Work, entry: Entry, ending: str) -> str:
        """Return the name of an output that is a whole picture, but none that the ledger's lines tell of: edited."""
        target, told = job.target(self._out, ending), entry.outputs.get(ending)
        if told is None or told.is_of(target, verify=False) or not os.path.lexists(target):
            return ""
        older = (e.outputs[ending] for e in self._ledger.history(job.name) if ending in e.outputs)
        if any(stamp.is_of(target, verify=False) for stamp in older) or _is_damaged(target):
            return ""
        return target.name

    def _why_stale(self, job: Work, entry: Entry) -> str:
        if entry.status == "failed":
            return "failed before"
        if (entry.model, entry.settings) != (self.model, self.pixels):
            return "another model" if entry.model != self.model else "other settings"
        if not self._is_same(job, entry):
            return "the slice changed" if isinstance(job, Job) else "its files changed"
        if isinstance(job, Job) and entry.volume and not self._is_patient_same(job, entry):
            return "other slices of the patient changed, and with them the intensity window"
        return ""

    def _what_is_missing(self, job: Work, entry: Entry) -> str:
        for ending in job.endings(self._settings):
            target = job.target(self._out, ending)
            if ending not in entry.outputs or not os.path.exists(target):  # noqa: PTH110  (False where pathlib raises)
                return f"{target.name} is missing"
            if not entry.outputs[ending].is_of(target, verify=self._settings.verify):
                return f"{target.name} is damaged or older"  # older: a run ended between its line and its name
        if self._settings.score and not self._is_scored(job, entry):
            return "not scored against this true mask"
        if self._settings.overlay and entry.scored and not self._settings.score:
            return "its overlay shows the true mask"
        return ""

    def _is_scored(self, job: Work, entry: Entry) -> bool:
        if not entry.scored or (entry.truth is None) != (job.truth is None):
            return False
        if entry.truth is None or job.truth is None:
            return True
        return entry.truth.is_of(job.truth, verify=self._settings.verify)

    def _is_patient_same(self, job: Job, entry: Entry) -> bool:
        windows = self.windows_of(job)
        return windows.is_unchanged(job.slice, entry.volume, verify=self._settings.verify)

    def _is_same(self, job: Work, entry: Entry) -> bool:
        verify = self._settings.verify
        if isinstance(job, VolumeJob):
            return job.is_unchanged(entry, verify=verify)
        return isinstance(job, Job) and entry.read is not None and entry.read.is_of(job.slice.path, verify=verify)


def _is_damaged(output: Path) -> bool:
    """Return whether a picture cannot be read; what is none (NIfTI, DICOM) is taken for whole."""
    try:
        return is_picture(f"a{output.suffix}") and not read_slice(output).size
    except SliceError:
        return True
