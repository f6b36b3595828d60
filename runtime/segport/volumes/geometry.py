"""From a stored volume to axial slices as the network knows them, and back: axes are swapped and turned, no more.

The slices of the LGG data set, which the embedded model was trained on, show the patient's front at the top and go from
the feet to the head: eyes and skull base are to be seen. Which side is left cannot be; as DICOM's axial slices have it,
the patient's right is at the left edge. Pooled Dice of the first embedded model on 10 patients: 0.817 as stored, 0.812
mirrored left to right (training mirrors at random), 0.73 with the front at the bottom, 0.49 to 0.71 turned aside.
"""

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from segport.errors import SliceError

SHOWN = ("L", "P", "S")  # columns grow to the patient's left, rows to the back, slices to the head


class AxialView:
    """The axial slices of volumes with this affine, float64 [4, 4], voxel indices to millimetres in RAS+.

    For oblique volumes the stored axis that is nearest to each direction is taken. `spacing`: height and width of a
    pixel and distance of the slices, in millimetres. `voxel_volume`: in mm3. Raises `SliceError` for an affine that
    gives some axis no direction.
    """

    def __init__(self, affine: NDArray[np.float64]) -> None:
        stored, shown = io_orientation(affine), axcodes2ornt(SHOWN)
        if np.isnan(stored).any():
            raise SliceError("has an affine that gives one of its axes no direction; remedy: export it anew")
        self.voxel_volume = abs(float(np.linalg.det(affine[:3, :3])))
        self._there, self._back = ornt_transform(stored, shown), ornt_transform(shown, stored)
        lengths = np.empty(3)
        lengths[self._there[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
        width, height, distance = map(float, lengths)
        self.spacing = (height, width, distance)

    def slices(self, voxels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return stored voxels, [i, j, k], as slices from the feet to the head, [slices, height, width]; a view."""
        return np.asarray(apply_orientation(voxels, self._there)).transpose(2, 1, 0)

    def stored(self, slices: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return slices, [slices, height, width], in the stored order, [i, j, k]; the inverse of `slices`."""
        return np.asarray(apply_orientation(slices.transpose(2, 1, 0), self._back))
