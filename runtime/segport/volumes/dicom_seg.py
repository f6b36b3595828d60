"""A mask as DICOM SEG or NIfTI, on the planes of the series that it was made from; the same bytes for the same mask."""

import gzip
import hashlib
import io
from typing import Any, cast

import highdicom as hd
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from segport._version import __version__
from segport.errors import SliceError
from segport.volumes.case import ModelName
from segport.volumes.dicom_files import UNPARSABLE, SeriesFiles, quiet, read_header, text
from segport.volumes.dicom_plane import Plane
from segport.volumes.dicom_planes import Stack, read_stack

NO_FRAME = "has no FrameOfReferenceUID, which a DICOM SEG needs; remedy: --format nii"
UNEVEN = "has slices that are not equally far apart, which NIfTI cannot say; remedy: --format source"
UNEVEN_PROBABILITY = f"{UNEVEN} and no --probabilities"
DESCRIPTION = "segport: research use"
_EMPTY_ALLOWED = (  # of the patient and the study; a SEG holds them, empty where the source does not
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_OPTIONAL = ("PatientAge", "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod")
_OTHERS = (
    "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDate", "SeriesTime", "AcquisitionDate",
    "ContentDate", "PositionReferenceIndicator", "LossyImageCompression",
)  # fmt: skip


def encode_seg(files: SeriesFiles, mask: NDArray[np.uint8], model: ModelName) -> bytes:
    """Return a mask, uint8 [column, row, slice] of 0 and 1 as `read_series` orders them, as a DICOM SEG.

    It is binary, with one segment, refers to the series' pictures, and carries their patient and study. Slices without
    tumour are left out, unless all are. Its UIDs are made from the series, the model and the mask, its dates are the
    series'. Raises `SliceError`.
    """
    stack = read_stack(files)
    _check_shape(mask, stack)
    if not stack.frame_of_reference:
        raise SliceError(NO_FRAME)
    with quiet():
        header = read_header(files.paths[0], (*_EMPTY_ALLOWED, *_OPTIONAL, *_OTHERS))
        planes = [place[0] for place in stack.places]
        pictures = mask.transpose(2, 1, 0)
        if stack.enhanced:
            if any(len(place) > 1 for place in stack.places):
                raise SliceError(
                    "has frames that share a place, which a DICOM SEG cannot refer to; remedy: --format nii"
                )
            by_frame = np.argsort([p.frame for p in planes])
            planes, pictures = [planes[i] for i in by_frame], pictures[by_frame]
        try:
            seg = _segmentation(_sources(header, stack, planes), pictures, model, _Uids(header, model, mask))
            _complete(seg, header)
            written = io.BytesIO()
            seg.save_as(written, enforce_file_format=True)
        except UNPARSABLE as error:
            raise SliceError("has headers that no DICOM SEG can be made from; remedy: --format nii") from error
    return written.getvalue()


def encode_nifti(files: SeriesFiles, voxels: NDArray[np.uint8] | NDArray[np.float32]) -> bytes:
    """Return voxels, [column, row, slice] as `read_series` orders them, as NIfTI with the series' affine, gzipped.

    Raises `SliceError`, also for slices that are not equally far apart: a grid would move them.
    """
    stack = read_stack(files)
    _check_shape(voxels, stack)
    if not stack.regular:
        raise SliceError(UNEVEN if voxels.dtype == np.uint8 else UNEVEN_PROBABILITY)
    picture: Any = cast(Any, nib.Nifti1Image)(voxels, stack.affine, dtype=voxels.dtype)
    picture.set_sform(stack.affine, 1)  # code 1: the scanner's own millimetres
    picture.set_qform(stack.affine, 1)
    picture.header.set_xyzt_units("mm")
    return gzip.compress(bytes(picture.to_bytes()), mtime=0)


def _check_shape(voxels: NDArray[np.generic], stack: Stack) -> None:
    expected = stack.shape[1], stack.shape[0], len(stack.places)
    if voxels.shape != expected:
        raise SliceError(f"its mask is {voxels.shape}, the series {expected}: the files changed during the run")


class _Uids:
    """UIDs for one result, from a hash of what it was made from; the root 2.25 is for those made from 128 bits."""

    def __init__(self, header: Dataset, model: ModelName, mask: NDArray[np.uint8]) -> None:
        self._hash = hashlib.sha256(f"{text(header, 'SeriesInstanceUID')} {model.sha256} {mask.shape} ".encode())
        self._hash.update(mask.tobytes())

    def __call__(self, what: str) -> str:
        whole = self._hash.copy()
        whole.update(what.encode())
        return f"2.25.{int.from_bytes(whole.digest()[:16])}"


def _sources(header: Dataset, stack: Stack, planes: list[Plane]) -> list[Dataset]:
    """Return what highdicom must know of the source pictures, without the patient; one a plane, or one enhanced."""
    first = planes[0]
    measures = Dataset()
    measures.PixelSpacing = list(map(format_number_as_ds, first.spacing))
    measures.SliceThickness = format_number_as_ds(first.thickness or stack.distance)
    orientation = Dataset()
    orientation.ImageOrientationPatient = list(map(format_number_as_ds, first.orientation))
    positions = []
    for plane in planes:
        positions.append(Dataset())
        positions[-1].ImagePositionPatient = list(map(format_number_as_ds, plane.position))
    shared, groups = Dataset(), []
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    for position in positions:
        groups.append(Dataset())
        groups[-1].PlanePositionSequence = [position]
    sources = []
    for plane, position in zip(planes[:1] if stack.enhanced else planes, positions, strict=False):
        source = Dataset()
        source.SOPClassUID, source.SOPInstanceUID = stack.sop_class, plane.uid
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
            setattr(source, keyword, text(header, keyword))
        for keyword in _EMPTY_ALLOWED:
            setattr(source, keyword, "")
        source.FrameOfReferenceUID, source.Modality = stack.frame_of_reference, "MR"
        source.PositionReferenceIndicator = text(header, "PositionReferenceIndicator")
        source.Rows, source.Columns = stack.shape
        if text(header, "LossyImageCompression") in ("00", "01"):
            source.LossyImageCompression = text(header, "LossyImageCompression")
        if stack.enhanced:
            source.NumberOfFrames = len(planes)
            source.SharedFunctionalGroupsSequence, source.PerFrameFunctionalGroupsSequence = [shared], groups
        else:
            for item in (measures, orientation, position):
                source.update(item)
        sources.append(source)
    return sources


def _segmentation(
    sources: list[Dataset], pictures: NDArray[np.uint8], model: ModelName, uids: _Uids
) -> hd.seg.Segmentation:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"segport: {_ascii(model.name)}"[:64],
        family=codes.cid7162.ArtificialIntelligence,
        version=__version__,
        parameters={"model": _ascii(model.name), "sha256": model.sha256},
    )
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Tumour",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    seg = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.ascontiguousarray(pictures),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=uids("series"),
        series_number=1,
        sop_instance_uid=uids("instance"),
        instance_number=1,
        manufacturer="segport",
        manufacturer_model_name="segport",
        software_versions=__version__,
        device_serial_number=model.sha256,
        content_label="TUMOUR",
        content_description="Tumour, segmented by a network; not for diagnosis",
        series_description=DESCRIPTION,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=bool(pictures.any()),
        specific_character_set="ISO_IR 192",
    )
    for item in [*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence]:
        item.DimensionOrganizationUID = uids("dimensions")  # highdicom's is random
    return seg


