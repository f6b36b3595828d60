"""What the gate measured and what it says about it: for people, for machines, for the contract."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segport_export.tolerance import Tolerance

NAMING = ("slices", "worst_slice")  # entries that name slices, and so patients: they stay out of a model
SOMETHING_TO_PROVE = "something to prove"  # the check of the reference's own masks


@dataclass(frozen=True)
class Check:
    """One limit: its name, whether it was kept, and a sentence with measured and allowed value."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class TruthLoss:
    """Dice against the truth of reference and candidate, and how much the candidate loses.

    `interval`: 95 % of the mean loss per patient, bootstrapped over patients (None with a single one).
    """

    patients: int
    pooled_reference: float
    pooled_candidate: float
    per_patient_reference: float
    per_patient_candidate: float
    interval: tuple[float, float] | None
    budget: float

    @property
    def loss(self) -> float:
        """The larger of the two losses: pooled, and mean per patient."""
        pooled = self.pooled_reference - self.pooled_candidate
        return max(pooled, self.per_patient_reference - self.per_patient_candidate)


@dataclass(frozen=True)
class SliceDifference:
    """How one slice's mask differs: Dice between the masks, flipped pixels, the farthest flip, largest difference."""

    name: str
    dice: float
    flips: int
    worst_flip: float
    max_difference: float
    hostile: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.flips} pixels flip, farthest {self.worst_flip:.3g}; Dice {self.dice:.4f})"


def badness(entry: SliceDifference) -> tuple[float, int, float]:
    """Return what orders slices from good to bad: the farthest flip, then how many, then the largest difference."""
    return entry.worst_flip, entry.flips, entry.max_difference


@dataclass(frozen=True)
class ParityReport:
    """The measured figures, the tolerance they were held against, and each check.

    `compared`: slices that were judged, `real` of them neither shipped nor made up; `foreground`: share of the
    reference's mask pixels, of the real slices where there are some. `worst_slice`: with the farthest flip, then the
    most; `overlay`: that slice, uint8 RGB, the candidate's outline in red and the reference's in green.
    """

    precision: str
    compared: int
    real: int
    pixels: int
    foreground: float
    max_difference: float
    mean_difference: float
    flips: int
    worst_flip: float
    dice_pooled: float
    call_difference: float
    truth: TruthLoss | None
    tolerance: Tolerance
    checks: tuple[Check, ...]
    slices: tuple[SliceDifference, ...]
    worst_slice: SliceDifference
    overlay: NDArray[np.uint8] = field(repr=False, compare=False)

    @property
    def failures(self) -> tuple[str, ...]:
        """What is out of tolerance, in words; empty: passed."""
        return tuple(c.text for c in self.checks if not c.passed)

    @property
    def proves_nothing(self) -> bool:
        """Whether the reference's own masks are the problem, so that no other candidate can help."""
        return any(c.name == SOMETHING_TO_PROVE and not c.passed for c in self.checks)

    @property
    def caution(self) -> str | None:
        """What to know about a report that passed: no real slice had a part in it."""
        if self.real:
            return None
        return (
            "no real slice was compared, only shipped synthetic ones: none is known here that was not trained on;"
            " --parity DATA compares on slices of your own"
        )

    @property
    def flip_share(self) -> float:
        """Flipped pixels per compared pixel."""
        return self.flips / self.pixels

    def as_json(self) -> dict[str, Any]:
        """Return the report ready for JSON, infinite values as null; it names slices."""
        plain = asdict(replace(self, overlay=np.empty(0, np.uint8)))
        del plain["overlay"]
        extra = {"flip_share": self.flip_share, "passed": not self.failures}
        return _finite_entries(plain | extra | ({"truth_loss": self.truth.loss} if self.truth else {}))

    def for_contract(self) -> dict[str, Any]:
        """Return what may travel inside the model: nothing that may name a patient."""
        return {k: v for k, v in self.as_json().items() if k not in (*NAMING, "checks", "passed")}

    def rows(self) -> dict[str, str]:
        """Return the table for people: what was measured, with its limit."""
        t = self.tolerance
        rows = {
            "slices compared": f"{self.compared}, {self.real or 'none'} of them real; {self.foreground:.2%} foreground",
            "logit difference": f"largest {self.max_difference:.3g}",
            "on average": f"{self.mean_difference:.3g}, at most {t.mean:g} is allowed",
            "mask pixels that flip": f"{self.flips} of {self.pixels} ({self.flip_share:.4%}), at most {t.flips:.3%}",
            "farthest flip": f"{self.worst_flip:.3g} from the threshold's logit, at most {t.logit:g} is allowed",
            "Dice between masks": f"pooled {self.dice_pooled:.5f}, at least {t.dice} is needed",
            "worst slice": str(self.worst_slice),
        }
        hostile = [s for s in self.slices if s.hostile]
        if hostile:
            judged = "judged too" if t.hostile else f"not judged in {self.precision}"
            rows["no slices"] = f"constant, saturated, noise ({judged}); worst: {max(hostile, key=badness)}"
        if self.truth is not None:
            d = self.truth
            rows["Dice against truth"] = (
                f"PyTorch {d.pooled_reference:.4f}, model {d.pooled_candidate:.4f} pooled;"
                f" {d.per_patient_reference:.4f}, {d.per_patient_candidate:.4f} mean per patient ({d.patients})"
            )
            between = f" (95 % between {d.interval[0]:+.4f} and {d.interval[1]:+.4f})" if d.interval else ""
            pooled = d.pooled_reference - d.pooled_candidate
            mean = d.per_patient_reference - d.per_patient_candidate
            rows["Dice lost"] = f"{pooled:+.4f} pooled, {mean:+.4f} mean per patient{between}, budget {d.budget:g}"
        return rows


def _finite_entries(document: dict[str, Any]) -> dict[str, Any]:
    return {k: _finite(v) for k, v in document.items()}


def _finite(value: Any) -> Any:
    """Return JSON's idea of a value: null for what is not finite."""
    if isinstance(value, dict):
        return _finite_entries(value)
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
