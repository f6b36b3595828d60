"""Pixels of a series: every way they are stored gives the same voxels, or a reason."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless, JPEGLossless, RLELossless

from dicom_phantoms import enhanced, grey, phantom, save, series, uid
from segport.errors import SliceError
from segport.volumes.case import SequenceVolume
from segport.volumes.dicom_files import SeriesFiles
from segport.volumes.dicom_series import read_series


def read(paths: list[Path]) -> SequenceVolume:
    return read_series(SeriesFiles(sorted(paths)))


def same_voxels(volume: SequenceVolume, expected: NDArray[np.generic]) -> bool:
    return np.array_equal(volume.voxels.transpose(2, 1, 0), expected) and volume.voxels.dtype == expected.dtype


@pytest.mark.parametrize("syntax", ["", RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_lossless_ways_to_store_pixels_give_the_same_voxels(tmp_path: Path, syntax: str, dtype: type) -> None:
    voxels = np.minimum(phantom(), 200).astype(dtype)
    voxels[0, 0, 0] = -7 if dtype == np.int16 else 7
    assert same_voxels(read(save(tmp_path, series(voxels), syntax=syntax)), voxels)


def test_slices_are_ordered_by_place_not_by_name_or_number(tmp_path: Path) -> None:
    slices = series(phantom(), backwards=True)
    for k, ds in enumerate(slices):
        ds.InstanceNumber = 7 * k % 5
    paths = [p for k in (3, 0, 4, 1, 2) for p in save(tmp_path / f"f{k}", [slices[k]], f"z{7 * k % 5}")]
    assert same_voxels(read(paths), phantom()[::-1])


def test_fewer_bits_than_allocated_and_overlays_above_them(tmp_path: Path) -> None:
    slices = series(phantom())
    for ds, voxels in zip(slices, phantom(), strict=True):
        ds.PixelData = (voxels | 0xA000).tobytes()
        ds.BitsStored, ds.HighBit = 12, 11
    assert same_voxels(read(save(tmp_path, slices)), phantom())


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.int16, -1)])
def test_white_is_zero_is_inverted(tmp_path: Path, dtype: type, top: int) -> None:
    voxels = np.minimum(phantom(), 200).astype(dtype)
    paths = save(tmp_path, series(voxels, PhotometricInterpretation="MONOCHROME1"))
    assert same_voxels(read(paths), (top - voxels.astype(int)).astype(dtype))


def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path) -> None:
    slices = series(phantom())
    for k, ds in enumerate(slices):
        ds.RescaleSlope, ds.RescaleIntercept = f"{0.5 + k}", "-3"
    expected = (phantom() * (0.5 + np.arange(5))[:, None, None] - 3).astype(np.float32)
    assert same_voxels(read(save(tmp_path, slices)), expected)


def test_enhanced_frames_have_their_own_slopes_and_places(tmp_path: Path) -> None:
    ds = enhanced(phantom(), shuffle=5)
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence[0].RescaleSlope = 2
    volume = read(save(tmp_path, [ds]))
    assert same_voxels(volume, (2 * phantom()).astype(np.float32))
    assert volume.regular


def test_a_single_slice_has_the_distance_its_header_gives(tmp_path: Path) -> None:
    thick = read(save(tmp_path / "a", series(phantom()[:1])))
    between = read(save(tmp_path / "b", series(phantom()[:1], SpacingBetweenSlices=5.5)))
    assert [v.affine[2, 2] for v in (thick, between)] == [3, 5.5]
    with pytest.raises(SliceError, match="single slice without SpacingBetweenSlices"):
        read(save(tmp_path / "c", series(phantom()[:1], SliceThickness=0)))


def test_a_gap_is_no_regular_volume_and_rounded_places_are(tmp_path: Path) -> None:
    gap = read(save(tmp_path / "a", series(phantom(), offsets=[0, 4, 8, 16, 20])))
    assert gap.offsets == (0, 4, 8, 16, 20)
    even = read(save(tmp_path / "b", series(phantom(), offsets=[0, 4.003, 8, 11.998, 16])))
    assert even.offsets is None
    assert np.array_equal(even.affine, read(save(tmp_path / "c", series(phantom()))).affine)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_gap_makes_no_voxel_larger(tmp_path: Path, backwards: bool) -> None:
    offsets, tilted = [0, 4, 8, 16, 20], ((0, 0.6, 0.8), (1, 0, 0))
    volume = read(save(tmp_path, series(phantom(), tilted, offsets=offsets, backwards=backwards)))
    assert abs(np.linalg.det(volume.affine)) == pytest.approx(1.5 * 0.75 * 4)
    assert volume.offsets == pytest.approx((0, 4, 12, 16, 20) if backwards else offsets)


def test_a_slice_stored_twice_is_taken_once_unless_its_pixels_differ(tmp_path: Path) -> None:
    paths = [*save(tmp_path / "a", series(phantom())), *save(tmp_path / "b", series(phantom())[2:4])]
    assert same_voxels(read(paths), phantom())
    other = series(phantom() + 1)[2:3]
    with pytest.raises(SliceError, match=r"^file 6 of 6 .*has other pixels at the place of another slice"):
        read([*paths[:5], *save(tmp_path / "c", other)])


def damaged(number: int = 2, **tags: object) -> list[pydicom.Dataset]:
    slices = series(phantom())
    for keyword, value in tags.items():
        if value is None:
            delattr(slices[number], keyword)
        else:
            setattr(slices[number], keyword, value)
    return slices


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImagePositionPatient": None}, "has no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "has no ImageOrientationPatient"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two perpendicular unit vectors"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "another ImageOrientationPatient"),
        ({"PixelSpacing": None}, "has no PixelSpacing"),
        ({"PixelSpacing": [0, 1]}, "has no PixelSpacing of two lengths above 0"),
        ({"PixelSpacing": [1.5, 0.8]}, "another PixelSpacing"),
        ({"PixelSpacing": ["1e300", "1e300"]}, "has no PixelSpacing of two lengths above 0, 1e-06 to 1e.09 mm"),
        ({"PixelSpacing": ["1e-7", "1e-7"]}, "has no PixelSpacing"),
        ({"ImagePositionPatient": ["0", "0", "1e300"]}, "has no ImagePositionPatient of three numbers within 1e.09 mm"),
        ({"SliceThickness": "1e300"}, "has a SliceThickness of 1e.300; expected 1e-06 to 1e.09 mm"),
        ({"SliceThickness": "1e-7"}, "has a SliceThickness of 1e-07"),
        ({"SpacingBetweenSlices": "-1e300"}, "has a SpacingBetweenSlices of -1e.300"),
        ({"RescaleSlope": "1e300"}, "RescaleSlope of 1e.300"),
        ({"RescaleIntercept": "-1e300"}, "RescaleIntercept of -1e.300"),
        ({"ImagePositionPatient": [-10, 13, 48]}, "shifted against each other"),
        ({"Rows": 6, "Columns": 20}, "is of another size"),
        ({"Rows": 60000, "Columns": 60000}, "says that a slice has 60000 x 60000 pixels; the limit"),
        ({"Rows": None}, "has no Rows and Columns"),
        ({"RescaleSlope": 0}, "RescaleSlope of 0"),
        ({"NumberOfFrames": 3}, "3 frames but is no enhanced"),
        ({"FrameOfReferenceUID": uid("other")}, "another frame of reference"),
        ({"PixelData": b"\0" * 100}, "less pixel data than its header says"),
        ({"PixelData": None}, "holds no PixelData"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "has colours"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a palette"),
        ({"HighBit": 11}, "stores 16 bits in 16, the highest at 11"),
        ({"PixelRepresentation": 1}, "holds int16, the first slice uint16"),
        ({"ModalityLUTSequence": []}, "ModalityLUTSequence"),
    ],
)
def test_what_cannot_be_a_volume_is_refused_with_the_slice(
    tmp_path: Path, tags: dict[str, object], reason: str
) -> None:
    with pytest.raises(SliceError, match=rf"^file 3 of 5 .*: .*{reason}|{reason}"):
        read(save(tmp_path, damaged(**tags)))


def test_several_stacks_times_or_enhanced_files_are_refused(tmp_path: Path) -> None:
    stacks, times, doubled = (enhanced(phantom()) for _ in range(3))
    stacks.PerFrameFunctionalGroupsSequence[3].FrameContentSequence[0].StackID = "2"
    for k, group in enumerate(times.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].TemporalPositionIndex = k
    there = doubled.PerFrameFunctionalGroupsSequence
    there[3].PlanePositionSequence = there[2].PlanePositionSequence
    for name, ds, reason in (
        ("a", stacks, "holds 2 stacks"),
        ("b", times, "5 time points"),
        ("c", doubled, "other pix"),
    ):
        with pytest.raises(SliceError, match=reason):
            read(save(tmp_path / name, [ds]))
    with pytest.raises(SliceError, match="2 enhanced files"):
        read(save(tmp_path / "d", [enhanced(phantom()), enhanced(phantom())]))
    del stacks.PerFrameFunctionalGroupsSequence[1:]
    with pytest.raises(SliceError, match="5 frames, but 1 groups"):
        read(save(tmp_path / "e", [stacks]))


def test_a_syntax_that_cannot_be_decoded_is_refused_by_name(tmp_path: Path) -> None:
    slices = series(phantom())
    for ds in slices:
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = JPEGLossless
    with pytest.raises(SliceError, match=r"is compressed as JPEG Lossless.*under the GPL.*remedy: decompress"):
        read(save(tmp_path, slices))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_compressed_frame_cut_off_or_of_another_size_is_refused(tmp_path: Path, syntax: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 4000, (1, 64, 64)).astype(np.uint16)
    (path,) = save(tmp_path, series(voxels), syntax=syntax)
    whole = pydicom.dcmread(path)
    frame = next(pydicom.encaps.generate_frames(whole.PixelData, number_of_frames=1))
    whole.PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 2]])
    whole.save_as(tmp_path / "cut.dcm")
    with pytest.raises(SliceError, match=r"truncated|damaged"):
        read([tmp_path / "cut.dcm"])
    larger = pydicom.dcmread(path)
    larger.Rows = larger.Columns = 65
    larger.save_as(tmp_path / "larger.dcm")
    with pytest.raises(SliceError, match=r"its header says 65 x 65|damaged"):
        read([tmp_path / "larger.dcm"])


def test_a_huge_picture_in_a_small_compressed_frame_is_not_decoded(tmp_path: Path) -> None:
    (path,) = save(tmp_path, series(phantom()[:1]), syntax=JPEG2000Lossless)
    whole = pydicom.dcmread(path)
    frame = bytearray(next(pydicom.encaps.generate_frames(whole.PixelData, number_of_frames=1)))
    frame[8:16] = (60000).to_bytes(4) * 2
    whole.PixelData = pydicom.encaps.encapsulate([bytes(frame)])
    whole.save_as(path)
    with pytest.raises(SliceError, match="compressed picture of 60000 x 60000, its header says 40 x 34"):
        read([path])


MR_SMALL = [
    "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm",
]  # fmt: skip


@pytest.mark.parametrize("name", MR_SMALL)
def test_pydicoms_own_files_give_the_same_voxels(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    volume = read([Path(path)])
    expected = pydicom.dcmread(str(get_testdata_file("MR_small.dcm", download=False))).pixel_array
    assert np.array_equal(volume.voxels[..., 0].T, expected)
    assert np.allclose(np.abs(volume.affine.diagonal()[:2]), 0.3125)


def test_pydicoms_truncated_file_is_refused() -> None:
    with pytest.raises(SliceError, match="less pixel data than its header says"):
        read([Path(str(get_testdata_file("MR_truncated.dcm", download=False)))])


def test_lossy_jpeg_of_8_bits_is_read(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    voxels = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    stream = io.BytesIO()
    pillow.fromarray(voxels).save(stream, "JPEG", quality=95)
    (ds,) = series(voxels[None])
    grey(ds, voxels)
    ds.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    found = read(save(tmp_path, [ds])).voxels[..., 0].T.astype(int)
    assert np.abs(found - voxels).max() < 8
