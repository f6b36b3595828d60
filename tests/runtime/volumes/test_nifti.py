"""Every NIfTI file is read as it lies in the patient, or refused with a reason; a mask lies where its source does."""

import gzip
import os
import tracemalloc
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from segport.errors import SliceError
from segport.volumes.case import ModelName
from segport.volumes.nifti import encode_mask, encode_probability, read_layout, read_volume

MODEL = ModelName("a.onnx", "ab" * 32)
VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
AFFINE = np.array([[-0.9, 0, 0, 80], [0, 1.1, 0, -90], [0, 0, 3.5, -40], [0, 0, 0, 1]])
ORIENTATIONS = [(axes, signs) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)]
NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"


def header_of(voxels: NDArray[Any] = VOXELS, kind: Any = nibabel.Nifti1Header, **fields: Any) -> Any:
    """Return a header with qform and sform; `fields` are set last."""
    header = kind()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header.set_qform(AFFINE, 1)
    header.set_sform(AFFINE, 1)
    header.set_xyzt_units("mm", "sec")
    header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    for name, value in fields.items():
        header[name] = value
    return header


def join(header: Any, voxels: NDArray[Any] = VOXELS) -> bytes:
    return header.binaryblock + bytes(4) + voxels.tobytes(order="F")


def made(voxels: NDArray[Any] = VOXELS, kind: Any = nibabel.Nifti1Header, **fields: Any) -> bytes:
    return join(header_of(voxels, kind, **fields), voxels)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.nii"


