"""Prepared slices on disk: the same pixels as without, whatever happened to the files in between."""

import errno
import hashlib
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from helpers import square, write
from segport.contract import Input, ModelContract
from segport.errors import OutputError, UsageError
from segport.preprocess import prepare, prepare_mask, to_display
from segport.reading import read_slice
from segport.sources import SliceTree
from segport.windows import PatientWindows
from segport_train import cache as cache_module
from segport_train import dataset as dataset_module
from segport_train import table as table_module
from segport_train.cache import CachedSlice, SliceCache, count_greys
from segport_train.dataset import SliceDataset, table_slices
from segport_train.ranges import training_range
from segport_train.settings import TrainSettings
from segport_train.table import build_table

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (3, 40, 36, 3), np.uint8)
TRUTHS = (RNG.random((3, 40, 36)) > 0.5).astype(np.uint8)
CONTRACT = ModelContract(Input(32))


def filled(folder: Path | None, *rows: int, size: int = 32) -> SliceCache:
    cache = SliceCache(folder, size)
    with cache.filling():
        for row in rows:
            cache.add(str(row), PIXELS[row], TRUTHS[row])
    return cache


def is_row(found: CachedSlice | None, row: int) -> bool:
    return (
        found is not None
        and bool((found.pixels == prepare(PIXELS[row], CONTRACT)).all())
        and bool((found.mask == prepare_mask(TRUTHS[row], CONTRACT)).all())
        and bool((found.truth == TRUTHS[row]).all())
        and bool((found.greys == count_greys(PIXELS[row])).all())
    )


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.slices"))


@pytest.mark.parametrize("folder", ["cache", None])
def test_what_was_added_is_found_as_the_pixel_maths_makes_it(tmp_path: Path, folder: str | None) -> None:
    cache = filled(tmp_path / folder if folder else None, 0, 1, 1)
    assert is_row(cache.find("0"), 0)
    assert is_row(cache["1", None], 1)
    assert cache.find("2") is None
    assert len(list(tmp_path.rglob("*.slices"))) == (folder is not None)


def test_a_later_start_prepares_only_what_is_new(tmp_path: Path) -> None:
    filled(tmp_path, 0, 1)
    with mock.patch.object(cache_module, "prepare_mask", side_effect=prepare_mask) as prepared:
        again = filled(tmp_path, 0, 1, 2)
    assert prepared.call_count == 2 + 1  # two pictures of the rule's own, one slice
    assert all(is_row(again.find(str(row)), row) for row in range(3))
    assert len(files(tmp_path)) == 2
    times = [path.stat().st_mtime_ns for path in files(tmp_path)]
    filled(tmp_path, 2, 0)
    assert [path.stat().st_mtime_ns for path in files(tmp_path)] == times


def test_another_size_window_or_rule_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 0)
    assert SliceCache(tmp_path, 64).find("0") is None
    assert SliceCache(tmp_path, 32).find("0", ((0.0, 9.0),)) is None
    monkeypatch.setattr(cache_module, "prepare", lambda *args: prepare(*args) ^ np.uint8(1))
    assert SliceCache(tmp_path, 32).find("0") is None


