"""Components in three dimensions: what touches, how many pixels they have, and which regions go with them."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segport.components import Components, connect, keep_regions

TOUCHING = np.ones((3, 3, 3))


def keep_large(masks: NDArray[np.uint8], smallest: int) -> NDArray[np.uint8]:
    components = connect(masks)
    pairs = zip(masks, components.regions, strict=True)
    return np.stack([keep_regions(one, (components.pixels >= smallest)[regions]) for one, regions in pairs])


def test_components_touch_at_corners_and_across_slices() -> None:
    masks = np.zeros((4, 6, 6), np.uint8)
    masks[0, 0, 0] = masks[1, 1, 1] = 255  # touch at a corner, across two slices
    masks[3, 4:6, 4:6] = 255  # a slice without any lies between
    found = connect(masks)
    assert sorted(found.pixels) == [2, 4]
    assert [len(regions) for regions in found.regions] == [1, 1, 0, 1]
    assert found.regions[0] == found.regions[1] != found.regions[3]


def test_two_regions_of_a_slice_may_be_one_component() -> None:
    masks = np.zeros((2, 9, 9), np.uint8)
    masks[0, 2, 2:4] = masks[0, 2, 6] = 255
    masks[1, 2, 2:7] = 255
    masks[1, 8, 8] = 255
    assert sorted(connect(masks).pixels) == [1, 8]


def test_small_components_go_with_all_their_regions_and_the_argument_stays() -> None:
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[:, :3, :3] = 255  # 18 pixels
    masks[:, 6, 6] = 255
    before = masks.copy()
    kept = keep_large(masks, 3)
    assert not kept[:, 6, 6].any()
    assert kept[:, :3, :3].all()
    assert (keep_large(masks, 2) == masks).all()
    assert not keep_large(masks, 19).any()
    assert (masks == before).all()


def test_large_is_from_a_share_of_the_largest_on() -> None:
    components = Components(np.array([20, 2, 1]), ())
    assert components.are_large(0.1).tolist() == [True, True, False]
    assert components.are_large(0).all()
    assert components.are_large(1).tolist() == [True, False, False]


def test_masks_without_tumour_have_none() -> None:
    empty = connect(np.zeros((2, 3, 3), np.uint8))
    assert empty.pixels.size == 0
    assert [regions.size for regions in empty.regions] == [0, 0]
    assert connect([]).regions == ()


def test_they_are_those_of_scipy() -> None:
    chance = np.random.default_rng(3)
    for density in (0.02, 0.1, 0.2, 0.4):
        masks = (chance.random((7, 40, 30)) < density).astype(np.uint8) * np.uint8(255)
        labels, _ = ndimage.label(masks, TOUCHING)
        sizes = np.bincount(labels.ravel())[1:]
        assert sorted(connect(masks).pixels) == sorted(sizes)
        kept = np.concatenate([[False], sizes >= 3])[labels]
        assert (keep_large(masks, 3) == masks * kept).all()
