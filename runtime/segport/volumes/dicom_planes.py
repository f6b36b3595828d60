"""Where the slices of a DICOM series lie: from the headers alone, ordered along their normal."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segport.errors import SliceError
from segport.limits import PIXEL_LIMIT, pixel_limit
from segport.volumes.case import same_offsets
from segport.volumes.dicom_files import SeriesFiles, first_item, items, numbers, quiet, read_header, text
from segport.volumes.dicom_index import ENHANCED
from segport.volumes.dicom_plane import SHORTEST, Plane, read_plane

MAX_VOXELS = 2**29  # of a series: 1024 x 1024 x 512
GAP = 0.01  # a distance that differs from the median by more than this share is a gap
TURNED = 1e-3  # cosines that differ by more are another orientation; headers give 4 digits and more
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "Rows", "Columns", "NumberOfFrames", "ImageOrientationPatient", "PixelSpacing",
    "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept",
    "FrameOfReferenceUID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's x grows to the patient's left and y to the back


@dataclass(frozen=True)
class Stack:
    """The slices of a series in the order of their normal, from the headers.

    `places`: the planes that share each position, one each unless slices are stored twice. `offsets`: mm along the
    normal, from the first. `enhanced`: whether they are frames of one file. `regular`: whether they are equally far
    apart, within 1 %. `affine`: see `SequenceVolume`.
    """

    sop_class: str
    frame_of_reference: str
    enhanced: bool
    shape: tuple[int, int]
    places: list[list[Plane]]
    offsets: NDArray[np.float64]
    affine: NDArray[np.float64]
    regular: bool

    @property
    def distance(self) -> float:
        """The distance of neighbouring slices in mm; the median where it varies."""
        return float(np.linalg.norm(self.affine[:3, 2]))

    @property
    def uneven(self) -> tuple[float, ...] | None:
        """The offsets where they are not equally far apart, else None."""
        return None if self.regular else tuple(self.offsets.tolist())

    def is_on_grid_of(self, other: "Stack") -> bool:
        """Return whether its voxels lie where another's do."""
        size = self.shape == other.shape and len(self.places) == len(other.places)
        return size and np.allclose(self.affine, other.affine, atol=0.01) and same_offsets(self.uneven, other.uneven)

    def notes(self) -> list[str]:
        """Return what must be said of it: gaps, and slices that are stored twice."""
        said = []
        if not self.regular:
            steps = np.diff(self.offsets)
            usual = float(np.median(steps))
            odd = [f"{s:.4g} mm between slices {k} and {k + 1}" for k, s in enumerate(steps, 1) if _is_gap(s, usual)]
            more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
            said.append(f"its slices are {usual:.4g} mm apart, but {', '.join(odd[:5])}{more} (slices are missing?)")
        repeated = sum(len(p) > 1 for p in self.places)
        if repeated:
            said.append(f"{repeated} of its slices are stored more than once; each is taken once")
        return said


def read_stack(files: SeriesFiles) -> Stack:
    """Return where the slices of a series lie.

    Raises `SliceError` for headers that do not say so, for slices of several orientations, sizes or spacings, for
    slices that are shifted against each other, for several enhanced files, and for series that are too large.
    """
    planes: list[Plane] = []
    first: _Kind | None = None
    with quiet():
        for index, path in enumerate(files.paths):
            try:
                header = read_header(path, _TAGS)
                kind = _kind(header)
                first = first or kind
                for what, one, other in zip(("class", "frame of reference", "size"), first, kind, strict=True):
                    if one != other:
                        raise SliceError(f"is of another {what} than the first file of its series")
                planes.extend(_planes(header, index, enhanced=kind.sop_class in ENHANCED))
            except SliceError as error:
                raise SliceError(f"{files.label(index)}: {error}") from error
    if first is None:
        raise SliceError("holds no files")
    _check_same(files, planes)
    sop_class, reference, shape = first
    enhanced = sop_class in ENHANCED
    if enhanced and len(files.paths) > 1:
        raise SliceError(f"holds {len(files.paths)} enhanced files; expected all frames in one")
    if math.prod(shape) * len(planes) > MAX_VOXELS:
        raise SliceError(f"has {len(planes)} slices of {shape[0]} x {shape[1]}; expected at most {MAX_VOXELS:,} voxels")
    return Stack(sop_class, reference, enhanced, shape, *_ordered(planes))


class _Kind(NamedTuple):
    """What all files of a series have in common. `shape`: rows and columns."""

    sop_class: str
    frame_of_reference: str
    shape: tuple[int, int]


