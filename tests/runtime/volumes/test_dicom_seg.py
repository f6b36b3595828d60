"""The DICOM SEG: valid to an independent checker, the same bytes each time, and about the right patient."""

import shutil
import subprocess
import time
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless

from dicom_phantoms import enhanced, phantom, save, series
from segport.errors import SliceError
from segport.volumes.case import ModelName
from segport.volumes.dicom_files import SeriesFiles
from segport.volumes.dicom_seg import DESCRIPTION, encode_nifti, encode_seg

MODEL = ModelName("tiny.onnx", "ab" * 32)
MASK = (phantom() == 1000).astype(np.uint8).transpose(2, 1, 0)
IRREGULAR = (0, 4, 8, 16, 20)
BARE = (
    "StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "PatientName", "PatientID", "PatientSex", "PatientBirthDate",
    "AccessionNumber", "SeriesNumber", "StudyID", "SliceThickness",
)  # fmt: skip


def files(folder: Path, kind: str = "") -> SeriesFiles:
    if kind == "enhanced":
        return SeriesFiles(save(folder, [enhanced(phantom(), shuffle=2)]))
    slices = series(phantom(), offsets=IRREGULAR if kind == "irregular" else None)
    if kind == "bare":
        for ds in slices:
            for keyword in BARE:
                delattr(ds, keyword)
    return SeriesFiles(save(folder, slices, syntax=JPEG2000Lossless if kind == "compressed" else ""))


def seg(
    tmp_path: Path, kind: str = "", mask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = MASK
) -> pydicom.Dataset:
    path = tmp_path / "out_mask.dcm"
    path.write_bytes(encode_seg(files(tmp_path / "in", kind), mask, MODEL))
    return pydicom.dcmread(path)


@pytest.mark.parametrize("kind", ["", "empty", "enhanced", "irregular", "compressed", "bare"])
def test_dciodvfy_finds_no_error(tmp_path: Path, kind: str) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("needs dciodvfy, of Debian's package dicom3tools")
    seg(tmp_path, kind, MASK * (kind != "empty"))
    done = subprocess.run(["dciodvfy", tmp_path / "out_mask.dcm"], capture_output=True, text=True, check=False)
    assert "Segmentation" in done.stderr + done.stdout
    assert [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")] == []


def test_dciodvfy_would_find_an_error(tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("needs dciodvfy, of Debian's package dicom3tools")
    broken = seg(tmp_path)
    del broken.SegmentSequence[0].SegmentLabel
    broken.save_as(tmp_path / "out_mask.dcm")
    done = subprocess.run(["dciodvfy", tmp_path / "out_mask.dcm"], capture_output=True, text=True, check=False)
    assert "Error" in done.stderr + done.stdout


@pytest.mark.parametrize("kind", ["", "enhanced"])
def test_two_runs_give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    there = files(tmp_path, kind)
    first = encode_seg(there, MASK, MODEL), encode_nifti(there, MASK)
    time.sleep(1.1)  # DICOM's times count seconds, gzip's too
    assert (encode_seg(there, MASK, MODEL), encode_nifti(there, MASK)) == first


def test_another_mask_or_model_has_other_uids(tmp_path: Path) -> None:
    there = files(tmp_path)
    made = [
        encode_seg(there, m, ModelName("tiny.onnx", sha))
        for m, sha in ((MASK, "a" * 64), (MASK, "b" * 64), (MASK * 0, "a" * 64))
    ]
    found = [pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)) for data in made]
    assert len({d.SOPInstanceUID for d in found}) == len({d.SeriesInstanceUID for d in found}) == 3
    assert all(pydicom.uid.UID(d.SOPInstanceUID).is_valid and d.SOPInstanceUID.startswith("2.25.") for d in found)


def test_it_names_what_is_marked_who_did_it_and_on_what(tmp_path: Path) -> None:
    found = seg(tmp_path)
    (segment,) = found.SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert "tiny.onnx" in algorithm.AlgorithmName
    assert MODEL.sha256 in algorithm.AlgorithmParameters
    assert (found.SegmentationType, found.SeriesDescription) == ("BINARY", DESCRIPTION)
    source = [pydicom.dcmread(p) for p in sorted((tmp_path / "in").iterdir())]
    for keyword in (
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "AccessionNumber",
        "StudyDate",
    ):
        assert found[keyword].value == source[0][keyword].value
    (reference,) = found.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == source[0].SeriesInstanceUID
    referred = {i.ReferencedSOPInstanceUID for i in reference.ReferencedInstanceSequence}
    assert referred == {s.SOPInstanceUID for s in source}
    assert (found.ContentDate, found.SeriesDate) == (source[0].SeriesDate,) * 2


@pytest.mark.parametrize("kind", ["", "enhanced"])
def test_highdicom_reads_the_volume_back(tmp_path: Path, kind: str) -> None:
    seg(tmp_path, kind)
    volume = hd.seg.segread(tmp_path / "out_mask.dcm").get_volume(combine_segments=True)
    assert volume.array.sum() == MASK.sum() == 6
    assert volume.spacing[1:] == (1.5, 0.75)


def test_an_empty_mask_keeps_all_its_slices(tmp_path: Path) -> None:
    found = seg(tmp_path, mask=MASK * 0)
    assert (found.NumberOfFrames, set(found.PixelData)) == ("5", {0})


def test_names_in_other_alphabets_stay_as_they_are(tmp_path: Path) -> None:
    slices = series(phantom(), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    data = encode_seg(SeriesFiles(save(tmp_path, slices)), MASK, ModelName("модель\\1.onnx", "c" * 64))
    assert pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).PatientName == "Müller^Jörg"


def test_what_a_seg_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SliceError, match="the files changed during the run"):
        encode_seg(files(tmp_path / "a"), MASK[:, :, :4], MODEL)
    doubled = enhanced(phantom())
    groups = doubled.PerFrameFunctionalGroupsSequence
    groups[3].PlanePositionSequence = groups[2].PlanePositionSequence
    with pytest.raises(SliceError, match=r"share a place.*--format nii"):
        encode_seg(SeriesFiles(save(tmp_path / "b", [doubled])), MASK[:, :, :4], MODEL)
    with pytest.raises(SliceError, match="remedy: --format nii"):
        encode_seg(SeriesFiles(save(tmp_path / "c", series(phantom(), FrameOfReferenceUID=None))), MASK, MODEL)


def test_slices_that_are_not_equally_far_apart_are_no_nifti(tmp_path: Path) -> None:
    there = files(tmp_path, "irregular")
    with pytest.raises(SliceError, match=r"not equally far apart, which NIfTI cannot say; remedy: --format source$"):
        encode_nifti(there, MASK)
    with pytest.raises(SliceError, match="remedy: --format source and no --probabilities"):
        encode_nifti(there, MASK.astype(np.float32))
