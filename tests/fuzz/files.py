"""Picture files taken apart and put together: PNG chunks, TIFF tags, JPEG segments, BMP fields."""

import struct
import zlib
from dataclasses import dataclass, field

import cv2
import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KINDS = {1: "B", 2: "B", 3: "H", 4: "I", 11: "f", 12: "d", 16: "Q"}  # TIFF's types
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 273, 274, 277
ROWS_PER_STRIP, COUNTS, PLANES, PALETTE, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS = 278, 279, 284, 320, 322, 323, 324
TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT = 325, 338, 339
BMP_FIELDS = {  # name: (place, struct format)
    "file size": (2, "<I"), "pixels at": (10, "<I"), "header": (14, "<I"), "width": (18, "<i"), "height": (22, "<i"),
    "planes": (26, "<H"), "bits": (28, "<H"), "compression": (30, "<I"), "bytes": (34, "<I"), "colours": (46, "<I"),
}  # fmt: skip


@dataclass
class Chunk:
    """Of a PNG; `size` and `checksum` are what the file claims where they are wrong."""

    kind: bytes
    body: bytes
    size: int | None = None
    checksum: int | None = None


def join_png(chunks: list[Chunk]) -> bytes:
    out = bytearray(SIGNATURE)
    for chunk in chunks:
        size = len(chunk.body) if chunk.size is None else chunk.size
        checksum = zlib.crc32(chunk.kind + chunk.body) if chunk.checksum is None else chunk.checksum
        out += struct.pack(">I", size) + chunk.kind + chunk.body + struct.pack(">I", checksum)
    return bytes(out)


def split_png(data: bytes) -> list[Chunk]:
    chunks, at = [], len(SIGNATURE)
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        chunks.append(Chunk(kind, data[at + 8 : at + 8 + size]))
        at += 12 + size
    return chunks


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: Chunk) -> list[Chunk]:
    """Return a PNG's chunks; `rows`: every row with its filter byte; `extra`: chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return [Chunk(b"IHDR", header), *extra, Chunk(b"IDAT", zlib.compress(rows)), Chunk(b"IEND", b"")]


@dataclass
class Tag:
    """Of a TIFF; `kind` and `count` may be wrong, `raw` is what the file holds."""

    number: int
    kind: int
    count: int
    raw: bytes


@dataclass
class Page:
    """`blocks`: the strips or tiles; their places are filled in where `placed`. `next_page`: a wrong place for it."""

    tags: list[Tag]
    blocks: list[bytes]
    placed: bool = True
    next_page: int | None = None

    def find(self, number: int) -> Tag | None:
        return next((tag for tag in self.tags if tag.number == number), None)


@dataclass
class Tiff:
    order: str
    pages: list[Page] = field(default_factory=list)
    big: bool = False


def tag(order: str, number: int, kind: int, *values: float) -> Tag:
    return Tag(number, kind, len(values), struct.pack(order + KINDS[kind] * len(values), *values))


def join_tiff(tiff: Tiff) -> bytes:
    order, wide = tiff.order, "Q" if tiff.big else "I"
    room = 8 if tiff.big else 4
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if tiff.big else 42))
    out += struct.pack(order + "HH", 8, 0) if tiff.big else b""
    link = len(out)
    out += bytes(room)
    for page in tiff.pages:
        places = []
        for block in page.blocks:
            places.append(len(out))
            out += block + bytes(len(block) % 2)
        if page.placed:
            name = TILE_OFFSETS if page.find(TILE_OFFSETS) else OFFSETS
            offsets = tag(order, name, 16 if tiff.big else 4, *places)
            page.tags = [offsets if t.number == name else t for t in page.tags]
        entries = b""
        for t in page.tags:
            raw = t.raw
            if len(raw) > room:
                out += bytes(len(out) % 2)
                place = len(out)
                out += raw
                raw = struct.pack(order + wide, place)
            entries += struct.pack(order + "HH" + wide, t.number, t.kind, t.count) + raw.ljust(room, b"\0")
        out += bytes(len(out) % 2)
        struct.pack_into(order + wide, out, link, len(out))
        out += struct.pack(order + ("Q" if tiff.big else "H"), len(page.tags)) + entries
        link = len(out)
        out += struct.pack(order + wide, page.next_page or 0)
    return bytes(out)


def split_tiff(data: bytes) -> Tiff:
    """Take apart what OpenCV writes: one page, little-endian."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    tags = []
    for i in range(count):
        number, kind, many = struct.unpack_from("<HHI", data, at + 2 + 12 * i)
        size, place = many * struct.calcsize(KINDS.get(kind, "Q")), at + 2 + 12 * i + 8
        if size > 4:
            (place,) = struct.unpack_from("<I", data, place)
        tags.append(Tag(number, kind, many, data[place : place + size]))
    page = Page(tags, [])
    places, sizes = (
        struct.unpack(f"<{t.count}{KINDS[t.kind]}", t.raw) for t in map(page.find, (OFFSETS, COUNTS)) if t is not None
    )
    page.blocks = [data[p : p + s] for p, s in zip(places, sizes, strict=True)]
    return Tiff("<", [page])


