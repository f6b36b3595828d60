import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segport.contract import Input, ModelContract
from segport.errors import SliceError
from segport.preprocess import (
    binarise,
    logit,
    percentile_window,
    prepare,
    prepare_mask,
    restore,
    sigmoid,
    to_display,
    to_mask,
)

CONTRACT = ModelContract(Input(64))
sides = st.integers(1, 200)


@given(sides, sides)
def test_prepare_and_restore_fit_every_size(height: int, width: int) -> None:
    prepared = prepare(np.full((height, width), 7, np.uint8), CONTRACT)
    assert prepared.shape == (64, 64, 3)
    assert prepared.dtype == np.uint8
    assert restore(np.zeros((64, 64), np.float32), (height, width)).shape == (height, width)


@given(st.integers(16, 120), st.integers(16, 120))
def test_a_square_comes_back_where_it_was(height: int, width: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = height // 4, width // 3
    pixels[top : top + 8, left : left + 8] = 255
    logits = prepare(pixels, CONTRACT)[..., 1].astype(np.float32) - 127.5
    mask = to_mask(restore(logits, (height, width)), 0.5)
    rows, columns = np.nonzero(mask)
    assert abs(rows.mean() - (top + 3.5)) <= 1
    assert abs(columns.mean() - (left + 3.5)) <= 1


def test_a_slice_of_the_networks_size_passes_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert (prepare(pixels, CONTRACT) == pixels).all()


def test_one_channel_stands_for_all_three() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (90, 70), np.uint8)
    assert (prepare(grey, CONTRACT) == prepare(np.dstack([grey] * 3), CONTRACT)).all()
    assert (prepare(grey, CONTRACT) == prepare(grey[..., np.newaxis], CONTRACT)).all()


def test_padding_is_black_and_shared_by_both_sides() -> None:
    prepared = prepare(np.full((64, 32), 255, np.uint8), CONTRACT)
    assert (prepared[:, :16] == 0).all()
    assert (prepared[:, 16:48] == 255).all()
    assert (prepared[:, 48:] == 0).all()


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_constant_slice_is_ordinary_input(value: int) -> None:
    assert (prepare(np.full((100, 100), value, np.uint8), CONTRACT) == value).all()


def test_a_16_bit_twin_with_its_window_gives_the_same_pixels() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    twin = pixels.astype(np.uint16) * 257
    assert (to_display(twin, ((0, 65535),)) == to_display(pixels)).all()


def test_a_window_per_channel_acts_on_its_channel_alone() -> None:
    pixels = np.full((4, 4, 3), 100, np.uint16)
    assert (to_display(pixels, ((0, 100), (0, 200), (100, 200)))[0, 0] == [255, 128, 0]).all()


@pytest.mark.parametrize(
    ("pixels", "window", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), None, "2 channels"),
        (np.zeros((4, 4, 4), np.uint8), None, "alpha"),
        (np.zeros((4, 4, 5), np.uint8), None, "5 channels"),
        (np.zeros((4, 4, 3, 1), np.uint8), None, "shape"),
        (np.zeros((0, 4), np.uint8), None, "shape"),
        (np.zeros((4, 4), np.uint16), None, "--window"),
        (np.zeros((4, 4), np.bool_), None, "dtype bool"),
        (np.full((4, 4), np.nan, np.float32), ((0, 1),), "NaN"),
        (np.full((4, 4), np.inf, np.float32), ((0, 1),), "NaN or infinity"),
        (np.zeros((4, 4), np.uint16), ((5, 5),), "LO < HI"),
        (np.zeros((4, 4), np.uint16), ((0, 1), (0, 1)), "LO < HI once, or for each of 1 channels"),
    ],
)
def test_slices_that_cannot_be_used_are_refused(pixels, window, message: str) -> None:
    with pytest.raises(SliceError) as refusal:
        prepare(pixels, CONTRACT, window)
    assert message in str(refusal.value)


def test_arguments_are_left_alone_and_results_are_copies() -> None:
    pixels = np.full((64, 64, 3), 9, np.uint8)
    prepare(pixels, CONTRACT)[:] = 1
    to_display(pixels)[:] = 2
    assert (pixels == 9).all()


def test_half_the_area_decides_in_a_small_mask() -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[:, :63] = 255  # column 31 of the small mask covers columns 62 and 63: half
    small = prepare_mask(mask, CONTRACT)
    assert small[:, :32].all()
    assert not small[:, 32:].any()


def test_a_mask_with_equal_channels_is_one_mask_and_a_picture_is_none() -> None:
    mask = np.zeros((4, 4, 3), np.uint8)
    mask[0, 0] = 255
    assert binarise(mask).sum() == 1
    mask[1, 1, 0] = 3
    with pytest.raises(SliceError, match="channels that differ"):
        binarise(mask)


@given(st.floats(0.01, 0.99))
def test_threshold_on_logits_is_the_threshold_on_probabilities(threshold: float) -> None:
    logits = np.linspace(-8, 8, 1001, dtype=np.float32)
    far = np.abs(logits - logit(threshold)) > 1e-3
    assert ((to_mask(logits, threshold) > 0) == (sigmoid(logits) >= threshold))[far].all()


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1e4, 0, 1e4], np.float32)).tolist() == [0, 0.5, 1]


def test_the_percentile_rule_puts_percentiles_on_the_training_levels() -> None:
    volume = [np.random.default_rng(i).integers(0, 4000, (100, 100), np.uint16) for i in range(3)]
    window = percentile_window(volume, CONTRACT)
    shown = np.concatenate([to_display(v, window)[..., 0].ravel() for v in volume])
    low, high = np.percentile(shown, CONTRACT.input.percentiles)
    assert abs(low - CONTRACT.input.levels[0]) <= 1
    assert abs(high - CONTRACT.input.levels[1]) <= 1


def test_a_constant_volume_gets_a_window_all_the_same() -> None:
    (one,) = percentile_window([np.full((8, 8), 500, np.uint16)], CONTRACT)
    assert one[0] < one[1]


def test_a_patient_with_mixed_channels_is_refused() -> None:
    with pytest.raises(SliceError, match=r"\[1, 3\] channels"):
        percentile_window([np.zeros((8, 8), np.uint16), np.zeros((8, 8, 3), np.uint16)], CONTRACT)
