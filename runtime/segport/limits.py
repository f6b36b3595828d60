"""How large a slice may be. Light to import: OpenCV takes its limit from the environment when it is loaded."""

import os
import re

from segport.errors import UsageError

MAX_BYTES = 2**30  # of a file: above 2^31 OpenCV's own arithmetic overflows; the largest slice within the pixel limit
# is far smaller, unless it is a float TIFF
PIXEL_LIMIT = "OPENCV_IO_MAX_IMAGE_PIXELS"


def pixel_limit() -> int:
    """Return how many pixels a slice may have, by the environment variable that OpenCV obeys.

    Raises `UsageError` when it is not a number as OpenCV takes it (64000000, 500KB, 64MB).
    """
    text = os.environ.get(PIXEL_LIMIT, "")
    number = re.fullmatch(r"(\d+)(KB|Kb|kb|MB|Mb|mb)?", text)
    if number is None:
        raise UsageError(f"{PIXEL_LIMIT}={text}: expected a whole number of pixels, such as 100000000")
    return int(number[1]) * {"": 1, "k": 2**10, "m": 2**20}[(number[2] or "")[:1].lower()]
