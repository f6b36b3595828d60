"""What a NIfTI file says of itself before its voxels are read: its grid, where it lies in the patient, its scaling."""

import math
import struct
from dataclasses import dataclass

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy.typing import NDArray

from segport.errors import SliceError
from segport.limits import MAX_BYTES

SIZES: dict[int, type[Nifti1Header]] = {348: Nifti1Header, 540: Nifti2Header}  # bytes of a header: its first number
LONGEST = max(SIZES)
READ = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
REFUSED = {1: "bits", 32: "complex", 128: "RGB", 1536: "float128", 1792: "complex", 2048: "complex", 2304: "RGBA"}
MILLIMETRES = {1: 1e3, 3: 1e-3}  # a metre, a micrometre; code 2 is the millimetre, 0 says nothing
UNITS = {1: "metres", 3: "micrometres"}
LAST_CODE = 5  # of what space a form leads to: a template
APART = 0.5  # voxels by which sform and qform may differ: rounding moves a corner by less than a hundredth
FLAT = 1e-4  # volume of a voxel as a share of its edges' product: axes closer than this to one plane are none


@dataclass(frozen=True)
class NiftiLayout:
    """A header that was checked. `header`: as the file has it, nothing mended.

    `shape`: voxels along i, j, k. `dtype`: of the stored voxels, in the file's byte order. `offset`: where they begin.
    `scaling`: (slope, intercept), None where what is stored is meant. `affine`: float64 [4, 4], from voxel indices to
    millimetres in RAS+. `notes`: what had to be guessed.
    """

    header: Nifti1Header
    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    offset: int
    scaling: tuple[float, float] | None
    affine: NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def end(self) -> int:
        """How many bytes the file has to the end of its voxels."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def parse_header(block: bytes) -> NiftiLayout:
    """Return what the first `LONGEST` bytes of a file say; raises `SliceError` for what cannot be segmented.

    The affine is the sform where its code is set, else the qform, else the spacing alone, as nibabel has it.
    """
    header = _find_header(block)
    shape = _check_shape(header)
    dtype = _check_dtype(header)
    size = math.prod(shape) * max(dtype.itemsize, 4)  # as the float32 that becomes of them
    if size > MAX_BYTES:
        raise SliceError(
            f"claims {' x '.join(map(str, shape))} voxels of {dtype.itemsize} bytes; expected at most {MAX_BYTES:,}"
            " bytes, 4 or more a voxel; its header is damaged, or it is no volume of a head"
        )
    with np.errstate(invalid="ignore"):  # NaN is refused, its casts need not warn
        affine, notes = _find_affine(header, shape)
    return NiftiLayout(header, shape, dtype, _find_offset(header), _find_scaling(header), affine, notes)


def corners_apart(shape: tuple[int, int, int], first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return how far apart two affines place a corner of a grid at most, in shortest edges of the first's voxels."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(n - 1 for n in shape), 1]
    distances = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1)
    return float(distances.max() / _edges(first).min())


def _find_header(block: bytes) -> Nifti1Header:
    """Return the header, its byte order found by its first number, unchecked."""
    for order in "<>":
        size = struct.unpack_from(f"{order}i", block)[0] if len(block) >= 4 else 0
        if size not in SIZES:
            continue
        if len(block) < size:
            raise SliceError(f"is truncated: it has {len(block)} bytes, its header alone {size}; copy it again")
        header: Nifti1Header = SIZES[size](block[:size], endianness=order, check=False)
        magic = bytes(header["magic"]).rstrip(b"\0")
        if magic.startswith((b"ni1", b"ni2")):
            raise SliceError("is the header of a pair of .hdr and .img; remedy: save it as one .nii or .nii.gz")
        if magic.startswith((b"n+1", b"n+2")):
            return header
        raise SliceError(
            "is an ANALYZE file, or its NIfTI header is damaged: such a header does not tell left from right; remedy:"
            " convert it anew from its source to .nii"
        )
    raise SliceError(f"is no NIfTI file: it starts with {block[:4]!r}, which is no header's size (348 or 540)")


def _check_shape(header: Nifti1Header) -> tuple[int, int, int]:
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise SliceError(f"cannot be read; its header claims {axes} axes; it is damaged, copy it again")
    lengths = [int(n) for n in header["dim"][1 : axes + 1]]
    shown = " x ".join(map(str, lengths))
    if min(lengths) < 1:
        raise SliceError(f"cannot be read; its header claims {shown} voxels; it is damaged, copy it again")
    if axes < 3:
        raise SliceError(f"is {axes}-D ({shown}); expected a volume; remedy: save slices as .png or .tif")
    if (volumes := math.prod(lengths[3:])) > 1:
        raise SliceError(
            f"holds {volumes} volumes ({shown}; {_fourth_axis(header)}); expected one sequence a file; remedy: split it"
            " (fslsplit, or nibabel's four_to_three) and name its sequences"
        )
    return lengths[0], lengths[1], lengths[2]


def _fourth_axis(header: Nifti1Header) -> str:
    """Say what the axis behind the three of space holds, as far as the header does."""
    step, unit = float(header["pixdim"][4]), int(header["xyzt_units"]) & 0x38
    times = {8: "s", 16: "ms", 24: "us"}
    if unit in times:
        return f"marked as time, a step of {step:g} {times[unit]}"
    return "marked as a spectrum" if unit else "it is not said what the fourth axis is: echoes, directions or sequences"


def _check_dtype(header: Nifti1Header) -> np.dtype[np.generic]:
    code = int(header["datatype"])
    if code in READ:
        return np.dtype(READ[code]).newbyteorder(header.endianness)
    if code in REFUSED:
        raise SliceError(f"holds {REFUSED[code]} voxels; expected integers, float32 or float64; remedy: convert it")
    raise SliceError(f"cannot be read; its header claims the data type {code}, which NIfTI does not know")


def _find_offset(header: Nifti1Header) -> int:
    """Return where the voxels begin; 0 stands for right behind the header."""
    offset, first = float(header["vox_offset"]), len(header.binaryblock) + 4
    if offset == 0:
        return first
    if not first <= offset <= MAX_BYTES:  # NaN as well
        raise SliceError(
            f"cannot be read; its header says that voxels begin at byte {offset:g}; expected {first} to {MAX_BYTES:,}"
        )
    return int(offset)


def _find_scaling(header: Nifti1Header) -> tuple[float, float] | None:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or (slope, intercept) == (1, 0):  # 0: not scaled, says the standard
        return None
    if not math.isfinite(intercept):
        raise SliceError(f"cannot be read; its scaling is {slope:g} and {intercept:g}; expected a finite intercept")
    return slope, intercept


def _find_affine(header: Nifti1Header, shape: tuple[int, int, int]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the affine in millimetres, and what had to be guessed."""
    codes = {kind: int(header[f"{kind}_code"]) for kind in ("sform", "qform")}
    for kind, code in codes.items():
        if not 0 <= code <= LAST_CODE:  # some readers take such a form, some pass over it
            raise SliceError(f"has the {kind} code {code}; expected 0 to {LAST_CODE}; it is damaged, copy it again")
    notes = list[str]()
    if codes["sform"]:
        affine, kind = np.asarray(header.get_sform(), np.float64), "sform"
        _check_affine(affine, kind)
        if codes["qform"]:
            notes += _doubt_qform(header, affine, shape)
    elif codes["qform"]:
        affine, kind = _qform(header), "qform"
    else:
        affine, kind = np.asarray(_mend(header).get_base_affine(), np.float64), "spacing"
        notes.append(
            "states no orientation (sform and qform codes are 0): its axes are taken to lead to the patient's left,"
            " front and head; if they do not, the mask has sides wrong"
        )
    unit = int(header["xyzt_units"]) & 7
    affine = np.diag([*[MILLIMETRES.get(unit, 1.0)] * 3, 1.0]) @ affine
    _check_affine(affine, kind)
    if unit in UNITS:
        edges = " x ".join(f"{edge:g}" for edge in _edges(affine))
        notes.append(f"gives lengths in {UNITS[unit]}: its voxels are taken to be {edges} mm")
    return affine, tuple(notes)


