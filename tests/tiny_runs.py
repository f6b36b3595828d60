"""Runs of seg-train on four patients of four slices, which take seconds."""

import csv
from pathlib import Path

from helpers import square, write
from segport_train.cli import main

OPTIONS = (
    "--size 32 --output-stride 16 --epochs 3 --batch-size 4 --optimizer adamw --loss bce-dice --seed 4 --device cpu"
)


def write_patients(folder: Path) -> Path:
    """Write four patients of four slices, two of them with tumour; return the folder."""
    for p in range(4):
        for n in range(1, 5):
            write(folder / f"p{p}/p{p}_{n}.png", square(32, low=8, high=24, value=50 * n + p))
            write(folder / f"p{p}/p{p}_{n}_mask.png", square(32, low=8, high=24 if n > 2 else 8)[..., 1])
    return folder


def train(data: Path, out: Path, *more: str) -> int:
    """Run seg-train with these options and more; return its exit code."""
    return main([str(data), "--out", str(out), *OPTIONS.split(), *more])


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
