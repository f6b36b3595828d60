"""Places that are full, cannot be written, or vanish while a run goes on."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faults import Faults, start_child
from helpers import TINY, infer, rows, square, write
from segport import console, finisher, loader, pipeline, reading
from segport.deaths import CarefulReader
from segport.errors import SliceError
from trees import check_whole, contents, write_slices

OPTIONS = ("--overlay", "--batch-size", "1", "--threads", "1")  # little is under way at a time


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(pipeline, "READ_AHEAD", 1)
    write_slices(tmp_path / "in", 4, patients=3)
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def check_completes(folder: Path, out: Path, number: int = 12) -> None:
    fresh = out.parent / "fresh"
    assert infer(folder, "--out", fresh, *OPTIONS) == 0
    assert infer(folder, "--out", out, *OPTIONS) == 0
    assert contents(out) == contents(fresh)
    assert check_whole(out) == number


def at_slice(monkeypatch, number: int, act: Callable[[], Any]) -> None:
    """Do something once, after so many slices of a run."""
    seen: list[Any] = []
    real = console.Console.tick

    def tick(self: console.Console, outcome: Any) -> None:
        seen.append(outcome)
        if len(seen) == number:
            act()
        real(self, outcome)

    monkeypatch.setattr(console.Console, "tick", tick)


def error_of(capsys) -> str:
    """Return the one line that a run ended with."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("tiny.onnx on")]
    assert len(lines) == 1
    return lines[0]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
