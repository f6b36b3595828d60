import sys

import numpy as np
import pytest

from helpers import square
from segport.scoring import Agreement, Counts, compare_masks, score_patients


def mask(low: int, high: int) -> np.ndarray:
    return square(low=low, high=high)[..., 1]


def test_one_slice_has_its_pixels_and_its_distance() -> None:
    found = compare_masks(mask(16, 48), mask(13, 51))
    assert found.counts == Counts(tp=32 * 32, fp=0, fn=38 * 38 - 32 * 32, tn=64 * 64 - 38 * 38)
    assert found.hd95 == found.distance == pytest.approx(np.hypot(3, 2))  # near the corners, by the 95th percentile
    assert found.outlined == 1


def test_slice_without_tumour_counts_its_pixels_and_has_no_distance() -> None:
    found = compare_masks(mask(0, 0), mask(0, 0))
    assert found == Agreement(Counts(tn=64 * 64), distance=0, outlined=0)
    assert found.hd95 is None


def test_patients_distance_is_the_mean_over_slices_with_tumour_in_mask_or_truth() -> None:
    slices = [(mask(0, 0), mask(0, 0)), (mask(9, 20), mask(9, 20)), (mask(0, 0), mask(9, 20))]
    patient = sum((compare_masks(*pair) for pair in slices), Agreement())
    assert patient.outlined == 2
    assert patient.hd95 == pytest.approx((0 + np.hypot(64, 64)) / 2)
    assert patient.counts.pixels == 3 * 64 * 64


def test_scores_average_patients_and_leave_out_those_without_tumour() -> None:
    patients = {
        "a": Agreement(Counts(tp=1), distance=30, outlined=10),
        "b": Agreement(Counts(tn=1)),
        "c": Agreement(Counts(tp=1), distance=1, outlined=1),
    }
    scores = score_patients({n: a.counts for n, a in patients.items()}, 12, [a.hd95 for a in patients.values()])
    assert scores.hd95_mean_per_patient == 2
    assert (scores.patients, scores.slices, scores.dice_pooled) == (3, 12, 1)


def test_scores_without_distances_say_none() -> None:
    assert score_patients({"a": Counts(tp=1)}, 1).hd95_mean_per_patient is None
    assert score_patients({"a": Counts(tn=1)}, 1, [None]).hd95_mean_per_patient is None


def test_sums_stay_small_for_many_slices() -> None:
    assert not hasattr(Counts(), "__dict__")
    assert not hasattr(Agreement(), "__dict__")
    assert sys.getsizeof(Agreement()) + sys.getsizeof(Counts()) < 200
