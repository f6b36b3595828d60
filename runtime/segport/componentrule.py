"""What of a stack's masks is left out: components that are small beside its largest, where it is one by its looks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.components import connect
from segport.maskrule import MaskRule
from segport.outcome import Computed, Staged
from segport.plan import Job
from segport.preprocess import logit, restore, to_mask

# Of neighbours, as a median over the stack. LGG's 88 patients have 0.865 to 0.99; every second slice of them from 0.70,
# and slices of different patients at like heights, 0.74 at most in 300 draws of 40.
ALIKE = 0.8
THUMB = 32  # pixels; a side of what is compared
FLAT = 3.0  # grey levels, standard deviation: what varies less is the air around a head

Finishable = Computed | Staged[Job]


class ComponentRule:
    """Leaves out of the masks of a stack the components that are below a share of its largest."""

    def __init__(self, rule: MaskRule) -> None:
        self._rule = rule

    def apply(self, batches: Iterable[list[Finishable]]) -> Iterator[list[Finishable]]:
        """Yield what is ready to be finished, in order: slices in no stack at once, those of a stack all together."""
        held: list[Finishable] = []
        for batch in batches:
            ready: list[Finishable] = []
            for one in batch:
                if held and _stack_of(one) != _stack_of(held[0]):
                    ready += self._decide(held)
                    held = []
                (held if _stack_of(one) else ready).append(one)
            yield ready
        yield self._decide(held)

    def _decide(self, held: list[Finishable]) -> list[Finishable]:
        slices = [one for one in held if isinstance(one, Computed)]
        if len(slices) < len(held):  # one failed, or none had to be segmented
            return [_alone(one) if isinstance(one, Computed) else one for one in held]
        if not _is_stack(slices):
            return held
        components = connect(map(self._mask, slices))
        large = components.are_large(self._rule.smallest_component)
        return [replace(one, kept=large[regions]) for one, regions in zip(slices, components.regions, strict=True)]

    def _mask(self, one: Computed) -> NDArray[np.uint8]:
        if (one.logits < logit(self._rule.threshold)).all():  # resized linearly, they stay below
            return np.zeros(one.loaded.shape, np.uint8)
        return to_mask(restore(one.logits, one.loaded.shape), self._rule.threshold)


def _stack_of(one: Finishable) -> str:
    return (one.loaded if isinstance(one, Computed) else one).outcome.entry.stack


def _alone(one: Computed) -> Computed:
    """Return a slice whose entry says that its mask was judged beside no other."""
    outcome = one.loaded.outcome
    entry = replace(outcome.entry, stack="")
    return replace(one, loaded=replace(one.loaded, outcome=replace(outcome, entry=entry)))


def _is_stack(slices: Sequence[Computed]) -> bool:
    """Return whether slices look like neighbours: of one shape, and alike by Pearson's correlation of pixels."""
    if len({one.loaded.shape for one in slices}) != 1:
        return False
    thumbs = [_thumb(one.loaded.prepared) for one in slices]
    alike = [float(a @ b) for a, b in pairwise(thumbs) if a.any() and b.any()]
    return bool(alike) and float(np.median(alike)) >= ALIKE


def _thumb(prepared: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a small slice as a vector of mean 0 and length 1; all 0 where there is nothing to see."""
    small = cv2.resize(prepared, (THUMB, THUMB), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    spread = float(small.std())
    return small / (spread * np.sqrt(small.size)) if spread >= FLAT else np.zeros_like(small)
