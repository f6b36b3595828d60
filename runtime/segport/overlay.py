"""Outlines of masks and heat maps of probabilities on slices, drawn once for runtime, trainer and exporter alike."""

import cv2
import numpy as np
from numpy.typing import NDArray

PREDICTED = (255, 64, 64)  # RGB
TRUTH = (64, 255, 64)
OPAQUE = 0.6  # how much of the slice the heat map hides at most: tissue stays visible below


def draw_outlines(
    display: NDArray[np.uint8], mask: NDArray[np.uint8], truth: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return the slice, uint8 RGB [2H, 2W, 3], with the mask's outline in red and the truth's in green.

    `display`: uint8 RGB [H, W, 3]. `mask`, `truth`: [H, W], above 0 is tumour. Slices are doubled in size so
    that a one-pixel line hides no tissue; small ones are enlarged further, up to 512 pixels on the longer side.
    """
    canvas = _enlarge(display)
    for area, colour in ((truth, TRUTH), (mask, PREDICTED)):
        if area is not None:
            draw_outline(canvas, area, colour)
    return canvas


def draw_heat(display: NDArray[np.uint8], probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the slice, as large as `draw_outlines` makes it, with its tumour probabilities as a heat map.

    `display`: uint8 RGB [H, W, 3]. `probability`: float32 [H, W] in 0..1. Blue is unlikely, green about 0.5, red
    certain; below 0.5 the map fades, and where the probability is 0 the slice shows unchanged.
    """
    levels = np.rint(probability * 255).astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    share = (OPAQUE * np.minimum(1, 2 * probability))[..., np.newaxis]
    return _enlarge(np.rint(display + share * (heat.astype(np.float32) - display)).astype(np.uint8))


def draw_outline(canvas: NDArray[np.uint8], area: NDArray[np.uint8], colour: tuple[int, int, int]) -> None:
    """Draw the outline of `area`, [H, W], above 0 is inside, onto a canvas of any size, uint8 RGB, in place.

    On a smaller canvas a pixel is inside when any part of it is: a single tumour pixel stays visible.
    """
    size = (canvas.shape[1], canvas.shape[0])
    how = cv2.INTER_AREA if size[0] < area.shape[1] else cv2.INTER_NEAREST
    fitted = cv2.resize(np.asarray(area > 0, np.float32), size, interpolation=how) > 0
    contours, _ = cv2.findContours(np.asarray(fitted, np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, colour, 1)


def _enlarge(display: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = display.shape[:2]
    factor = max(2, 512 // max(height, width))
    size = (width * factor, height * factor)
    return np.asarray(cv2.resize(display, size, interpolation=cv2.INTER_CUBIC), np.uint8)