from segport.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("size", [100, 3000, 9000])
def test_files_that_may_not_grow_end_the_run(folder: Path, out: Path, size: int) -> None:
    options = [str(folder), "--out", str(out), *OPTIONS, "--model", str(TINY), "--device", "cpu", "--quiet"]
    child = subprocess.run(
        [sys.executable, "-c", LIMITED.format(size), *options], capture_output=True, text=True, check=False
    )
    assert child.returncode == 3
    assert child.stderr.splitlines()[-1].endswith("(File too large)")
    assert check_whole(out) < 12
    check_completes(folder, out)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., bool]]:
    """Return a function that mounts a small file system, or changes its options; it says whether it could."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> bool:
        again = "remount," * os.path.ismount(place)
        command = ["mount", "-t", "tmpfs", "-o", again + options, "none", str(place)]
        return (
            shutil.which("mount") is not None
            and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_the_run_and_what_is_on_it_is_whole(folder: Path, small_disk, tmp_path: Path, capsys) -> None:
    out = tmp_path / "disk/out"
    if small_disk("size=1m"):
        assert infer(folder, "--out", out, *OPTIONS) == 3
        assert "No space left on device" in error_of(capsys)
        assert 0 < check_whole(out) < 12
        assert infer(folder, "--out", out, *OPTIONS) == 3  # still full
        assert "No space left on device" in error_of(capsys)
        assert check_whole(out) < 12
        assert small_disk("size=64m")
    else:  # only root may mount: a writer that fails stands in
        with Faults("picture write", errno.ENOSPC, nth=12, when="half", lasting=True).patched():
            assert infer(folder, "--out", out, *OPTIONS) == 3
        assert "No space left on device" in error_of(capsys)
        assert 0 < check_whole(out) < 12
    check_completes(folder, out)


def test_an_output_that_is_read_only_is_refused_and_left(folder: Path, small_disk, tmp_path: Path, capsys) -> None:
    out = tmp_path / "disk/out"
    mounted = small_disk("size=64m")
    assert infer(folder / "p0", "--out", out, *OPTIONS) == 0
    capsys.readouterr()
    before = contents(out)
    if not (mounted and small_disk("ro")):
        (out / ".segport/lock").chmod(0o400)
        (out / ".segport").chmod(0o500)
    assert infer(folder / "p0", "--out", out, *OPTIONS) == 3
    assert re.fullmatch(
        rf"error: {out}: cannot be written \((Read-only|Permission).*\); remedy: another --out", error_of(capsys)
    )
    assert infer(folder / "p0", "--out", out, *OPTIONS, "--dry-run") == 0
    assert "0 slices to segment, 4 up to date, 0 refused" in capsys.readouterr().out
    assert contents(out) == before
    assert infer(folder, "--out", out.parent / "new/out", *OPTIONS) == (3 if mounted else 0)


@pytest.mark.parametrize("place", ["file/out", "file"])
def test_an_output_that_is_a_file_or_below_one_is_refused(folder: Path, tmp_path: Path, capsys, place: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    assert infer(folder, "--out", tmp_path / place, *OPTIONS) == 3
    assert f"error: {tmp_path / place}: cannot be written (Not a directory)" in error_of(capsys)
    assert infer(folder, "--out", tmp_path / place, "--dry-run") == 0
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["summary.csv", "patients.csv", "run.json", "ledger.jsonl"])
def test_a_folder_in_the_place_of_a_table_ends_the_run(folder: Path, out: Path, capsys, name: str) -> None:
    (out / name).mkdir(parents=True)
    assert infer(folder, "--out", out, *OPTIONS, "--overwrite") == 3
    assert "Is a directory" in error_of(capsys)
    (out / name).rmdir()
    check_whole(out)
    check_completes(folder, out)


def test_an_input_that_vanishes_fails_its_slices_and_comes_back(
    folder: Path, out: Path, capsys, monkeypatch, tmp_path: Path
) -> None:
    at_slice(monkeypatch, 4, lambda: folder.rename(tmp_path / "away"))
    assert infer(folder, "--out", out, *OPTIONS) == 1
    error = capsys.readouterr().err
    assert "cannot be read (No such file or directory)" in error
    assert "in/p2: the folder cannot be listed" in error
    assert 4 <= check_whole(out) < 12
    (tmp_path / "away").rename(folder)
    check_completes(folder, out)


@pytest.mark.parametrize("vanish", [shutil.rmtree, lambda out: out.rename(out.with_name("away"))])
def test_an_output_that_vanishes_ends_the_run(folder: Path, out: Path, capsys, monkeypatch, vanish) -> None:
    at_slice(monkeypatch, 4, lambda: vanish(out))
    assert infer(folder, "--out", out, *OPTIONS) == 3
    assert "No such file or directory" in error_of(capsys)
    assert contents(out) == {} if out.exists() else True
    if out.with_name("away").exists():
        assert check_whole(out.with_name("away")) >= 4
    check_completes(folder, out)


def test_a_slice_that_changes_before_its_overlay_is_drawn_fails(folder: Path, out: Path, monkeypatch) -> None:
    real, changed = finisher.read_slice, folder / "p2/p2_3.png"

    def read(path: Path) -> Any:
        if path == changed:
            write(path, square(48, high=20))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(finisher, "read_slice", read)
        assert infer(folder, "--out", out, *OPTIONS) == 1
    (row,) = [row for row in rows(out) if row["status"] == "failed"]
    assert (row["path"], row["message"]) == ("p2/p2_3.png", "changed while it was segmented; run the command again")
    assert check_whole(out) == 11
    check_completes(folder, out)


def test_a_window_that_lacked_a_slice_for_a_moment_is_computed_again(folder: Path, out: Path, monkeypatch) -> None:
    real, away = CarefulReader.read, folder / "p1/p1_4.png"
    write(away, square(48).astype(np.uint16) * 327)  # it alone decides the window

    def read(reader: CarefulReader, path: Path) -> Any:
        if path == away:
            raise SliceError("cannot be read") from OSError(errno.EIO, "Input/output error")
        return real(reader, path)

    def read_stamped(path: Path) -> Any:
        if path == away:
            raise SliceError("cannot be read") from OSError(errno.EIO, "Input/output error")
        return reading.read_stamped(path)

    with monkeypatch.context() as patch:
        patch.setattr(CarefulReader, "read", read)
        patch.setattr(loader, "read_stamped", read_stamped)
        assert infer(folder, "--out", out, *OPTIONS) == 1
    check_completes(folder, out)


@pytest.mark.parametrize("ending", ["mask", "overlay"])
def test_a_name_that_cannot_be_fails_one_slice_and_the_others_go_on(folder: Path, out: Path, ending: str) -> None:
    with Faults(f"{ending} rename", errno.ENAMETOOLONG, nth=2).patched():
        assert infer(folder, "--out", out, *OPTIONS) == 1
    assert [row["status"] for row in rows(out)] == ["written", "failed"] + ["written"] * 10
    assert "(File name too long); remedy: rename the slice" in rows(out)[1]["message"]
    assert check_whole(out) == 11
    check_completes(folder, out)


def test_a_path_that_windows_finds_too_long_fails_one_slice(folder: Path, out: Path, monkeypatch) -> None:
    real = Path.replace

    def too_long(path: Path, target: Path) -> Path:
        if target.name == "p1_2_mask.png":
            error = FileNotFoundError(errno.ENOENT, "The system cannot find the path specified")
            error.winerror = 3
            raise error
        return real(path, target)

    monkeypatch.setattr(Path, "replace", too_long)
    assert infer(folder, "--out", out, *OPTIONS) == 1
    assert [row["path"] for row in rows(out) if row["status"] == "failed"] == ["p1/p1_2.png"]


def test_a_link_to_itself_is_no_slice_and_no_folder(folder: Path, out: Path) -> None:
    (folder / "p0/loop").symlink_to("loop")
    (folder / "p0/loop.png").symlink_to("loop.png")
    assert infer(folder, "--out", out, *OPTIONS) == 1
    assert [row["path"] for row in rows(out) if row["status"] == "failed"] == ["p0/loop.png"]
    assert check_whole(out) == 12


def test_a_process_killed_before_it_has_a_ledger_leaves_nothing_in_the_way(folder: Path, out: Path) -> None:
    for step in ("mkdir", "at-work open", "ledger open", "ledger write"):
        child = start_child(folder, "--out", out, *OPTIONS, fault={"step": step, "act": "exit"})
        child.communicate()
        assert child.returncode == 7
    check_completes(folder, out)
