"""Each limit of the gate, just past its value: logits made by hand, no network."""

from dataclasses import replace

import numpy as np
import pytest

from segport_export.comparison import Comparison
from segport_export.report import ParityReport
from segport_export.subjects import ParitySlice, hostile_slices
from segport_export.tolerance import TOLERANCES, Tolerance


def failed(report: ParityReport) -> set[str]:
    return {c.name for c in report.checks if not c.passed}


# Logits of a 100x100 slice: tumour (+5) in the first ten rows, background (-5) below; then one thing is changed.
LIMITS = TOLERANCES["int8"]
FEW, MANY = int(1e4 * LIMITS.flips) - 1, int(1e4 * LIMITS.flips) + 1


def flip(logits: np.ndarray, count: int, reference: float) -> tuple[np.ndarray, np.ndarray]:
    """Return reference and candidate in which `count` background pixels of this reference logit become tumour."""
    expected, found = logits.copy(), logits.copy()
    expected.flat[-count:] = reference
    found.flat[-count:] = -reference
    return expected, found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda good: (good, good), ""),
        (lambda good: flip(good, FEW, -LIMITS.logit + 0.1), ""),
        (lambda good: flip(good, FEW, -LIMITS.logit - 0.1), "a mask pixel flips 2.1 from the threshold"),
        (lambda good: flip(good, MANY, -0.1), "of the mask pixels flip"),
        (lambda good: (-np.abs(good), -np.abs(good)), "nothing to prove"),
        (lambda good: (np.abs(good), np.abs(good)), "nothing to prove"),
    ],
)
def test_each_limit_fails_just_past_its_value(change, message: str) -> None:
    good = np.full((100, 100), -5, np.float32)
    good[:10] = 5
    expected, found = change(good)
    masks = Comparison(0.5, LIMITS)
    masks.add(ParitySlice("a", np.zeros((100, 100, 3), np.uint8)), expected, found)
    failures = masks.report("int8", 0.0, None).failures
    assert [message in f for f in failures] == ([True] if message else [])


def test_dice_batch_size_and_nan_have_limits_of_their_own() -> None:
    good = np.full((100, 100), -5, np.float32)
    good[:10] = 5
    truth = np.asarray(good > 0, np.uint8)
    strict = Tolerance(logit=9, difference=99, mean=99, flips=1, dice=0.97, loss=0.01)

    def failures(found: np.ndarray, tolerance: Tolerance, batch_difference: float = 0.0) -> list[str]:
        masks = Comparison(0.5, tolerance)
        masks.add(ParitySlice("a", np.zeros((100, 100, 3), np.uint8), truth), good, found)
        return list(masks.report("int8", batch_difference, None).failures)

    shrunk = good.copy()
    shrunk[9] = -5  # Dice 0.947
    assert failures(good, strict) == []
    assert ["Dice between the masks is 0.9474" in f for f in failures(shrunk, replace(strict, loss=1))] == [True]
    assert ["Dice against the truth falls by 0.0526" in f for f in failures(shrunk, replace(strict, dice=0))] == [True]
    assert ["a logit differs by 10" in f for f in failures(shrunk, replace(strict, dice=0, loss=1, difference=9))] == [
        True
    ]
    assert ["with batch size or threads" in f for f in failures(good, strict, 2e-3)] == [True]
    assert any("a logit differs by inf" in f for f in failures(good * np.nan, strict))
    assert ["logits differ by 45 on average" in f for f in failures(good * 10, replace(strict, mean=0.5))] == [True]


def test_a_budget_of_the_user_replaces_the_precisions() -> None:
    good = np.full((100, 100), -5, np.float32)
    good[:10] = 5
    shrunk = good.copy()
    shrunk[9] = -0.1
    masks = Comparison(0.5, TOLERANCES["int8"])
    for patient in ("a", "b"):
        truth = np.asarray(good > 0, np.uint8)
        found = shrunk if patient == "a" else good
        masks.add(ParitySlice(patient, np.zeros((100, 100, 3), np.uint8), truth, patient), good, found)
    for budget, fails in ((None, True), (0.02, True), (0.03, False)):
        report = masks.report("int8", 0.0, budget)
        assert ("Dice budget" in failed(report)) is fails
        assert report.truth.loss == pytest.approx(0.0263, abs=1e-4)  # mean of 0.0526 and 0
        assert report.truth.interval == pytest.approx((0, 0.0526), abs=1e-4)


