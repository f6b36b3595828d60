"""Two runs on one output folder: the second is refused, and the lock lives no longer than its process."""

import time
from pathlib import Path

import pytest

from faults import start_child
from helpers import infer, square, write
from segport import run as runs
from segport.errors import OutputError
from segport.workspace import open_workspace
from trees import check_whole, contents

REFUSAL = "another run of seg-infer is writing there; remedy: wait until it ends, or another --out"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for n in range(1, 9):
        write(tmp_path / f"in/a_{n}.png", square(value=120 + n))
    return tmp_path


def test_the_second_of_two_runs_is_refused_and_the_first_goes_on(tree: Path, capsys, monkeypatch) -> None:
    second: list[int] = []

    class Watched(runs.SheetWriter):
        def add(self, outcome) -> None:
            if not second:
                child = start_child(tree / "in")
                said = child.communicate()[1]
                assert f"error: {tree / 'in-masks'}: {REFUSAL}" in said
                second.append(child.returncode)
                second.append(infer(tree / "in", "--overwrite"))  # in this process, too
                assert infer(tree / "in", "--dry-run") == 0
                assert infer(tree / "in", "--out", tree / "other") == 0
            super().add(outcome)

    monkeypatch.setattr(runs, "SheetWriter", Watched)
    assert infer(tree / "in", "--overlay") == 0
    assert second == [3, 3]
    assert check_whole(tree / "in-masks") == check_whole(tree / "other") == 8
    masks = {n: d for n, d in contents(tree / "in-masks").items() if n.endswith("_mask.png")}
    assert masks.items() <= contents(tree / "other").items()


def test_the_lock_dies_with_its_process(tree: Path) -> None:
    child = start_child(tree / "in", fault={"step": "mask rename", "act": "stop", "nth": 3})
    while child.poll() is None and not (tree / "in-masks/a_2_mask.png").exists():
        time.sleep(0.01)
    assert infer(tree / "in") == 3
    child.kill()
    child.communicate()
    assert infer(tree / "in") == 0
    assert check_whole(tree / "in-masks") == 8


def test_a_lock_is_free_after_a_run_that_failed(tmp_path: Path) -> None:
    (tmp_path / ".segport/at-work").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(OutputError, match="Is a directory"), open_workspace(tmp_path, readers=1):
            pass
    (tmp_path / ".segport/at-work").rmdir()
    with open_workspace(tmp_path, readers=1):
        with pytest.raises(OutputError, match=REFUSAL), open_workspace(tmp_path, readers=1):
            pass
        with open_workspace(tmp_path / "other", readers=1):
            pass
