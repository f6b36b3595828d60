"""Axial slices of volumes in any storage order: front at the top, the patient's right at the left edge, feet first."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from segport.volumes.geometry import AxialView

ORDERS = list(product(permutations(range(3)), product((1, -1), repeat=3)))  # all 48


def stored_in(order: tuple[tuple[int, ...], tuple[int, ...]]) -> NDArray[np.float64]:
    """Return an affine, axis k of the array along RAS axis order[0][k] in direction order[1][k]; 1, 2 and 3 mm."""
    axes, signs = order
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[axis, column] = sign * (1.0, 2.0, 3.0)[column]
    affine[:3, 3] = (-20, 30, 11)
    return affine


@pytest.mark.parametrize("order", ORDERS)
def test_slices_lie_as_the_network_knows_them_and_go_back(order: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    affine = stored_in(order)
    voxels = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    places = np.stack(np.meshgrid(*map(np.arange, voxels.shape), indexing="ij"))
    right, front, up = np.tensordot(affine[:3, :3], places, 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    view = AxialView(affine)
    shown = {name: view.slices(axis) for name, axis in (("right", right), ("front", front), ("up", up))}
    assert (np.diff(shown["up"], axis=0) > 0).all()  # from the feet to the head
    assert (np.diff(shown["front"], axis=1) < 0).all()  # rows go to the back
    assert (np.diff(shown["right"], axis=2) < 0).all()  # columns go to the patient's left
    assert (view.stored(view.slices(voxels)) == voxels).all()
    height, width, distance = view.spacing
    assert (height, width, distance) == tuple(np.abs(affine[:3, :3]).max(axis=1)[[1, 0, 2]])


def test_oblique_volumes_are_shown_along_the_nearest_axes() -> None:
    turned = nib.eulerangles.euler2mat(0.3, -0.2, 0.25)
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.diag([-1.0, -1.0, 4.0])
    view = AxialView(affine)
    voxels = np.arange(24).reshape(2, 3, 4)
    assert (view.slices(voxels) == voxels.transpose(2, 1, 0)).all()
    assert np.allclose(view.spacing, (1, 1, 4))
