import math

import cv2
import numpy as np
import pytest

from segport.surface import hausdorff_95


def brute_force(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return the definition, pixel by pixel: larger of the 95th percentiles of nearest boundary distances."""
    points = []
    for area in (mask > 0, truth > 0):
        padded = np.pad(area, 1)
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        points.append(np.argwhere(area & ~core))
    distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    return float(max(np.percentile(distances.min(axis=k), 95) for k in (0, 1)))


def disc(x: int, y: int, radius: int, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    return cv2.circle(np.zeros(shape, np.uint8), (x, y), radius, 255, -1)


def pixel(x: int, y: int) -> np.ndarray:
    return disc(x, y, 0)


def test_distance_of_two_pixels_is_euclidean() -> None:
    assert hausdorff_95(pixel(10, 20), pixel(13, 24)) == 5


def test_equal_masks_have_distance_zero_whatever_their_values() -> None:
    assert hausdorff_95(disc(30, 30, 9), disc(30, 30, 9) // 255) == 0


def test_two_empty_masks_have_distance_zero() -> None:
    assert hausdorff_95(np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8)) == 0


def test_one_empty_mask_costs_the_diagonal_of_the_slice() -> None:
    nothing = np.zeros((30, 40), np.uint8)
    assert hausdorff_95(nothing, disc(10, 10, 3, (30, 40))) == hausdorff_95(disc(10, 10, 3, (30, 40)), nothing) == 50


def test_opposite_corners_are_as_far_apart_as_anything_can_be() -> None:
    assert hausdorff_95(pixel(0, 0), pixel(79, 63)) == pytest.approx(math.hypot(79, 63))


def test_larger_disc_is_as_far_as_its_radius_is_larger() -> None:
    assert hausdorff_95(disc(40, 32, 10), disc(40, 32, 15)) == pytest.approx(5, abs=0.5)


def test_single_stray_pixel_does_not_decide_but_a_second_tumour_does() -> None:
    truth = disc(20, 32, 12)
    assert hausdorff_95(truth | pixel(75, 32), truth) < 1
    assert hausdorff_95(truth | disc(70, 32, 8), truth) == pytest.approx(brute_force(truth | disc(70, 32, 8), truth))
    assert hausdorff_95(truth | disc(70, 32, 8), truth) > 40


def test_border_of_the_slice_counts_as_boundary() -> None:
    left = np.zeros((40, 40), np.uint8)
    left[:, :20] = 1
    whole = np.ones((40, 40), np.uint8)
    assert hausdorff_95(left, whole) == pytest.approx(brute_force(left, whole))
    assert hausdorff_95(left, whole) > 15


@pytest.mark.parametrize("seed", range(40))
def test_random_and_drawn_masks_give_what_the_definition_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 48, 2).tolist())
    masks = []
    for _ in range(2):
        mask = np.asarray(rng.random(shape) < rng.choice((0.02, 0.2, 0.8)), np.uint8)
        if seed % 2:
            mask = disc(*rng.integers(0, 48, 2).tolist(), int(rng.integers(1, 16)), shape)
        mask[tuple(rng.integers(0, shape))] = 1  # never empty
        masks.append(mask)
    expected = brute_force(*masks)
    assert hausdorff_95(*masks) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert hausdorff_95(*masks[::-1]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask \(64, 80\) and truth \(80, 64\) differ in shape"):
        hausdorff_95(pixel(0, 0), pixel(0, 0).reshape(80, 64))
