"""The size a picture's header claims, found in another way than the runtime does."""

import struct

from fuzz import files


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) by the first header of the file."""
    if data.startswith(files.SIGNATURE):
        width, height = next(struct.unpack(">II", c.body[:8]) for c in files.split_png(data) if c.kind == b"IHDR")
        return height, width
    if data.startswith(b"BM"):
        width, height = struct.unpack_from("<HH" if data[14] == 12 else "<ii", data, 18)
        return abs(height), width
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    return _tiff_size(data)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        at = data.index(b"\xff", at)
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        alone = marker in {0, 1, 0xFF} or 0xD0 <= marker <= 0xD8
        at += 1 if marker == 0xFF else 2 if alone else 2 + struct.unpack_from(">H", data, at + 2)[0]


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = "<" if data.startswith(b"II") else ">"
    big = 43 in data[2:4]
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    sizes: dict[int, int] = {}
    for i in range(count):
        place = at + (8 + 20 * i if big else 2 + 12 * i)
        number, kind = struct.unpack_from(order + "HH", data, place)
        value = place + (12 if big else 8)
        if number in {files.WIDTH, files.HEIGHT}:
            sizes.setdefault(number, struct.unpack_from(order + files.KINDS.get(kind, "h"), data, value)[0])
    return sizes[files.HEIGHT], sizes[files.WIDTH]
