"""One synthetic patient as slices, NIfTI and DICOM: the embedded model gives the same mask, voxel by voxel."""

from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray

from helpers import SAMPLE_DATA, read
from segport.cli import main


def infer(*arguments: object) -> int:
    return main([*map(str, arguments), "--device", "cpu", "--quiet"])


def from_slices(out: Path) -> NDArray[np.bool_]:
    assert infer(SAMPLE_DATA / "patient_1", "--out", out) == 0
    masks = np.stack([read(out / f"patient_1_{i}_mask.png") > 0 for i in range(1, 13)])
    return np.asarray(masks.transpose(2, 1, 0))


def test_slices_nifti_and_dicom_give_one_mask(tmp_path: Path) -> None:
    expected = from_slices(tmp_path / "slices")
    assert expected.sum() > 5000
    assert infer(SAMPLE_DATA / "nifti", "--out", tmp_path / "nifti") == 0
    image = nib.load(tmp_path / "nifti/patient_1_mask.nii.gz")
    assert (np.asarray(image.dataobj) == expected).all()

    assert infer(SAMPLE_DATA / "dicom", "--out", tmp_path / "dicom") == 0
    (seg,) = (tmp_path / "dicom").rglob("*_mask.dcm")
    dataset = pydicom.dcmread(seg)
    frames, found = dataset.pixel_array, np.zeros(expected.shape, bool)
    sources = {pydicom.dcmread(p).SOPInstanceUID: p for p in (SAMPLE_DATA / "dicom/series_2").iterdir()}
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        found[..., round((position[2] - 10) / 5)] = frame.T
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert pydicom.dcmread(sources[source]).ImagePositionPatient == position
    assert (found == expected).all()

    assert infer(SAMPLE_DATA / "dicom", "--out", tmp_path / "both", "--format", "nii") == 0
    (other,) = (tmp_path / "both").rglob("*_mask.nii.gz")
    assert (np.asarray(nib.load(other).dataobj) == expected).all()
    assert np.allclose(nib.load(other).affine, image.affine)
    mask, flair = (SimpleITK.ReadImage(p) for p in (other, SAMPLE_DATA / "nifti/patient_1_flair.nii.gz"))
    for fact in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(mask, fact)(), getattr(flair, fact)())


def test_no_name_of_the_patient_leaves_the_series(tmp_path: Path, capfd) -> None:
    """Names, ids and the folder's own name are in no file name, table, log or message, unless that is asked for."""
    hostile = tmp_path / "SYNTHETIC_ONE SYN-1"
    hostile.mkdir()
    for path in (SAMPLE_DATA / "dicom").rglob("*.dcm"):
        (hostile / f"SYN-1_{path.parent.name}_{path.name}").write_bytes(path.read_bytes())
    (hostile / "SYN-1_cut.dcm").write_bytes(path.read_bytes()[:400])
    out = tmp_path / "out"
    assert infer(hostile, "--out", out, "--overlay") == 1
    said = "".join(capfd.readouterr())
    written = [p for p in out.rglob("*") if p.is_file()]
    texts = [p.read_text() for p in written if p.suffix in {".csv", ".json", ".jsonl"}]
    names = [p.relative_to(out).as_posix() for p in written]
    for text in [said.replace(str(tmp_path), ""), *names, *texts]:
        assert "SYN-1" not in text.replace(hostile.name, "")  # run.json names the input as the user did
    assert Counter(p.suffix for p in written)[".dcm"] == 1
    assert infer(hostile, "--out", tmp_path / "named", "--keep-identity") == 1
    assert [p.parent.name for p in (tmp_path / "named").rglob("*_mask.dcm")] == ["SYN-1"]
