"""A case as the network sees it: axial slices of three channels, on the grid of its FLAIR."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from segport.contract import ModelContract
from segport.errors import ModelError, SliceError
from segport.limits import pixel_limit
from segport.preprocess import Pixels, Spacing, Window, percentile_window, square_shape
from segport.volumes.case import Case, Role, SequenceVolume, same_offsets
from segport.volumes.geometry import AxialView

ROLE_OF: dict[str, Role] = {"pre-contrast": "pre", "FLAIR": "flair", "post-contrast": "post"}  # by the contract's name
FULL_RANGE = (0.0, 255.0)
OVERLAP = 0.5  # share of FLAIR's voxels that another sequence must cover: less is not the same part of the head
MOST_SLICES = 4096  # the largest heads have 512; more is what only a damaged header says
MOST_UNEQUAL = 20.0  # of a pixel's sides: 0.5 mm pixels in sagittal slices 10 mm apart


@dataclass(frozen=True)
class Volume:
    """A case that was read. `channels`: one or three arrays [slices, height, width], in the contract's order.

    `window`: see `preprocess`, one entry a channel; None where all are uint8. `view`: the way back to the stored order.
    `notes`: what was put in the place of what.
    """

    channels: tuple[NDArray[np.generic], ...]
    window: Window | None
    view: AxialView
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, height and width."""
        slices, height, width = self.channels[0].shape
        return slices, height, width

    @property
    def spacing(self) -> Spacing:
        """Height and width of a pixel in millimetres."""
        return self.view.spacing[:2]

    def pixels(self, index: int) -> Pixels:
        """Return one slice for `prepare`, [H, W, 1] or [H, W, 3]."""
        return np.stack([channel[index] for channel in self.channels], axis=2)


def read_volume(case: Case, contract: ModelContract, window: tuple[float, float] | None = None) -> Volume:
    """Read a case's sequences and put them onto the grid of its FLAIR, FLAIR in the place of those that are missing.

    uint8 is taken as stored; other dtypes get the user's `window`, or the contract's percentile rule over the volume,
    each sequence for itself. Raises `SliceError`, and `ModelError` for a contract that names other channels.
    """
    roles = _roles_of(contract)
    flair = case.read("flair")
    view = AxialView(flair.affine)
    shown_flair = view.slices(flair.voxels)
    _refuse_hostile(shown_flair.shape, view.spacing[:2])
    read: dict[Role, NDArray[np.generic]] = {"flair": shown_flair}
    for role in roles:
        if role in case.roles and role not in read:
            read[role] = view.slices(resample(case.read(role), flair, role))
    windows = {role: _window_of(voxels, contract, window) for role, voxels in read.items()}
    shown = roles if len(read) > 1 else ("flair",)
    lacking = [role for role in roles if role not in read]
    notes = (f"FLAIR in the place of {' and '.join(lacking)}",) if lacking else ()
    chosen = [role if role in read else "flair" for role in shown]
    channels = tuple(read[role] for role in chosen)
    if all(channel.dtype == np.uint8 for channel in channels):
        return Volume(channels, None, view, notes)
    return Volume(channels, tuple(windows[role] for role in chosen), view, notes)


def resample(other: SequenceVolume, flair: SequenceVolume, name: str) -> NDArray[np.generic]:
    """Return another sequence's voxels on FLAIR's grid, linearly interpolated, 0 where it does not reach.

    Untouched where the grids are the same. Raises `SliceError` where the two do not cover the same part of the head, or
    slices that are not equally far apart leave their places open.
    """
    same_shape = other.voxels.shape == flair.voxels.shape and same_offsets(other.offsets, flair.offsets)
    if same_shape and np.allclose(other.affine, flair.affine, atol=1e-3):
        return other.voxels
    if not (other.regular and flair.regular):
        raise SliceError(
            f"its {name} and its FLAIR have other grids, and the slices of one are not equally far apart; expected the"
            " same grid, or equal distances; remedy: FLAIR alone"
        )
    to_other = (np.linalg.inv(other.affine) @ flair.affine).round(6)  # -1e-14 would lie outside, and be 0
    covered = _covered(to_other, flair.voxels.shape, other.voxels.shape)
    if covered < OVERLAP:
        raise SliceError(
            f"its {name} covers {covered:.0%} of its FLAIR's voxels; expected at least {OVERLAP:.0%}: the two do not"
            " lie in the same space; remedy: register them, or FLAIR alone"
        )
    found = affine_transform(
        other.voxels.astype(np.float32), to_other[:3, :3], to_other[:3, 3], output_shape=flair.voxels.shape, order=1
    )
    return np.rint(found).astype(np.uint8) if other.voxels.dtype == np.uint8 else np.asarray(found, np.float32)


def _covered(to_other: NDArray[np.float64], shape: tuple[int, ...], others: tuple[int, ...]) -> float:
    """Return the share of a grid's voxels, of 20 along each axis, that lie inside of the other's."""
    lines = [np.linspace(0, n - 1, min(n, 20)) for n in shape]
    points = np.stack([*np.meshgrid(*lines, indexing="ij")]).reshape(3, -1)
    places = to_other[:3, :3] @ points + to_other[:3, 3:]
    limits = np.array(others)[:, np.newaxis] - 0.5
    return float(((places >= -0.5) & (places <= limits)).all(axis=0).mean())


def _refuse_hostile(shape: tuple[int, ...], spacing: Spacing) -> None:
    """Raise `SliceError` for a volume of which the network's input would be out of all proportion."""
    height, width = spacing
    if max(height / width, width / height) > MOST_UNEQUAL:
        raise SliceError(
            f"its axial slices have pixels of {height:g} x {width:g} mm; expected sides that differ by a factor of at"
            f" most {MOST_UNEQUAL:g}"
        )
    if shape[0] > MOST_SLICES:
        raise SliceError(f"has {shape[0]:,} axial slices; expected at most {MOST_SLICES:,}")
    square = max(square_shape(shape[1:], spacing))
    if square**2 > pixel_limit():
        raise SliceError(
            f"has axial slices of {shape[1]} x {shape[2]} (height, width); fitted into a square of equal pixels, one"
            f" has {square**2:,}, expected at most {pixel_limit():,}"
        )


def _window_of(
    voxels: NDArray[np.generic], contract: ModelContract, given: tuple[float, float] | None
) -> tuple[float, float]:
    if voxels.dtype == np.uint8:
        return FULL_RANGE
    return given if given is not None else percentile_window(voxels, contract)[0]


def _roles_of(contract: ModelContract) -> tuple[Role, ...]:
    unknown = [name for name in contract.input.channels if name not in ROLE_OF]
    if unknown:
        raise ModelError(
            f"the model's channel {unknown[0]!r} cannot be filled from volumes; expected {', '.join(ROLE_OF)}"
        )
    return tuple(ROLE_OF[name] for name in contract.input.channels)
