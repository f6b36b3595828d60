"""Output folders as a test sees them from outside: which files are there, whole, and named by the ledger."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from helpers import infer, square, write

PICTURES = ("_mask.png", "_overlay.png", "_probability.png", "_heat.png", "_sheet.png")
PNG_END = b"IEND\xaeB`\x82"
NOT_COMPARED = {"run.json", "ledger.jsonl"}  # they hold times


def write_slices(folder: Path, per_patient: int, *, patients: int = 4) -> int:
    """Write patients whose slices all differ, the second one's of 16 bits, with true masks; return how many slices."""
    noise = np.random.default_rng(5)
    for p in range(patients):
        for n in range(1, per_patient + 1):
            pixels = square(48, low=4 + n % 9, high=30 + p, value=120 + n)
            pixels += np.kron(noise.integers(0, 60, (6, 6, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            write(folder / f"p{p}/p{p}_{n}.png", pixels.astype(np.uint16) * 91 if p == 1 else pixels)
            write(folder / f"p{p}/p{p}_{n}_mask.png", square(48)[..., 1])
    return patients * per_patient


def contents(out: Path) -> dict[str, bytes]:
    """Return the files that two runs over the same slices must agree on."""
    files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file() and p.parent.name != ".segport"}
    return {name: path.read_bytes() for name, path in files.items() if name not in NOT_COMPARED}


def named_hashes(out: Path) -> dict[str, set[str]]:
    """Return the hashes that whole lines of the ledger give for each file; a torn last line is none."""
    found: dict[str, set[str]] = defaultdict(set)
    lines = (out / "ledger.jsonl").read_bytes().split(b"\n")[:-1] if (out / "ledger.jsonl").exists() else []
    for document in map(json.loads, lines):
        for ending, stamp in document.get("outputs", {}).items():
            stem = document["stem"]
            found[stem.removeprefix("//") if ending == "_sheet.png" else stem + ending].add(stamp["sha256"])
    return found


def check_whole(out: Path) -> int:
    """Assert that every picture is whole and named by the ledger with its hash, and that nothing lies about.

    Return how many masks there are.
    """
    named, masks = named_hashes(out), 0
    for name, data in contents(out).items():
        if name in ("summary.csv", "patients.csv"):
            assert data.endswith(b"\n"), name
            continue
        assert name.endswith(PICTURES), f"{name} lies in the output folder"
        assert data.endswith(PNG_END), f"{name} is not whole"
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is not None
        assert hashlib.sha256(data).hexdigest() in named[name], f"no line of the ledger names {name}"
        masks += name.endswith("_mask.png")
    return masks


def segment_three(root: Path) -> Path:
    """Write `in`, three slices with true masks of two patients, and segment it to `in-masks`; return `root`."""
    for name in ("a_1", "a_2", "b_1"):
        write(root / f"in/{name}.png", square(value=200 if name != "a_2" else 150))
        write(root / f"in/{name}_mask.png", square()[..., 1])
    assert infer(root / "in") == 0
    return root


def times(folder: Path) -> dict[str, int]:
    """Return when each picture below the folder was written, by its name."""
    return {p.name: p.stat().st_mtime_ns for p in folder.rglob("*_*.png")}
