"""What the pages of a patient show, wherever its slices come from: pictures on the disk, or a volume."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segport.entry import Found


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """What is known of a slice before a pixel is read.

    `name`: what the tables call it. `number`: its place in the volume, None where nothing says it. `found`: None where
    it failed. `warnings`: why it is unlike the training data. `message`: why it failed, or was not scored.
    """

    name: str
    number: int | None
    status: Literal["written", "failed"]
    found: Found | None = None
    warnings: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class SliceView:
    """What is seen of a slice, all at its own size; None where it is not there.

    `picture`: uint8 RGB [H, W, 3]. `mask`, `truth`: uint8 [H, W], above 0 is tumour. `probability`: float32 [H, W] in
    0..1. `problem`: why the picture or the mask is not there, for people; else empty.
    """

    picture: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None
    truth: NDArray[np.uint8] | None = None
    probability: NDArray[np.float32] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PatientView:
    """One patient. `name`: as in the tables. `facts`: of its slices, in order; `pending`: how many have none yet.

    `state`: a hash over all that is shown of it: while it stays, its files are not written again. `views`: yields the
    view of each of `facts`, one in memory at a time; called where the files must be written. `spacing`: height and
    width of a pixel and distance of the slices in mm, where the patient's files state them.
    """

    name: str
    facts: tuple[SliceFacts, ...]
    state: str
    views: Callable[[], Iterator[SliceView]]
    pending: int = 0
    spacing: tuple[float, float, float] | None = None
