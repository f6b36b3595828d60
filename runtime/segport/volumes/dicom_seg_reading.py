"""A DICOM SEG that segport wrote, read back for pictures of it."""

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from segport.errors import SliceError
from segport.volumes.dicom_files import UNPARSABLE, SeriesFiles, quiet
from segport.volumes.dicom_planes import read_stack


def read_seg(files: SeriesFiles, path: Path) -> NDArray[np.uint8]:
    """Return a mask as `encode_seg` took it, uint8 [column, row, slice] of 0 and 1, each frame at its place.

    `files`: the series that it was made from. Raises `SliceError`.
    """
    stack = read_stack(files)
    origins = np.array([place[0].position for place in stack.places])
    mask = np.zeros((len(stack.places), *stack.shape), np.uint8)
    try:
        with quiet():
            seg = pydicom.dcmread(path)
            frames = seg.pixel_array.reshape(-1, *stack.shape)
            for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
                position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, np.float64)
                mask[np.linalg.norm(origins - position, axis=1).argmin()] = frame
    except (*UNPARSABLE, OSError) as error:
        raise SliceError(f"has a mask {path.name} that cannot be read; run the command again") from error
    return mask.transpose(2, 1, 0)
