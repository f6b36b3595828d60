import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from segport.overlay import PREDICTED, TRUTH, draw_heat, draw_outlines
from segport.sheet import MOST_TILES, TILE, choose_slices, contact_sheet, draw_tile


def plain(value: int, height: int = 256, width: int = 256) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    return sheet[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]


def shows(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=-1).any())


def test_heat_shows_the_slice_where_nothing_is_likely_and_red_where_tumour_is_certain() -> None:
    display = np.random.default_rng(0).integers(0, 200, (256, 256, 3), np.uint8)
    probability = np.zeros((256, 256), np.float32)
    probability[100:150, 50:90] = 1
    before = display.copy()
    drawn, bare = draw_heat(display, probability), draw_outlines(display, np.zeros((256, 256), np.uint8))
    assert drawn.shape == (512, 512, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[:190] == bare[:190]).all()
    red, green, blue = drawn[210:290, 110:170].reshape(-1, 3).mean(axis=0)
    assert red > green + 20
    assert red > blue + 20
    assert (display == before).all()


def test_heat_gives_every_probability_its_colour_and_fades_below_half() -> None:
    black = plain(0, 256, 255)
    probability = np.repeat(np.linspace(0, 1, 255, dtype=np.float32)[None], 256, axis=0)
    row = draw_heat(black, probability)[256, ::2].astype(int)
    assert row[0].tolist() == [0, 0, 0]
    assert row[30:60, 2].min() > row[30:60, 0].max()  # blue where unlikely
    assert row[127].argmax() == 1  # green at one half
    assert row[250].argmax() == 0  # red where certain
    assert row[40].sum() < row[120].sum()


def test_heat_leaves_tissue_visible_below_certain_tumour() -> None:
    dark = draw_heat(plain(0), np.ones((256, 256), np.float32))
    bright = draw_heat(plain(255), np.ones((256, 256), np.float32))
    assert (bright.astype(int) - dark).min() == pytest.approx(0.4 * 255, abs=1)


def test_tile_keeps_both_outlines_in_full_colour() -> None:
    mask, truth = np.zeros((256, 256), np.uint8), np.zeros((256, 256), np.uint8)
    mask[60:120, 60:120], truth[150:200, 150:200] = 255, 1
    drawn = draw_tile(plain(90), mask, truth)
    assert drawn.shape == (128, 128, 3)
    assert tuple(drawn[30, 45]) == PREDICTED
    assert tuple(drawn[75, 90]) == TRUTH
    assert drawn[45, 45].tolist() == [90, 90, 90]
    assert not shows(draw_tile(plain(90), mask), TRUTH)


def test_single_tumour_pixel_of_a_large_slice_is_seen_on_its_tile() -> None:
    mask = np.zeros((2000, 1500), np.uint8)
    mask[1001, 701] = 255
    drawn = draw_tile(plain(90, 2000, 1500), mask)
    assert drawn.shape == (128, 96, 3)
    assert np.argwhere((drawn == PREDICTED).all(axis=-1)).tolist() == [[64, 44]]


def test_tile_does_not_change_a_small_slice() -> None:
    display = plain(90, 20, 30)
    drawn = draw_tile(display, np.ones((20, 30), np.uint8))
    assert drawn.shape == (20, 30, 3)
    assert (display == 90).all()


def test_pictures_stand_in_reading_order_on_a_nearly_square_grid() -> None:
    sheet = contact_sheet([plain(40 * i) for i in range(1, 6)], list("12345"))
    assert sheet.shape == (2 * TILE, 3 * TILE, 3)
    centres = [[int(tile(sheet, r, c)[64, 64, 0]) for c in range(3)] for r in range(2)]
    assert centres == [[40, 80, 120], [160, 200, 0]]


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (2, (1, 2)), (12, (3, 4)), (13, (4, 4)), (144, (12, 12))])
def test_grid_is_as_square_as_it_can_be(count: int, grid: tuple[int, int]) -> None:
    sheet = contact_sheet((plain(9, 16, 16) for _ in range(count)), [""] * count)
    assert sheet.shape == (grid[0] * TILE, grid[1] * TILE, 3)


def test_pictures_keep_their_shape_with_black_beside_them_and_small_ones_their_size() -> None:
    wide, small = contact_sheet([plain(200, 128, 512)], [""]), contact_sheet([plain(200, 20, 30)], [""])
    assert np.argwhere(wide[..., 0] == 200).min(axis=0).tolist() == [48, 0]
    assert np.count_nonzero(wide[..., 0] == 200) == 32 * 128
    assert np.count_nonzero(small[..., 0] == 200) == 20 * 30


def test_label_is_readable_on_black_and_on_white_and_stays_in_its_corner() -> None:
    sheet = contact_sheet([plain(0), plain(255)], ["17", "8"])
    black, white = tile(sheet, 0, 0), tile(sheet, 0, 1)
    assert black[:20, :40].max() > 200
    assert white[:20, :40].min() < 100
    assert black[20:].max() == 0
    assert white[20:].min() == 255
    blank = contact_sheet([plain(0), plain(255)], ["", ""])
    assert (tile(blank, 0, 0) == 0).all()


def test_pictures_are_taken_one_at_a_time() -> None:
    loaded: list[weakref.ref[np.ndarray]] = []

    def pictures() -> Iterator[np.ndarray]:
        for i in range(9):
            assert sum(earlier() is not None for earlier in loaded) <= 2
            picture = plain(i)
            loaded.append(weakref.ref(picture))
            yield picture
            del picture

    contact_sheet(pictures(), [""] * 9)
    assert len(loaded) == 9


def test_up_to_144_slices_are_all_shown_and_of_more_evenly_spaced_ones() -> None:
    assert choose_slices(0) == []
    assert choose_slices(1) == [0]
    assert choose_slices(144) == list(range(144))
    for count in (145, 200, 10_000):
        chosen = choose_slices(count)
        steps = np.diff(chosen)
        assert len(chosen) == MOST_TILES
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        assert steps.min() >= 1
        assert np.ptp(steps) <= 1


def test_sheets_without_pictures_or_with_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="shows 1 to 144 pictures, got 0 labels"):
        contact_sheet([], [])
    with pytest.raises(ValueError, match="shows 1 to 144 pictures, got 145 labels"):
        contact_sheet([], [""] * 145)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        contact_sheet([plain(1)], ["1", "2"])
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        contact_sheet([plain(1), plain(2)], ["1"])
