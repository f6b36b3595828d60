"""PNGs with damaged parts and right checksums."""

import struct
import zlib
from collections.abc import Callable

from fuzz import files
from fuzz.damage import Rng, number, shuffle, smudge
from fuzz.files import Chunk


def broken_png(base: Callable[[], list[Chunk]]) -> Callable[[Rng], bytes]:
    def broken(rng: Rng) -> bytes:
        chunks = base()
        for _ in range(rng.choice([1, 1, 2, 3])):
            rng.choice([_png_header, _png_header, _png_chunk, _png_pixels, _png_pixels, _png_extra, shuffle])(
                rng, chunks
            )
        return files.join_png(chunks)

    return broken


def _png_header(rng: Rng, chunks: list[Chunk]) -> None:
    if not chunks or len(chunks[0].body) != 13:
        return
    fields = list(struct.unpack(">IIBBBBB", chunks[0].body))
    i = rng.choice([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 6])
    fields[i] = number(rng, 32) if i < 2 else rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])
    chunks[0].body = struct.pack(">IIBBBBB", *fields)


def _png_chunk(rng: Rng, chunks: list[Chunk]) -> None:
    if not chunks:
        return
    chunk, how = rng.choice(chunks), rng.randrange(4)
    if how == 0:
        chunk.size = number(rng, 32)
    elif how == 1:
        chunk.kind = rng.choice([b"IDAT", b"PLTE", b"tRNS", b"XXXX", b"idat", b"IEND", b"fdAT", rng.randbytes(4)])
    elif how == 2:
        chunk.checksum = rng.getrandbits(32)
    else:
        chunk.body = smudge(rng, chunk.body)


def _png_pixels(rng: Rng, chunks: list[Chunk]) -> None:
    """Deflate rows anew: too few, too many, damaged, or split over two chunks."""
    place = next((i for i, c in enumerate(chunks) if c.kind == b"IDAT"), None)
    if place is None:
        return
    how = rng.randrange(4)
    if how == 0:
        body = zlib.compress(rng.randbytes(rng.choice([0, 1, 60, 61, 400, 1464, 3000, 200_000])), rng.choice([0, 9]))
    elif how == 1:
        body = zlib.compress(bytes(rng.choice([10, 5_000, 2_000_000])))
    elif how == 2:
        body = smudge(rng, chunks[place].body)
    else:
        half = rng.randrange(len(chunks[place].body) + 1)
        chunks.insert(place, Chunk(b"IDAT", chunks[place].body[:half]))
        place, body = place + 1, chunks[place].body[half:] if len(chunks) > place else b""
    chunks[place].body = body


def _png_extra(rng: Rng, chunks: list[Chunk]) -> None:
    kind = rng.choice(
        [b"PLTE", b"PLTE", b"tRNS", b"tRNS", b"acTL", b"fcTL", b"iCCP", b"zTXt", b"gAMA", b"sBIT", b"eXIf"]
    )
    size = rng.choice([0, 1, 2, 3, 4, 6, 8, 26, 96, 256, 768, 771])
    body = b"name\0\0" + zlib.compress(bytes(100_000)) if kind in {b"iCCP", b"zTXt"} else rng.randbytes(size)
    if kind == b"acTL":
        body = struct.pack(">II", rng.choice([0, 1, 1, 2, 2**32 - 1]), 0)
    if kind == b"fcTL":
        body = struct.pack(">IIIIIHHBB", 0, *(number(rng, 32) for _ in range(4)), 1, 1, rng.randrange(4), 0)
    chunks.insert(rng.randrange(len(chunks) + 1), Chunk(kind, body))
