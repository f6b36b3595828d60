"""What differs between two sets of masks, added up slice by slice and held against a tolerance."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from segport.golden import compare_logits
from segport.overlay import draw_outlines
from segport.preprocess import restore, to_mask
from segport.scoring import Counts, bootstrap_interval, count_pixels
from segport_export.report import SOMETHING_TO_PROVE, Check, ParityReport, SliceDifference, TruthLoss, badness
from segport_export.subjects import ParitySlice
from segport_export.tolerance import CALL_DIFFERENCE, FOREGROUND, Tolerance


class Comparison:
    """Adds up what differs between reference and candidate, slice by slice, masks at the slice's own size."""

    def __init__(self, threshold: float, tolerance: Tolerance) -> None:
        self.threshold, self.tolerance = threshold, tolerance
        self.pixels = self.real = 0
        self.areas = {shipped: np.zeros(2, np.int64) for shipped in (False, True)}  # foreground, all pixels
        self.differences: list[float] = []
        self.slices: list[SliceDifference] = []
        self.between = Counts()
        self.truth: dict[str, list[Counts]] = defaultdict(lambda: [Counts(), Counts()])
        self.worst: SliceDifference | None = None  # of the judged ones, the first of equals
        self.overlay = np.empty(0, np.uint8)  # of that slice

    def add(self, one: ParitySlice, expected: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        """Compare logits of one prepared slice, float32 [size, size]."""
        shape = (one.display.shape[0], one.display.shape[1])
        a, b = restore(expected, shape), restore(found, shape)
        flips = compare_logits(a, b, self.threshold, self.tolerance.logit, self.tolerance.flips)
        reference, candidate = to_mask(a, self.threshold), to_mask(b, self.threshold)
        between = count_pixels(candidate, reference)
        difference = np.nan_to_num(np.abs(expected - found), nan=np.inf)
        largest = float(difference.max())
        entry = SliceDifference(one.name, between.dice, flips.flips, flips.worst_flip, largest, one.hostile)
        if self._judged(entry):
            if self.worst is None or badness(entry) > badness(self.worst):
                self.worst, self.overlay = entry, draw_outlines(one.display, candidate, reference)
            self.differences.append(float(difference.mean()))
            self.pixels += a.size
        self.slices.append(entry)
        if one.hostile:
            return
        self.real += not one.shipped
        self.areas[one.shipped] += (between.tp + between.fn, a.size)
        self.between += between
        if one.truth is not None:
            pair = self.truth[one.patient]
            pair[0] += count_pixels(reference, one.truth)
            pair[1] += count_pixels(candidate, one.truth)

    def report(self, precision: str, called: float, budget: float | None, others: Sequence[Check] = ()) -> ParityReport:
        """Hold the sums against the tolerance; `called`: how far logits moved with batch size and threads."""
        t = self.tolerance
        assert self.worst is not None  # a judged slice was added
        judged = list(filter(self._judged, self.slices))
        largest = max(s.max_difference for s in judged)
        farthest = max(s.worst_flip for s in judged)
        flips, mean = sum(s.flips for s in judged), fmean(self.differences)
        share, dice = flips / self.pixels, self.between.dice
        inside, counted = self.areas[not self.real]  # tumour in the shipped slices proves nothing for real ones
        foreground = int(inside) / max(int(counted), 1)
        truth = self._truth(t.loss if budget is None else budget)
        low, high = FOREGROUND
        whose = f"of the {self.real} real slices" if self.real else "of the shipped slices"
        held = f"the reference masks {whose} hold {foreground:.2%} foreground, expected {low:.1%} to {high:.0%}"
        if low <= foreground <= high:
            something = Check(SOMETHING_TO_PROVE, True, held)
        else:
            remedy = "remedy: train longer, or --parity DATA with tumour slices"
            something = Check(SOMETHING_TO_PROVE, False, f"nothing to prove: {held}; {remedy}")
        checks = [
            something,
            Check(
                "logits",
                largest <= t.difference,
                f"a logit differs by {largest:.4g}, at most {t.difference:g} is allowed",
            ),
            Check("mean", mean <= t.mean, f"logits differ by {mean:.4g} on average, at most {t.mean:g} is allowed"),
            Check(
                "farthest flip",
                farthest <= t.logit,
                f"a mask pixel flips {farthest:.4g} from the threshold, at most {t.logit:g} is allowed",
            ),
            Check("flips", share <= t.flips, f"{share:.3%} of the mask pixels flip, at most {t.flips:.3%} may"),
            Check("Dice", dice >= t.dice, f"Dice between the masks is {dice:.4f}, at least {t.dice} is needed"),
            Check(
                "batch size and threads",
                called <= CALL_DIFFERENCE,
                f"logits change by {called:.4g} with batch size or threads, at most {CALL_DIFFERENCE:g} is allowed",
            ),
        ]
        if truth is not None:
            lost = f"Dice against the truth falls by {truth.loss:.4f}, at most {truth.budget:g} is allowed"
            checks.append(Check("Dice budget", truth.loss <= truth.budget, lost))
        elif budget is not None:
            checks.append(Check("Dice budget", False, "no slice has a true mask that shows what Dice is lost"))
        return ParityReport(
            precision=precision,
            compared=len(judged),
            real=self.real,
            pixels=self.pixels,
            foreground=foreground,
            max_difference=largest,
            mean_difference=mean,
            flips=flips,
            worst_flip=farthest,
            dice_pooled=dice,
            call_difference=called,
            truth=truth,
            tolerance=t,
            checks=(*checks, *others),
            slices=tuple(self.slices),
            worst_slice=self.worst,
            overlay=self.overlay,
        )

    def _judged(self, entry: SliceDifference) -> bool:
        return self.tolerance.hostile or not entry.hostile

    def _truth(self, budget: float) -> TruthLoss | None:
        if not self.truth:
            return None
        pairs = list(self.truth.values())
        reference, candidate = (sum((p[k] for p in pairs), Counts()).dice for k in (0, 1))
        losses = [p[0].dice - p[1].dice for p in pairs]
        return TruthLoss(
            patients=len(pairs),
            pooled_reference=reference,
            pooled_candidate=candidate,
            per_patient_reference=fmean(p[0].dice for p in pairs),
            per_patient_candidate=fmean(p[1].dice for p in pairs),
            interval=bootstrap_interval(losses) if len(pairs) > 1 else None,
            budget=budget,
        )