def tiff(
    pixels: np.ndarray, photometric: int = 1, *, order: str = "<", tile: int = 0, planar: bool = False, **more: int
) -> Tiff:
    """Return an uncompressed page of [H, W] or [H, W, C]; `more`: further tags (t274=6), or other values of these."""
    shaped = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, samples = shaped.shape
    shaped = shaped.astype(shaped.dtype.newbyteorder(order))
    planes = [shaped[..., i : i + 1] for i in range(samples)] if planar else [shaped]
    blocks = [plane.tobytes() for plane in planes]
    if tile:
        padded = [np.pad(p, ((0, -height % tile), (0, -width % tile), (0, 0))) for p in planes]
        blocks = [
            p[y : y + tile, x : x + tile].tobytes()
            for p in padded for y in range(0, height, tile) for x in range(0, width, tile)
        ]  # fmt: skip
    numbers = {
        WIDTH: [width], HEIGHT: [height], BITS: [pixels.dtype.itemsize * 8] * samples, COMPRESSION: [1],
        PHOTOMETRIC: [photometric], SAMPLES: [samples], PLANES: [2 if planar else 1],
        SAMPLE_FORMAT: [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * samples,
    } | ({TILE_WIDTH: [tile], TILE_HEIGHT: [tile]} if tile else {ROWS_PER_STRIP: [height]})  # fmt: skip
    numbers |= {int(name[1:]): [value] for name, value in more.items()}
    tags = [tag(order, n, 3, *values) for n, values in numbers.items()]
    places = (TILE_OFFSETS, TILE_COUNTS) if tile else (OFFSETS, COUNTS)
    tags += [tag(order, places[0], 4, *[0] * len(blocks)), tag(order, places[1], 4, *map(len, blocks))]
    return Tiff(order, [Page(sorted(tags, key=lambda t: t.number), blocks)])


def palette_tiff(indices: np.ndarray, colours: np.ndarray) -> Tiff:
    """Return a page whose pixels are indices into `colours`, uint8 [256, 3]."""
    made = tiff(indices, 3)
    made.pages[0].tags.append(tag("<", PALETTE, 3, *(colours.T.astype(int) * 257).ravel().tolist()))
    made.pages[0].tags.sort(key=lambda t: t.number)
    return made


def split_jpeg(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Return (marker, payload, entropy-coded bytes behind it) of every segment but the start and the end."""
    segments, at = [], 2
    while data[at + 1] != 0xD9:
        (size,) = struct.unpack_from(">H", data, at + 2)
        behind = at + 2 + size
        end = behind
        while data[end] != 0xFF or data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
            end += 1
        segments.append((data[at + 1], data[at + 4 : behind], data[behind:end]))
        at = end
    return segments


def join_jpeg(segments: list[tuple[int, bytes, bytes]]) -> bytes:
    parts = [b"\xff" + bytes([m]) + struct.pack(">H", len(p) + 2) + p + entropy for m, p, entropy in segments]
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def exif(orientation: int) -> tuple[int, bytes, bytes]:
    """Return the JPEG segment that tells viewers to turn the picture."""
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
    return 0xE1, body, b""


def bmp(width: int, height: int, bits: int, body: bytes, palette: bytes = b"", compression: int = 0) -> bytes:
    """Return a BMP with the 40-byte header; `palette`: 4 bytes a colour (for `compression` 3: the masks)."""
    at = 54 + len(palette)
    colours = 0 if compression == 3 else len(palette) // 4
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 2835, 2835, colours, 0)
    return b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at) + sizes + palette + body


def encode(ending: str, pixels: np.ndarray, *options: int) -> bytes:
    """Return the file that OpenCV writes; channels in BGR order."""
    fine, data = cv2.imencode(ending, pixels, options)
    assert fine
    return bytes(data.tobytes())
