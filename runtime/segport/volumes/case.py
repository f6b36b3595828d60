"""What a volume of any format offers to the run: its sequences in millimetres, and its mask written back as it came."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from segport.settings import RunSettings

Role = Literal["pre", "flair", "post"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class SequenceVolume:
    """One MR sequence as it is stored.

    `voxels`: [i, j, k] in the order of the file, any real dtype, scaling (slope, intercept) applied. `affine`: float64
    [4, 4], from voxel indices to millimetres in RAS+ (x to the patient's right-to-left, y to the front, z to the head),
    as NIfTI has it. `offsets`: where the slices are not equally far apart, the place of each along k, in mm from the
    first; the affine's distance is then their median, and it holds for the size of a voxel and for directions alone.
    """

    voxels: NDArray[np.generic]
    affine: NDArray[np.float64]
    offsets: tuple[float, ...] | None = None

    @property
    def regular(self) -> bool:
        """Whether the slices are equally far apart."""
        return self.offsets is None


def same_offsets(one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> bool:
    """Return whether the slices of two volumes lie at the same places along k, to 0.01 mm; see `SequenceVolume`."""
    if one is None or other is None:
        return one is other
    return len(one) == len(other) and np.allclose(one, other, rtol=0, atol=0.01)


@dataclass(frozen=True)
class ModelName:
    """Which model made a mask: its file's name and the SHA-256 of its bytes."""

    name: str
    sha256: str


class Case(Protocol):
    """One volume to segment: found, not read yet. Made by listing; reading it may fail alone.

    `name`: the patient's name in the tables. `stem`: the outputs' path below the output folder, without ending.
    `source`: what messages and tables call it. `files`: all that it is read from, in a fixed order. `roles`: the
    sequences it has. `notes`: guesses that must be said. `problem`: why it cannot be segmented, where listing saw
    that; else empty. `truth_path`: the file of its true mask, None where there is none.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def stem(self) -> PurePath: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def files(self) -> Sequence[Path]: ...  # noqa: D102
    @property
    def roles(self) -> frozenset[Role]: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def problem(self) -> str: ...  # noqa: D102
    @property
    def truth_path(self) -> Path | None: ...  # noqa: D102

    def endings(self, settings: RunSettings) -> list[str]:
        """Return the endings of the files that `encode` writes; the mask's is the last."""

    def read(self, role: Role) -> SequenceVolume:
        """Return one of its sequences; raises `SliceError` with the reason."""

    def read_truth(self) -> NDArray[np.uint8] | None:
        """Return the true mask on FLAIR's grid, [i, j, k] of 0 and 1; None where there is none; raises `SliceError`."""

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Return a mask that `encode` wrote, as it took it; raises `SliceError`."""

    def encode(
        self, mask: NDArray[np.uint8], probability: NDArray[np.float32] | None, model: ModelName
    ) -> dict[str, bytes]:
        """Return the files to write, by ending, deterministic to the byte for the same source and mask.

        `mask`: uint8 [i, j, k] of 0 and 1 on the grid of its FLAIR as `read` gave it. `probability`: float32 in 0..1 on
        the same grid, where it is asked for. Raises `SliceError`.
        """
