"""Outlines of masks on slices, drawn once for runtime, trainer and exporter alike."""

import cv2
import numpy as np
from numpy.typing import NDArray

PREDICTED = (255, 64, 64)  # RGB
TRUTH = (64, 255, 64)


def draw_outlines(
    display: NDArray[np.uint8], mask: NDArray[np.uint8], truth: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return the slice, uint8 RGB [2H, 2W, 3], with the mask's outline in red and the truth's in green.

    `display`: uint8 RGB [H, W, 3]. `mask`, `truth`: [H, W], above 0 is tumour. Slices are doubled in size so
    that a one-pixel line hides no tissue; small ones are enlarged further, up to 512 pixels on the longer side.
    """
    height, width = display.shape[:2]
    factor = max(2, 512 // max(height, width))
    size = (width * factor, height * factor)
    canvas = cv2.resize(display, size, interpolation=cv2.INTER_CUBIC)
    for area, colour in ((truth, TRUTH), (mask, PREDICTED)):
        if area is not None:
            enlarged = cv2.resize(np.asarray(area > 0, np.uint8), size, interpolation=cv2.INTER_NEAREST)
            contours, _ = cv2.findContours(enlarged, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(canvas, contours, -1, colour, 1)
    return np.asarray(canvas, np.uint8)
