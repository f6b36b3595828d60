"""A mask as an SVG path: along the edges of its pixels, so that it is exact at any zoom and needs no picture."""

from collections import defaultdict

import cv2
import numpy as np
from numpy.typing import NDArray

MOST_EDGES = 20_000  # 100 kB of path; the outline of a tumour has some hundreds


def outline_path(mask: NDArray[np.uint8]) -> str:
    """Return the outline of `mask`, [H, W], above 0 is inside, in pixels of the slice; empty for an empty mask.

    Every ring is closed, so the path can be filled (rule "evenodd") as well as stroked. A mask with more than
    `MOST_EDGES` edges is noise; it is drawn coarser, where a block is inside when any pixel of it is.
    """
    inside, step = mask > 0, 1
    while (edges := _edges(inside))[0].size > MOST_EDGES:
        step *= 2
        size = (-(-mask.shape[1] // step), -(-mask.shape[0] // step))
        padded = np.zeros((size[1] * step, size[0] * step), np.float32)
        padded[: mask.shape[0], : mask.shape[1]] = mask > 0
        inside = cv2.resize(padded, size, interpolation=cv2.INTER_AREA) > 0
    return _join(*edges, inside.shape[1] + 1, step)


def _edges(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where edges of one pixel start and end, the inside to their right; corner (x, y) is y * (W + 1) + x."""
    width = inside.shape[1] + 1
    padded = np.pad(inside, 1).astype(np.int8)
    across, down = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    starts, ends = [], []
    for steps, sign, (before, behind) in (
        (across, 1, (0, 1)),  # the inside begins below: to the right
        (across, -1, (1, 0)),
        (down, -1, (0, width)),  # the inside ends here: downwards
        (down, 1, (width, 0)),
    ):
        y, x = np.nonzero(steps == sign)
        starts.append(y * width + x + before)
        ends.append(y * width + x + behind)
    return np.concatenate(starts), np.concatenate(ends)


def _join(starts: NDArray[np.int64], ends: NDArray[np.int64], width: int, scale: int) -> str:
    """Return the edges as closed rings. Where two touch at a corner, either way on gives the same picture."""
    following: dict[int, list[int]] = defaultdict(list)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        following[start].append(end)
    parts: list[str] = []
    for first in sorted(following):
        while following[first]:
            corner, before, length = first, 0, 0
            parts.append(f"M{first % width * scale} {first // width * scale}")
            while following[corner]:
                after = following[corner].pop()
                if (step := after - corner) != before:
                    parts.append(_line(before, length, scale))
                    before, length = step, 0
                corner, length = after, length + 1
            parts.append("z")  # closes the last line as well
    return "".join(parts)


def _line(step: int, length: int, scale: int) -> str:
    if not length:
        return ""
    return f"{'h' if abs(step) == 1 else 'v'}{length * scale if step > 0 else -length * scale}"
