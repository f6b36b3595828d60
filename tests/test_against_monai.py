"""The boundary distance against MONAI's: the reference that segmentation papers use."""

import cv2
import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance

from segport.surface import hausdorff_95

# MONAI 1.6 calls its own function with an argument that it has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*Argument `always_return_as_numpy` has been deprecated:FutureWarning")


def monai(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return MONAI's HD95 in pixels; neither mask may be empty (it gives NaN there)."""
    first, second = (torch.from_numpy(m > 0).float()[None, None] for m in (mask, truth))
    return float(compute_hausdorff_distance(first, second, include_background=True, percentile=95))


def drawn(rng: np.random.Generator, shape: tuple[int, int], parts: int) -> np.ndarray:
    """Return ellipses that may overlap, touch or leave the slice; at least one pixel is inside."""
    mask = np.zeros(shape, np.uint8)
    for _ in range(parts):
        centre = (int(rng.integers(0, shape[1])), int(rng.integers(0, shape[0])))
        axes = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
        cv2.ellipse(mask, centre, axes, float(rng.integers(0, 180)), 0, 360, 255, -1)
    return mask


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_drawn_masks_agree_with_monai(parts: int) -> None:
    rng = np.random.default_rng(parts)
    for _ in range(25):
        shape = tuple(rng.integers(20, 257, 2).tolist())
        mask, truth = drawn(rng, shape, parts), drawn(rng, shape, parts)
        assert hausdorff_95(mask, truth) == pytest.approx(monai(mask, truth), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("density", [0.001, 0.05, 0.5, 0.95])
def test_random_pixels_agree_with_monai(density: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(15):
        shape = tuple(rng.integers(2, 100, 2).tolist())
        mask, truth = (np.asarray(rng.random(shape) < density, np.uint8) for _ in range(2))
        mask[0, 0] = truth[-1, -1] = 1  # on the border, and never empty
        assert hausdorff_95(mask, truth) == pytest.approx(monai(mask, truth), rel=1e-5, abs=1e-5)


def test_neighbours_of_a_mask_agree_with_monai() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        mask = drawn(rng, (256, 256), 2)
        for truth in (mask, np.roll(mask, 3, 0), cv2.dilate(mask, np.ones((5, 5), np.uint8)), mask[::-1].copy()):
            assert hausdorff_95(mask, truth) == pytest.approx(monai(mask, truth), rel=1e-5, abs=1e-5)