def put(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


def refusal(file: Path, data: bytes) -> str:
    with pytest.raises(SliceError) as caught:
        read_volume(put(file, data))
    return str(caught.value)


def load(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return nibabel.load(path)


# what is read


@pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
@pytest.mark.parametrize("packed", [False, True])
def test_voxels_and_affine_are_read_whatever_the_ending(file: Path, kind: Any, packed: bool) -> None:
    data = made(kind=kind)
    found = read_volume(put(file, gzip.compress(data) if packed else data))
    assert found.voxels.dtype == np.int16
    assert np.array_equal(found.voxels, VOXELS)
    assert np.allclose(found.affine, AFFINE, atol=1e-5)
    assert found.regular


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_every_real_type_is_read_in_either_byte_order(file: Path, order: str, dtype: str) -> None:
    voxels = VOXELS.astype(f"{order}{dtype}")
    header = header_of(voxels).as_byteswapped(order)
    found = read_volume(put(file, join(header, voxels)))
    assert found.voxels.dtype == np.dtype(dtype)
    assert found.voxels.dtype.isnative
    assert np.array_equal(found.voxels, VOXELS)
    assert np.allclose(found.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "kind"),
    [
        ("i2", 0.5, -10, "f4"),
        ("i2", 1, 5, "f4"),
        ("u1", 1e-4, 1000, "f8"),  # float32 has too few digits to keep neighbours apart
        ("i4", 0.5, 0, "f8"),
        ("f4", 2, 1, "f4"),
        ("f8", 2, 1, "f8"),
        ("i2", 0, 7, "i2"),
        ("i2", np.nan, 7, "i2"),
        ("i2", 1, 0, "i2"),
    ],
)
def test_scaling_is_applied_in_the_smallest_type_that_holds_it(
    file: Path, dtype: str, slope: float, intercept: float, kind: str
) -> None:
    voxels = VOXELS.astype(dtype)
    found = read_volume(put(file, made(voxels, scl_slope=slope, scl_inter=intercept))).voxels
    assert found.dtype == np.dtype(kind)
    assert np.allclose(found, nibabel.load(file).get_fdata(), rtol=1e-6)
    assert len(np.unique(found)) == VOXELS.size


def test_axes_of_one_voxel_at_the_end_are_dropped_and_kept_in_the_mask(file: Path, tmp_path: Path) -> None:
    found = read_volume(put(file, made(VOXELS[..., None, None])))
    assert found.voxels.shape == VOXELS.shape
    mask = load(tmp_path / "m.nii.gz", encode_mask(read_layout(file), np.ones(VOXELS.shape, np.uint8), MODEL))
    assert mask.shape == (4, 5, 6, 1, 1)


def test_the_array_cannot_be_written_to(file: Path) -> None:
    for fields in ({}, {"scl_slope": 2}):
        assert not read_volume(put(file, made(**fields))).voxels.flags.writeable


def test_names_in_any_script_are_read(tmp_path: Path) -> None:
    assert np.array_equal(read_volume(put(tmp_path / "脳 ß.nii", made())).voxels, VOXELS)


def test_an_offset_of_zero_means_right_behind_the_header_and_extensions_are_passed_over(file: Path) -> None:
    assert np.array_equal(read_volume(put(file, made(vox_offset=0))).voxels, VOXELS)
    extended = header_of(vox_offset=368).binaryblock + b"\1\0\0\0" + b"\x10\0\0\0\4\0\0\0nobody.." + VOXELS.tobytes("F")
    assert np.array_equal(read_volume(put(file, extended)).voxels, VOXELS)


# where it lies


def test_the_sform_is_taken_before_the_qform(file: Path) -> None:
    fields = {"srow_x": [0, 0, 2, 1], "srow_y": [2, 0, 0, 2], "srow_z": [0, 2, 0, 3]}
    layout = read_layout(put(file, made(**fields)))
    assert np.array_equal(layout.affine, [[0, 0, 2, 1], [2, 0, 0, 2], [0, 2, 0, 3], [0, 0, 0, 1]])
    (note,) = layout.notes
    assert "has a sform and a qform that lie 65.7 voxels apart: the sform is taken" in note
    assert read_layout(put(file, made(qform_code=0, **fields))).notes == ()


def test_the_qform_is_taken_where_there_is_no_sform(file: Path) -> None:
    layout = read_layout(put(file, made(sform_code=0, srow_x=0)))
    assert np.allclose(layout.affine, AFFINE, atol=1e-5)
    assert layout.notes == ()


def test_a_rounded_qform_is_no_contradiction(file: Path) -> None:
    assert read_layout(put(file, made(qoffset_x=80.4))).notes == ()
    assert read_layout(put(file, made(qoffset_x=80.5))).notes != ()


def test_a_spoilt_qform_beside_a_good_sform_is_said(file: Path) -> None:
    layout = read_layout(put(file, made(quatern_b=2)))
    assert np.allclose(layout.affine, AFFINE)
    assert "has a qform that cannot be used" in layout.notes[0]


def test_a_file_that_states_no_orientation_is_read_and_says_so(file: Path) -> None:
    layout = read_layout(put(file, made(sform_code=0, qform_code=0)))
    assert np.array_equal(layout.affine, nibabel.load(file).affine)
    assert np.allclose(np.diag(layout.affine), [-0.9, 1.1, 3.5, 1])
    assert "states no orientation (sform and qform codes are 0)" in layout.notes[0]


def test_a_negative_length_is_taken_without_its_sign_and_the_first_number_is_a_sign_alone(file: Path) -> None:
    spacing = [-7, -0.9, 1.1, 3.5, 1, 1, 1, 1]
    layout = read_layout(put(file, made(sform_code=0, pixdim=spacing)))
    expected = read_layout(put(file, made(sform_code=0, pixdim=[-1, 0.9, 1.1, 3.5, 1, 1, 1, 1])))
    assert np.array_equal(layout.affine, expected.affine)


@pytest.mark.parametrize(("unit", "factor", "word"), [(1, 1e3, "metres"), (3, 1e-3, "micrometres")])
def test_other_units_become_millimetres(file: Path, unit: int, factor: float, word: str) -> None:
    layout = read_layout(put(file, made(xyzt_units=unit)))
    assert np.allclose(layout.affine[:3], AFFINE[:3] * factor)
    assert f"gives lengths in {word}: its voxels are taken to be" in layout.notes[0]


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("coded", ["sform", "qform", "both"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
def test_a_lesion_lies_where_it_lay_in_all_48_orientations(
    tmp_path: Path, oblique: bool, coded: str, kind: Any
) -> None:
    """An asymmetric phantom: one lesion, nearer to one end of each axis. Two other readers look at its mask."""
    import SimpleITK

    turn = nibabel.eulerangles.euler2mat(0.3, -0.2, 0.4) if oblique else np.eye(3)
    lesion = np.array([31.0, -17.0, 12.0])  # its centre: to the right, behind, above
    for number, (axes, signs) in enumerate(ORIENTATIONS):
        spacing = np.array([0.8, 1.3, 2.7])
        affine = np.eye(4)
        affine[:3, :3] = turn @ (np.eye(3)[:, axes] * signs) * spacing
        affine[:3, 3] = lesion - affine[:3, :3] @ [3.5, 7, 6]
        voxels = np.zeros((12, 11, 10), np.int16)
        voxels[3:5, 6:9, 6:7] = 900
        header = kind()
        header.set_data_shape(voxels.shape)
        header.set_data_dtype(voxels.dtype)
        header.set_qform(affine, 0 if coded == "sform" else 1)
        header.set_sform(affine, 0 if coded == "qform" else 1)
        header.set_xyzt_units("mm")
        header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset
        path = put(tmp_path / f"{number}.nii", join(header, voxels))

        found = read_volume(path)
        mask = (found.voxels > 0).astype(np.uint8)
        written = tmp_path / f"{number}_mask.nii.gz"
        read = load(written, encode_mask(read_layout(path), mask, MODEL))
        for matrix, where in ((found.affine, mask), (read.affine, np.asanyarray(read.dataobj))):
            centre = matrix @ [*np.argwhere(where).mean(axis=0), 1]
            assert np.abs(np.linalg.solve(affine, [*lesion, 1]) - np.linalg.solve(affine, centre)).max() < 0.5
            assert np.allclose(centre[:3], lesion, atol=0.01)
        if kind is nibabel.Nifti2Header:  # ITK 5 does not read NIfTI-2
            continue
        source, image = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(written))
        assert geometry(image) == geometry(source)
        index = np.argwhere(SimpleITK.GetArrayFromImage(image)).mean(axis=0)[::-1]  # [k, j, i]
        centre = np.array(image.TransformContinuousIndexToPhysicalPoint(index.tolist())) * [-1, -1, 1]  # LPS
        assert np.allclose(centre, lesion, atol=0.01)  # a quaternion is rounded to float32


def geometry(image: Any) -> tuple[Any, ...]:
    return image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()


# what is refused


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        (
            {"pixdim": [1, 1, 1, 1, 2.5, 1, 1, 1]},
            (4, 5, 6, 3),
            "holds 3 volumes (4 x 5 x 6 x 3; marked as time, a step of",
        ),
        ({"xyzt_units": 2}, (4, 5, 6, 3), "it is not said what the fourth axis is: echoes, directions or sequences)"),
        ({"xyzt_units": 34}, (4, 5, 6, 3), "(4 x 5 x 6 x 3; marked as a spectrum)"),
        ({}, (4, 5, 1, 1, 3), "holds 3 volumes (4 x 5 x 1 x 1 x 3;"),
        ({}, (4, 5), "is 2-D (4 x 5); expected a volume; remedy: save slices as .png or .tif"),
        ({}, (4,), "is 1-D (4); expected a volume"),
    ],
)
def test_other_than_one_volume_is_refused(file: Path, fields: Any, shape: Any, message: str) -> None:
    assert message in refusal(file, made(np.zeros(shape, np.int16), **fields))