def test_wherever_a_file_is_cut_or_altered_no_wrong_pixel_comes_back(tmp_path: Path) -> None:
    filled(tmp_path, 0, 1)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    places = [*range(0, len(whole), 97), *range(len(whole) - 60, len(whole))]
    for place in places:
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]):
            path.write_bytes(damaged)
            cache = SliceCache(tmp_path, 32)
            assert all(found is None or is_row(found, row) for row in (0, 1) for found in [cache.find(str(row))])
            assert any(cache.find(str(row)) is None for row in (0, 1))
    path.write_bytes(whole[:-5])
    assert all(is_row(filled(tmp_path, 0, 1).find(str(row)), row) for row in (0, 1))
    assert files(tmp_path) == [path]  # the damaged one was replaced
    for places in ((3,), (3, len(whole) // 2)):  # one record, both: then the new file has the damaged one's name
        damaged = bytearray(whole)
        for place in places:
            damaged[place] ^= 1
        path.write_bytes(damaged)
        os.utime(path, (1, 1))
        assert all(is_row(filled(tmp_path, 0, 1).find(str(row)), row) for row in (0, 1))
        assert all(is_row(SliceCache(tmp_path, 32).find(str(row)), row) for row in (0, 1))
        for other in set(files(tmp_path)) - {path}:
            other.unlink()
    assert path.read_bytes() == whole


def test_a_full_disk_ends_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    cache = SliceCache(tmp_path, 32)
    with (
        mock.patch.object(cache_module.os, "fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")),
        pytest.raises(OutputError, match=r"No space left on device.*--cache DIR may be on another disk"),
        cache.filling(),
    ):
        cache.add("0", PIXELS[0], TRUTHS[0])
    assert list(tmp_path.iterdir()) == []
    assert cache.find("0") is None
    limited = f"""
import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pathlib import Path
import numpy as np
from segport.errors import OutputError
from segport_train.cache import SliceCache
try:
    cache = SliceCache(Path({str(tmp_path)!r}), 32)
    with cache.filling():
        for n in range(9):
            cache.add(str(n), np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8))
except OutputError as error:
    sys.exit(f"refused: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    assert "refused" in done.stderr
    assert "prepared slices cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_between_keeps_nothing(tmp_path: Path) -> None:
    cache = SliceCache(tmp_path, 32)
    with suppress(ZeroDivisionError), cache.filling():
        cache.add("0", PIXELS[0], TRUTHS[0])
        raise ZeroDivisionError
    assert cache.find("0") is None
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_come_back_as_it_was_written_is_refused(tmp_path: Path) -> None:
    cache = filled(tmp_path, 0)
    with pytest.raises(OutputError, match="does not give back"):
        _ = cache["1", None]


def add_slowly(folder: Path) -> None:
    cache = SliceCache(folder, 32)
    with cache.filling():
        for row in range(3):
            cache.add(str(row), PIXELS[row], TRUTHS[row])
            (folder / f"added_{row}").touch()
            time.sleep(0.1)


def test_a_writer_that_is_killed_leaves_nothing_that_is_believed(tmp_path: Path) -> None:
    child = mp.get_context("fork").Process(target=add_slowly, args=(tmp_path,))
    child.start()
    while not (tmp_path / "added_1").exists():
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    (left,) = tmp_path.glob(".*.tmp")
    cache = filled(tmp_path, 0)
    assert is_row(cache.find("0"), 0)
    assert cache.find("1") is None
    assert left.exists()  # it may be of a process that still writes
    os.utime(left, (1, 1))
    SliceCache(tmp_path, 32)
    assert not left.exists()


def test_processes_may_fill_one_folder_at_the_same_time(tmp_path: Path) -> None:
    children = [mp.get_context("fork").Process(target=add_slowly, args=(tmp_path,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert len(files(tmp_path)) == 1
    assert all(is_row(SliceCache(tmp_path, 32).find(str(row)), row) for row in range(3))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two patients of uint8 slices, one grey and not square, and one of uint16 slices."""
    for n in range(1, 4):
        write(tmp_path / f"in/a/a_{n}.png", RNG.integers(0, 200 + n, (40, 40, 3), np.uint8))
        write(tmp_path / f"in/b/b_{n}.png", RNG.integers(0, 60 * n, (33, 50), np.uint8))
        write(tmp_path / f"in/c/c_{n}.png", RNG.integers(0, 9000 * n, (40, 40, 3), np.uint16))
        for patient, shape in (("a", (40, 40)), ("b", (33, 50)), ("c", (40, 40))):
            mask = np.zeros(shape, np.uint8)
            mask[5 : 9 + n, 7:20] = 255
            write(tmp_path / f"in/{patient}/{patient}_{n}_mask.png", mask)
    return tmp_path / "in"


def open_all(data: Path, cache: SliceCache) -> tuple[SliceDataset, ModelContract]:
    contract = ModelContract(Input(32, levels=(3.0, 120.0)))
    table, _ = build_table(TrainSettings(data, data.parent / "run", size=32), cache)
    return SliceDataset(table, contract, cache, seed=0, augmented=False), contract


def test_a_window_is_that_of_the_whole_patient_whichever_slices_are_trained_on(data: Path) -> None:
    write(data / "c/c_3_mask.png", np.zeros((40, 40), np.uint8))  # the brightest slice, without tumour
    whole = open_all(data, SliceCache(None, 32))[0]
    settings = TrainSettings(data, data.parent / "run", size=32, tumour_only=True)
    table, _ = build_table(settings)
    some = SliceDataset(table, ModelContract(Input(32, levels=(3.0, 120.0))), seed=0, augmented=False)
    rows = {path: row for row, path in enumerate(whole.table.path)}
    assert len(some) == len(whole) - 1
    for row, path in enumerate(some.table.path):
        assert (some.pixels[row] == whole.pixels[rows[path]]).all()


@pytest.mark.parametrize("starts", [1, 2])
def test_slices_and_grey_levels_are_those_of_the_direct_path(data: Path, tmp_path: Path, starts: int) -> None:
    for _ in range(starts):
        cache = SliceCache(tmp_path / "cache", 32)
        prepared, contract = open_all(data, cache)
    slices = table_slices(prepared.table)
    assert {str(read_slice(item.path).dtype) for item in slices} == {"uint8", "uint16"}
    of_patient = SliceTree(data).slices_of_patient  # seg-infer's own
    windows = PatientWindows(of_patient, contract)
    shown: dict[str, list[np.ndarray]] = {}
    for row, item in enumerate(slices):
        pixels = read_slice(item.path)
        assert (prepared.pixels[row] == prepare(pixels, contract, windows.window_of(item, pixels))).all()
        assert item.mask is not None
        assert (prepared.masks[row] == prepare_mask(read_slice(item.mask), contract)).all()
        assert (prepared.truth(row) == (read_slice(item.mask) > 0)).all()
        window = PatientWindows(of_patient, ModelContract(Input(32))).window_of(item, pixels)
        shown.setdefault(item.patient, []).append(to_display(pixels, window).reshape(-1, 3)[::4])
    levels = [np.percentile(np.concatenate(one), (1, 50, 99, 100), axis=0).T for one in shown.values()]
    expected = np.median(levels, axis=0).round(1)
    assert (np.array(training_range(prepared.table, cache).intensity) == expected).all()
    assert (prepared.pixels[range(2, 5)] == np.stack([prepared.pixels[row] for row in (2, 3, 4)])).all()


def test_a_start_reads_each_file_once_and_an_epoch_none(data: Path, tmp_path: Path) -> None:
    for path in (data / "c").iterdir():
        path.unlink()
    read = mock.Mock(side_effect=read_slice)
    masks = mock.Mock(side_effect=table_module.read_truth)
    with (
        mock.patch.object(table_module, "read_slice", read),
        mock.patch.object(table_module, "read_truth", masks),
        mock.patch.object(dataset_module, "read_slice", read),
    ):
        cache = SliceCache(tmp_path / "cache", 32)
        prepared, _ = open_all(data, cache)
        training_range(prepared.table, cache)
        for epoch in (1, 2):
            _ = [prepared[epoch, row] for row in range(len(prepared))]
    assert sorted(call.args[0] for call in read.call_args_list) == sorted(prepared.table.path)
    assert masks.call_count == len(prepared)


def test_a_changed_file_is_prepared_anew(data: Path, tmp_path: Path) -> None:
    first, _ = open_all(data, SliceCache(tmp_path / "cache", 32))
    before, stat = first.pixels[0], (data / "a/a_1.png").stat()
    write(data / "a/a_1.png", 255 - read_slice(data / "a/a_1.png").astype(np.uint8))
    os.utime(data / "a/a_1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    write(data / "b/b_1_mask.png", np.full((33, 50), 255, np.uint8))
    second, _ = open_all(data, SliceCache(tmp_path / "cache", 32))
    assert (second.pixels[0] != before).any()
    assert (second.pixels[0] == prepare(read_slice(data / "a/a_1.png"), CONTRACT)).all()
    assert second.truth(3).all()
    assert (first.pixels[0] == before).all()


def test_a_file_that_changes_during_the_start_ends_it(data: Path, tmp_path: Path) -> None:
    cache = SliceCache(tmp_path / "cache", 32)
    table, _ = build_table(TrainSettings(data, tmp_path / "run", size=32), cache)
    write(data / "c/c_2.png", square(40).astype(np.uint16))
    with pytest.raises(UsageError, match=r"c_2\.png: has changed since"):
        SliceDataset(table, CONTRACT, cache, seed=0, augmented=False)


def test_items_are_copies(data: Path, tmp_path: Path) -> None:
    prepared, _ = open_all(data, SliceCache(tmp_path / "cache", 32))
    before = hashlib.sha256(files(tmp_path / "cache")[0].read_bytes()).hexdigest()
    item = prepared[1, 0][0]
    item += 1
    prepared.masks[0][:] = 7
    assert (prepared.pixels[0] == prepare(read_slice(data / "a/a_1.png"), CONTRACT)).all()
    assert prepared.masks[0].max() == 1
    assert hashlib.sha256(files(tmp_path / "cache")[0].read_bytes()).hexdigest() == before
