"""Runs over stacks: slices that fail, runs that end early or come again, and what is then made anew."""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from faults import start_child
from heads import SECOND, SIDE, SLICES, TUMOUR, masks, total, write_head
from helpers import RULED, infer, read, rows, write
from segport import deaths
from segport.ledger import Ledger
from segport.plan import plan_run
from segport.run import run
from segport.segmenter import Segmenter
from segport.settings import RunSettings
from trees import check_whole, contents, times


def written_anew(tmp_path: Path, *options: object, code: int = 0) -> int:
    """Run again; return how many masks were written."""
    before = times(tmp_path / "in-masks")
    assert infer(tmp_path / "in", "--model", RULED, *options) == code
    after = times(tmp_path / "in-masks")
    return sum(after[name] != before.get(name) for name in after if name.endswith("_mask.png"))


@pytest.mark.parametrize("options", [(), ("--threshold", 0.6)])
def test_where_a_slice_cannot_be_read_the_others_keep_all(tmp_path: Path, options: tuple[object, ...]) -> None:
    write_head(tmp_path / "in/p")
    out, broken = tmp_path / "in-masks", tmp_path / "in/p/p_5.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:80])
    assert infer(tmp_path / "in", "--model", RULED) == 1
    assert [row["status"] for row in rows(out)].count("failed") == 1
    assert rows(out)[-1]["tumour_pixels"] == "16"
    assert written_anew(tmp_path, *options, code=1) == (11 if options else 0)
    assert written_anew(tmp_path, *options, code=1) == 0  # nothing changed, nothing is done
    broken.write_bytes(whole)
    assert written_anew(tmp_path, *options) == SLICES  # complete: now they are judged beside each other
    assert total(out) == TUMOUR + SECOND


def test_a_link_to_nothing_keeps_no_patient_busy(tmp_path: Path) -> None:
    write_head(tmp_path / "in/p")
    (tmp_path / "in/p/p_5.png").unlink()
    (tmp_path / "in/p/p_5.png").symlink_to(tmp_path / "nowhere.png")
    assert infer(tmp_path / "in", "--model", RULED) == 1
    assert written_anew(tmp_path, code=1) == 0


def test_a_slice_that_fails_does_not_part_its_stack(tmp_path: Path) -> None:
    write_head(tmp_path / "in/p")
    assert infer(tmp_path / "in", "--model", RULED) == 0
    shutil.copy(tmp_path / "in/p/p_12.png", tmp_path / "in/p/p_13.png")
    (tmp_path / "in/p/p_5.png").unlink()
    (tmp_path / "in/p/p_5.png").symlink_to(tmp_path / "nowhere.png")
    assert infer(tmp_path / "in", "--model", RULED, "--overwrite") == 1
    marks = [mask[52:56, 8:12].any() for mask in masks(tmp_path / "in-masks").values()]
    assert sum(marks) == 3  # none is left out of what may be half a stack


@pytest.mark.parametrize("edited", [False, True])
def test_a_slice_whose_mask_may_not_be_written_is_read_for_the_others(tmp_path: Path, edited: bool) -> None:
    write_head(tmp_path / "in/p")
    out, theirs = tmp_path / "in-masks", np.full((SIDE, SIDE), 255, np.uint8)
    if edited:
        assert infer(tmp_path / "in", "--model", RULED) == 0
    write(out / "p/p_5_mask.png", theirs)
    assert written_anew(tmp_path, code=1) == (0 if edited else 11)
    assert written_anew(tmp_path, "--overlay", code=1) == 11
    assert written_anew(tmp_path, "--overlay", code=1) == 0
    assert (masks(out)["p_5_mask.png"] == theirs).all()
    assert not masks(out)["p_12_mask.png"].any()
    assert [row["left_out_pixels"] for row in rows(out)][-2:] == ["16", "16"]
    (out / "p/p_5_mask.png").unlink()
    assert written_anew(tmp_path) == SLICES
    assert total(out) == TUMOUR + SECOND


def test_a_slice_that_kills_its_readers_is_not_read_for_the_others(tmp_path: Path, monkeypatch) -> None:
    write_head(tmp_path / "in/p")
    assert infer(tmp_path / "in", "--model", RULED) == 0
    fault = {"step": "reading p_5.png", "act": "exit"}
    start_child(tmp_path / "in", "--model", RULED, "--overwrite", fault=fault, ahead=1).communicate(timeout=60)
    probed = []

    def kill(command: list[str], **_: object) -> SimpleNamespace:
        probed.append(Path(command[-1]).name)
        return SimpleNamespace(returncode=9 * (probed[-1] == "p_5.png"))

    monkeypatch.setattr(deaths, "subprocess", SimpleNamespace(run=kill, TimeoutExpired=subprocess.TimeoutExpired))
    assert written_anew(tmp_path) == 0
    assert not probed  # nothing has to be read
    (tmp_path / "in-masks/p/p_3_mask.png").unlink()
    assert written_anew(tmp_path) == 1
    assert "p_5.png" in probed  # and perhaps its neighbour, which was being read beside it
    assert written_anew(tmp_path) == 0


