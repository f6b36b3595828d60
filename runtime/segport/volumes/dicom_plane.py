"""One slice of a DICOM series: where its tags say that it lies."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segport.errors import SliceError

FARTHEST, SHORTEST = 1e9, 1e-6  # mm: beyond them, arithmetic overflows
STEEPEST = 1e28  # of a slope: times 32 bits, float32 holds it


@dataclass(frozen=True)
class Plane:
    """One slice. `file`: its place among the files. `frame`: from 0. `position`: of its first pixel, mm, in LPS+."""

    file: int
    frame: int
    uid: str
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float
    between: float
    slope: float
    intercept: float


def read_plane(get: Callable[[str, str], tuple[float, ...]], file: int, frame: int, uid: str) -> Plane:
    """Return a slice by its tags; `get` takes a tag's keyword and the enhanced group that it is in.

    Raises `SliceError` where they do not say where it lies, or with numbers that no scanner gives.
    """
    position = get("ImagePositionPatient", "PlanePositionSequence")
    orientation = get("ImageOrientationPatient", "PlaneOrientationSequence")
    spacing = get("PixelSpacing", "PixelMeasuresSequence")
    if len(position) != 3 or not all(abs(p) <= FARTHEST for p in position):
        raise SliceError(
            f"has no ImagePositionPatient of three numbers within {FARTHEST:g} mm, so its place is unknown"
        )
    if len(orientation) != 6 or not _is_turn(np.array(orientation)):
        raise SliceError("has no ImageOrientationPatient of two perpendicular unit vectors")
    if len(spacing) != 2 or not all(SHORTEST <= s <= FARTHEST for s in spacing):
        raise SliceError(f"has no PixelSpacing of two lengths above 0, {SHORTEST:g} to {FARTHEST:g} mm")
    thickness, between = (
        _length(keyword, get(keyword, "PixelMeasuresSequence"))
        for keyword in ("SliceThickness", "SpacingBetweenSlices")
    )
    slope = (*get("RescaleSlope", "PixelValueTransformationSequence"), 1.0)[0]
    intercept = (*get("RescaleIntercept", "PixelValueTransformationSequence"), 0.0)[0]
    if not (0 < abs(slope) <= STEEPEST and abs(intercept) <= STEEPEST):
        raise SliceError(f"has a RescaleSlope of {slope:g} and a RescaleIntercept of {intercept:g}")
    return Plane(file, frame, uid, position, orientation, spacing, thickness, between, slope, intercept)


def _length(keyword: str, found: tuple[float, ...]) -> float:
    """Return the first number as a length, 0 where there is none; raises `SliceError`."""
    length = abs(found[0]) if found else 0.0
    if length != 0 and not SHORTEST <= length <= FARTHEST:
        raise SliceError(f"has a {keyword} of {found[0]:g}; expected {SHORTEST:g} to {FARTHEST:g} mm")
    return length


def _is_turn(cosines: NDArray[np.float64]) -> bool:
    rows = cosines.reshape(2, 3)
    return bool(np.all(np.isfinite(cosines)) and np.allclose(rows @ rows.T, np.eye(2), atol=0.01))
