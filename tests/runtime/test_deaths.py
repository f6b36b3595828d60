"""Slices that end the process: tried in a child after one death, left out after two, and nothing else is left out."""

import errno
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from faults import Faults, start_child
from helpers import infer, rows, square, write
from segport import deaths
from segport.workspace import open_workspace
from trees import check_whole, contents


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a_1", "b_1", "c_1"):
        write(tmp_path / f"in/{name}.png", square())
    return tmp_path


def die(tree: Path, name: str = "b_1.png") -> None:
    """Run in a process that ends while it reads a slice."""
    child = start_child(tree / "in", fault={"step": f"reading {name}", "act": "exit"}, ahead=1)
    child.communicate()
    assert child.returncode == 7
    assert (tree / "in-masks/.segport/at-work").exists()


def statuses(tree: Path) -> list[str]:
    return [row["status"] for row in rows(tree / "in-masks")]


def test_after_one_death_a_slice_that_is_fine_is_segmented(tree: Path) -> None:
    die(tree)
    assert infer(tree / "in") == 0
    assert statuses(tree) == ["written"] * 3
    assert infer(tree / "in") == 0  # and the death is forgotten
    die_again = tree / "again"
    (tree / "in").rename(die_again)
    assert infer(die_again, "--out", tree / "new") == 0
    assert contents(tree / "new") == contents(tree / "in-masks")


def ends_with_9(command: list[str], **options: Any) -> Any:
    probe = "import os, sys; os._exit(9 * ('b_1' in sys.argv[1]))"
    return subprocess.run([sys.executable, "-c", probe, command[-1]], check=False)


def does_not_end(command: list[str], timeout: float, **options: Any) -> Any:
    if "b_1" in command[-1]:
        raise subprocess.TimeoutExpired(command, timeout)
    return ends_with_9(command)


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        (ends_with_9, "a second process that read it ended with 9"),
        (does_not_end, "a second process that read it did not end within 60 seconds"),
    ],
)
def test_after_one_death_a_child_reads_it_first(tree: Path, capsys, monkeypatch, child, reason: str) -> None:
    die(tree)
    fake = SimpleNamespace(run=child, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(deaths, "subprocess", fake)
    assert infer(tree / "in") == 1
    error = capsys.readouterr().err
    assert f"b_1.png: killed the process once, and {reason}; remedy: save it anew" in error
    assert statuses(tree) == ["written", "failed", "written"]


def test_a_slice_that_cannot_be_read_fails_with_its_own_reason_after_a_death(tree: Path) -> None:
    die(tree)
    (tree / "in/b_1.png").write_bytes(b"")
    assert infer(tree / "in") == 1
    assert rows(tree / "in-masks")[1]["message"] == "is empty (0 bytes); copy it again"


def test_after_two_deaths_it_is_left_out_until_overwrite(tree: Path, capsys) -> None:
    die(tree)
    die(tree)
    for _ in range(2):
        assert infer(tree / "in") == 1
        assert "b_1.png: killed the process twice while it was read; remedy: save it anew" in capsys.readouterr().err
        assert statuses(tree) == ["written", "failed", "written"]
        assert check_whole(tree / "in-masks") == 2
    assert infer(tree / "in", "--overwrite") == 0
    assert infer(tree / "in") == 0
    assert statuses(tree) == ["written"] * 3


def test_a_slice_saved_anew_is_tried_again_after_two_deaths(tree: Path) -> None:
    die(tree)
    die(tree)
    assert infer(tree / "in") == 1
    write(tree / "in/b_1.png", square(value=150))
    assert infer(tree / "in") == 0


def test_deaths_are_no_reason_to_lose_a_mask_that_is_there(tree: Path) -> None:
    assert infer(tree / "in") == 0
    before = contents(tree / "in-masks")
    write(tree / "in/b_1.png", square(value=150))
    die(tree)
    assert infer(tree / "in") == 0
    assert contents(tree / "in-masks").keys() == before.keys()
    assert check_whole(tree / "in-masks") == 3


def test_a_slice_that_was_read_beside_one_that_kills_is_not_blamed_twice(tree: Path) -> None:
    a, b = (str(tree / f"in/{name}_1.png") for name in "ab")
    with open_workspace(tree / "in-masks", readers=2) as workspace, workspace.reading(a), workspace.reading(b):
        notes = (tree / "in-masks/.segport/at-work").read_bytes()
    (tree / "in-masks/.segport/at-work").write_bytes(notes)
    die(tree)
    with open_workspace(tree / "in-masks", readers=2) as workspace:
        assert workspace.died == [b]


def test_slices_that_are_read_alone_wait_for_the_others_and_for_each_other(tmp_path: Path) -> None:
    at_once: list[int] = []
    busy: set[int] = set()
    with open_workspace(tmp_path, readers=3) as workspace:

        def read(number: int) -> None:
            with workspace.reading(str(number), alone=number % 3 == 0):
                busy.add(number)
                time.sleep(0.002)
                at_once.append(len(busy) if number % 3 == 0 else 0)
                busy.discard(number)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(read, range(30)))
    assert sorted(at_once) == [0] * 20 + [1] * 10


def test_a_clean_end_leaves_no_slice_at_work(tree: Path) -> None:
    with Faults("ledger write", errno.ENOSPC, nth=2).patched():
        assert infer(tree / "in") == 3
    assert [p.name for p in (tree / "in-masks/.segport").iterdir()] == ["lock"]


@pytest.mark.parametrize("name", ["b_1", "ü/\udce9_1", "\ud800", "x" * 9000])
def test_any_name_comes_back_from_a_process_that_died(tmp_path: Path, name: str) -> None:
    with open_workspace(tmp_path, readers=2) as workspace, workspace.reading("other"), workspace.reading(name):
        notes = (tmp_path / ".segport/at-work").read_bytes()
    (tmp_path / ".segport/at-work").write_bytes(notes)
    with open_workspace(tmp_path, readers=2) as workspace:
        assert workspace.died[0] == "other"
        assert workspace.died[1:] in ([name], [name[:8190]])


@pytest.mark.parametrize("notes", [b"", b"\xff" * 30_000, b"\x05\0ab", bytes(range(256)) * 70])
def test_notes_that_are_damaged_name_no_slice_of_the_run(tree: Path, notes: bytes) -> None:
    assert infer(tree / "in") == 0
    (tree / "in-masks/.segport/at-work").write_bytes(notes)
    assert infer(tree / "in") == 0
    assert statuses(tree) == ["written"] * 3


def test_a_slice_that_kills_while_a_window_is_computed_is_the_one_that_is_left_out(tree: Path, capsys) -> None:
    """The percentile rule reads the patient's other slices for the first one: that one is not to blame."""
    for n in range(1, 5):
        write(tree / f"in/p/p_{n}.png", square(value=200).astype(np.uint16) * 100)
    for name in "abc":
        (tree / f"in/{name}_1.png").unlink()
    die(tree, "p_3.png")
    die(tree, "p_3.png")
    assert infer(tree / "in") == 1
    assert statuses(tree) == ["written", "written", "failed", "written"]
    assert "p_3.png: killed the process twice" in capsys.readouterr().err
    assert infer(tree / "in", "--overwrite") == 0