def _kind(header: Dataset) -> _Kind:
    size = [int(n) for k in ("Rows", "Columns") for n in numbers(header, k) if 0 < n < 2**16]
    if len(size) != 2:
        raise SliceError("has no Rows and Columns above 0")
    if math.prod(size) > pixel_limit():
        raise SliceError(
            f"says that a slice has {size[0]} x {size[1]} pixels; the limit is {pixel_limit():,} ({PIXEL_LIMIT})"
        )
    return _Kind(text(header, "SOPClassUID"), text(header, "FrameOfReferenceUID"), (size[0], size[1]))


def _planes(header: Dataset, file: int, *, enhanced: bool) -> list[Plane]:
    uid, frames = text(header, "SOPInstanceUID"), numbers(header, "NumberOfFrames") or (1.0,)
    if not enhanced:
        if frames[0] > 1:
            raise SliceError(f"has {frames[0]:.0f} frames but is no enhanced MR image, so nothing says where they lie")
        return [read_plane(lambda keyword, _: numbers(header, keyword), file, 0, uid)]
    shared = first_item(header, "SharedFunctionalGroupsSequence")
    groups = items(header, "PerFrameFunctionalGroupsSequence")
    if len(groups) != frames[0]:
        raise SliceError(f"has {frames[0]:.0f} frames, but {len(groups)} groups that say where they lie; is damaged")
    for keyword, what in (("StackID", "stacks"), ("TemporalPositionIndex", "time points")):
        several = {text(_group(g, shared, "FrameContentSequence"), keyword) for g in groups}
        if len(several) > 1:
            raise SliceError(f"holds {len(several)} {what}; expected one; remedy: save each as a series of its own")

    def of(frame: Dataset) -> Callable[[str, str], tuple[float, ...]]:
        return lambda keyword, group: numbers(_group(frame, shared, group), keyword)

    return [read_plane(of(group), file, k, uid) for k, group in enumerate(groups)]


def _group(frame: Dataset, shared: Dataset, name: str) -> Dataset:
    """Return a functional group of a frame, or else the one that all frames share."""
    return first_item(frame, name) or first_item(shared, name)


def _check_same(files: SeriesFiles, planes: list[Plane]) -> None:
    """Refuse slices of another orientation or spacing than the first; raises `SliceError`."""
    turned = np.abs(np.array([p.orientation for p in planes]) - planes[0].orientation).max(axis=1) > TURNED
    scaled = np.abs(np.array([p.spacing for p in planes]) / planes[0].spacing - 1).max(axis=1) > 1e-3
    for wrong, what in ((turned, "ImageOrientationPatient"), (scaled, "PixelSpacing")):
        if wrong.any():
            label = files.label(planes[int(np.argmax(wrong))].file)
            raise SliceError(f"{label}: has another {what} than the first; expected one for all slices of a series")


def _ordered(
    planes: list[Plane],
) -> tuple[list[list[Plane]], NDArray[np.float64], NDArray[np.float64], bool]:
    """Return the planes of each position, their offsets, the affine in RAS+, and whether the offsets are regular."""
    first = planes[0]
    across, down = np.array(first.orientation).reshape(2, 3)
    normal = np.cross(across, down)
    normal /= np.linalg.norm(normal)
    positions = np.array([p.position for p in planes])
    offsets = positions @ normal
    order = np.argsort(offsets, kind="stable")
    pitch = np.array(first.spacing)
    drift = (positions - positions[order[0]]) @ np.stack([down, across], axis=1) / pitch
    if np.abs(drift).max() > 0.5:
        raise SliceError(
            f"has slices that are shifted against each other by up to {np.abs(drift).max():.1f} pixels;"
            " expected a stack along its normal; remedy: resample it"
        )
    near = max(0.01 * float(pitch.min()), SHORTEST)  # slices closer than this share a position
    places: list[list[Plane]] = []
    kept: list[float] = []
    for i in order:
        if kept and offsets[i] - kept[-1] < near:
            places[-1].append(planes[i])
        else:
            places.append([planes[i]])
            kept.append(float(offsets[i]))
    ends = np.array([places[0][0].position, places[-1][0].position])
    steps = np.diff(kept)
    usual = float(np.median(steps)) if len(steps) else first.between or first.thickness
    regular = not any(_is_gap(s, usual) for s in steps)
    step = normal * usual
    if len(steps):
        step = (ends[1] - ends[0]) * (1 / len(steps) if regular else usual / (kept[-1] - kept[0]))
    if not np.any(step):
        raise SliceError("has a single slice without SpacingBetweenSlices or SliceThickness above 0")
    affine = np.eye(4)
    affine[:3] = np.stack([across * pitch[1], down * pitch[0], step, ends[0]], axis=1)
    return places, np.array(kept) - kept[0], _RAS_OF_LPS @ affine, regular


def _is_gap(step: float, usual: float) -> bool:
    return abs(step - usual) > GAP * usual
