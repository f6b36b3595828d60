"""How far the boundaries of two masks lie apart."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

PERCENTILE = 95  # a single stray pixel does not decide the distance, as it would the maximum
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def hausdorff_95(mask: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Return the 95th-percentile Hausdorff distance in pixels: 0 for equal masks, the slice's diagonal at most.

    `mask`, `truth`: uint8 [H, W], above 0 is tumour. Of each mask's boundary (tumour pixels that have a neighbour
    above, below, left or right without tumour or beyond the slice) the exact Euclidean distances to the other's
    nearest boundary pixel are taken; the result is the larger of their two 95th percentiles. This is what MONAI's
    `compute_hausdorff_distance(percentile=95)` computes. Where just one mask is empty it is the slice's diagonal, as
    the BraTS challenges set it (373.13, the diagonal of their 240 x 240 x 155 volumes); where both are, 0. Raises
    ValueError when the shapes differ.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"mask {mask.shape} and truth {truth.shape} differ in shape")
    left, top, width, height = cv2.boundingRect(cv2.bitwise_or(mask, truth))
    if width == 0:
        return 0.0
    crop = np.s_[top : top + height, left : left + width]  # exact: both boundaries lie inside
    first, second = _boundary(mask[crop]), _boundary(truth[crop])
    if not (first.any() and second.any()):
        return math.hypot(*mask.shape)
    return max(_directed(first, second), _directed(second, first))


def _boundary(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    core = cv2.erode(mask, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray((mask > 0) & (core == 0))


def _directed(start: NDArray[np.bool_], goal: NDArray[np.bool_]) -> float:
    distances = cv2.distanceTransform(np.asarray(~goal, np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(np.percentile(distances[start], PERCENTILE))
