"""What a picture's file says of itself, read before OpenCV decodes it.

OpenCV 5.0 decodes some files wrongly without a word, turns some, and decodes some for hours; here they are refused or
set right. The decoding itself stays with OpenCV.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from segport.errors import SliceError

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
BMP = b"BM"
CLASSIC_TIFF = (b"II*\0", b"MM\0*")
BIG_TIFF = (b"II+\0", b"MM\0+")

MAX_SCANS = 100  # of a progressive JPEG, as in libtiff: writers make 10, a small file can ask for hours of them
MAX_PAGES = 10_000  # counted; a file can claim millions

_TRUNCATED = "cannot be decoded; it is truncated or damaged; copy it again"
_WHOLE = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}  # TIFF's whole numbers
_ORIENTATION = 274
_GREY = (0, 1)  # TIFF's photometric interpretations
_BLACK_IS_ZERO, _RGB = 1, 2


def check_container(data: bytes, max_pixels: int) -> bytes:
    """Return the bytes that OpenCV shall decode: `data`, in a TIFF without rotation, in a PNG without extra chunks.

    Raises `SliceError` for other formats than TIFF, PNG, JPEG and BMP, for several pages or frames, for tiles of more
    than `max_pixels`, for JPEGs of more than `MAX_SCANS` scans, for PNGs with wrong checksums, and for TIFFs whose
    pixels OpenCV would lose or invent: channels that are not 1, 3 or 4, grey with several channels, and with more than
    8 bits anything but one plane of grey (0 is black) or RGB.
    """
    if data.startswith((*CLASSIC_TIFF, *BIG_TIFF)):
        return _check_tiff(data, max_pixels)
    if data.startswith(PNG):
        return _check_png(data)
    if data.startswith(JPEG):
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS:
            raise SliceError(f"holds {scans} JPEG scans; expected at most {MAX_SCANS}; remedy: save it as PNG")
    elif not data.startswith(BMP):
        raise SliceError(f"cannot be decoded; it starts with {data[:4]!r}, as no TIFF, PNG, JPEG or BMP picture does")
    return data


class _Layout(NamedTuple):
    """How one kind of TIFF writes a page: struct formats of its number of tags, of a tag, of the next page's place."""

    size: str
    tag: str
    value: int  # where in a tag its value stands, or the value's place if it is longer
    offset: str
    first: int  # where the header names the first page


def _check_tiff(data: bytes, max_pixels: int) -> bytes:
    order = "<" if data.startswith(b"II") else ">"
    big = data.startswith(BIG_TIFF)
    layout = _Layout(f"{order}Q", f"{order}HHQ8x", 12, f"{order}Q", 8) if big else _Layout(
        f"{order}H", f"{order}HHI4x", 8, f"{order}I", 4
    )  # fmt: skip
    try:
        pages = _find_pages(data, layout)
        if len(pages) != 1:
            raise _several(f"{len(pages)}{' or more' if len(pages) >= MAX_PAGES else ''} pages")
        places = dict(
            reversed(list(_find_tags(data, pages[0], layout)))
        )  # of a tag given twice, libtiff takes the first
        values = {number: _read_value(data, place, layout, order) for number, place in places.items()}
    except (struct.error, OverflowError) as error:  # a place outside of the file, or beyond 2^63
        raise SliceError(_TRUNCATED) from error
    _check_tags(values, max_pixels)
    if values.get(_ORIENTATION, 1) == 1:
        return data
    upright = bytearray(data)  # OpenCV turns what it reads: the mask would not lie on the stored pixels
    one = struct.pack(f"{order}HH" + ("QH6x" if big else "IH2x"), _ORIENTATION, 3, 1, 1)
    upright[places[_ORIENTATION] : places[_ORIENTATION] + len(one)] = one
    return bytes(upright)


