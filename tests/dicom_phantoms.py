"""Small DICOM series with a lesion, made of invented names and numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, RLELossless, generate_uid
from pydicom.valuerep import format_number_as_ds

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SPACING = (1.5, 0.75, 4.0)  # between rows, columns, slices
ORIGIN = (-20.0, 13.0, 40.0)


def uid(*names: object) -> str:
    return generate_uid(entropy_srcs=["segport tests", *map(str, names)])


def phantom(slices: int = 5, rows: int = 40, columns: int = 34) -> NDArray[np.uint16]:
    """Return [slice, row, column] with a gradient and a bright lesion that no flip or swap of axes leaves in place."""
    k, j, i = np.meshgrid(range(slices), range(rows), range(columns), indexing="ij")
    voxels = (20 * k + 3 * j + i).astype(np.uint16)
    voxels[slices - 2, 1:4, columns - 3 : columns - 1] = 1000
    return voxels


def slice_of(pixels: NDArray[Any], position: Sequence[float], number: int, **tags: Any) -> Dataset:
    """Return a classic MR image; `tags` replace what stands here, None deletes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.Modality, ds.ImageType = MRImageStorage, "MR", ["ORIGINAL", "PRIMARY", "M"]
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "DOE^JOHN", "4711", "19700131", "O"
    ds.AccessionNumber, ds.StudyID, ds.StudyDate, ds.StudyTime = "ACC0815", "1", "20200304", "101112"
    ds.ReferringPhysicianName, ds.Manufacturer = "", "Maker"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid("series")
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("frame"), ""
    ds.SeriesNumber, ds.InstanceNumber, ds.SeriesDescription = 4, number, "t2_flair_tra"
    ds.SeriesDate, ds.SeriesTime = "20200304", "101500"
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = ["SE", "IR"], "SK", "", "2D"
    ds.EchoTime, ds.RepetitionTime, ds.InversionTime, ds.EchoTrainLength = 120, 9000, 2500, 16
    ds.ImageOrientationPatient = [format_number_as_ds(c) for c in np.array(AXIAL).ravel()]
    ds.ImagePositionPatient = [format_number_as_ds(float(c)) for c in position]
    ds.PixelSpacing, ds.SliceThickness = list(SPACING[:2]), 3.0
    grey(ds, pixels)
    for keyword, found in tags.items():
        if found is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, found)
    ds.SOPInstanceUID = uid(ds.SeriesInstanceUID, number)
    return ds


def grey(ds: Dataset, pixels: NDArray[Any]) -> None:
    bits = 8 * pixels.dtype.itemsize
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)


def series(
    voxels: NDArray[Any],
    axes: Sequence[Sequence[float]] = AXIAL,
    *,
    origin: Sequence[float] = ORIGIN,
    offsets: Sequence[float] | None = None,
    backwards: bool = False,
    **tags: Any,
) -> list[Dataset]:
    """Return a slice for each of `voxels`; `backwards`: stored and numbered against the normal."""
    across, down = np.array(axes, float)
    normal = np.cross(across, down) * (-1 if backwards else 1)
    offsets = offsets or [SPACING[2] * k for k in range(len(voxels))]
    cosines = [format_number_as_ds(float(c)) for c in (*across, *down)]
    return [
        slice_of(v, np.array(origin) + normal * d, k, **{"ImageOrientationPatient": cosines, **tags})
        for k, (v, d) in enumerate(zip(voxels, offsets, strict=True), 1)
    ]


def enhanced(voxels: NDArray[Any], axes: Sequence[Sequence[float]] = AXIAL, *, shuffle: int = 0) -> Dataset:
    """Return an enhanced MR image; `shuffle`: a seed for the order of its frames."""
    slices = series(voxels, axes)
    order = np.random.default_rng(shuffle).permutation(len(slices)) if shuffle else np.arange(len(slices))
    slices = [slices[k] for k in order]
    ds = slices[0]
    shared, groups = Dataset(), []
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [Dataset()], [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = ds.PixelSpacing
    shared.PixelMeasuresSequence[0].SliceThickness = 3.0
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = ds.ImageOrientationPatient
    for k, one in enumerate(slices, 1):
        group = Dataset()
        group.PlanePositionSequence, group.FrameContentSequence = [Dataset()], [Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = one.ImagePositionPatient
        group.FrameContentSequence[0].StackID, group.FrameContentSequence[0].InStackPositionNumber = "1", k
        group.PixelValueTransformationSequence = [Dataset()]
        group.PixelValueTransformationSequence[0].RescaleSlope = 1
        group.PixelValueTransformationSequence[0].RescaleIntercept = 0
        groups.append(group)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, keyword)
    ds.SOPClassUID, ds.NumberOfFrames = EnhancedMRImageStorage, len(slices)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], groups
    ds.PixelData = b"".join(one.PixelData for one in slices)
    return ds


def save(folder: Path, slices: Sequence[Dataset], name: str = "{:03}.dcm", syntax: str = "") -> list[Path]:
    """Write each; `syntax`: to compress with first."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name.format(k) for k in range(len(slices))]
    for path, ds in zip(paths, slices, strict=True):
        if syntax:
            ds.compress(
                syntax, encoding_plugin="pylibjpeg" if syntax != RLELossless else "pydicom", generate_instance_uid=False
            )
        ds.save_as(path, enforce_file_format=True)
    return paths
