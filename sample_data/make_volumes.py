"""Write patient_1's slices as volumes: one NIfTI file a sequence (nifti/), and one DICOM series a sequence (dicom/).

python sample_data/make_volumes.py      (needs nibabel and pydicom: pip install 'segport[medical]')

Values are those of the slices, uint8. The pixels of the synthetic head are 1 mm wide, its slices 5 mm apart; the front
is at the top, the patient's right at the left edge. Position and dates are invented.
"""

import argparse
import gzip
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

HERE = Path(__file__).parent
PATIENT, SLICES = "patient_1", 12
SPACING = (1.0, 5.0)  # mm: of pixels, of slices
CORNER = (-128.0, -128.0, 10.0)  # of the first pixel of the lowest slice, in DICOM's LPS
# of each channel: ending of the NIfTI file, description, echo, repetition and inversion time in ms, contrast agent
SEQUENCES = (
    ("t1", "t1_se_tra", 12, 500, None, ""),
    ("flair", "t2_flair_tra", 110, 9000, 2500, ""),
    ("t1ce", "t1_se_tra_km", 12, 500, None, "synthetic"),
)
ROOT = "2.25.2026112300"  # of this data set's UIDs


def read_patient() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return pixels [slices, height, width, 3], RGB, and masks [slices, height, width], 0 or 1, lowest slice first."""
    names = [HERE / PATIENT / f"{PATIENT}_{i}" for i in range(1, SLICES + 1)]
    pixels = np.stack([cv2.imread(f"{name}.tif", cv2.IMREAD_UNCHANGED)[..., ::-1] for name in names])
    masks = np.stack([cv2.imread(f"{name}_mask.tif", cv2.IMREAD_UNCHANGED) > 0 for name in names])
    return pixels, masks.astype(np.uint8)


def write_nifti(folder: Path, pixels: NDArray[np.uint8], masks: NDArray[np.uint8]) -> None:
    """Write one file a sequence and the true mask, columns, rows and slices as axes i, j and k."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-SPACING[0], -SPACING[0], SPACING[1], 1])
    affine[:3, 3] = (-CORNER[0], -CORNER[1], CORNER[2])  # RAS
    endings = [ending for ending, *_ in SEQUENCES]
    for ending, voxels in zip([*endings, "mask"], [*np.moveaxis(pixels, 3, 0), masks], strict=True):
        image = nib.Nifti1Image(np.ascontiguousarray(voxels.transpose(2, 1, 0)), affine)
        image.header.set_xyzt_units("mm")
        image.header.set_qform(affine, "scanner")
        image.header.set_sform(affine, "scanner")
        path = folder / f"{PATIENT}_{ending}.nii.gz"
        path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))


def write_dicom(folder: Path, pixels: NDArray[np.uint8]) -> None:
    """Write one series a sequence, one file a slice."""
    for number, sequence in enumerate(SEQUENCES, 1):
        place = folder / f"series_{number}"
        place.mkdir(parents=True, exist_ok=True)
        for index in range(SLICES):
            dataset = make_dataset(number, index, sequence, pixels[index, ..., number - 1])
            dataset.save_as(place / f"slice_{index + 1:02}.dcm", enforce_file_format=True)


def make_dataset(
    number: int, index: int, sequence: tuple[str, str, int, int, int | None, str], pixels: NDArray[np.uint8]
) -> Dataset:
    """Return one slice of a series as MR Image Storage. `pixels`: uint8 [height, width]."""
    _, description, echo, repetition, inversion, agent = sequence
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = MRImageStorage
    one.SOPInstanceUID = f"{ROOT}.{number}.{index + 1}"
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.file_meta.ImplementationClassUID, one.file_meta.ImplementationVersionName = f"{ROOT}.8", "SEGPORT"
    one.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    one.StudyDate = one.SeriesDate = one.ContentDate = "20260101"
    one.StudyTime = one.SeriesTime = one.ContentTime = "120000"
    one.AccessionNumber, one.Modality, one.Manufacturer = "", "MR", "segport"
    one.StudyDescription, one.SeriesDescription = "Synthetic head", description
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "SYNTHETIC^ONE", "SYN-1", "", ""
    one.ReferringPhysicianName, one.StudyID, one.PatientPosition = "", "1", "HFS"
    one.BodyPartExamined = "HEAD"
    one.ScanningSequence, one.SequenceVariant = ("IR" if inversion else "SE"), "SK"
    one.ScanOptions, one.MRAcquisitionType = "", "2D"
    one.SliceThickness, one.SpacingBetweenSlices = SPACING[1], SPACING[1]
    one.EchoTime, one.RepetitionTime, one.EchoTrainLength = echo, repetition, 1
    if inversion:
        one.InversionTime = inversion
    if agent:
        one.ContrastBolusAgent = agent
    one.StudyInstanceUID, one.SeriesInstanceUID = f"{ROOT}.0", f"{ROOT}.{number}"
    one.FrameOfReferenceUID, one.PositionReferenceIndicator = f"{ROOT}.9", ""
    one.SeriesNumber, one.InstanceNumber = number, index + 1
    one.ImagePositionPatient = [*CORNER[:2], CORNER[2] + index * SPACING[1]]
    one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], [SPACING[0], SPACING[0]]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.Rows, one.Columns = pixels.shape
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 8, 7, 0  # 8 alone is not allowed
    one.PixelData = pixels.astype("<u2").tobytes()
    one["PixelData"].VR = "OW"
    return one


def main() -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(description="Write patient_1 as NIfTI and DICOM.")
    parser.add_argument("--out", type=Path, default=HERE, help="where nifti/ and dicom/ go")
    arguments = parser.parse_args()
    pixels, masks = read_patient()
    write_nifti(arguments.out / "nifti", pixels, masks)
    write_dicom(arguments.out / "dicom", pixels)


if __name__ == "__main__":
    main()
