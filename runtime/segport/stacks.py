"""Which slices may make a stack, by their names: a patient's, beside each other, so that their masks touch."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice, pairwise

from segport.maskrule import MaskRule
from segport.plan import Job

SHORTEST, LONGEST = 8, 512  # slices
HELD = 512_000_000  # bytes; all slices wait for the last one, with 7 bytes a pixel of the network: 260 kB each at 192


def group_stacks(jobs: Iterable[Job], rule: MaskRule, size: int) -> Iterator[list[Job]]:
    """Yield together the slices of a patient that follow each other, numbered without a gap; any other slice alone.

    `jobs`: of one folder. `size`: the network's, in pixels. Where the `rule` leaves out nothing, every slice is alone.
    """
    if not rule.smallest_component:
        yield from ([job] for job in jobs)
        return
    longest = min(LONGEST, HELD // (7 * size**2))
    for _, same in groupby(jobs, lambda job: job.patient):
        first = list(islice(same, longest + 1))
        numbers = [job.slice.number for job in first]
        if SHORTEST <= len(first) <= longest and all(
            a is not None and b is not None and b == a + 1 for a, b in pairwise(numbers)
        ):
            yield first
        else:
            for job in chain(first, same):
                yield [job]


def name_stack(jobs: Sequence[Job]) -> str:
    """Return what tells this stack from one of other slices; empty for a slice alone, which is in none."""
    if len(jobs) < 2:
        return ""
    return hashlib.sha256("/".join(job.name for job in jobs).encode("utf-8", "surrogatepass")).hexdigest()[:16]
