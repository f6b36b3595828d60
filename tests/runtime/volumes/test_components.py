"""Components in three dimensions: what touches, what is too small, and how large what is left is."""

import numpy as np

from segport.volumes.components import Components, keep_components


def test_components_touch_at_corners_and_across_slices() -> None:
    mask = np.zeros((4, 6, 6), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = 255  # touch at a corner, across two slices
    mask[3, 4:6, 4:6] = 255
    kept, found = keep_components(mask, 2.5)
    assert found == Components(2, 6 * 2.5, 4 * 2.5)
    assert (kept == mask).all()


def test_small_components_are_left_out_by_their_volume_in_mm3() -> None:
    mask = np.zeros((2, 8, 8), np.uint8)
    mask[:, :3, :3] = 255  # 18 voxels
    mask[0, 6, 6] = 255
    kept, found = keep_components(mask, 2.0, smallest=2.1)
    assert found == Components(1, 36.0, 36.0)
    assert kept[0, 6, 6] == 0
    assert kept[:, :3, :3].all()
    assert keep_components(mask, 2.0, smallest=2.0)[1].count == 2  # the limit itself is kept
    assert keep_components(mask, 2.0, smallest=99)[1] == Components()
    assert not keep_components(mask, 2.0, smallest=99)[0].any()
    assert mask[0, 6, 6] == 255  # the argument stays


def test_an_empty_mask_has_none() -> None:
    empty = np.zeros((2, 3, 3), np.uint8)
    assert keep_components(empty, 1.0)[1] == Components()
