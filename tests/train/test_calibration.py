"""Calibration of predictors whose answer is known."""

import numpy as np
import pytest

from segport.preprocess import logit
from segport_train.calibration import NEAR, Bin, Calibration


def predictor(*groups: tuple[float, int, int]) -> Calibration:
    """Return the calibration of pixels given as (probability, how many, how many of them are tumour)."""
    logits = np.concatenate([np.full(pixels, logit(p), np.float32) for p, pixels, _ in groups])
    truth = np.concatenate([np.arange(pixels) < tumour for _, pixels, tumour in groups])
    return Calibration.of_slice(logits[np.newaxis], truth[np.newaxis].astype(np.uint8))


def test_a_perfectly_calibrated_predictor_has_no_error() -> None:
    one = predictor((0.002, 1000, 2), (0.25, 100, 25), (0.75, 100, 75))
    assert one.error() == pytest.approx(0, abs=1e-6)
    assert one.error(NEAR) == pytest.approx(0, abs=1e-6)
    assert one.unsuspected == pytest.approx(2 / 102)
    assert one.curve(NEAR) == [
        Bin(100, pytest.approx(0.25), 0.25), Bin(100, pytest.approx(0.75), 0.75)
    ]  # fmt: skip


def test_the_error_of_a_biased_predictor_is_its_bias_and_background_hides_it() -> None:
    one = predictor((0.95, 100, 75), (0.15, 100, 35), (0.0001, 9800, 0))
    assert one.error(NEAR) == pytest.approx(0.2)
    assert one.error() == pytest.approx((200 * 0.2 + 9800 * 0.0001) / 10_000, rel=1e-4)


def test_certain_pixels_lie_in_the_outer_bins() -> None:
    one = Calibration.of_slice(np.array([[-1e4, 1e4]], np.float32), np.array([[0, 1]], np.uint8))
    assert one.curve() == [Bin(1, 0, 0), Bin(1, 1, 1)]
    assert one.pixels[[0, -1]].tolist() == [1, 1]


def test_without_pixels_or_tumour_there_is_no_figure() -> None:
    assert Calibration.empty().error() is None
    assert Calibration.empty().curve() == []
    assert predictor((0.002, 10, 0)).error(NEAR) is None
    assert predictor((0.002, 10, 0)).unsuspected is None
