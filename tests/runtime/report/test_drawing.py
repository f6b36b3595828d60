"""Outlines, curves and pictures of a report: what is drawn is what is there."""

import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segport.entry import Found
from segport.regions import Regions
from segport.report import outline
from segport.report.curve import draw_curve
from segport.report.outline import outline_path
from segport.report.patient import label_slices
from segport.report.pictures import encode_heat, encode_slice
from segport.report.view import SliceFacts
from segport.scoring import Agreement, Counts


def fill(path: str, height: int, width: int) -> np.ndarray:
    """Return the pixels inside of a path by the even-odd rule, from its vertical lines alone."""
    flips = np.zeros((height, width + 1), bool)
    x = y = 0
    for command, numbers in re.findall(r"([Mhvz])([-\d ]*)", path):
        if command == "M":
            x, y = first = tuple(map(int, numbers.split()))  # type: ignore[assignment]
        elif command == "h":
            x += int(numbers)
        else:
            to = y + int(numbers) if command == "v" else first[1]
            flips[min(y, to) : max(y, to), x] ^= True
            y = to
    return np.logical_xor.accumulate(flips, axis=1)[:, :width]


@settings(max_examples=60)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 255])))
def test_an_outline_encloses_the_very_pixels_of_the_mask(mask: np.ndarray) -> None:
    assert (fill(outline_path(mask), *mask.shape) == (mask > 0)).all()


def test_a_square_is_four_lines_the_last_of_which_closes_it_and_an_empty_mask_none() -> None:
    mask = np.zeros((8, 8), np.uint8)
    assert outline_path(mask) == ""
    mask[2:5, 3:7] = 255
    assert outline_path(mask) == "M3 2h4v3h-4z"


def test_noise_is_drawn_coarser_and_loses_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline, "MOST_EDGES", 200)
    mask = np.asarray(np.random.default_rng(0).random((37, 50)) > 0.7, np.uint8)
    path = outline_path(mask)
    filled = fill(path, 64, 64)[:37, :50]
    assert len(path) < 2000
    assert filled[mask > 0].all()


def facts(area: int, truth: int | None = None, name: str = "s", number: int | None = None) -> SliceFacts:
    agreement = None if truth is None else Agreement(Counts(fn=truth))
    return SliceFacts(name, number, "written", Found((8, 8), area, 0.9, Regions(), agreement))


def test_a_curve_has_a_column_a_slice_and_ticks_below_doubts() -> None:
    curve = draw_curve([facts(0, 0), facts(50, 100), facts(100, 100)], [2])
    assert (curve.width, curve.most) == (3, 100)
    assert curve.mask == "M0 100L0 100H1V50H2V0H3V100z"
    assert curve.truth == "M0 100H1V0H3"
    assert curve.marks == "M2 100h1"
    assert draw_curve([facts(0)], []).mask == ""


def test_labels_are_numbers_or_names_and_all_differ() -> None:
    items = [facts(0, number=3), facts(0, number=3), facts(0, name="p/scan\u202e.png"), facts(0, name="q/12~2")]
    assert label_slices(items) == ["3", "3~2", "scan\\u202e", "12~2"]


def test_a_slice_keeps_every_grey_level_and_large_ones_are_shrunk() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(encode_slice(picture), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (decoded[..., ::-1] == picture).all()
    grey = cv2.imdecode(np.frombuffer(encode_slice(np.repeat(picture[..., :1], 3, 2)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.ndim == 2
    large = encode_slice(np.zeros((1500, 3000, 3), np.uint8))
    assert cv2.imdecode(np.frombuffer(large, np.uint8), cv2.IMREAD_UNCHANGED).shape == (512, 1024)


def test_probabilities_keep_both_ends_and_64_levels() -> None:
    heat = encode_heat(np.linspace(0, 1, 300, dtype=np.float32)[np.newaxis])
    levels = cv2.imdecode(np.frombuffer(heat, np.uint8), cv2.IMREAD_UNCHANGED)[0]
    assert (levels[0], levels[-1]) == (0, 255)
    assert len(set(levels.tolist())) == 64
    assert (np.diff(levels.astype(int)) >= 0).all()
