from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from helpers import SAMPLE_DATA
from segport.contract import Input, ModelContract, TrainingRange
from segport.plausibility import (
    BRIGHTER,
    CONSTANT,
    DARKER,
    INVERTED,
    LARGER,
    SMALLER,
    TWO_LEVELS,
    unlike_training,
)
from segport.preprocess import prepare
from segport.reading import read_slice
from segport.sources import list_slices

# the embedded model's training range: percentiles 1, 50 and 99 and the maximum of the LGG slices
LGG = TrainingRange(((256, 256),), (3,), ((0, 3, 134, 242), (0, 5, 132, 240), (0, 3, 123, 243)))
CONTRACT = ModelContract(Input(128), training_range=LGG)


def judge(pixels: np.ndarray, contract: ModelContract = CONTRACT) -> tuple[str, ...]:
    return unlike_training(pixels, prepare(pixels, contract, ((0, 1000),)), contract)


@pytest.fixture(scope="module")
def slices() -> list[np.ndarray]:
    return [read_slice(s.path) for s in list_slices(SAMPLE_DATA).slices]


def scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: np.clip(pixels.astype(float) * factor, 0, 255).astype(np.uint8)


def resized(width: int, height: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def photograph() -> np.ndarray:
    """Return a bright sky over textured ground."""
    sky = np.linspace(230, 170, 128)[:, None, None] * np.array((0.8, 0.9, 1.0)) * np.ones((1, 256, 1))
    ground = np.random.default_rng(0).normal((110, 120, 90), 30, (128, 256, 3))
    return np.clip(np.concatenate([ground, sky]), 0, 255).astype(np.uint8)


def test_ordinary_slices_have_no_reason(slices: list[np.ndarray]) -> None:
    assert len(slices) == 48
    assert {judge(pixels) for pixels in slices} == {()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (scaled(1 / 8), DARKER),
        (scaled(3.0), BRIGHTER),
        (lambda pixels: 255 - pixels, INVERTED),
        (resized(32, 32), SMALLER),
        (resized(2000, 2000), LARGER),
        (lambda pixels: pixels[..., 1].copy(), "1 channel, trained with 3"),
        (lambda pixels: pixels[..., 1:2].copy(), "1 channel, trained with 3"),
    ],
    ids=["dark", "bright", "inverted", "thumbnail", "huge", "grey", "one-channel"],
)
def test_slices_that_were_changed_have_that_reason_alone(
    slices: list[np.ndarray], change: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    assert {judge(change(pixels)) for pixels in slices[::3]} == {(reason,)}


@pytest.mark.parametrize(
    "change",
    [
        scaled(0.5),
        scaled(1.3),
        resized(128, 128),
        resized(512, 512),
        lambda p: p[20:230, 40:220],
        lambda p: p[..., ::-1],
    ],
    ids=["half-bright", "brighter", "half-size", "double-size", "cropped", "swapped"],
)
def test_slices_within_the_range_have_none(
    slices: list[np.ndarray], change: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert {judge(np.ascontiguousarray(change(pixels))) for pixels in slices[::3]} == {()}


@pytest.mark.parametrize("value", [0, 3, 128, 255])
def test_constant_picture_is_nearly_constant(value: int) -> None:
    assert judge(np.full((256, 256, 3), value, np.uint8)) == (CONSTANT,)


def test_single_bright_pixel_leaves_a_picture_nearly_constant() -> None:
    pixels = np.full((256, 256, 3), 7, np.uint8)
    pixels[100, 100], pixels[200, 200] = 90, 250
    assert judge(pixels) == (CONSTANT,)


@pytest.mark.parametrize("background", [0, 255])
def test_mask_given_as_slice_has_only_two_levels(background: int) -> None:
    mask = np.full((256, 256), background, np.uint8)
    mask[250:253, 3:5] = 255 - background  # not in the middle row
    assert judge(mask) == ("1 channel, trained with 3", TWO_LEVELS)
    assert judge(np.repeat(mask[..., None], 3, axis=2)) == (TWO_LEVELS,)
    assert judge(mask.astype(np.uint16)) == ("1 channel, trained with 3", TWO_LEVELS)


def test_third_value_outside_the_middle_row_is_seen(slices: list[np.ndarray]) -> None:
    pixels = slices[0].copy()
    pixels[128] = 0
    assert judge(pixels) == ()


def test_noise_and_photographs_are_too_bright() -> None:
    rng = np.random.default_rng(0)
    assert judge(rng.integers(0, 256, (256, 256, 3), np.uint8)) == (BRIGHTER,)
    assert judge(np.clip(rng.normal(128, 20, (256, 256, 3)), 0, 255).astype(np.uint8)) == (BRIGHTER,)
    assert judge(photograph()) == (BRIGHTER,)


def test_dark_slice_without_a_head_is_an_end_slice_and_honest() -> None:
    noise = np.abs(np.random.default_rng(0).normal(0, 4, (256, 256, 3)))
    assert judge(noise.astype(np.uint8)) == ()


def test_padding_is_not_judged(slices: list[np.ndarray]) -> None:
    strip = 255 - slices[20][90:154]  # a quarter of the square: with the padding its median would be 0
    assert judge(strip) == (INVERTED,)
    assert judge(np.ascontiguousarray(strip.transpose(1, 0, 2))) == (INVERTED,)


def test_windowed_intensities_are_judged_as_the_network_sees_them(slices: list[np.ndarray]) -> None:
    assert judge(slices[20].astype(np.uint16) * 4) == ()
    assert judge(slices[20].astype(np.float32) / 2) == (DARKER,)


def test_several_reasons_stand_beside_each_other(slices: list[np.ndarray]) -> None:
    small = cv2.resize(255 - slices[20][..., 1], (40, 40))
    assert judge(small) == (SMALLER, "1 channel, trained with 3", INVERTED)


def test_contract_without_a_range_gives_no_reason() -> None:
    contract = replace(CONTRACT, training_range=TrainingRange())
    assert judge(np.zeros((9, 2000), np.uint8), contract) == ()


def test_sizes_between_those_of_training_are_fine_and_channels_are_listed(slices: list[np.ndarray]) -> None:
    known = TrainingRange(((64, 40), (512, 300)), (1, 4), ())
    contract = replace(CONTRACT, training_range=known)
    for side, reason in ((31, (SMALLER,)), (32, ()), (2048, ()), (2049, (LARGER,))):
        assert judge(np.zeros((8, side), np.uint8), contract) == reason
    assert judge(slices[0], contract) == ("3 channels, trained with 1 or 4",)


def test_neither_slice_nor_network_input_is_changed(slices: list[np.ndarray]) -> None:
    pixels = slices[0].copy()
    prepared = prepare(pixels, CONTRACT)
    before = prepared.copy()
    unlike_training(pixels, prepared, CONTRACT)
    assert (pixels == slices[0]).all()
    assert (prepared == before).all()