def _find_pages(data: bytes, layout: _Layout) -> list[int]:
    """Return where the pages' tags stand; raises `struct.error` when one lies outside of the file."""
    pages: dict[int, None] = {}
    (place,) = struct.unpack_from(layout.offset, data, layout.first)
    while place and len(pages) < MAX_PAGES:
        if place in pages:
            raise SliceError("cannot be decoded; its pages point at each other in a circle")
        pages[place] = None
        (count,) = struct.unpack_from(layout.size, data, place)
        behind = place + struct.calcsize(layout.size) + count * struct.calcsize(layout.tag)
        (place,) = struct.unpack_from(layout.offset, data, behind)
    return list(pages)


def _find_tags(data: bytes, page: int, layout: _Layout) -> Iterator[tuple[int, int]]:
    (count,) = struct.unpack_from(layout.size, data, page)
    first = page + struct.calcsize(layout.size)
    for i in range(count):
        place = first + i * struct.calcsize(layout.tag)
        yield struct.unpack_from(layout.tag, data, place)[0], place


def _read_value(data: bytes, place: int, layout: _Layout, order: str) -> int:
    """Return the tag's first value, 0 where it is not a whole number."""
    _, kind, count = struct.unpack_from(layout.tag, data, place)
    if kind not in _WHOLE:
        return 0
    at = place + layout.value
    if count * struct.calcsize(_WHOLE[kind]) > struct.calcsize(layout.offset):
        (at,) = struct.unpack_from(layout.offset, data, at)
    return int(struct.unpack_from(order + _WHOLE[kind], data, at)[0])


def _check_tags(values: dict[int, int], max_pixels: int) -> None:
    bits, photometric = values.get(258, 1), values.get(262)
    samples, planes = values.get(277, 1), values.get(284, 1)
    if samples not in (1, 3, 4):
        raise SliceError(f"has {samples} channels; expected 1 or 3; remedy: save it as grey or RGB")
    if values.get(322, 0) * values.get(323, 0) > max_pixels:
        raise SliceError(f"has tiles of {values[322]} x {values[323]} pixels; the limit is {max_pixels:,} pixels")
    if photometric in _GREY and samples > 1 and bits <= 16:
        raise SliceError(f"has {samples} channels but is marked as grey; remedy: save it as RGB")
    if photometric == _RGB and samples == 1:  # or the number is not given: OpenCV takes 3 then, libtiff 1
        raise SliceError("has 1 channel but is marked as RGB; remedy: save it as grey or RGB")
    if bits > 8 and photometric not in (None, _BLACK_IS_ZERO, _RGB):
        raise SliceError(
            f"has {bits} bits in TIFF's photometric interpretation {photometric}; expected 1 (grey, 0 is black) or"
            " 2 (RGB); remedy: save it so"
        )
    if bits > 8 and samples > 1 and planes == 2:
        raise SliceError(f"stores its {bits}-bit channels in planes; remedy: save it with the channels interleaved")


def _check_png(data: bytes) -> bytes:
    """Return the PNG without chunks that decide no pixel: they can be bombs, and libpng prints warnings about them."""
    view = memoryview(data)
    kept, place, kind = [view[: len(PNG)]], len(PNG), b""
    while kind != b"IEND":
        try:
            size, kind = struct.unpack_from(">I4s", data, place)
            body = view[place + 4 : place + 8 + size]
            (checksum,) = struct.unpack_from(">I", data, place + 8 + size)
        except struct.error as error:
            raise SliceError(_TRUNCATED) from error
        if zlib.crc32(body) != checksum:
            raise SliceError(f"cannot be decoded; the checksum of its {kind!r} chunk is wrong; copy it again")
        if kind == b"acTL" and size >= 4 and (frames := int.from_bytes(body[4:8])) > 1:
            raise _several(f"{frames} frames")
        if kind[:1].isupper() or kind == b"tRNS":
            kept.append(view[place : place + 12 + size])
        place += 12 + size
    return b"".join(kept)


def _several(what: str) -> SliceError:
    return SliceError(f"holds {what}; expected one slice a file; remedy: save each on its own")
