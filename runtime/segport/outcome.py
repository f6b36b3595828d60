"""What becomes of a slice on its way through a run: loaded, then staged, then an outcome that is committed."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from segport.entry import Entry, Stamp
from segport.plan import Job
from segport.preprocess import Window
from segport.work import Work

W_co = TypeVar("W_co", bound=Work, covariant=True)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[W_co]):
    """What happened to one slice or volume: its `entry`, and why it was segmented (`reason`; empty where it was not).

    The entry is that of the ledger, from this run or an earlier one; one that is "failed" may be in no ledger, where a
    file that is not ours is in the way.
    """

    job: W_co
    entry: Entry
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A slice that was read: what will be said of it, what was said `before`, its `shape` (height, width).

    `window`: see `preprocess`. `prepared`: for the network, uint8 [size, size, 3]. `writable`: whether its outputs may
    be written; else it was read for the sake of others.
    """

    outcome: Outcome[Job]
    before: Entry | None
    shape: tuple[int, int]
    window: Window | None
    prepared: NDArray[np.uint8]
    writable: bool


@dataclass(frozen=True, slots=True)
class Computed:
    """A slice with its `logits`, float32 [size, size]. `kept`: which regions of its mask stay, None for all.

    `kept` has an entry a region: see `components.Components`.
    """

    loaded: Loaded
    logits: NDArray[np.float32]
    kept: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Staged(Generic[W_co]):
    """An outcome whose files are written but not yet named. `stale`: endings of older outputs that are to go.

    `record`: whether a line of the ledger is to say so.
    """

    outcome: Outcome[W_co]
    files: dict[str, Path] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()
    record: bool = True


def stage_failure(outcome: Outcome[W_co], message: str, before: Entry | None, read: Stamp | None) -> Staged[W_co]:
    """Stage a failure. Outputs of other bytes under this name would pass for this slice's: they go.

    `read`: the slice's stamp; where it could not be read at all (None), nothing says that it changed, and they stay.
    """
    outcome = replace(outcome, entry=replace(outcome.entry, message=message))
    if (
        before is None
        or not before.outputs
        or (read is not None and before.read is not None and read.sha256 != before.read.sha256)
    ):
        stale = frozenset(before.outputs if before is not None else ())
        return Staged(replace(outcome, entry=replace(outcome.entry, read=read)), stale=stale)
    now = outcome.entry  # its stack: those judged beside it are held together by it
    # its outputs are those of the model and settings of before
    kept = replace(before, status="failed", message=message, found=None, found_volume=None)
    return Staged(replace(outcome, entry=replace(kept, stack=now.stack, time=now.time)))
