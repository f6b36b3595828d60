"""The committed synthetic slices: what they hold, and that the script draws them again."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_DATA = ROOT / "sample_data"
GOLDEN = ROOT / "runtime" / "segport" / "golden"
SLICES = sorted(p for p in SAMPLE_DATA.glob("patient_*/*.tif") if not p.stem.endswith("_mask"))


def read(path: Path) -> NDArray[np.uint8]:
    """Decode a picture as it is stored: [H, W] uint8, or [H, W, 3] uint8 in RGB order."""
    stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored is not None, path
    assert stored.dtype == np.uint8, path
    return np.asarray(stored if stored.ndim == 2 else stored[:, :, ::-1], np.uint8)


def read_mask(path: Path) -> NDArray[np.uint8]:
    return read(path.with_stem(f"{path.stem}_mask"))


def size_of(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the script into an empty folder: out/ and golden/."""
    if find_spec("nilearn") is None:
        pytest.skip("nilearn is not installed, so the slices cannot be drawn again; run: pip install nilearn")
    folder = tmp_path_factory.mktemp("drawn")
    script = [sys.executable, str(SAMPLE_DATA / "make_sample_data.py")]
    subprocess.run([*script, "--out", str(folder / "out"), "--golden", str(folder / "golden")], check=True)
    return folder


@pytest.mark.parametrize(("committed", "name", "ending"), [(SAMPLE_DATA, "out", "tif"), (GOLDEN, "golden", "png")])
def test_script_draws_the_committed_pixels_again(drawn: Path, committed: Path, name: str, ending: str) -> None:
    paths = {path.relative_to(committed) for path in committed.rglob(f"*.{ending}")}
    assert {path.relative_to(drawn / name) for path in (drawn / name).rglob(f"*.{ending}")} == paths
    for path in paths:
        np.testing.assert_array_equal(read(drawn / name / path), read(committed / path), err_msg=str(path))


def test_four_patients_have_twelve_slices_numbered_from_one() -> None:
    expected = {f"patient_{p}/patient_{p}_{n}.tif" for p in range(1, 5) for n in range(1, 13)}
    assert {path.relative_to(SAMPLE_DATA).as_posix() for path in SLICES} == expected


@pytest.mark.parametrize("path", SLICES, ids=lambda path: path.stem)
def test_slice_has_three_channels_and_a_mask_of_0_and_255(path: Path) -> None:
    pixels, mask = read(path), read_mask(path)
    assert pixels.shape == (256, 256, 3)
    assert mask.shape == (256, 256)
    assert set(np.unique(mask)) <= {0, 255}
    assert pixels[:8].max() < 20, "the background is dark"


def test_every_patient_has_slices_with_and_without_tumour() -> None:
    for patient in range(1, 5):
        with_tumour = [read_mask(path).any() for path in SLICES if path.parent.name == f"patient_{patient}"]
        assert any(with_tumour)
        assert not all(with_tumour)


def test_tumour_is_bright_on_flair_and_not_on_the_t1_channels() -> None:
    for path in SLICES:
        pixels, mask = read(path), read_mask(path) > 0
        brain = ~mask & (pixels[:, :, 1] > 30) & (pixels[:, :, 1] < 90)
        if mask.sum() > 400:
            pre, flair, post = pixels[mask].mean(axis=0) / np.median(pixels[brain], axis=0)
            assert flair > 1.15, path.name
            assert max(pre, post) < 1.05, path.name


def test_golden_slices_are_eight_of_the_committed_ones() -> None:
    committed = {read(path).tobytes() + read_mask(path).tobytes() for path in SLICES}
    golden = [GOLDEN / f"golden_{number}.png" for number in range(1, 9)]
    assert all(read(path).tobytes() + read_mask(path).tobytes() in committed for path in golden)
    assert sum(bool(read_mask(path).any()) for path in golden) >= 6


def test_slices_stay_small_enough_for_a_repository() -> None:
    assert size_of(SAMPLE_DATA, "patient_*/*") < 6_000_000
    assert size_of(GOLDEN, "*.png") < 1_000_000


def test_the_templates_notice_stands_beside_every_copy() -> None:
    for folder in (SAMPLE_DATA, GOLDEN):
        assert (folder / "LICENSE-ICBM.txt").read_text().startswith("Copyright (C) 1993-2004 Louis Collins")
