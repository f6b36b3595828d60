"""Reading slices and masks: what is on the disk becomes an array, or a `SliceError` with the reason."""

import hashlib
import stat
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.containers import JPEG, check_container
from segport.entry import Stamp
from segport.errors import SliceError
from segport.limits import MAX_BYTES, PIXEL_LIMIT, pixel_limit
from segport.preprocess import Pixels, binarise
from segport.sources import Slice


def read_truth(item: Slice, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the true mask of a slice as uint8 [H, W] of 0 and 1: anything above 0 is tumour.

    JPEG surrounds what it stores with faint pixels: there, what is above half of the brightest is. Raises `SliceError`
    when there is none, when it cannot be read, or when it has not the slice's `shape`.
    """
    if item.mask is None:
        raise SliceError("has no mask")
    try:
        data = _read_file(item.mask)
        pixels = decode_slice(data, item.mask.suffix)
        truth = binarise(pixels > pixels.max() / 2 if data.startswith(JPEG) else pixels)
    except SliceError as error:
        raise SliceError(f"its mask {item.mask.name} {error}") from error
    if truth.shape != shape[:2]:
        raise SliceError(f"its mask {item.mask.name} is {truth.shape}, the slice {shape[:2]} (height, width)")
    return truth


def read_slice(path: Path) -> Pixels:
    """Return the picture as stored: [H, W] or [H, W, C], channels in RGB order; the content decides, not the ending.

    - uint8: 1 (as 0 and 255) to 8 bits; uint16: 16 bits (10, 12 and 14 are scaled up); in TIFF also signed integers,
      32 and 64 bits, float32 and float64, with NaN and infinity if they are there (`prepare` refuses those).
    - Palettes, CMYK and YCbCr become RGB, at 8 bits white-is-zero is inverted. An alpha channel stays (`prepare`
      refuses it); grey with alpha is read as RGBA from PNG, refused from TIFF.
    - Strips, tiles and every compression that OpenCV knows. Rotation tags (EXIF, TIFF) are not applied: the stored
      grid is the mask's grid.

    A JPEG or BMP damaged inside is read with the damage: they have no checksums, and OpenCV tells nobody.

    Raises `SliceError` for what is missing, empty, damaged or truncated anywhere, no regular file, above `MAX_BYTES`,
    another format than TIFF, PNG, JPEG or BMP, several pages or frames, for layouts that OpenCV would read wrongly (see
    `check_container`), and for a slice whose longest side squared exceeds the pixel limit.

    The limit is the environment variable OPENCV_IO_MAX_IMAGE_PIXELS, which OpenCV reads when it is loaded; importing
    segport sets it to 100 million if it is not set (`UsageError` where it is no number). Where OpenCV was imported
    first, it decodes up to 2^30 pixels before the slice is refused.
    """
    return decode_slice(_read_file(path), path.suffix)


def read_stamped(path: Path) -> tuple[bytes, Stamp]:
    """Return a file's bytes and its stamp, for `decode_slice`; raises `SliceError` where `read_slice` would.

    The time is taken before the bytes: a change while they are read leaves a time that differs later.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise SliceError(f"cannot be read ({error.strerror})") from error
    data = _read_file(path)
    return data, Stamp(len(data), changed, hashlib.sha256(data).hexdigest())


def decode_slice(data: bytes, suffix: str) -> Pixels:
    """Return the picture in a file's bytes, as `read_slice` does. `suffix`: of the file's name, for messages."""
    limit = pixel_limit()
    data = check_container(data, limit)
    try:
        pixels: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in error.err:
            raise _too_large("holds", limit) from error
        raise SliceError(f"cannot be decoded ({error.err})") from error
    if pixels is None:
        raise SliceError(f"cannot be decoded; it is truncated, damaged or not a {suffix[1:]} picture")
    height, width = pixels.shape[:2]
    if max(height, width) ** 2 > limit:  # 300 kB can hold a line of a million pixels, whose square has 10^12
        raise _too_large(f"is {height} x {width} (height, width); fitted into a square, it has", limit)
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        return _reverse(pixels)
    return pixels


def _reverse(pixels: Pixels) -> Pixels:
    """Return BGR as RGB, BGRA as RGBA."""
    if pixels.dtype in (np.uint8, np.uint16, np.float32):  # ten times faster
        how = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        return np.asarray(cv2.cvtColor(cast(NDArray[np.uint8], pixels), how))
    return np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever, a device may have no end
            raise SliceError("is not a regular file but a folder, pipe or device; expected a picture")
        if status.st_size > MAX_BYTES:
            raise SliceError(
                f"has {status.st_size:,} bytes; expected at most {MAX_BYTES:,}; remedy: save one slice a file"
            )
        data = path.read_bytes()  # not cv2.imread: it cannot open every name on Windows (opencv#18305)
    except OSError as error:
        raise SliceError(f"cannot be read ({error.strerror})") from error
    if not data:
        raise SliceError("is empty (0 bytes); copy it again")
    return data


def _too_large(what: str, limit: int) -> SliceError:
    return SliceError(
        f"{what} more pixels than the limit of {limit:,}; remedy: if you trust the file, set the environment variable"
        f" {PIXEL_LIMIT} higher before segport starts"
    )
