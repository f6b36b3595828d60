"""The area of tumour over the slices of a patient, as SVG paths in a box of `len(facts)` by 100."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segport.entry import Found
from segport.report.view import SliceFacts

HEIGHT = 100


@dataclass(frozen=True, slots=True)
class Curve:
    """Paths of the mask's area, closed to be filled, and of the truth's, a line; empty where there is none.

    `marks`: a tick below each slice that needs eyes. `width`: slices. `most`: pixels at the top of the box.
    """

    mask: str
    truth: str
    marks: str
    width: int
    most: int


def draw_curve(facts: Sequence[SliceFacts], doubtful: Sequence[int]) -> Curve:
    """Return the curve of a patient. `doubtful`: the places of slices that need eyes."""
    masks, truths = _areas(facts, lambda f: f.tumour_pixels), _areas(facts, _true_area)
    most = max([1, *masks, *truths])
    line = _line(masks, most)
    return Curve(
        mask=f"M0 {HEIGHT}{line}V{HEIGHT}z" if any(masks) else "",
        truth=f"M{_line(truths, most)[1:]}" if any(truths) else "",
        marks="".join(f"M{position} {HEIGHT}h1" for position in doubtful),
        width=len(facts),
        most=most,
    )


def _areas(facts: Sequence[SliceFacts], area: Callable[[Found], int]) -> list[int]:
    return [0 if one.found is None else area(one.found) for one in facts]


def _true_area(found: Found) -> int:
    return found.agreement.counts.tumour_pixels if found.agreement is not None else 0


def _line(areas: Sequence[int], most: int) -> str:
    """Return a line as steps: a slice is a column of the curve, as wide as its place on the slider."""
    steps, before = [f"L0 {_y(areas[0], most)}"], areas[0]
    for position, area in enumerate(areas):
        if area != before:
            steps.append(f"H{position}V{_y(area, most)}")
            before = area
    return "".join([*steps, f"H{len(areas)}"])


def _y(area: int, most: int) -> int:
    return HEIGHT - round(HEIGHT * area / most)