def test_four_dimensions_are_told_what_to_do(file: Path) -> None:
    said = refusal(file, made(np.zeros((4, 5, 6, 2), np.int16)))
    assert "expected one sequence a file; remedy: split it (fslsplit, or nibabel's four_to_three)" in said


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted(file: Path, value: float) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[1:3, 2, 2] = value
    assert refusal(file, made(voxels)).startswith(
        "holds NaN or infinity in 2 of 120 voxels; expected finite intensities"
    )


def test_scaling_beyond_the_type_is_refused(file: Path) -> None:
    assert "holds NaN or infinity" in refusal(file, made(scl_slope=3e38))
    assert "its scaling is 2 and nan; expected a finite intercept" in refusal(file, made(scl_slope=2, scl_inter=np.nan))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"srow_x": 0, "srow_y": 0, "srow_z": 0}, "has a sform in which an axis has no length (its affine is zero)"),
        ({"srow_z": 0}, "has a sform in which an axis has no length (its affine is zero)"),
        (
            {"srow_x": [1, 0, 1, 0], "srow_y": [0, 1, 1, 0], "srow_z": [1, 1, 2, 0]},
            "whose three axes lie in one plane (its affine is singular)",
        ),
        ({"srow_x": [np.nan, 0, 0, 1]}, "has a sform with NaN, infinity"),
        ({"srow_x": [3e38, 0, 0, 1]}, "lengths that no scanner has"),
        ({"srow_x": np.array(0x7FA00000, np.uint32).view(np.float32)}, "has a sform with NaN"),  # one that signals
        ({"sform_code": 127}, "has the sform code 127; expected 0 to 5; it is damaged, copy it again"),
        ({"qform_code": -1}, "has the qform code -1; expected 0 to 5"),
        ({"sform_code": 0, "pixdim": 0}, "has a qform in which an axis has no length"),
        ({"sform_code": 0, "pixdim": [1, np.nan, 1, 1, 1, 1, 1, 1]}, "has a qform with NaN"),
        ({"sform_code": 0, "quatern_b": 2}, "has a qform that is no rotation"),
        ({"sform_code": 0, "quatern_b": np.nan}, "has a qform"),
        ({"sform_code": 0, "qform_code": 0, "pixdim": 0}, "has a spacing in which an axis has no length"),
    ],
)
def test_affines_that_place_nothing_are_refused(file: Path, fields: Any, message: str) -> None:
    assert message in refusal(file, made(**fields))


