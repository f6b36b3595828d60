"""The pictures of a report, encoded for browsers.

Measured on 64 slices of LGG (256 x 256 RGB), a slice: PNG 89 kB in 7 ms; PNG with all filters 78 kB, 23 ms; lossless
WebP 58 kB, 74 ms; JPEG of quality 95 without subsampling 24 kB, 3 ms, of 98 39 kB. Even the last is up to 9 grey
levels off where channels differ, and what is judged should be what was segmented: slices are PNG. 10,000 take 0.9 GB,
half of the TIFF files they come from. Contact sheets and small pictures are JPEG.
"""

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.outputs import encode_png

T = TypeVar("T", np.uint8, np.float32)

LARGEST = 1024  # pixels a side; a screen shows hardly more
HEAT_LEVELS = 64  # of probability: a colour scale shows no more
QUALITY = 85  # of JPEG


def encode_slice(picture: NDArray[np.uint8]) -> bytes:
    """Return a slice, uint8 RGB [H, W, 3], as PNG of at most 1024 pixels a side; grey where its channels are equal."""
    grey = (picture == picture[..., :1]).all()
    return encode_png(_shrink(np.ascontiguousarray(picture[..., 0]) if grey else picture))


def encode_heat(probability: NDArray[np.float32]) -> bytes:
    """Return probabilities, float32 [H, W] in 0..1, as grey PNG, 255 is 1, that the page colours."""
    step = 256 // HEAT_LEVELS
    levels = np.rint(_shrink(probability) * 255).astype(np.uint8)
    return encode_png(np.asarray(levels // step * step + (levels // step) // (HEAT_LEVELS // step), np.uint8))


def encode_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture, uint8 RGB [H, W, 3], as JPEG."""
    return bytes(cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])


def heat_colours(count: int = 17) -> list[tuple[float, float, float]]:
    """Return colours of the heat map, RGB in 0..1, at `count` evenly spaced probabilities: those of `draw_heat`."""
    levels = np.rint(np.linspace(0, 255, count)).astype(np.uint8)[np.newaxis]
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[0, :, ::-1] / 255
    return [(round(float(r), 3), round(float(g), 3), round(float(b), 3)) for r, g, b in colours]


def _shrink(picture: NDArray[T]) -> NDArray[T]:
    height, width = picture.shape[:2]
    factor = LARGEST / max(height, width)
    if factor >= 1:
        return picture
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), picture.dtype)
