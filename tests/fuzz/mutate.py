"""One broken picture for each (format, seed): `make(format, seed)` gives the same bytes every time.

A case takes a sound file apart, breaks one to three of its parts, puts it together with the rest intact (checksums,
places and lengths right), and sometimes cuts or flips bytes of the result.
"""

import struct
from collections.abc import Callable

import cv2
import numpy as np

from fuzz import files
from fuzz.damage import Rng, scar
from fuzz.files import Chunk, Tiff
from fuzz.jpg_bmp import broken_bmp, broken_jpg
from fuzz.png import broken_png
from fuzz.tif import broken_tif

COLOUR = np.random.default_rng(7).integers(0, 256, (24, 20, 3), np.uint8)
SMOOTH = cv2.GaussianBlur(COLOUR, (0, 0), 3)
GREY = COLOUR[..., 0]
COLOURS = np.random.default_rng(8).integers(0, 256, (256, 4), np.uint8)


def make(name: str, seed: int) -> bytes:
    rng = Rng(f"{name} {seed}")
    return scar(rng, FORMATS[name](rng))


def _run_lengths(bits: int) -> bytes:
    """Return RLE rows with runs, literals, a jump and line ends."""
    row = b"\x05\x21\x00\x04\x01\x02\x03\x04" if bits == 8 else b"\x05\x21\x00\x04\x12\x34"
    return (row + b"\x03\x07\x00\x00") * 20 + b"\x00\x02\x03\x01\x02\x09\x00\x01"


def _double_tiff() -> Tiff:
    made = files.tiff(COLOUR.astype(np.float64), 2, order=">")
    made.big = True
    return made


def _encoded(*options: int) -> Callable[[], Tiff]:
    return lambda: files.split_tiff(files.encode(".tif", SMOOTH, *options))


INDEX_ROWS = b"".join(b"\0" + row.tobytes() for row in GREY)
RGB_COLOURS = Chunk(b"PLTE", COLOURS[:, :3].tobytes())
KIND = cv2.IMWRITE_TIFF_COMPRESSION

FORMATS: dict[str, Callable[[Rng], bytes]] = {
    "png-grey": broken_png(lambda: files.split_png(files.encode(".png", GREY))),
    "png-rgb": broken_png(lambda: files.split_png(files.encode(".png", SMOOTH))),
    "png-16": broken_png(lambda: files.split_png(files.encode(".png", COLOUR.astype(np.uint16) * 257))),
    "png-palette": broken_png(lambda: files.png(20, 24, 8, 3, INDEX_ROWS, RGB_COLOURS, Chunk(b"tRNS", bytes(9)))),
    "png-alpha": broken_png(lambda: files.split_png(files.encode(".png", cv2.cvtColor(SMOOTH, cv2.COLOR_BGR2BGRA)))),
    "tif": broken_tif(_encoded(KIND, 1)),
    "tif-lzw": broken_tif(_encoded(KIND, 5)),
    "tif-deflate": broken_tif(_encoded(KIND, 8, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 5)),
    "tif-packbits": broken_tif(_encoded(KIND, 32773)),
    "tif-jpeg": broken_tif(_encoded(KIND, 7)),
    "tif-palette": broken_tif(lambda: files.palette_tiff(GREY, COLOURS[:, :3])),
    "tif-tiled": broken_tif(lambda: files.tiff(SMOOTH, 2, tile=32)),
    "tif-tiled-16": broken_tif(lambda: files.tiff(COLOUR.astype(np.uint16), 2, tile=16, order=">")),
    "tif-planes": broken_tif(lambda: files.tiff(COLOUR, 2, planar=True)),
    "tif-16": broken_tif(lambda: files.tiff(GREY.astype(np.uint16) * 200)),
    "tif-float": broken_tif(lambda: files.tiff(COLOUR.astype(np.float32), 2)),
    "tif-double": broken_tif(_double_tiff),
    "jpg": broken_jpg(lambda: files.encode(".jpg", SMOOTH)),
    "jpg-grey": broken_jpg(lambda: files.encode(".jpg", GREY)),
    "jpg-progressive": broken_jpg(lambda: files.encode(".jpg", SMOOTH, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "jpg-restarts": broken_jpg(lambda: files.encode(".jpg", SMOOTH, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
    "bmp": broken_bmp(lambda: files.encode(".bmp", COLOUR)),
    "bmp-palette": broken_bmp(lambda: files.bmp(20, 24, 8, GREY.tobytes(), COLOURS.tobytes())),
    "bmp-rle8": broken_bmp(lambda: files.bmp(12, 21, 8, _run_lengths(8), COLOURS.tobytes(), 1)),
    "bmp-rle4": broken_bmp(lambda: files.bmp(12, 21, 4, _run_lengths(4), COLOURS[:16].tobytes(), 2)),
    "bmp-16": broken_bmp(
        lambda: files.bmp(20, 24, 16, COLOUR[..., :2].tobytes(), struct.pack("<3I", 0xF800, 0x7E0, 0x1F), 3)
    ),
}