@pytest.mark.parametrize(
    ("voxels", "word"),
    [
        (np.zeros((4, 5, 6), np.complex64), "holds complex voxels; expected integers, float32 or float64"),
        (np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "holds RGB voxels"),
        (np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")]), "holds RGBA voxels"),
    ],
)
def test_voxels_that_are_no_real_numbers_are_refused(file: Path, voxels: NDArray[Any], word: str) -> None:
    assert word in refusal(file, made(voxels))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"datatype": 77}, "its header claims the data type 77, which NIfTI does not know"),
        ({"datatype": 1}, "holds bits voxels"),
        ({"dim": [3, 4, 0, 6, 1, 1, 1, 1]}, "its header claims 4 x 0 x 6 voxels; it is damaged"),
        ({"dim": [3, 4, -5, 6, 1, 1, 1, 1]}, "its header claims 4 x -5 x 6 voxels"),
        ({"vox_offset": 100}, "voxels begin at byte 100; expected 352 to 1,073,741,824"),
        ({"vox_offset": np.nan}, "voxels begin at byte nan"),
        ({"vox_offset": 3e38}, "voxels begin at byte 3e+38"),
        ({"vox_offset": 8000}, "voxels of 2 bytes end at byte 8,240, the file"),
        ({"dim": [3, 4, 5, 7, 1, 1, 1, 1]}, "4 x 5 x 7 voxels of 2 bytes end at byte 632, the file"),
        (
            {"dim": [3, 800, 800, 800, 1, 1, 1, 1]},
            "claims 800 x 800 x 800 voxels of 2 bytes; expected at most 1,073,741,824",
        ),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "claims 32767 x 32767 x 32767 voxels"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_headers_that_lie_are_refused(file: Path, fields: Any, message: str, packed: bool) -> None:
    data = made(**fields)
    assert message in refusal(file, gzip.compress(data) if packed else data)


def test_axes_that_no_byte_order_explains_are_refused(file: Path) -> None:
    assert "its header claims 0 axes; it is damaged" in refusal(file, made(dim=0))
    assert "axes; it is damaged" in refusal(file, made(kind=nibabel.Nifti2Header, dim=[9, *[1] * 7]))


