"""What damages any format: numbers at the edges, bytes changed, lost and added, parts dropped, doubled and moved."""

import random

Rng = random.Random
NUMBERS = [
    *range(6), 7, 8, 9, 12, 14, 16, 17, 20, 24, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 257, 1000, 4095, 9999,
    10001, 32767, 32768, 65535, 65536, 2**20, 2**20 + 1, 2**24, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**63,
]  # fmt: skip


def scar(rng: Rng, data: bytes) -> bytes:
    """Cut, flip, take out or put in bytes, in about a third of all cases."""
    out, at = bytearray(data), rng.randrange(len(data))
    how = rng.choice(["cut", "cut", "flip", "flip", "take", "put", *["leave"] * 11])
    if how == "cut":
        del out[max(1, at) :]
    elif how == "flip":
        for _ in range(rng.choice([1, 1, 2, 8])):
            out[rng.randrange(len(out))] = rng.randrange(256)
    elif how == "take":
        del out[at : at + rng.choice([1, 2, 4, 64])]
    elif how == "put":
        out[at:at] = rng.randbytes(rng.choice([1, 2, 4, 64]))
    return bytes(out) or b"\0"


def number(rng: Rng, bits: int) -> int:
    return rng.choice([n for n in NUMBERS if n < 2**bits])


def smudge(rng: Rng, data: bytes) -> bytes:
    """Return bytes with some changed, lost or added."""
    out = bytearray(data)
    how = rng.randrange(4)
    if how == 0 and out:
        for _ in range(rng.choice([1, 2, 16])):
            out[rng.randrange(len(out))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif how == 1:
        del out[rng.randrange(len(out) + 1) :]
    elif how == 2:
        out += rng.randbytes(rng.choice([1, 7, 300]))
    else:
        return rng.randbytes(len(out))
    return bytes(out)


def shuffle(rng: Rng, parts: list) -> None:
    """Drop, double or move one part of a file."""
    if parts:
        i, how = rng.randrange(len(parts)), rng.randrange(3)
        part = parts.pop(i) if how != 1 else parts[i]
        if how:
            parts.insert(rng.randrange(len(parts) + 1), part)
