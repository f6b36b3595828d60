"""Which slices need eyes, and why: rules over what a run found, each with its reason in words.

Chosen on the 3,179 slices of 88 patients of the LGG data set with the first embedded model, which learnt from 77 of
them: 1,062 get a mask, and the mean Dice of those is 0.75.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segport.report.view import SliceFacts

# Of the way from the threshold to 1: at threshold 0.5 a mean probability below 0.8. 73 masks are there, of a mean Dice
# of 0.20; the others have 0.80.
UNSURE = 0.6
PIECES = 3  # 3 masks have so many, of Dice 0.42; 36 have two or more, of 0.55
# Times the larger, or part of the smaller, of both neighbours' areas: 2 masks, of Dice 0.33. 18 are alone, all wrong.
JUMP = 2
SMALL_JUMP = 30  # pixels: below, an area may double between neighbours
LOW_DICE = 0.5

# The gravest first. An empty mask on an odd slice is the last: most are the dark ends of a volume.
FAILED, UNLIKE, DISAGREES, UNSTEADY, UNCERTAIN, BROKEN, UNLIKE_AND_EMPTY = 6, 5, 4, 3, 2, 1, 0


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a slice needs eyes. `position`: its place among the patient's. `weight`: the sum over the reasons'."""

    position: int
    weight: int
    reasons: tuple[str, ...]


def find_doubts(facts: Sequence[SliceFacts], threshold: float) -> list[Doubt]:
    """Return the slices of one patient that need eyes, in their order. `threshold`: the probability of the mask."""
    doubts = []
    for position, one in enumerate(facts):
        found = [*_of_slice(one, threshold), *_beside(facts, position)]
        if found:
            weights, reasons = zip(*found, strict=True)
            doubts.append(Doubt(position, 10 * max(weights) + len(weights), reasons))
    return doubts


def _of_slice(one: SliceFacts, threshold: float) -> Iterator[tuple[int, str]]:
    if one.status == "failed":
        yield FAILED, f"no mask: {one.message}"
    elif one.message:
        yield FAILED, one.message
    found = one.found
    for warning in one.warnings:
        marked = found is not None and found.tumour_pixels > 0
        yield UNLIKE if marked else UNLIKE_AND_EMPTY, f"unlike the training data: {warning}"
    if found is None:
        return
    if found.agreement is not None and found.agreement.counts.dice < LOW_DICE:
        counts = found.agreement.counts
        yield DISAGREES, f"Dice {counts.dice:.2f}: {counts.fn} tumour pixels missed, {counts.fp} wrong"
    limit = threshold + UNSURE * (1 - threshold)
    if found.tumour_pixels and found.mean_probability < limit:
        yield UNCERTAIN, f"mean probability {found.mean_probability:.2f} in the mask (from {threshold:g})"
    if found.left_out:
        yield BROKEN, f"{found.left_out} pixels left out: the component is too small"
    if found.regions.components >= PIECES:
        yield BROKEN, f"the mask is in {found.regions.components} pieces"


def _beside(facts: Sequence[SliceFacts], position: int) -> Iterator[tuple[int, str]]:
    """Compare a slice with the ones before and behind it; without both there is nothing to say."""
    areas = [_area(facts, position, step) for step in (-1, 0, 1)]
    before, own, behind = areas
    if before is None or own is None or behind is None:
        return
    if not own and before and behind:
        yield UNSTEADY, f"no tumour, between slices with {before} and {behind} pixels of it"
    elif own and not before and not behind:
        yield UNSTEADY, f"tumour in this slice alone ({own} pixels), none in the slices beside it"
    elif before and behind and _jumps(before, own, behind):
        yield UNSTEADY, f"{own} pixels of tumour, {before} and {behind} in the slices beside it"


def _jumps(before: int, own: int, behind: int) -> bool:
    far = own > JUMP * max(before, behind) or own * JUMP < min(before, behind)
    return far and abs(own - (before + behind) / 2) >= SMALL_JUMP


def _area(facts: Sequence[SliceFacts], position: int, step: int) -> int | None:
    """Return the tumour's pixels in the slice `step` further on; None where that is not known to be the neighbour."""
    other = position + step
    if not 0 <= other < len(facts) or (found := facts[other].found) is None:
        return None
    own, number = facts[position].number, facts[other].number
    if own is not None and number is not None and number != own + step:
        return None
    return found.tumour_pixels
