"""Agreement between masks: Dice, IoU, accuracy and boundary distance, with the aggregation always named.

Definitions: Dice = 2 TP / (2 TP + FP + FN); IoU = TP / (TP + FP + FN); both are 1 when mask and truth are empty.
HD95: see `surface.hausdorff_95`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segport.surface import hausdorff_95


@dataclass(frozen=True, slots=True)
class Counts:
    """Pixels of one comparison: true and false positives, false and true negatives. Counts add up."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def dice(self) -> float:
        """Dice coefficient in 0..1."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0

    @property
    def iou(self) -> float:
        """Intersection over union in 0..1."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else 1.0

    @property
    def accuracy(self) -> float:
        """Share of pixels that agree, in 0..1."""
        return (self.tp + self.tn) / self.pixels

    @property
    def nothing_accuracy(self) -> float:
        """Accuracy of an empty mask: the baseline without which an accuracy says nothing on small tumours."""
        return (self.tn + self.fp) / self.pixels

    @property
    def precision(self) -> float:
        """Share of the mask that is tumour, in 0..1; of an empty mask 1 where the truth is empty too, else 0."""
        return self.tp / self.mask_pixels if self.mask_pixels else float(self.tumour_pixels == 0)

    @property
    def recall(self) -> float:
        """Share of the tumour that is in the mask, in 0..1; of an empty truth 1 where the mask is empty too, else 0."""
        return self.tp / self.tumour_pixels if self.tumour_pixels else float(self.mask_pixels == 0)

    @property
    def tumour_pixels(self) -> int:
        """Number of tumour pixels in the truth."""
        return self.tp + self.fn

    @property
    def mask_pixels(self) -> int:
        """Number of tumour pixels in the mask."""
        return self.tp + self.fp

    @property
    def pixels(self) -> int:
        """Number of pixels compared."""
        return self.tp + self.fp + self.fn + self.tn


@dataclass(frozen=True, slots=True)
class Agreement:
    """How masks agree with their truth, of one slice or of many: agreements add up.

    `distance`: sum of HD95 in pixels over the `outlined` slices, those in which mask or truth has tumour.
    """

    counts: Counts = field(default_factory=Counts)
    distance: float = 0.0
    outlined: int = 0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(self.counts + other.counts, self.distance + other.distance, self.outlined + other.outlined)

    @property
    def hd95(self) -> float | None:
        """Mean HD95 in pixels over the slices in which mask or truth has tumour; None where there is none."""
        return self.distance / self.outlined if self.outlined else None


@dataclass(frozen=True)
class Scores:
    """Scores of a set of patients, each named with its aggregation; `slices` and `patients` are counts.

    `*_per_patient`: one value a patient from that patient's pooled pixels (as Buda et al. 2019 report), then
    mean or median; patients without tumour in truth and mask count as 1. `hd95_mean_per_patient`: in pixels, each
    patient's mean over slices with tumour in mask or truth, then the mean over patients that have such slices; None
    where there is none or distances were not measured.
    """

    patients: int
    slices: int
    dice_pooled: float
    iou_pooled: float
    dice_mean_per_patient: float
    dice_median_per_patient: float
    iou_mean_per_patient: float
    accuracy: float
    nothing_accuracy: float
    hd95_mean_per_patient: float | None = None


def count_pixels(mask: NDArray[Any], truth: NDArray[Any]) -> Counts:
    """Compare two masks of the same shape (above 0 is tumour); raises ValueError when the shapes differ."""
    if mask.shape != truth.shape:
        raise ValueError(f"mask {mask.shape} and truth {truth.shape} differ in shape")
    predicted, true = mask > 0, truth > 0
    tp = int(np.count_nonzero(predicted & true))
    fp, fn = int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(true)) - tp
    return Counts(tp, fp, fn, mask.size - tp - fp - fn)


def compare_masks(mask: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Agreement:
    """Compare two masks of one slice, uint8 [H, W] (above 0 is tumour); raises ValueError when the shapes differ."""
    counts = count_pixels(mask, truth)
    if counts.tp + counts.fp + counts.fn == 0:
        return Agreement(counts)
    return Agreement(counts, hausdorff_95(mask, truth), 1)


def score_patients(counts: Mapping[str, Counts], slices: int, hd95: Iterable[float | None] = ()) -> Scores:
    """Return the scores of patients whose pixels were added up; raises ValueError without patients.

    `hd95`: each patient's `Agreement.hd95`, where distances were measured.
    """
    if not counts:
        raise ValueError("no patient to score")
    pooled = sum(counts.values(), Counts())
    dice = [c.dice for c in counts.values()]
    distances = [d for d in hd95 if d is not None]
    return Scores(
        patients=len(counts),
        slices=slices,
        dice_pooled=pooled.dice,
        iou_pooled=pooled.iou,
        dice_mean_per_patient=fmean(dice),
        dice_median_per_patient=median(dice),
        iou_mean_per_patient=fmean(c.iou for c in counts.values()),
        accuracy=pooled.accuracy,
        nothing_accuracy=pooled.nothing_accuracy,
        hd95_mean_per_patient=fmean(distances) if distances else None,
    )


def bootstrap_interval(
    values: Sequence[float], *, middle: Callable[..., NDArray[np.float64]] = np.mean, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of the mean: percentiles of 10,000 resamples (Efron 1979), the same for a seed.

    `values`: one a patient; slices of a patient are not independent. `middle`: np.mean or np.median. Raises ValueError
    without values.
    """
    if not values:
        raise ValueError("no values to resample")
    return _percentiles(middle(np.asarray(values)[_resamples(len(values), seed)], axis=1))


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % interval of sum(numerators) / sum(denominators), patients resampled as `bootstrap_interval` does.

    Pooled Dice is such a ratio, of 2 TP and 2 TP + FP + FN: one pair a patient. Resamples whose denominators are all 0
    are left out; None where all are. Raises ValueError without patients.
    """
    if not numerators:
        raise ValueError("no patients to resample")
    draws = _resamples(len(numerators), seed)
    above, below = (np.asarray(v, np.float64)[draws].sum(axis=1) for v in (numerators, denominators))
    return _percentiles(above[below > 0] / below[below > 0]) if below.any() else None


def _resamples(count: int, seed: int) -> NDArray[np.int64]:
    """Return which of `count` patients are drawn: int64 [10000, count]."""
    return np.random.default_rng(seed).choice(count, (10_000, count))


def _percentiles(draws: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)
