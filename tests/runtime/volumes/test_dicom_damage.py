"""Damaged files: whatever bytes are wrong, a series is read or refused, and nothing is printed."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from dicom_phantoms import enhanced, phantom, save, series
from segport.errors import SliceError
from segport.volumes.case import ModelName
from segport.volumes.dicom_cases import find_dicom_cases

ROUNDS = 30
MODEL = ModelName("tiny.onnx", "ab" * 32)


def outcome(root: Path) -> str:
    """Go the whole way with a tree; return what became of it."""
    listing = find_dicom_cases(root, [p.relative_to(root) for p in root.rglob("*")])
    if not listing.cases:
        return "left out"
    if listing.cases[0].problem:
        return "problem"
    try:
        volume = listing.cases[0].read("flair")
        listing.cases[0].encode(np.ones(volume.voxels.shape, np.uint8), None, MODEL)
    except SliceError:
        return "refused"
    return "read"


@pytest.mark.parametrize("kind", ["classic", "enhanced", RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("part", ["anywhere", "header", "pixels", "cut"])
def test_damage_is_refused_or_read_over(
    tmp_path: Path, kind: str, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(3)
    slices = [enhanced(phantom(2))] if kind == "enhanced" else series(phantom(1))
    (path,) = save(tmp_path, slices, syntax=kind if kind.startswith("1") else "")
    data = path.read_bytes()
    pixels = data.index(b"\xe0\x7f\x10\x00")
    first, last = {"header": (132, pixels), "pixels": (pixels, len(data))}.get(part, (0, len(data)))
    outcomes = set()
    for _ in range(ROUNDS):
        damaged = bytearray(data)
        for at in random.integers(first, last, random.integers(1, 20)):
            damaged[at] = random.integers(256)
        path.write_bytes(damaged[: random.integers(last)] if part == "cut" else damaged)
        outcomes.add(outcome(tmp_path))
    assert outcomes <= {"read", "refused", "problem", "left out"}
    assert part == "pixels" or len(outcomes) > 1  # pixels that are not compressed hold no checksum
    assert capfd.readouterr() == ("", "")