def test_what_is_no_nifti_is_refused(file: Path) -> None:
    assert refusal(file, b"") == "is empty (0 bytes); copy it again"
    assert "is no NIfTI file: it starts with b'\\x89PNG'" in refusal(file, b"\x89PNG\r\n\x1a\n" * 100)
    assert "is no NIfTI file: it starts with b'abc'" in refusal(file, b"abc")
    assert "is no NIfTI file: it starts with b''" in refusal(file, gzip.compress(b""))
    assert "is truncated: it has 300 bytes, its header alone 348" in refusal(file, made()[:300])
    analyze = nibabel.AnalyzeHeader()
    analyze.set_data_shape(VOXELS.shape)
    assert "is an ANALYZE file" in refusal(file, analyze.binaryblock + bytes(480))
    assert "is the header of a pair of .hdr and .img" in refusal(file, made(magic=b"ni1"))


@pytest.mark.parametrize("kept", [5, 11, 60, -9, -4, -1])
def test_a_truncated_gz_is_refused(file: Path, kept: int) -> None:
    noise = np.random.default_rng(0).integers(0, 999, (20, 20, 20), np.int16)
    assert "cannot be decompressed; it is truncated" in refusal(file, gzip.compress(made(noise))[:kept])


@pytest.mark.parametrize("at", [3, 12, 2000, -6, -2])
def test_a_damaged_gz_is_refused(file: Path, at: int) -> None:
    noise = np.random.default_rng(0).integers(0, 999, (20, 20, 20), np.int16)
    data = bytearray(gzip.compress(made(noise)))
    data[at] ^= 0xFF
    assert "cannot be decompressed; it is truncated or damaged" in refusal(file, bytes(data))


def test_a_gz_that_goes_on_for_ever_is_left_after_a_megabyte(file: Path) -> None:
    bomb = gzip.compress(made() + bytes(2**28), 9)
    tracemalloc.start()
    try:
        said = refusal(file, bomb)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "holds over 1,048,576 bytes more than the 592 that its header says" in said
    assert most < 2**24
    assert np.array_equal(read_volume(put(file, gzip.compress(made() + bytes(999)))).voxels, VOXELS)


def test_memory_is_not_taken_for_voxels_that_are_not_there(file: Path) -> None:
    data = gzip.compress(made(dim=[3, 500, 500, 500, 1, 1, 1, 1]))
    tracemalloc.start()
    try:
        said = refusal(file, data)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "500 x 500 x 500 voxels of 2 bytes end at byte 250,000,352, the file cannot hold more than" in said
    assert most < 2**24


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(SliceError, match="is not a regular file but a folder, pipe or device"):
        read_volume(tmp_path / "pipe.nii")
    with pytest.raises(SliceError, match=r"cannot be read \(No such file or directory\)"):
        read_volume(tmp_path / "none.nii")


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("anatomical.nii", (33, 41, 25)),
        ("reoriented_anat_moved.nii", (21, 26, 22)),
        ("resampled_anat_moved.nii", "holds NaN or infinity in 153 of 1,071 voxels"),
        ("standard.nii.gz", (4, 5, 7)),
        ("example4d.nii.gz", "holds 2 volumes (128 x 96 x 24 x 2; marked as time"),
        ("example_nifti2.nii.gz", "holds 2 volumes (32 x 20 x 12 x 2; marked as time"),
        ("functional.nii", "holds 20 volumes (17 x 21 x 3 x 20; marked as time"),
        ("row_major.dconn.nii", "holds 100 volumes (1 x 1 x 1 x 1 x 10 x 10"),
        ("nifti1.hdr", "is the header of a pair of .hdr and .img"),
        ("nifti2.hdr", "is the header of a pair of .hdr and .img"),
        ("analyze.hdr", "is an ANALYZE file"),
        ("tiny.mnc", "is no NIfTI file: it starts with b'CDF\\x01'"),
        ("test.mgz", "is no NIfTI file"),
    ],
)
def test_nibabels_own_files_are_read_as_it_reads_them_or_refused(
    tmp_path: Path, name: str, outcome: str | tuple[int, ...]
) -> None:
    path = NIBABEL / name
    if isinstance(outcome, str):
        with pytest.raises(SliceError) as caught:
            read_volume(path)
        assert outcome in str(caught.value)
        return
    found, reference = read_volume(path), nibabel.load(path)
    assert found.voxels.shape == outcome
    assert np.array_equal(found.voxels, reference.get_fdata())
    assert np.allclose(found.affine, reference.affine)
    mask = load(tmp_path / "m.nii.gz", encode_mask(read_layout(path), np.ones(outcome, np.uint8), MODEL))
    assert np.array_equal(mask.affine, reference.affine)
    assert mask.get_fdata().all()


