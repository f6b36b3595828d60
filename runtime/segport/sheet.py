"""Contact sheets: the slices of a patient side by side, small."""

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.overlay import PREDICTED, TRUTH, draw_outline

TILE = 128  # pixels; 12 x 12 tiles make a sheet of 1536 x 1536 pixels (7 MB in memory)
MOST_TILES = 144


def choose_slices(count: int, most: int = MOST_TILES) -> list[int]:
    """Return the indices in 0..count-1 that a sheet shows: all up to `most`, else so many evenly spaced, both ends too.

    The length of the list is how many of the `count` slices the sheet shows.
    """
    shown = min(count, most)
    return [i * (count - 1) // max(shown - 1, 1) for i in range(shown)]


def draw_tile(
    display: NDArray[np.uint8], mask: NDArray[np.uint8], truth: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return a slice as one tile, uint8 RGB of at most 128 pixels a side, outlines as `draw_outlines` draws them.

    `display`: uint8 RGB [H, W, 3]. `mask`, `truth`: [H, W], above 0 is tumour. Outlines are drawn on the small
    picture: in a shrunk overlay they would fade.
    """
    tile = _shrink(display)
    for area, colour in ((truth, TRUTH), (mask, PREDICTED)):
        if area is not None:
            draw_outline(tile, area, colour)
    return tile


def contact_sheet(pictures: Iterable[NDArray[np.uint8]], labels: Sequence[str]) -> NDArray[np.uint8]:
    """Return pictures as one, uint8 RGB, in reading order on a grid that is as square as it can be.

    `pictures`: one a label, uint8 RGB [H, W, 3], taken one at a time, so that a generator that loads them keeps
    memory at the sheet and two pictures. Larger ones than 128 pixels are shrunk, their shape kept; around them is
    black. `labels`: drawn in the corner, such as the slice's number. Raises ValueError without labels, for more than
    144 (see `choose_slices`), and when there are not as many pictures.
    """
    if not 0 < len(labels) <= MOST_TILES:
        raise ValueError(f"a contact sheet shows 1 to {MOST_TILES} pictures, got {len(labels)} labels")
    columns = math.ceil(math.sqrt(len(labels)))
    rows = math.ceil(len(labels) / columns)
    sheet = np.zeros((rows * TILE, columns * TILE, 3), np.uint8)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        tile = _shrink(picture)
        row, column = divmod(i, columns)
        top, left = row * TILE + (TILE - tile.shape[0]) // 2, column * TILE + (TILE - tile.shape[1]) // 2
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        corner = (column * TILE + 3, row * TILE + 13)
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # an edge, to be read on bright tissue
            cv2.putText(sheet, label, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA)
    return sheet


def _shrink(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy of at most 128 pixels a side."""
    height, width = picture.shape[:2]
    factor = min(1.0, TILE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
