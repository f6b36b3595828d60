"""A case becomes three channels on the grid of its FLAIR: windows, missing sequences, resampling and its refusals."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from phantom import ORDERS, stored
from segport.contract import Input, ModelContract
from segport.errors import ModelError, SliceError
from segport.preprocess import percentile_window, prepare
from segport.volumes.case import Case, Role, SequenceVolume
from segport.volumes.volume import read_volume, resample

CONTRACT = ModelContract(Input(16))
STEM = PurePath("p")
SHOWN = np.diag([-1.0, -1, 1, 1])  # stored as slices are shown: columns to the left, rows to the back


@dataclass
class FakeCase:
    sequences: Mapping[Role, SequenceVolume]
    name: str = "p"
    stem: PurePath = STEM
    source: str = "p"
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def roles(self) -> frozenset[Role]:
        return frozenset(self.sequences)

    def read(self, role: Role) -> SequenceVolume:
        return self.sequences[role]


def case(**sequences: NDArray[Any] | SequenceVolume) -> Case:
    made = {n: s if isinstance(s, SequenceVolume) else SequenceVolume(s, SHOWN) for n, s in sequences.items()}
    return cast(Case, FakeCase(cast(Mapping[Role, SequenceVolume], made)))


def ramp(shape: tuple[int, int, int], dtype: Any = np.int16) -> NDArray[Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_uint8_is_taken_as_stored_in_the_contracts_order() -> None:
    pre, flair, post = (np.full((6, 5, 4), value, np.uint8) for value in (1, 2, 3))
    volume = read_volume(case(post=post, pre=pre, flair=flair), CONTRACT)
    assert volume.shape == (4, 5, 6)
    assert volume.window is None
    assert volume.notes == ()
    assert (volume.pixels(0) == (1, 2, 3)).all()


def test_flair_stands_for_what_is_missing_and_that_is_said() -> None:
    pre, flair = np.full((6, 5, 4), 1, np.uint8), np.full((6, 5, 4), 2, np.uint8)
    volume = read_volume(case(pre=pre, flair=flair), CONTRACT)
    assert (volume.pixels(3) == (1, 2, 2)).all()
    assert volume.notes == ("FLAIR in the place of post",)
    alone = read_volume(case(flair=flair), CONTRACT)
    assert alone.pixels(0).shape == (5, 6, 1)
    assert alone.notes == ("FLAIR in the place of pre and post",)


def test_each_sequence_gets_its_own_window_over_the_whole_volume() -> None:
    flair, pre = ramp((6, 5, 4)), ramp((6, 5, 4)) * 7 + 1000
    volume = read_volume(case(flair=flair, pre=pre), CONTRACT)
    expected = [percentile_window(voxels.transpose(2, 1, 0), CONTRACT)[0] for voxels in (pre, flair, flair)]
    assert volume.window == tuple(expected)
    shown = prepare(volume.pixels(2), CONTRACT, volume.window)
    assert abs(shown[..., 0].astype(int) - shown[..., 1]).max() <= 1  # a linear change of one changes nothing


def test_the_users_window_is_for_what_is_not_uint8() -> None:
    flair, post = ramp((6, 5, 4)), np.full((6, 5, 4), 77, np.uint8)
    volume = read_volume(case(flair=flair, post=post), CONTRACT, (0, 119))
    assert volume.window == ((0, 119), (0, 119), (0, 255))
    assert (prepare(volume.pixels(1), CONTRACT, volume.window)[..., 2].max()) == 77


def test_pixels_that_are_not_square_are_shown_square() -> None:
    voxels = np.zeros((12, 4, 2), np.uint8)
    voxels[4:8, 1:3] = 200  # 4 mm in x, 2 x 3 mm in y
    tall = SequenceVolume(voxels, np.diag([-1.0, -3, 1, 1]))
    volume = read_volume(case(flair=tall), CONTRACT)
    assert volume.spacing == (3, 1)
    square = prepare(np.repeat(voxels.transpose(2, 1, 0)[0], 3, axis=0), CONTRACT)
    shown = prepare(volume.pixels(0), CONTRACT, volume.window, volume.spacing)
    assert abs(shown.astype(int) - square).mean() < 12  # interpolated instead of repeated
    assert (shown > 100).any(axis=(0, 2)).sum() == (square > 100).any(axis=(0, 2)).sum()


def test_another_grid_is_resampled_to_flairs() -> None:
    def scene(affine: NDArray[np.float64], shape: tuple[int, int, int]) -> SequenceVolume:
        places = np.tensordot(affine[:3, :3], np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")), 1)
        x, y, z = places + affine[:3, 3].reshape(3, 1, 1, 1)
        return SequenceVolume((3 * x + 5 * y - 2 * z + 100).astype(np.float32), affine)

    flair_affine = np.array([[-1.0, 0, 0, 10], [0, -1, 0, 12], [0, 0, 2, -8], [0, 0, 0, 1]])
    sagittal = np.array([[0, 0, 0.7, -11], [1.3, 0, 0, -9], [0, -1.1, 0, 12], [0, 0, 0, 1]])
    flair, other = scene(flair_affine, (20, 20, 8)), scene(sagittal, (20, 24, 32))
    found = resample(other, flair, "pre")
    assert np.allclose(found, flair.voxels, atol=1e-3)  # linear in space, so linear interpolation is exact


def test_the_same_grid_in_another_storage_order_keeps_its_edges() -> None:
    for order in ORDERS:
        flair = SequenceVolume(*stored(order, oblique=True))
        other, affine = stored(((0, 1, 2), (1, 1, 1)), oblique=True)
        full = SequenceVolume(np.full_like(other, 9), affine)
        assert (resample(full, flair, "pre") == 9).all(), order


def test_what_lies_elsewhere_is_refused_and_so_are_gaps() -> None:
    flair = SequenceVolume(ramp((8, 8, 8)), SHOWN)
    far = SHOWN.copy()
    far[0, 3] = 500
    with pytest.raises(SliceError, match="its post covers 0% of its FLAIR's voxels; expected at least 50%"):
        read_volume(case(flair=flair, post=SequenceVolume(ramp((8, 8, 8)), far)), CONTRACT)
    gaps = SequenceVolume(ramp((8, 8, 9)), SHOWN, (0, 1, 2, 3, 4, 6, 7, 8, 9))
    with pytest.raises(SliceError, match="not equally far apart"):
        read_volume(case(flair=flair, post=gaps), CONTRACT)


def test_gaps_are_the_same_grid_only_at_the_same_place() -> None:
    flair = SequenceVolume(ramp((8, 8, 8)), SHOWN, (0, 1, 2, 4, 5, 6, 7, 8))
    same = SequenceVolume(ramp((8, 8, 8)), SHOWN, (0, 1, 2.002, 4, 5, 6, 7, 8))
    assert resample(same, flair, "pre") is same.voxels  # the same grid needs no distances
    for offsets in ((0, 1, 2, 3, 4, 6, 7, 8), None):
        elsewhere = SequenceVolume(ramp((8, 8, 8)), SHOWN, offsets)
        with pytest.raises(
            SliceError, match="its pre and its FLAIR have other grids, and the slices of one are not eq"
        ):
            resample(elsewhere, flair, "pre")


def test_needle_shaped_pixels_and_unknown_channels_are_refused() -> None:
    needles = SequenceVolume(ramp((8, 8, 8)), np.diag([-1.0, -30, 1, 1]))
    with pytest.raises(SliceError, match="pixels of 30 x 1 mm"):
        read_volume(case(flair=needles), CONTRACT)
    other = ModelContract(Input(16, channels=("T2", "FLAIR", "ADC")))
    with pytest.raises(ModelError, match="channel 'T2' cannot be filled"):
        read_volume(case(flair=ramp((8, 8, 8))), other)