def _doubt_qform(header: Nifti1Header, sform: NDArray[np.float64], shape: tuple[int, int, int]) -> list[str]:
    try:
        apart = corners_apart(shape, sform, _qform(header))
    except SliceError as error:
        return [f"has a qform that cannot be used (it {error}): its sform is taken"]
    if apart <= APART:
        return []
    return [f"has a sform and a qform that lie {apart:.1f} voxels apart: the sform is taken; viewers may differ"]


def _qform(header: Nifti1Header) -> NDArray[np.float64]:
    try:
        affine = np.asarray(_mend(header).get_qform(), np.float64)
    except ValueError as error:
        raise SliceError(f"has a qform that is no rotation ({error}); remedy: save it with an sform") from error
    _check_affine(affine, "qform")
    return affine


def _mend(header: Nifti1Header) -> Nifti1Header:
    """Return a copy whose spacing nibabel takes: lengths without sign, and the third axis' sign 1 or -1 as in C."""
    mended: Nifti1Header = header.copy()
    mended["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    mended["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    return mended


def _check_affine(affine: NDArray[np.float64], kind: str) -> None:
    remedy = "expected three lengths and directions; remedy: convert it anew from its source"
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e9:  # millimetres: beyond them, arithmetic overflows
        raise SliceError(f"has a {kind} with NaN, infinity or lengths that no scanner has; {remedy}")
    edges = _edges(affine)
    if not edges.all():
        raise SliceError(f"has a {kind} in which an axis has no length (its affine is zero); {remedy}")
    if abs(np.linalg.det(affine[:3, :3] / edges)) < FLAT:
        raise SliceError(f"has a {kind} whose three axes lie in one plane (its affine is singular); {remedy}")


def _edges(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lengths of a voxel's edges along i, j, k."""
    edges: NDArray[np.float64] = np.linalg.norm(affine[:3, :3], axis=0)
    return edges
