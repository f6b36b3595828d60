"""The voxels of a DICOM series: decoded slice by slice, and put in the order of their places."""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from segport.errors import SliceError
from segport.volumes.case import SequenceVolume
from segport.volumes.dicom_files import UNPARSABLE, SeriesFiles, numbers, quiet, read_whole, text
from segport.volumes.dicom_planes import Stack, read_stack

# Which decoder reads what; named, so that a computer where others are installed gives the same pixels.
DECODERS = {
    "1.2.840.10008.1.2": "",  # not compressed: implicit, explicit, big-endian
    "1.2.840.10008.1.2.1": "",
    "1.2.840.10008.1.2.2": "",
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline, extended
    "1.2.840.10008.1.2.4.51": "pillow",
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # JPEG 2000, high throughput
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
    "1.2.840.10008.1.2.5": "pydicom",  # RLE; pylibjpeg-rle 2.2 panics on damaged data, past every except
}
RLE = "1.2.840.10008.1.2.5"
_END = b"\xff\xd9"  # of every JPEG; decoders fill up what is missing before it without a word
_TRUNCATED = "has less pixel data than its header says; it is truncated; copy it again"


def read_series(files: SeriesFiles) -> SequenceVolume:
    """Return a series as a volume, [column, row, slice], slices in the order of their normal.

    Its dtype is the stored one, uint8 for up to 8 unsigned bits, which MR images store in 16; where the slices have
    slopes or intercepts it is float32, float64 above 16 bits. MONOCHROME1 (white is 0) is inverted within the stored
    bits. Raises `SliceError` where the headers (`read_stack`) or pixels cannot be used, and where slices that share a
    position differ.
    """
    stack = read_stack(files)
    planes = [(k, plane) for k, place in enumerate(stack.places) for plane in place]
    scaled = any((plane.slope, plane.intercept) != (1, 0) for _, plane in planes)
    voxels: NDArray[np.generic] | None = None
    filled: set[int] = set()
    whole, opened = FileDataset("", {}), -1
    for k, plane in sorted(planes, key=lambda p: (p[1].file, p[1].frame)):
        try:
            with quiet():
                if plane.file != opened:
                    whole, opened = read_whole(files.paths[plane.file]), plane.file
                    _check_layout(whole, stack)
                pixels = _decode(whole, plane.frame)
            if scaled:
                wide = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
                pixels = (pixels.astype(np.float64) * plane.slope + plane.intercept).astype(wide)
            if voxels is None:
                voxels = np.empty((len(stack.places), *stack.shape), pixels.dtype)
            if pixels.dtype != voxels.dtype:
                raise SliceError(f"holds {pixels.dtype}, the first slice {voxels.dtype}; expected one for all")
            if k in filled and not np.array_equal(pixels, voxels[k]):
                raise SliceError(
                    "has other pixels at the place of another slice (several echoes, time points or kinds of pictures"
                    " in one series?); remedy: save each as a series of its own"
                )
        except SliceError as error:
            raise SliceError(f"{files.label(plane.file)}: {error}") from error
        voxels[k] = pixels
        filled.add(k)
    if voxels is None:
        raise SliceError("holds no slices")
    return SequenceVolume(voxels.transpose(2, 1, 0), stack.affine, stack.uneven)


