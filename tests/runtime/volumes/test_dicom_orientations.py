"""Whatever way a series lies and is stored, the mask lies where the lesion is: independent readers say so."""

import gzip
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from dicom_phantoms import AXIAL, enhanced, phantom, save, series
from segport.volumes.case import ModelName
from segport.volumes.dicom_cases import DicomCase, find_dicom_cases

sitk = pytest.importorskip("SimpleITK")
MODEL = ModelName("tiny.onnx", "ab" * 32)
DIRECTIONS = [tuple(float(s * (a == axis)) for a in range(3)) for axis in range(3) for s in (1, -1)]
TURNS = [(x, y) for x, y in product(DIRECTIONS, DIRECTIONS) if np.dot(x, y) == 0]


def oblique(seed: int) -> tuple[tuple[float, ...], ...]:
    rows = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0][:2]
    return tuple(map(tuple, rows))


def one_case(root: Path, **options: object) -> DicomCase:
    relatives = [p.relative_to(root) for p in root.rglob("*") if p.is_file()]
    (case,) = find_dicom_cases(root, relatives, **options).cases  # type: ignore[arg-type]
    return case


def points_by_simpleitk(paths: list[Path]) -> NDArray[np.float64]:
    """Return where the lesion's voxels are, in DICOM's coordinates, as SimpleITK reads the series."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(paths[0].parent)) if len(paths) > 1 else str(paths[0])
    picture = sitk.ReadImage(names)
    found = np.argwhere(sitk.GetArrayFromImage(picture) == 1000)[:, ::-1]
    return np.array(sorted(picture.TransformIndexToPhysicalPoint([int(n) for n in f]) for f in found))


def points_of_seg(data: bytes, path: Path) -> NDArray[np.float64]:
    """Return where a SEG's voxels are, from its bits and the planes that its frames name."""
    path.write_bytes(data)
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    size = int(seg.NumberOfFrames), seg.Rows, seg.Columns
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")[: np.prod(size)].reshape(size)
    points = []
    for frame, row, column in np.argwhere(bits):
        group = seg.PerFrameFunctionalGroupsSequence[frame]
        start = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        points.append(tuple(start + cosines[0] * between_columns * column + cosines[1] * between_rows * row))
    return np.array(sorted(points))


def points_of_nifti(data: bytes) -> NDArray[np.float64]:
    picture = nib.Nifti1Image.from_bytes(gzip.decompress(data))
    found = np.argwhere(np.asarray(picture.dataobj) == 1)
    return np.array(sorted(map(tuple, nib.affines.apply_affine(picture.affine, found) * (-1, -1, 1))))


def same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Tell whether both are the same points to a hundredth of a millimetre, in any order."""
    distances = np.linalg.norm(one[:, None] - other[None], axis=2)
    return one.shape == other.shape and bool(
        (distances.min(axis=0) < 0.01).all() and (distances.min(axis=1) < 0.01).all()
    )


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("axes", [*TURNS, oblique(1), oblique(2)], ids=str)
def test_the_mask_lies_where_the_lesion_is(
    tmp_path: Path, axes: tuple[tuple[float, float, float], ...], backwards: bool
) -> None:
    names = "{:03}.dcm" if backwards else "x{:03}"
    paths = save(tmp_path / "in", series(phantom(), axes, backwards=backwards), names)
    case = one_case(tmp_path / "in")
    volume = case.read("flair")
    mask = (volume.voxels == 1000).astype(np.uint8)
    assert mask.sum() == 6
    expected = points_by_simpleitk(paths)
    assert same(points_of_seg(case.encode(mask, None, MODEL)["_mask.dcm"], tmp_path / "seg.dcm"), expected)
    by_affine = nib.affines.apply_affine(volume.affine, np.argwhere(mask)) * (-1, -1, 1)
    assert same(by_affine, expected)
    nifti = one_case(tmp_path / "in", format="nii").encode(mask, None, MODEL)["_mask.nii.gz"]
    assert same(points_of_nifti(nifti), expected)


def test_a_mirrored_mask_is_seen_by_this_comparison(tmp_path: Path) -> None:
    paths = save(tmp_path / "in", series(phantom()))
    case = one_case(tmp_path / "in")
    mask = (case.read("flair").voxels == 1000).astype(np.uint8)
    for axis in range(3):
        turned = np.flip(mask, axis).copy()
        seg = case.encode(turned, None, MODEL)["_mask.dcm"]
        assert not same(points_of_seg(seg, tmp_path / "seg.dcm"), points_by_simpleitk(paths))


@pytest.mark.parametrize("axes", [AXIAL, ((0, 1, 0), (0, 0, -1)), oblique(3)], ids=str)
def test_enhanced_frames_in_any_order_give_the_points_of_the_classic_series(
    tmp_path: Path, axes: tuple[tuple[float, float, float], ...]
) -> None:
    paths = save(tmp_path / "classic", series(phantom(), axes))
    save(tmp_path / "in", [enhanced(phantom(), axes, shuffle=7)])
    case = one_case(tmp_path / "in")
    mask = (case.read("flair").voxels == 1000).astype(np.uint8)
    data = case.encode(mask, None, MODEL)["_mask.dcm"]
    assert same(points_of_seg(data, tmp_path / "seg.dcm"), points_by_simpleitk(paths))
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    source = pydicom.dcmread(tmp_path / "in" / "000.dcm")
    for group in seg.PerFrameFunctionalGroupsSequence:  # each frame names the frame it lies on
        referred = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        there = source.PerFrameFunctionalGroupsSequence[int(referred) - 1]
        assert (
            there.PlanePositionSequence[0].ImagePositionPatient == group.PlanePositionSequence[0].ImagePositionPatient
        )


def test_left_and_right_keep_their_sides_in_the_affine(tmp_path: Path) -> None:
    save(tmp_path, series(phantom()))  # axial, columns to the patient's left: x falls in RAS+
    affine = one_case(tmp_path).read("flair").affine
    assert np.allclose(affine, [[-0.75, 0, 0, 20], [0, -1.5, 0, -13], [0, 0, 4, 40], [0, 0, 0, 1]])


def test_a_gap_moves_no_slice_of_the_mask(tmp_path: Path) -> None:
    save(tmp_path / "in", series(phantom(), offsets=[0, 4, 8, 16, 20]))
    case = one_case(tmp_path / "in")
    mask = (case.read("flair").voxels == 1000).astype(np.uint8)
    points = points_of_seg(case.encode(mask, None, MODEL)["_mask.dcm"], tmp_path / "seg.dcm")
    assert set(points[:, 2]) == {40 + 16}
