"""Stacks of slices that show the component rule: a head, a tumour, a second lesion that stays, a speck that goes."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers import read, write

SLICES, SIDE = 12, 64
TUMOUR, SECOND, SPECK = 6 * 256, 4 * 64, 2 * 16  # pixels: the second lesion has a sixth, the speck a fiftieth


def write_head(folder: Path, seed: int = 0, first: int = 1, prefix: str = "") -> Path:
    """Write slices of a head with a tumour, a second lesion, and a speck in the last two; return the folder."""
    texture = np.random.default_rng(seed).integers(0, 100, (8, 8, 3)).astype(np.uint8)
    for n in range(SLICES):
        pixels = np.kron(texture, np.ones((8, 8, 1), np.uint8))
        if 2 <= n < 8:
            pixels[8:24, 8:24, 1] = 220
        if 3 <= n < 7:
            pixels[40:48, 40:48, 1] = 220
        if n >= SLICES - 2:
            pixels[52:56, 8:12, 1] = 220
        write(folder / f"{prefix or folder.name}_{n + first}.png", pixels)
    return folder


def masks(out: Path) -> dict[str, NDArray[Any]]:
    """Return the masks of an output folder by their file's name."""
    return {p.name: read(p) for p in sorted(out.rglob("*_mask.png"))}


def total(out: Path) -> int:
    """Return how many pixels all masks mark."""
    return sum(int((mask > 0).sum()) for mask in masks(out).values())