# what is written


@pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
@pytest.mark.parametrize("order", "<>")
def test_a_mask_has_its_sources_grid_bit_by_bit(file: Path, tmp_path: Path, kind: Any, order: str) -> None:
    fields = {"sform_code": 4, "qform_code": 2, "xyzt_units": 10, "pixdim": [-1, 0.9, 1.1, 3.5, 2.5, 7, 8, 9]}
    header = header_of(VOXELS, kind, **fields, scl_slope=2, qoffset_x=79.9).as_byteswapped(order)
    put(file, join(header, VOXELS.astype(f"{order}i2")))
    mask = (VOXELS > 60).astype(np.uint8)
    read = load(tmp_path / "m.nii.gz", encode_mask(read_layout(file), mask, MODEL))
    assert type(read.header) is kind
    for name in ("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "qoffset_x", "srow_x", "srow_y", "srow_z"):
        assert np.array_equal(read.header[name], header[name]), name
    assert np.array_equal(read.affine, nibabel.load(file).affine)
    assert read.header.get_data_dtype() == np.uint8
    assert (read.dataobj.slope, read.dataobj.inter) == (1, 0)
    assert int(read.header["intent_code"]) == 1002
    assert (float(read.header["cal_min"]), float(read.header["cal_max"])) == (0, 1)
    assert np.array_equal(np.asanyarray(read.dataobj), mask)


def test_a_probability_is_written_as_it_is(file: Path, tmp_path: Path) -> None:
    put(file, made(scl_slope=2))
    probability = np.random.default_rng(0).random(VOXELS.shape, np.float32)
    read = load(tmp_path / "p.nii.gz", encode_probability(read_layout(file), probability, MODEL))
    assert read.header.get_data_dtype() == np.float32
    assert np.array_equal(np.asanyarray(read.dataobj), probability)
    assert np.array_equal(read.affine, nibabel.load(file).affine)


def test_no_name_passes_from_the_source_to_the_mask(file: Path) -> None:
    texts = ("descrip", "aux_file", "intent_name", "db_name")
    header = header_of(vox_offset=384, **dict.fromkeys(texts, b"Jane Doe"))
    extension = b"\1\0\0\0" + (32).to_bytes(4, "little") + (2).to_bytes(4, "little") + b"Jane Doe".ljust(24, b"\0")
    assert (header.binaryblock + extension).count(b"Jane Doe") == 5
    put(file, header.binaryblock + extension[:36] + VOXELS.tobytes("F"))
    layout = read_layout(file)
    for packed in (
        encode_mask(layout, np.zeros(VOXELS.shape, np.uint8), MODEL),
        encode_probability(layout, np.zeros(VOXELS.shape, np.float32), MODEL),
    ):
        data = gzip.decompress(packed)
        assert b"Jane" not in data
        assert b"segport" in data
        assert b"model abababababababab" in data
        assert packed[3] == 0  # no file name
        assert packed[4:8] == bytes(4)  # no time


def test_the_same_mask_gives_the_same_bytes(file: Path) -> None:
    layout, mask = read_layout(put(file, made())), (VOXELS > 60).astype(np.uint8)
    assert encode_mask(layout, mask, MODEL) == encode_mask(read_layout(file), np.asfortranarray(mask), MODEL)


def test_a_source_that_changed_its_shape_is_refused(file: Path) -> None:
    with pytest.raises(SliceError, match=r"has changed while it was read: it is \(4, 5, 6\) now"):
        encode_mask(read_layout(put(file, made())), np.zeros((4, 5, 7), np.uint8), MODEL)
