"""Connected components of a mask in three dimensions, in cubic millimetres."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

TOUCHING = np.ones((3, 3, 3), np.uint8)  # at a face, an edge or a corner


@dataclass(frozen=True)
class Components:
    """What a mask holds, in mm3 except `count`. Components touch at a face, an edge or a corner (26-connected)."""

    count: int = 0
    volume: float = 0.0
    largest: float = 0.0


def keep_components(
    mask: NDArray[np.uint8], voxel_volume: float, smallest: float = 0.0
) -> tuple[NDArray[np.uint8], Components]:
    """Return the mask, [slices, height, width] of 0 and 255, without components below `smallest` mm3, and what is left.

    `voxel_volume`: of one voxel, in mm3.
    """
    labels, count = label(mask, TOUCHING)
    if count == 0:
        return mask, Components()
    volumes = np.bincount(labels.ravel())[1:] * voxel_volume
    kept = volumes >= smallest
    if not kept.any():
        return np.zeros_like(mask), Components()
    left = mask if kept.all() else np.where(np.concatenate([[False], kept])[labels], mask, 0).astype(np.uint8)
    return left, Components(int(kept.sum()), float(volumes[kept].sum()), float(volumes[kept].max()))
