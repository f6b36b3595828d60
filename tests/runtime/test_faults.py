"""Every step of a write fails once, or the process ends there: nothing is lost or faked, and the next run completes."""

import errno
import os
import re
from pathlib import Path

import pytest

from faults import Faults, start_child
from helpers import infer, rows
from trees import check_whole, contents, write_slices

OPTIONS = ("--overlay", "--score", "--batch-size", "2", "--threads", "1")
ERRNOS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES]
# which step of a run, and at which time; the first slices are written before
STEPS: list[tuple[str, int]] = [
    ("file open", 1),
    ("file open", 9),
    ("picture write", 8),
    ("picture fsync", 8),
    ("at-work open", 1),
    ("at-work write", 1),
    ("ledger open", 1),
    ("ledger write", 1),
    ("ledger write", 3),
    ("ledger fsync", 1),
    ("ledger fsync", 3),
    ("mkdir", 2),
    ("overlay rename", 3),
    ("mask rename", 1),
    ("mask rename", 4),
    ("sheet rename", 1),
    ("summary write", 1),
    ("summary rename", 1),
    ("patients write", 1),
    ("patients fsync", 1),
    ("patients rename", 1),
    ("run.json write", 1),
    ("run.json write", 2),
    ("run.json rename", 2),
]
MOMENTS = ["before", "half", "after"]
WHERE: dict[str, str | tuple[str, ...]] = {"before": "", "half": "write", "after": ("write", "fsync", "rename")}
CASES = [(s, n, w) for s, n in STEPS for w in MOMENTS if s.endswith(WHERE[w])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices") / "in"
    write_slices(folder, 3, patients=2)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with Faults("none", 0).patched() as faults:
        assert infer(folder, "--out", out, *OPTIONS) == 0
    assert all(faults.seen[step] >= nth for step, nth in STEPS), "a step is never come to"
    return contents(out)


def check_completes(folder: Path, out: Path, undisturbed: dict[str, bytes]) -> None:
    assert infer(folder, "--out", out, *OPTIONS) == 0
    assert contents(out) == undisturbed
    assert check_whole(out) == 6
    assert [file.name for file in (out / ".segport").iterdir()] == ["lock"]


@pytest.mark.parametrize("case", range(len(CASES)), ids=[" ".join(map(str, case)) for case in CASES])
def test_a_step_that_fails_ends_the_run_in_one_line(
    folder: Path, undisturbed: dict[str, bytes], tmp_path: Path, capsys, case: int
) -> None:
    step, nth, when = CASES[case]
    number, lasting = ERRNOS[case % 4], case % 8 < 4  # at that time alone, or from then on
    out = tmp_path / "out"
    with Faults(step, number, nth=nth, when=when, lasting=lasting).patched():
        assert infer(folder, "--out", out, *OPTIONS) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if not line.startswith("tiny.onnx on")]
    assert re.fullmatch(rf"error: {re.escape(str(out))}.*\({os.strerror(number)}\).*", line)
    masks = check_whole(out)
    if (out / "summary.csv").exists():
        written = [row["path"] for row in rows(out) if row["status"] == "written"]
        assert len(written) <= masks
        assert all((out / path.replace(".png", "_mask.png")).exists() for path in written)
    check_completes(folder, out, undisturbed)


@pytest.mark.parametrize(("step", "nth"), STEPS)
def test_a_process_that_ends_at_a_step_is_taken_up_again(
    folder: Path, undisturbed: dict[str, bytes], tmp_path: Path, step: str, nth: int
) -> None:
    when = next(
        when for when in reversed(MOMENTS) if step.endswith(WHERE[when]) and (when, step[-5:]) != ("after", "write")
    )
    out = tmp_path / "out"
    fault = {"step": step, "act": "exit", "nth": nth, "when": when}
    child = start_child(folder, "--out", out, *OPTIONS, fault=fault)
    child.communicate()
    assert child.returncode == 7
    check_whole(out)
    check_completes(folder, out, undisturbed)
