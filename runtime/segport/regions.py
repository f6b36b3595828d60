"""Regions of a mask: how many there are, how large, and where."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Regions:
    """What a mask holds, in pixels of the slice; x grows to the right, y downwards, the first pixel is (0, 0).

    `components`: regions of tumour pixels that touch at an edge or a corner (8-connected). `largest`: pixels of the
    largest one. `box`: (left, top, width, height) around all tumour pixels. `centroid`: (x, y), the mean of their
    coordinates, in 0..W-1 and 0..H-1. An empty mask has 0 components and neither box nor centroid.
    """

    components: int = 0
    largest: int = 0
    box: tuple[int, int, int, int] | None = None
    centroid: tuple[float, float] | None = None


def measure_regions(mask: NDArray[np.uint8]) -> Regions:
    """Return the regions of a mask, uint8 [H, W], above 0 is tumour."""
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return Regions()
    inside = mask[top : top + height, left : left + width]  # six times faster than on the whole 256 x 256 slice
    count, _, stats, centres = cv2.connectedComponentsWithStats(inside, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]  # the first entry is the background
    x, y = areas @ centres[1:] / areas.sum()
    return Regions(count - 1, int(areas.max()), (left, top, width, height), (float(x) + left, float(y) + top))
