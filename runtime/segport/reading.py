"""Reading slices and masks: what is on the disk becomes an array, or a `SliceError` with the reason."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.errors import SliceError
from segport.preprocess import Pixels, binarise
from segport.sources import Slice


def read_truth(item: Slice, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the true mask of a slice as uint8 [H, W] of 0 and 1.

    Raises `SliceError` when there is none, when it cannot be read, or when it has not the slice's `shape`.
    """
    if item.mask is None:
        raise SliceError("has no mask")
    try:
        truth = binarise(read_slice(item.mask))
    except SliceError as error:
        raise SliceError(f"its mask {item.mask.name} {error}") from error
    if truth.shape != shape[:2]:
        raise SliceError(f"its mask {item.mask.name} is {truth.shape}, the slice {shape[:2]} (height, width)")
    return truth


def read_slice(path: Path) -> Pixels:
    """Return the picture as stored: [H, W] or [H, W, C], channels in RGB order, any dtype; EXIF rotation not applied.

    Raises `SliceError` when the file is missing, empty, not a picture, truncated, or holds several pages.
    """
    try:
        data = np.fromfile(path, np.uint8)  # not cv2.imread: it cannot open every name on Windows (opencv#18305)
    except OSError as error:
        raise SliceError(f"cannot be read ({error.strerror})") from error
    if data.size == 0:
        raise SliceError("is empty (0 bytes); copy it again")
    try:
        whole, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise SliceError(f"cannot be decoded ({error.err}); is it a whole {path.suffix[1:]} file?") from error
    if not whole or not pages:
        raise SliceError(f"cannot be decoded; it is truncated, damaged or not a {path.suffix[1:]} picture")
    if len(pages) > 1:
        raise SliceError(f"holds {len(pages)} pages; expected one slice a file; remedy: save each page on its own")
    pixels: Pixels = pages[0]
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        order = [2, 1, 0, 3][: pixels.shape[2]]
        pixels = np.ascontiguousarray(pixels[..., order])
    return pixels