def test_a_slice_that_cannot_be_read_once_leaves_no_line_that_says_judged_together(tmp_path: Path) -> None:
    out, slice_5 = tmp_path / "in-masks", tmp_path / "in/p/p_5.png"
    write_head(tmp_path / "in/p")
    assert infer(tmp_path / "in", "--model", RULED) == 0
    slice_5.rename(tmp_path / "away.png")
    slice_5.symlink_to(tmp_path / "nowhere.png")  # as on a disk that fails for a moment
    assert infer(tmp_path / "in", "--model", RULED, "--overwrite") == 1
    with closing(Ledger(out, writable=False)) as ledger:
        entry = ledger.find("p/p_6")
    assert entry is not None
    assert (entry.status, entry.stack) == ("written", "")
    slice_5.unlink()
    (tmp_path / "away.png").rename(slice_5)
    assert infer(tmp_path / "in", "--model", RULED) == 0
    assert total(out) == TUMOUR + SECOND


def test_what_is_asked_for_later_is_done_for_the_whole_stack(tmp_path: Path) -> None:
    write_head(tmp_path / "in/p")
    for number in range(1, SLICES + 1):
        pixels = read(tmp_path / f"in/p/p_{number}.png").astype(np.uint16) * 91
        write(tmp_path / f"in/p/p_{number}.png", pixels[..., ::-1])  # 16 bits: the window depends on all slices as well
    assert infer(tmp_path / "in", "--model", RULED) == 0
    before = masks(tmp_path / "in-masks")
    assert not before["p_12_mask.png"].any()
    assert infer(tmp_path / "in", "--model", RULED, "--overlay", "--probabilities") == 0
    after = masks(tmp_path / "in-masks")
    assert all((after[name] == mask).all() for name, mask in before.items())
    assert len(list((tmp_path / "in-masks/p").glob("*_heat.png"))) == SLICES


def test_a_stack_that_was_begun_is_whole_when_the_user_stops(tmp_path: Path) -> None:
    for number in range(6):
        write_head(tmp_path / f"in/p{number}", number)
    settings, calls = RunSettings(model=RULED, device="cpu"), 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 1

    plan = plan_run([tmp_path / "in"], None, settings)
    result = run(plan, settings, Segmenter(RULED, device="cpu"), stop=stop)
    assert (result.exit_code, result.written) == (130, SLICES)
    assert total(tmp_path / "in-masks") == TUMOUR + SECOND
    assert infer(tmp_path / "in", "--model", RULED) == 0
    assert total(tmp_path / "in-masks") == 6 * (TUMOUR + SECOND)


def reasons(tmp_path: Path, capsys) -> dict[str, str]:
    capsys.readouterr()
    assert infer(tmp_path / "in", "--model", RULED, "--dry-run", "--json") == 0
    return {Path(s["slice"]).stem: s["reason"] for s in json.loads(capsys.readouterr().out)}


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "a mask is missing": lambda root: (root / "in-masks/p/p_3_mask.png").unlink(),
    "a slice was added": lambda root: shutil.copy(root / "in/p/p_12.png", root / "in/p/p_13.png"),
    "a slice was removed": lambda root: (root / "in/p/p_12.png").unlink(),
    "a slice changed": lambda root: shutil.copy(root / "in/p/p_4.png", root / "in/p/p_1.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_its_patient_stale_and_no_other(tmp_path: Path, capsys, change: str) -> None:
    for name, seed in (("p", 0), ("q", 1)):
        write_head(tmp_path / "in" / name, seed)
    assert infer(tmp_path / "in", "--model", RULED) == 0
    before = times(tmp_path / "in-masks")
    CHANGES[change](tmp_path)
    stale = {name: why for name, why in reasons(tmp_path, capsys).items() if why}
    assert set(stale) == {name for name in stale if name.startswith("p_")}
    slices = len(list((tmp_path / "in/p").iterdir()))
    assert len(stale) == (0 if change == "nothing" else slices)
    if stale:
        assert "judged together with slices of the patient that are segmented anew" in stale.values()
    assert infer(tmp_path / "in", "--model", RULED) == 0
    anew = {name for name, time in times(tmp_path / "in-masks").items() if before.get(name) != time}
    assert anew == {f"{name}_mask.png" for name in stale}
    assert infer(tmp_path / "in", "--model", RULED, "--out", tmp_path / "anew") == 0
    again = masks(tmp_path / "in-masks")
    assert all((again[name] == mask).all() for name, mask in masks(tmp_path / "anew").items())


@pytest.mark.parametrize(
    ("step", "when", "nth"), [("mask rename", "after", 15), ("ledger write", "half", 3), ("ledger fsync", "after", 3)]
)
def test_a_run_that_is_killed_goes_on_to_the_same_masks(tmp_path: Path, step: str, when: str, nth: int) -> None:
    for name, seed in (("p", 0), ("q", 1), ("r", 2)):
        write_head(tmp_path / "in" / name, seed)
    options = ("--model", RULED, "--batch-size", 5)
    assert infer(tmp_path / "in", *options, "--out", tmp_path / "whole") == 0
    fault = {"step": step, "act": "kill", "when": when, "nth": nth}
    child = start_child(tmp_path / "in", *options, fault=fault, ahead=1)
    child.communicate(timeout=60)
    assert child.returncode == -9
    written = check_whole(tmp_path / "in-masks")
    assert 0 < written < 3 * SLICES
    assert infer(tmp_path / "in", *options) == 0
    assert contents(tmp_path / "in-masks") == contents(tmp_path / "whole")
