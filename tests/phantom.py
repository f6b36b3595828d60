"""An asymmetric phantom whose lesion the tiny model finds, stored in any order."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Order = tuple[tuple[int, ...], tuple[int, ...]]
ORDERS: list[Order] = list(product(permutations(range(3)), product((1, -1), repeat=3)))  # all 48
SHAPE = (32, 24, 10)  # along the patient's left-right, back-front and feet-head axes
SPACING = (1.0, 1.25, 4.0)
LESION = (slice(4, 10), slice(14, 20), slice(6, 8))  # left of the middle, in front, near the head
OBLIQUE = nib.eulerangles.euler2mat(0.25, -0.15, 0.2)


def phantom(lesion: int = 220) -> NDArray[np.uint8]:
    """Return FLAIR voxels in RAS order: a dark ellipsoid with a bright lesion."""
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    voxels = np.where((places**2).sum(axis=0) < 1, 70, 0).astype(np.uint8)
    voxels[LESION] = lesion
    return voxels


def stored(order: Order, *, oblique: bool = False, lesion: int = 220) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the phantom, array axis k along world axis order[0][k] in direction order[1][k], and its affine."""
    affine = np.eye(4)
    affine[:3, :3] = (OBLIQUE if oblique else np.eye(3)) * SPACING
    affine[:3, 3] = (-15, 40, 7)
    axes, signs = order
    voxels = phantom(lesion).transpose(axes)
    turned = np.eye(4)[:, [*axes, 3]]  # of the stored array's axes, to RAS order
    for k, sign in enumerate(signs):
        if sign < 0:
            voxels = np.flip(voxels, k)
            turned[:, 3] += turned[:, k] * (voxels.shape[k] - 1)
            turned[:, k] *= -1
    return np.ascontiguousarray(voxels), affine @ turned


def centre(mask: NDArray[np.generic], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean place of a mask's voxels in mm, RAS+."""
    found = np.argwhere(mask > 0).mean(axis=0)  # type: ignore[operator]
    return np.asarray(affine[:3, :3] @ found + affine[:3, 3])


def save(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64]) -> Path:
    """Write a NIfTI file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path
