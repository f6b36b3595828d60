"""What a run did, counted slice by slice."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from segport.outcome import Outcome
from segport.scoring import Scores
from segport.settings import RunSettings
from segport.tables import PatientTotals

KEPT = 1000  # problems that run.json lists; summary.csv has them all, and memory stays flat


@dataclass
class RunResult:
    """What a run did. `written`: slices with a mask, of which `up_to_date` had one already; `failed`: without.

    `problems`: the first slices that failed or could not be scored, with the reason; `general`: what else went wrong.
    `unlike`: how many slices look unlike the training data, `warnings`: by reason. `scores`: when truth was there and
    asked for. `finished`: whether every slice was come to; `stopped`: whether the user ended it before. `report`: the
    report's page, where it was asked for and is finished.
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
    general: list[tuple[str, str]] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    scores: Scores | None = None
    finished: bool = False
    report: Path | None = None
    stopped: bool = False
    ledger_lines_unusable: int = 0
    patients: dict[str, PatientTotals] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when every slice was written (and scored, where asked); 1 when some was not; 130 when interrupted."""
        if not self.finished or self.stopped:
            return 130
        return 1 if self.failed or self.unscored or self.unreadable or self.general else 0

    def add(self, outcome: Outcome, settings: RunSettings) -> None:
        """Count one slice in."""
        entry = outcome.entry
        self.patients.setdefault(outcome.job.patient, PatientTotals()).add(entry)
        self.warnings.update(entry.warnings)
        self.unlike += bool(entry.warnings)
        if entry.status == "written":
            self.written += 1
            self.up_to_date += not outcome.reason
            self.unscored += settings.score and bool(entry.message)
        else:
            self.failed += 1
        if entry.message and len(self.problems) < KEPT:
            self.problems.append((str(outcome.job.slice.path), entry.message))

    def complain(self, what: str, why: str) -> None:
        """Keep a problem that is not a slice's, unless there are too many."""
        if len(self.general) < KEPT:
            self.general.append((what, why))
