"""Each rule of what needs eyes: a slice that it finds, and one just beside it that it leaves alone."""

import pytest

from segport.entry import Found
from segport.regions import Regions
from segport.report.doubts import find_doubts
from segport.report.view import SliceFacts
from segport.scoring import Agreement, Counts


def seen(area: int, number: int | None = None, probability: float = 0.95, pieces: int = 1, **more) -> SliceFacts:
    counts = more.pop("counts", None)
    agreement = Agreement(counts) if counts else None
    return SliceFacts("s", number, "written", Found((64, 64), area, probability, Regions(pieces), agreement), **more)


def reasons(*facts: SliceFacts, threshold: float = 0.5) -> dict[int, tuple[str, ...]]:
    return {doubt.position: doubt.reasons for doubt in find_doubts(facts, threshold)}


def test_an_honest_tumour_needs_no_eyes() -> None:
    assert reasons(*(seen(area, n) for n, area in enumerate((0, 40, 90, 150, 120, 60, 0)))) == {}


def test_a_slice_that_failed_or_was_not_scored_is_the_gravest() -> None:
    failed = SliceFacts("s", 1, "failed", message="is empty (0 bytes)")
    unsure = seen(30, probability=0.55)
    found = find_doubts([failed, unsure, seen(30, message="not scored: its mask is gone")], 0.5)
    assert found[0].reasons == ("no mask: is empty (0 bytes)",)
    assert found[0].weight > found[1].weight
    assert found[2].reasons == ("not scored: its mask is gone",)


def test_an_odd_slice_is_grave_where_it_has_a_mask() -> None:
    odd, wrong = ("nearly constant",), Counts(tp=0, fp=30)
    found = find_doubts([seen(0, warnings=odd), seen(30, counts=wrong), seen(30, warnings=odd)], 0.5)
    weights = {doubt.position: doubt.weight for doubt in found}
    assert weights[0] < weights[1] < weights[2]


def test_a_slice_that_lacks_a_small_component_can_be_looked_at() -> None:
    lacking = SliceFacts("s", 1, "written", Found((64, 64), 0, 0.0, Regions(), None, left_out=12))
    assert reasons(lacking) == {0: ("12 pixels left out: the component is too small",)}


def test_a_mask_of_low_probability_is_judged_by_the_threshold() -> None:
    assert reasons(seen(30, probability=0.79)) == {0: ("mean probability 0.79 in the mask (from 0.5)",)}
    assert reasons(seen(30, probability=0.81)) == {}
    assert reasons(seen(30, probability=0.81), threshold=0.7) != {}
    assert reasons(seen(0, probability=0)) == {}


def test_pieces_warnings_and_disagreement_are_said() -> None:
    assert reasons(seen(30, pieces=3)) == {0: ("the mask is in 3 pieces",)}
    assert reasons(seen(30, pieces=2)) == {}
    assert reasons(seen(0, warnings=("nearly constant",))) == {0: ("unlike the training data: nearly constant",)}
    assert reasons(seen(30, counts=Counts(tp=10, fp=20, fn=5))) == {0: ("Dice 0.44: 5 tumour pixels missed, 20 wrong",)}
    assert reasons(seen(30, counts=Counts(tp=10, fp=10, fn=5))) == {}


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        ((300, 0, 290), "no tumour, between slices with 300 and 290 pixels"),
        ((0, 45, 0), "tumour in this slice alone (45 pixels)"),
        ((300, 700, 290), "700 pixels of tumour, 300 and 290 in the slices beside it"),
        ((300, 100, 290), "100 pixels of tumour"),
        ((10, 30, 10), ""),
        ((300, 580, 290), ""),
        ((0, 400, 410), ""),
    ],
)
def test_an_area_is_compared_with_both_neighbours(areas: tuple[int, ...], words: str) -> None:
    found = reasons(*(seen(area, n) for n, area in enumerate(areas, 7)))
    assert words in found.get(1, ("",))[0]
    assert bool(words) == (1 in found)


def test_slices_that_are_not_neighbours_are_not_compared() -> None:
    assert reasons(seen(0, 1), seen(45, 3), seen(0, 4)) == {}
    assert reasons(seen(0), seen(45), seen(0)) != {}  # without numbers the order counts
    failed = SliceFacts("s", 1, "failed", message="x")
    assert 1 not in reasons(failed, seen(45, 2), seen(0, 3))
