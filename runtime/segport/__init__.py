"""segport: brain-tumour masks for folders of MRI slices, without PyTorch.

>>> from segport import Segmenter
>>> masks = Segmenter().predict([pixels])  # uint8 RGB slices in, uint8 masks (0 or 255) out
"""

import os
from typing import TYPE_CHECKING, Any

from segport._version import __version__

# ONNX Runtime 1.31 for Linux keeps a device id and usage events in the user's cache folder, and sends them. It reads
# this variable when it is imported; who set it to something else has decided otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenCV reads these when it is imported: how many pixels a picture may claim (its own limit, 2^30, lets a small file
# take gigabytes), and what it prints (damaged pictures come back as the reason of a `SliceError`).
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "100000000")
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

if TYPE_CHECKING:
    from segport.segmenter import Segmenter as Segmenter

__all__ = ["Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    """Load `Segmenter` on first use, so that `seg-infer --help` does not pay for NumPy and ONNX Runtime."""
    if name == "Segmenter":
        from segport.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module 'segport' has no attribute {name!r}")