def test_a_budget_needs_masks_to_hold_it_against() -> None:
    good = np.full((64, 64), -5, np.float32)
    good[:10] = 5
    masks = Comparison(0.5, TOLERANCES["fp32"])
    masks.add(ParitySlice("a", np.zeros((64, 64, 3), np.uint8)), good, good)
    assert failed(masks.report("fp32", 0.0, None)) == set()
    assert failed(masks.report("fp32", 0.0, 0.01)) == {"Dice budget"}


def test_the_overlay_is_of_the_worst_slice_and_of_the_first_of_equals() -> None:
    good = np.full((64, 64), -5, np.float32)
    good[:10] = 5
    masks = Comparison(0.5, TOLERANCES["fp32"])
    for level, name, flips in ((10, "good", 1), (20, "worst", 9), (30, "as bad", 9), (40, "better", 3)):
        masks.add(ParitySlice(name, np.full((64, 64, 3), level, np.uint8)), *flip(good, flips, -1))
    report = masks.report("fp32", 0.0, None)
    assert report.worst_slice.name == "worst"
    assert report.overlay[40, 20].tolist() == [20, 20, 20]


@pytest.mark.parametrize("sign", [1, -1])
def test_whether_a_report_proves_anything_does_not_hang_on_the_order_of_its_checks(sign: int) -> None:
    good = np.full((64, 64), -5, np.float32)
    good[:10] = 5 * sign
    masks = Comparison(0.5, TOLERANCES["fp32"])
    masks.add(ParitySlice("a", np.zeros((64, 64, 3), np.uint8)), good, good)
    report = masks.report("fp32", 1.0, None)
    assert "batch size and threads" in failed(report)
    assert report.proves_nothing == (sign < 0)
    assert replace(report, checks=report.checks[::-1]).proves_nothing == (sign < 0)


def test_hostile_slices_count_for_logits_and_flips_but_not_for_dice() -> None:
    good = np.full((64, 64), -5, np.float32)
    good[:10] = 5
    masks = Comparison(0.5, TOLERANCES["fp32"])
    masks.add(ParitySlice("a", np.zeros((64, 64, 3), np.uint8)), good, good)
    masks.add(ParitySlice("noise", np.zeros((64, 64, 3), np.uint8), hostile=True), good, -good)
    report = masks.report("fp32", 0.0, None)
    assert failed(report) == {"logits", "mean", "farthest flip", "flips"}
    assert report.dice_pooled == 1
    assert report.worst_slice.name == "noise"
    lenient = Comparison(0.5, TOLERANCES["int8"])
    lenient.add(ParitySlice("a", np.zeros((64, 64, 3), np.uint8)), good, good)
    lenient.add(ParitySlice("noise", np.zeros((64, 64, 3), np.uint8), hostile=True), good, -good)
    report = lenient.report("int8", 0.0, None)
    assert report.failures == ()
    assert "not judged in int8); worst: noise (4096 pixels flip, farthest 5" in report.rows()["no slices"]
    names = [s.name for s in hostile_slices()]
    assert names == ["constant 0", "constant 128", "constant 255", "saturated", "noise"]


def test_tumour_in_the_shipped_slices_proves_nothing_for_real_ones_without() -> None:
    tumour, nothing = np.full((100, 100), -5, np.float32), np.full((100, 100), -5, np.float32)
    tumour[:10] = 5
    display = np.zeros((100, 100, 3), np.uint8)

    def report(*real: np.ndarray) -> ParityReport:
        masks = Comparison(0.5, LIMITS)
        for logits in real:
            masks.add(ParitySlice("real", display), logits, logits)
        masks.add(ParitySlice("shipped", display, shipped=True), tumour, tumour)
        return masks.report("int8", 0.0, None)

    assert failed(report(nothing)) == {"something to prove"}
    assert "masks of the 1 real slices hold 0.00% foreground" in report(nothing).failures[0]
    assert failed(report(tumour, nothing)) == set()
    assert (report(tumour).real, report(tumour).caution) == (1, None)
    alone = report()
    assert failed(alone) == set()
    assert "no real slice was compared" in str(alone.caution)
    assert alone.rows()["slices compared"] == "1, none of them real; 10.00% foreground"