def _complete(seg: Dataset, header: Dataset) -> None:
    """Put in the patient, whom highdicom never sees (it logs odd names), and the source's dates for the clock's."""
    for keyword in _EMPTY_ALLOWED:
        setattr(seg, keyword, text(header, keyword))
    for keyword in _OPTIONAL:
        if text(header, keyword):
            setattr(seg, keyword, text(header, keyword))
    if seg.PatientSex not in ("", "M", "F", "O"):
        seg.PatientSex = ""
    number = text(header, "SeriesNumber")
    seg.SeriesNumber = 1000 + int(number) if number.isdecimal() and int(number) < 10**9 else 1000
    dates = (text(header, k) for k in ("SeriesDate", "StudyDate", "AcquisitionDate", "ContentDate"))
    date = next(filter(None, dates), "19000101")  # a SEG must have one
    time = text(header, "SeriesTime") if text(header, "SeriesDate") else ""
    seg.SeriesDate = seg.ContentDate = date
    seg.SeriesTime = seg.ContentTime = time or "000000"
    size = -(-int(seg.NumberOfFrames) * seg.Rows * seg.Columns // 8)
    seg.PixelData = seg.PixelData[:size] + b"\0" * (size % 2)  # highdicom 0.28 pads with the letter 0
    del seg.InstanceCreationDate, seg.InstanceCreationTime
    for item in seg.ContributingEquipmentSequence:
        if "ContributionDateTime" in item:
            del item.ContributionDateTime


def _ascii(name: str) -> str:
    return name.encode("ascii", "replace").decode().replace("\\", "/")
