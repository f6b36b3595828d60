import numpy as np

from segport.regions import Regions, measure_regions


def empty(height: int = 40, width: int = 60) -> np.ndarray:
    return np.zeros((height, width), np.uint8)


def test_empty_mask_has_no_region_no_box_and_no_centroid() -> None:
    assert measure_regions(empty()) == Regions(components=0, largest=0, box=None, centroid=None)


def test_rectangle_has_its_own_box_and_the_mean_of_its_pixels_as_centroid() -> None:
    mask = empty()
    mask[10:14, 30:41] = 255
    assert measure_regions(mask) == Regions(components=1, largest=44, box=(30, 10, 11, 4), centroid=(35.0, 11.5))


def test_full_mask_reaches_from_corner_to_corner() -> None:
    expected = Regions(components=1, largest=2400, box=(0, 0, 60, 40), centroid=(29.5, 19.5))
    assert measure_regions(empty() + np.uint8(1)) == expected


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    mask = empty()
    mask[5, 5] = mask[6, 6] = 1
    assert measure_regions(mask) == Regions(components=1, largest=2, box=(5, 5, 2, 2), centroid=(5.5, 5.5))


def test_of_several_regions_the_largest_is_measured_and_all_are_in_box_and_centroid() -> None:
    mask = empty()
    mask[0, 0] = mask[39, 59] = 255
    mask[20:22, 10:13] = 255
    found = measure_regions(mask)
    assert (found.components, found.largest, found.box) == (3, 6, (0, 0, 60, 40))
    assert found.centroid == (125 / 8, 162 / 8)


def test_random_masks_give_what_numpy_gives() -> None:
    rng = np.random.default_rng(0)
    for density in (0.001, 0.02, 0.3, 0.9):
        mask = np.where(rng.random((90, 70)) < density, np.uint8(255), np.uint8(0))
        y, x = np.nonzero(mask)
        found = measure_regions(mask)
        assert found.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
        np.testing.assert_allclose(found.centroid, (x.mean(), y.mean()), rtol=0, atol=1e-9)


def test_part_of_a_larger_array_is_measured_as_its_copy_and_not_changed() -> None:
    whole = np.random.default_rng(1).integers(0, 2, (80, 80), np.uint8)
    before = whole.copy()
    part = whole[::2, 10:50]
    assert measure_regions(part) == measure_regions(part.copy())
    assert (whole == before).all()