def _check_layout(whole: FileDataset, stack: Stack) -> None:
    """Refuse pixels that are not grey, or not stored as MR images are; raises `SliceError`."""
    syntax = UID(str(whole.file_meta.get("TransferSyntaxUID", "")))
    if not syntax:
        raise SliceError("does not say how its pixels are stored (no TransferSyntaxUID)")
    if syntax not in DECODERS:
        raise SliceError(
            f"is compressed as {syntax.name if syntax.name != syntax else 'an unknown transfer syntax'}, which segport"
            " does not decode (for JPEG Lossless, free decoders are under the GPL); remedy: decompress it, as with"
            " gdcmconv --raw"
        )
    kind, samples = text(whole, "PhotometricInterpretation"), numbers(whole, "SamplesPerPixel") or (1.0,)
    if samples[0] != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise SliceError(f"has colours or a palette ({samples[0]:.0f} samples a pixel); expected grey")
    allocated, stored, high = ((*numbers(whole, k), 0.0)[0] for k in ("BitsAllocated", "BitsStored", "HighBit"))
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or high != stored - 1:
        raise SliceError(
            f"stores {stored:g} bits in {allocated:g}, the highest at {high:g}; expected 1 to 8, 16 or 32 bits from 0"
        )
    if "ModalityLUTSequence" in whole:
        raise SliceError("has a table of intensities (ModalityLUTSequence); expected RescaleSlope and RescaleIntercept")
    if "PixelData" not in whole:
        raise SliceError("holds no PixelData")
    if (int(whole.Rows), int(whole.Columns)) != stack.shape:
        raise SliceError("has changed while it was read")


def _decode(whole: FileDataset, frame: int) -> NDArray[np.generic]:
    """Return one frame as stored, [rows, columns]; raises `SliceError`."""
    syntax = UID(str(whole.file_meta.TransferSyntaxUID))
    shape = int(whole.Rows), int(whole.Columns)
    frames = int((*numbers(whole, "NumberOfFrames"), 1.0)[0])
    try:
        if syntax.is_compressed:
            _check_codestream(get_frame(whole.PixelData, frame, number_of_frames=frames), syntax, shape)
        elif len(whole.PixelData) < frames * shape[0] * shape[1] * int(whole.BitsAllocated) // 8:
            raise SliceError(_TRUNCATED)
        found, _ = get_decoder(syntax).as_array(whole, index=frame, raw=True, decoding_plugin=DECODERS[syntax])
    except (*UNPARSABLE, RuntimeError, OSError, MemoryError) as error:
        raise SliceError(f"has pixel data ({syntax.name}) that cannot be decoded; it is damaged") from error
    narrow = int(whole.BitsStored) <= 8 and np.issubdtype(found.dtype, np.unsignedinteger) and found.max() <= 255
    pixels: NDArray[np.generic] = found.astype(np.uint8) if narrow else found
    if pixels.shape != shape:
        raise SliceError(f"decodes to {pixels.shape}, expected {shape} (rows, columns)")
    if text(whole, "PhotometricInterpretation") == "MONOCHROME1":
        top = -1 if np.issubdtype(pixels.dtype, np.signedinteger) else 2 ** int(whole.BitsStored) - 1
        return (top - pixels.astype(np.int64)).astype(pixels.dtype)
    return pixels


def _check_codestream(frame: bytes, syntax: UID, shape: tuple[int, int]) -> None:
    """Refuse a compressed frame that is cut off, or is of another size than its header says."""
    if syntax == RLE:  # bounded by its header
        return
    if not frame.rstrip(b"\0").endswith(_END):
        raise SliceError(_TRUNCATED)
    if frame.startswith(b"\xff\x4f\xff\x51"):  # JPEG 2000: the grid's size and offset
        width, height, left, top = (int.from_bytes(frame[i : i + 4]) for i in range(8, 24, 4))
        found = height - top, width - left
    else:
        found = _jpeg_size(frame)
    if found != shape:
        raise SliceError(
            f"holds a compressed picture of {found[0]} x {found[1]}, its header says {shape[0]} x {shape[1]}"
        )


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Return height and width from a JPEG's or JPEG-LS's frame header; zeros where there is none."""
    place = 2
    while frame[place : place + 1] == b"\xff" and place + 9 < len(frame):
        marker = frame[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return int.from_bytes(frame[place + 5 : place + 7]), int.from_bytes(frame[place + 7 : place + 9])
        place += 2 + int.from_bytes(frame[place + 2 : place + 4])
    return 0, 0
