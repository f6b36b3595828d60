"""What a run still has to do: whether a slice's outputs are there and are those of this slice, model and settings."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from segport.contract import ModelContract
from segport.deaths import CarefulReader
from segport.entry import Entry
from segport.errors import SliceError
from segport.folders import is_picture
from segport.ledger import Ledger
from segport.maskrule import MaskRule
from segport.modelfile import file_sha256
from segport.plan import Job, Plan
from segport.reading import read_slice
from segport.settings import RunSettings
from segport.stacks import name_stack
from segport.volumes.job import VolumeJob
from segport.windows import PatientWindows
from segport.work import Work
from segport.workspace import Workspace

# Counts up when prepare, restore, to_mask or what makes a stack change what they compute: older masks are then stale.
PIXEL_RULES = 1
FAILED = "failed before"
TOGETHER = "judged together with slices of the patient that are segmented anew"
ELSEWHERE = "remedy: --overwrite to replace it, or another --out"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a slice. "fresh": nothing; "stale": segment it; "refused": nothing may be written.

    `reason`: why it is stale or refused, for people. `entry`: the last line of the ledger on it. `stack`: names the
    slices that its mask is to be judged beside (`stacks.name_stack`).
    """

    kind: Literal["fresh", "stale", "refused"]
    reason: str
    entry: Entry | None
    stack: str = ""


def pixel_settings(settings: RunSettings, contract: ModelContract) -> str:
    """Return a hash of the settings that decide pixels: not batch size, threads or device."""
    rule = MaskRule.of(settings, contract)
    decisive: list[object] = [PIXEL_RULES, settings.engine, rule.threshold, settings.window]
    if settings.min_volume is not None:
        decisive.append(settings.min_volume)
    if rule.smallest_component:
        decisive.append({"smallest_component": rule.smallest_component})
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

    def judge_stack(self, jobs: Sequence[Job]) -> list[Verdict]:
        """Return what to do with slices that are judged together: all are segmented, or none.

        One whose mask may not be written is then read all the same, for the others. Where one cannot be read, the
        others are judged alone, and those that were judged together before stay as they are.
        """
        stack, verdicts = name_stack(jobs), [self.judge(job) for job in jobs]
        outdated = any(v.kind == "stale" or (v.kind == "fresh" and _stack_of(v) != stack) for v in verdicts)
        anew = bool(stack) and outdated and not any(map(self._is_unusable, jobs, verdicts))
        fits = () if anew else (stack, "")
        judged = [self._anew(job, v, fits) for job, v in zip(jobs, verdicts, strict=True)]
        return [replace(v, stack=stack if anew else "") for v in judged]

    def _is_unusable(self, job: Job, verdict: Verdict) -> bool:
        """Return whether the slice must not be read, or is as it was when it could not be."""
        entry = verdict.entry
        if verdict.kind != "stale":
            return bool(self._danger(job))
        if verdict.reason != FAILED or entry is None:
            return False
        same = (entry.model, entry.settings) == (self.model, self.pixels) and self._is_same(job, entry)
        unnamed = bool(entry.outputs)  # it was read, but its mask could not get its name
        return (same and not unnamed) or not os.access(job.slice.path, os.R_OK)

    def _anew(self, job: Job, verdict: Verdict, stacks: tuple[str, ...]) -> Verdict:
        """Return the verdict, but stale where a mask was judged beside others than those of one of `stacks`."""
        if verdict.kind != "fresh" or _stack_of(verdict) in stacks:
            return verdict
        if danger := self._danger(job):
            return replace(verdict, kind="refused", reason=danger)
        return replace(verdict, kind="stale", reason=TOGETHER)

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
            return FAILED
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


def _stack_of(verdict: Verdict) -> str:
    return "" if verdict.entry is None else verdict.entry.stack


def _is_damaged(output: Path) -> bool:
    """Return whether a picture cannot be read; what is none (NIfTI, DICOM) is taken for whole."""
    try:
        return is_picture(f"a{output.suffix}") and not read_slice(output).size
    except SliceError:
        return True
