"""Outputs that a run replaces or removes: a kill leaves none that passes for new, or for another program's."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import start_child
from helpers import infer, square, write
from trees import check_whole, contents, segment_three, times

Change = Callable[[Path], object]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return segment_three(tmp_path)


def slice_of(tree: Path) -> Path:
    return tree / "in/a_1.png"


def mask_of(tree: Path) -> Path:
    return tree / "in-masks/a_1_mask.png"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: write(slice_of(t), square(low=30)),
        lambda t: slice_of(t).unlink(),
        lambda t: write(t / "in/a_3.png", square(low=30)),
        lambda t: write(t / "in/a_1_mask.png", square(low=30)[..., 1]),
    ],
    ids=["changed", "removed", "added", "truth"],
)
def test_a_sheet_is_drawn_anew_when_what_it_shows_changed_even_in_a_run_that_was_killed(
    tree: Path, change: Change
) -> None:
    options = ("--overlay", "--score")
    assert infer(tree / "in", *options) == 0
    change(tree)
    steps = [("mask rename", "after"), ("sheet rename", "before")]
    for step, when in steps if slice_of(tree).exists() else steps[1:]:
        child = start_child(tree / "in", *options, fault={"step": step, "when": when, "act": "kill"})
        child.communicate()
        assert child.returncode == -signal.SIGKILL
    assert infer(tree / "in", *options) == 0
    assert infer(tree / "in", "--out", tree / "new", *options) == 0
    check_whole(tree / "in-masks")
    left = {n: d for n, d in contents(tree / "in-masks").items() if (tree / "new" / n).exists()}
    assert left == contents(tree / "new")
    before = times(tree / "in-masks")
    assert infer(tree / "in", *options) == 0
    assert times(tree / "in-masks") == before


@pytest.mark.parametrize("step", ["ledger fsync", "overlay unlink"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_overlay_that_is_to_go_goes_whenever_the_run_is_killed(tree: Path, step: str, when: str) -> None:
    assert infer(tree / "in", "--overlay") == 0
    (tree / "in-masks/a_sheet.png").unlink()
    (tree / "in-masks/b_sheet.png").unlink()
    nth = 2 if step == "ledger fsync" else 1
    fault = {"step": step, "act": "exit", "when": when, "nth": nth}
    child = start_child(tree / "in", "--threshold", 0.9, fault=fault)
    child.communicate()
    assert child.returncode == 7
    assert infer(tree / "in", "--threshold", 0.9) == 0
    assert infer(tree / "in", "--threshold", 0.9, "--out", tree / "new") == 0
    assert contents(tree / "in-masks") == contents(tree / "new")


def test_a_mask_of_a_slice_that_broke_goes_whenever_the_run_is_killed(tree: Path) -> None:
    good = slice_of(tree).read_bytes()
    slice_of(tree).write_bytes(good[:60])
    child = start_child(tree / "in", fault={"step": "ledger fsync", "act": "exit", "when": "after", "nth": 2})
    child.communicate()
    assert child.returncode == 7
    assert infer(tree / "in") == 1
    assert not mask_of(tree).exists()
    slice_of(tree).write_bytes(good)
    assert infer(tree / "in") == 0
    assert check_whole(tree / "in-masks") == 3


def test_a_mask_stays_ours_when_a_later_output_of_its_slice_cannot_be_named(tmp_path: Path) -> None:
    """A mask's name may have 255 characters; that of its probabilities is longer."""
    write(tmp_path / f"in/{'x' * 246}.png", square())
    assert infer(tmp_path / "in") == 0
    assert infer(tmp_path / "in", "--probabilities") == 1
    assert infer(tmp_path / "in") == 0
    assert check_whole(tmp_path / "in-masks") == 1


def test_a_sheet_whose_name_is_too_long_is_left_out_and_said(tmp_path: Path, capsys) -> None:
    write(tmp_path / f"in/{'x' * 250}/a_1.png", square())
    write(tmp_path / "in/y/a_1.png", square())
    assert infer(tmp_path / "in", "--overlay") == 1
    assert "no contact sheet of xxx" in capsys.readouterr().err
    assert check_whole(tmp_path / "in-masks") == 2


def test_slices_that_failed_when_their_disk_was_gone_may_come_from_another_place(tmp_path: Path) -> None:
    write(tmp_path / "a/in/p_1.png", square())
    (tmp_path / "a/in/p_2.png").symlink_to(tmp_path / "gone.png")
    assert infer(tmp_path / "a/in", "--out", tmp_path / "out") == 1
    (tmp_path / "a/in/p_2.png").unlink()
    write(tmp_path / "a/in/p_2.png", square())
    (tmp_path / "a").rename(tmp_path / "b")
    assert infer(tmp_path / "b/in", "--out", tmp_path / "out") == 0


def test_scores_of_an_earlier_run_are_not_given_for_one_without_score(tmp_path: Path) -> None:
    write(tmp_path / "in/p_1.png", square())
    write(tmp_path / "in/p_1_mask.png", square()[..., 1])
    assert infer(tmp_path / "in", "--score") == 0
    assert infer(tmp_path / "in") == 0
    assert json.loads((tmp_path / "in-masks/run.json").read_text())["scores"] is None
