"""What a run did: counted while it goes on, written to run.json at its end."""

import platform
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segport import __version__
from segport.folders import typed_path
from segport.freshness import Freshness
from segport.outcome import Outcome
from segport.plan import Plan
from segport.scoring import Scores, score_patients
from segport.segmenter import Segmenter
from segport.settings import RunSettings
from segport.tables import PatientTotals
from segport.volumes.job import VolumeJob
from segport.work import Work

MEDICAL = ("nibabel", "scipy", "pydicom", "highdicom")  # what volumes are read and written with
KEPT = 1000  # problems that run.json lists; summary.csv has them all, and memory stays flat


@dataclass
class RunResult:
    """What a run did. `written`: slices and volumes with a mask, of which `up_to_date` had one; `failed`: without.

    `problems`: the first slices that failed or could not be scored, with the reason; `general`: what else went wrong.
    `unlike`: how many slices look unlike the training data, `warnings`: by reason. `left_out`: of how many slices
    components were left out that were too small. `scores`: when truth was there and
    asked for. `patients`: by name, volumes apart from slices. `finished`: whether every slice was come to; `stopped`:
    whether the user ended it before. `report`: the report's page, where it was asked for and is finished;
    `outdated_report`: whether one of an earlier run is there, and shows masks that this run replaced.
    """

    out: Path
    provider: str
    note: str
    written: int = 0
    up_to_date: int = 0
    failed: int = 0
    unscored: int = 0
    unreadable: int = 0
    ignored: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    unlike: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    general: list[tuple[str, str]] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    scores: Scores | None = None
    finished: bool = False
    report: Path | None = None
    stopped: bool = False
    outdated_report: bool = False
    ledger_lines_unusable: int = 0
    patients: dict[tuple[str, bool], PatientTotals] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when every slice was written (and scored, where asked); 1 when some was not; 130 when interrupted."""
        if not self.finished or self.stopped:
            return 130
        return 1 if self.failed or self.unscored or self.unreadable or self.general else 0

    def add(self, outcome: Outcome[Work], settings: RunSettings) -> None:
        """Count one slice or volume in."""
        entry = outcome.entry
        key = outcome.job.patient, isinstance(outcome.job, VolumeJob)
        self.patients.setdefault(key, PatientTotals()).add(entry)
        for warnings in (entry.warnings,) if entry.found_volume is None else entry.found_volume.warnings:
            self.warnings.update(warnings)
            self.unlike += bool(warnings)
        found = [entry.found] if entry.found_volume is None else entry.found_volume.slices
        self.left_out += sum(one is not None and one.left_out > 0 for one in found)
        if entry.status == "written":
            self.written += 1
            self.up_to_date += not outcome.reason
            self.unscored += settings.score and bool(entry.message)
        else:
            self.failed += 1
        if entry.message and len(self.problems) < KEPT:
            self.problems.append((outcome.job.shown, entry.message))

    def complain(self, what: str, why: str) -> None:
        """Keep a problem that is not a slice's, unless there are too many."""
        if len(self.general) < KEPT:
            self.general.append((what, why))


def score_result(result: RunResult) -> Scores | None:
    """Return the scores over all patients; None where none was scored."""
    agreements = {key: p.agreement for key, p in result.patients.items() if p.agreement is not None}
    if not agreements:
        return None
    slices = sum(p.scored for p in result.patients.values())
    counts = {str(key): agreement.counts for key, agreement in agreements.items()}
    return score_patients(counts, slices, [agreement.hd95 for agreement in agreements.values()])


def describe_result(
    result: RunResult,
    segmenter: Segmenter,
    settings: RunSettings,
    plan: Plan,
    freshness: Freshness,
    date: str,
    seconds: float,
) -> dict[str, Any]:
    """Return what run.json says: counts, problems, settings, versions, and the contract without its golden logits."""
    golden = segmenter.contract.golden
    contract = replace(segmenter.contract, golden=golden and replace(golden, logits="(left out)"))
    return {
        "finished": result.finished,
        "inputs": plan.inputs,
        "started": date,
        "model": {"file": segmenter.model.name, "sha256": freshness.model},
        "device_asked": segmenter.session.asked,
        "provider": result.provider,
        "provider_note": result.note,
        "provider_facts": segmenter.session.facts,
        "threads": segmenter.session.threads,
        "lanes": segmenter.session.lanes,
        "batch_size": segmenter.session.batch or settings.batch_size,
        "settings": {k: str(typed_path(v)) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        "counts": {
            "planned": result.written + result.failed,
            **{n: getattr(result, n) for n in ("written", "up_to_date", "failed", "unscored", "unreadable", "ignored")},
        },
        "skipped": dict(sorted(result.skipped.items())),
        "ledger_lines_unusable": result.ledger_lines_unusable,
        "problems": [{"path": path, "message": message} for path, message in result.problems + result.general],
        "unlike_training_data": {"slices": result.unlike, "reasons": dict(result.warnings)},
        "small_components_left_out": {"slices": result.left_out},
        "scores": asdict(result.scores) if result.scores else None,
        "seconds": round(seconds, 3),
        "versions": _versions(),
        "contract": asdict(contract),
    }


def _versions() -> dict[str, str]:
    found = {"segport": __version__, "python": platform.python_version()}
    for name in ("numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "openvino", *MEDICAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
