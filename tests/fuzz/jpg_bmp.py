"""JPEGs with damaged segments, and BMPs with damaged fields and bodies."""

import struct
from collections.abc import Callable

from fuzz import files
from fuzz.damage import Rng, number, shuffle, smudge


def broken_jpg(base: Callable[[], bytes]) -> Callable[[Rng], bytes]:
    def broken(rng: Rng) -> bytes:
        segments = files.split_jpeg(base())
        for _ in range(rng.choice([1, 1, 2, 3])):
            rng.choice([_jpg_frame, _jpg_frame, _jpg_segment, _jpg_scan, _jpg_scan, _jpg_extra, shuffle])(rng, segments)
        return files.join_jpeg(segments)

    return broken


def _jpg_frame(rng: Rng, segments: list) -> None:
    """Change the frame header: its kind, precision, size, number of components, sampling, tables."""
    place = next((i for i, s in enumerate(segments) if 0xC0 <= s[0] <= 0xCF and s[0] not in {0xC4, 0xC8, 0xCC}), None)
    if place is None or len(segments[place][1]) < 9:
        return
    marker, payload, entropy = segments[place]
    body, how = bytearray(payload), rng.randrange(5)
    if how == 0:
        marker = rng.choice([0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB])
    elif how == 1:
        body[0] = rng.choice([0, 1, 2, 8, 10, 12, 16, 255])
    elif how == 2:
        struct.pack_into(">H", body, rng.choice([1, 3]), number(rng, 16))
    elif how == 3:
        body[5] = rng.choice([0, 1, 2, 3, 4, 5, 255])
        body += bytes([9, 0x11, 0]) * rng.choice([0, 1])
    else:
        body[rng.randrange(6, len(body))] = rng.choice([0, 1, 0x11, 0x12, 0x21, 0x22, 0x41, 0x14, 0x44, 0x33, 0xFF])
    segments[place] = (marker, bytes(body), entropy)


def _jpg_segment(rng: Rng, segments: list) -> None:
    if segments:
        i = rng.randrange(len(segments))
        marker, payload, entropy = segments[i]
        segments[i] = (rng.choice([marker, marker, marker, rng.randrange(0xC0, 0xFF)]), smudge(rng, payload), entropy)


def _jpg_scan(rng: Rng, segments: list) -> None:
    scans = [i for i, s in enumerate(segments) if s[0] == 0xDA]
    if scans:
        i = rng.choice(scans)
        marker, payload, entropy = segments[i]
        at = rng.randrange(len(entropy) + 1)
        inside = rng.choice([b"", b"", bytes([0xFF, rng.randrange(0xD0, 0xDA)]), b"\xff\xff", b"\0" * 40])
        segments[i] = (marker, payload, entropy[:at] + inside + smudge(rng, entropy[at:]))
        segments[i + 1 : i + 1] = [segments[i]] * rng.choice([0, 0, 0, 1, 150])


def _jpg_extra(rng: Rng, segments: list) -> None:
    extra = [
        files.exif(rng.randrange(10)), (0xE1, smudge(rng, files.exif(6)[1]), b""), (0xDD, rng.randbytes(2), b""),
        (0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([rng.randrange(4)]), b""),
        (0xFE, rng.randbytes(9), b""), (0xDC, rng.randbytes(2), b""),
    ]  # fmt: skip
    segments.insert(rng.randrange(len(segments) + 1), rng.choice(extra))


def broken_bmp(base: Callable[[], bytes]) -> Callable[[Rng], bytes]:
    def broken(rng: Rng) -> bytes:
        data = bytearray(base())
        for _ in range(rng.choice([1, 1, 2, 3])):
            place, kind = rng.choice(list(files.BMP_FIELDS.values()))
            value = number(rng, 8 * struct.calcsize(kind) - 1)
            if place == files.BMP_FIELDS["header"][0]:
                value = rng.choice([0, 12, 16, 40, 52, 56, 64, 108, 124, 2**31 - 1])
            elif place == files.BMP_FIELDS["compression"][0]:
                value = rng.choice([0, 1, 2, 3, 4, 5, 6, 255])
            elif place == files.BMP_FIELDS["bits"][0]:
                value = rng.choice([0, 1, 2, 4, 8, 15, 16, 24, 32, 64])
            elif kind == "<i" and rng.random() < 0.5:
                value = rng.choice([-24, -1, -(2**31), -20])
            struct.pack_into(kind, data, place, value)
        if rng.random() < 0.4:
            at = rng.choice([54, len(data) // 2])
            data[at:] = smudge(rng, bytes(data[at:]))
        return bytes(data)

    return broken
