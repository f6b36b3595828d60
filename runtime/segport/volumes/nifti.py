"""NIfTI files: what is on the disk becomes a volume, and a mask becomes a file of the same grid."""

import gzip
import math
import stat
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from segport._version import __version__
from segport.errors import SliceError
from segport.volumes.case import ModelName, SequenceVolume
from segport.volumes.nifti_header import LONGEST, NiftiLayout, parse_header

GZIP = b"\x1f\x8b"
DENSEST = 1032  # bytes that one of deflate can become, at most
CHUNK = 2**22  # bytes read at once
SPARE = 2**20  # bytes behind the voxels that are let pass; more means that the header is of another file
COMPRESSION = 6
LABEL = 1002  # NIfTI's intent codes: which tissue a voxel is
GRID = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def read_layout(path: Path) -> NiftiLayout:
    """Return what a file's header says; of a compressed file, no more is read. Raises `SliceError`."""
    return _read(path)[0]


def read_volume(path: Path) -> SequenceVolume:
    """Return the volume in a NIfTI-1 or NIfTI-2 file, compressed or not; the content decides, not the ending.

    Voxels keep their type, in the machine's byte order, unless the header scales them: whole numbers then become
    float32 where that can tell them apart, else float64. Axes of one voxel behind the third are dropped. The array
    cannot be written to.

    Raises `SliceError` for what is missing, empty, damaged or truncated anywhere, no regular file, no NIfTI, for other
    sizes than the header says and above `segport.limits.MAX_BYTES`, several volumes, slices, voxels that are not real
    numbers, NaN and infinity, and for affines that are zero or singular. Memory is bounded by what the header says,
    which is looked at first.
    """
    layout, data = _read(path, voxels=True)
    count = math.prod(layout.shape)
    stored = np.frombuffer(data, layout.dtype, count, layout.offset).reshape(layout.shape, order="F")
    voxels = _scale(stored.astype(stored.dtype.newbyteorder("="), order="F", copy=False), layout.scaling)
    if voxels.dtype.kind == "f" and (bad := int(np.count_nonzero(~np.isfinite(voxels)))):
        raise SliceError(
            f"holds NaN or infinity in {bad:,} of {count:,} voxels; expected finite intensities; remedy: replace them,"
            " by 0 outside of the head"
        )
    voxels.flags.writeable = False
    return SequenceVolume(voxels, layout.affine)


def encode_mask(layout: NiftiLayout, mask: NDArray[np.uint8], model: ModelName) -> bytes:
    """Return a mask, uint8 [i, j, k] of 0 and 1, as a .nii.gz on the grid of `layout`.

    Shape, spacing, units, sform and qform with their codes are the header's, bit by bit. What can hold a name is not
    carried over: texts and extensions. The same mask gives the same bytes. Raises `SliceError` for another shape.
    """
    return _encode(layout, mask.astype("u1"), LABEL, model)


def encode_probability(layout: NiftiLayout, probability: NDArray[np.float32], model: ModelName) -> bytes:
    """Return probabilities, float32 [i, j, k] in 0..1, as `encode_mask` does a mask."""
    return _encode(layout, probability.astype("<f4"), 0, model)


def _read(path: Path, *, voxels: bool = False) -> tuple[NiftiLayout, bytearray]:
    """Return a file's header and, where `voxels` are wanted, its bytes to their end, decompressed."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever, a device may have no end
            raise SliceError("is not a regular file but a folder, pipe or device; expected a NIfTI file")
        if not status.st_size:
            raise SliceError("is empty (0 bytes); copy it again")
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
            head = stream.read(LONGEST)
            layout = parse_header(head)
            most = status.st_size * (DENSEST if packed else 1)
            return layout, _read_voxels(stream, head, layout, most) if voxels else bytearray()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SliceError(f"cannot be decompressed; it is truncated or damaged ({error}); copy it again") from error
    except OSError as error:
        raise SliceError(f"cannot be read ({error.strerror})") from error


def _read_voxels(stream: BinaryIO, head: bytes, layout: NiftiLayout, most: int) -> bytearray:
    """Return the file to the end of its voxels. `most`: bytes it can hold at most.

    What follows is read on: only at its end does gzip compare the checksum.
    """
    if layout.end > most:  # before memory is taken for what is not there
        raise _too_short(layout, f"cannot hold more than {most:,}")
    data, filled = bytearray(layout.end), min(len(head), layout.end)
    data[:filled] = head[:filled]
    while filled < layout.end and (more := stream.read(min(CHUNK, layout.end - filled))):
        data[filled : filled + len(more)] = more
        filled += len(more)
    if filled < layout.end:
        raise _too_short(layout, f"holds {filled:,}")
    spare = len(head) - min(len(head), layout.end)
    while spare <= SPARE and (more := stream.read(SPARE)):
        spare += len(more)
    if spare > SPARE:
        raise SliceError(
            f"holds over {SPARE:,} bytes more than the {layout.end:,} that its header says; the header is not of these"
            " voxels; remedy: convert it anew from its source"
        )
    return data


def _too_short(layout: NiftiLayout, found: str) -> SliceError:
    shape = " x ".join(map(str, layout.shape))
    return SliceError(
        f"is truncated, or its header lies: {shape} voxels of {layout.dtype.itemsize} bytes end at byte {layout.end:,},"
        f" the file {found}; copy it again"
    )


def _scale(stored: NDArray[np.generic], scaling: tuple[float, float] | None) -> NDArray[np.generic]:
    if scaling is None:
        return stored
    slope, intercept = scaling
    if stored.dtype.kind == "f":
        kind = stored.dtype
    else:  # float32 has 24 bits: 16 for the number, the rest so that a large intercept does not push them out
        fits = stored.dtype.itemsize <= 2 and abs(intercept) < 2**22 * abs(slope)
        kind = np.dtype(np.float32 if fits else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is refused
        scaled = stored.astype(kind)
        scaled *= kind.type(slope)
        scaled += kind.type(intercept)
    return scaled


def _encode(layout: NiftiLayout, voxels: NDArray[np.generic], intent: int, model: ModelName) -> bytes:
    if voxels.shape != layout.shape:
        raise SliceError(f"has changed while it was read: it is {layout.shape} now, its mask {voxels.shape}")
    header = type(layout.header)(endianness="<")
    for name in GRID:
        header[name] = layout.header[name]
    header.set_data_dtype(voxels.dtype)
    header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 1
    header["intent_code"] = intent
    header["descrip"] = f"segport {__version__}, model {model.sha256[:16]}".encode()
    no_extensions = bytes(4)
    return gzip.compress(header.binaryblock + no_extensions + voxels.tobytes(order="F"), COMPRESSION, mtime=0)
