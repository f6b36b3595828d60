"""The component rule: what is small beside a patient's largest component is left out, where the slices are a stack."""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from faults import start_child
from helpers import RULED, infer, read, rows, write
from segport import deaths
from segport.ledger import Ledger
from segport.maskrule import MaskRule
from segport.plan import Job, plan_run
from segport.run import run
from segport.segmenter import Segmenter
from segport.settings import RunSettings
from segport.sources import Slice
from segport.stacks import LONGEST, group_stacks
from trees import check_whole, contents, times

RULE = MaskRule(0.5, 0.1)
SLICES, SIDE = 12, 64
TUMOUR, SECOND, SPECK = 6 * 256, 4 * 64, 2 * 16  # pixels: the second lesion has a sixth, the speck a fiftieth


def write_head(folder: Path, seed: int = 0, first: int = 1, prefix: str = "") -> Path:
    """Write slices of a head with a tumour, a second lesion, and a speck in the last two; return the folder."""
    texture = np.random.default_rng(seed).integers(0, 100, (8, 8, 3)).astype(np.uint8)
    for n in range(SLICES):
        pixels = np.kron(texture, np.ones((8, 8, 1), np.uint8))
        if 2 <= n < 8:
            pixels[8:24, 8:24, 1] = 220
        if 3 <= n < 7:
            pixels[40:48, 40:48, 1] = 220
        if n >= SLICES - 2:
            pixels[52:56, 8:12, 1] = 220
        write(folder / f"{prefix or folder.name}_{n + first}.png", pixels)
    return folder


def masks(out: Path) -> dict[str, NDArray[Any]]:
    return {p.name: read(p) for p in sorted(out.rglob("*_mask.png"))}


def total(out: Path) -> int:
    return sum(int((mask > 0).sum()) for mask in masks(out).values())


def test_a_speck_is_left_out_and_a_second_lesion_is_not(tmp_path: Path, capsys) -> None:
    write_head(tmp_path / "in/p")
    assert infer(tmp_path / "in", "--model", RULED, "--probabilities") == 0
    out = tmp_path / "in-masks"
    assert total(out) == TUMOUR + SECOND
    assert "small components were left out of 2 slices" in capsys.readouterr().out
    assert [row["left_out_pixels"] for row in rows(out)] == ["0"] * 10 + ["16", "16"]
    assert [row["tumour_pixels"] for row in rows(out)][-2:] == ["0", "0"]
    assert read(out / "p/p_12_probability.png")[53, 9] > 60_000  # what the network saw stays to be looked at
    assert json.loads((out / "run.json").read_text())["small_components_left_out"] == {"slices": 2}


def test_it_can_be_kept_and_the_masks_are_made_anew(tmp_path: Path, capsys) -> None:
    write_head(tmp_path / "in/p")
    assert infer(tmp_path / "in", "--model", RULED) == 0
    assert infer(tmp_path / "in", "--model", RULED, "--all-components") == 0
    assert total(tmp_path / "in-masks") == TUMOUR + SECOND + SPECK
    assert "left out" not in capsys.readouterr().out.splitlines()[-1]
    assert infer(tmp_path / "in", "--out", tmp_path / "tiny") == 0  # whose contract has no rule
    assert total(tmp_path / "tiny") == TUMOUR + SECOND + SPECK


def test_each_patient_has_its_own_largest_component_in_one_folder_too(tmp_path: Path) -> None:
    write_head(tmp_path / "in", 1, prefix="a")
    for n in range(1, SLICES + 1):  # of b there is the speck alone
        pixels = np.full((SIDE, SIDE, 3), 20, np.uint8)
        pixels[:, ::8, 1] = 90
        if n > SLICES - 2:
            pixels[52:56, 8:12, 1] = 220
        write(tmp_path / f"in/b_{n}.png", pixels)
    assert infer(tmp_path / "in", "--model", RULED) == 0
    assert total(tmp_path / "in-masks") == TUMOUR + SECOND + SPECK
    assert (masks(tmp_path / "in-masks")["b_12_mask.png"] > 0).sum() == SPECK // 2


def unlike(folder: Path) -> None:
    for n in range(1, SLICES + 1):
        write_head(folder.parent / "other", n)
        shutil.copy(folder.parent / f"other/other_{n}.png", folder / f"p_{n}.png")
    shutil.rmtree(folder.parent / "other")


NO_STACK: dict[str, Callable[[Path], object]] = {
    "a number is missing": lambda folder: (folder / "p_1.png").rename(folder / "p_14.png"),
    "no numbers": lambda folder: [f.rename(folder / f"{chr(97 + int(f.stem[2:]))}.png") for f in folder.glob("*")],
    "too few": lambda folder: [(folder / f"p_{n}.png").unlink() for n in range(1, 6)],
    "another size": lambda folder: write(folder / "p_1.png", np.zeros((32, 32, 3), np.uint8)),
    "unlike each other": unlike,
}


@pytest.mark.parametrize("why", NO_STACK)
def test_slices_that_may_be_no_stack_keep_all(tmp_path: Path, why: str) -> None:
    NO_STACK[why](write_head(tmp_path / "in/p"))
    assert infer(tmp_path / "in", "--model", RULED) == 0
    assert sum(mask[52:56, 8:12].any() for mask in masks(tmp_path / "in-masks").values() if mask.shape[0] > 32) == 2


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


def test_black_slices_at_the_ends_do_not_count(tmp_path: Path) -> None:
    write_head(tmp_path / "in/p", first=8)
    for n in (*range(1, 8), *range(SLICES + 8, SLICES + 15)):
        write(tmp_path / f"in/p/p_{n}.png", np.full((SIDE, SIDE, 3), n % 3, np.uint8))
    assert infer(tmp_path / "in", "--model", RULED) == 0
    assert total(tmp_path / "in-masks") == TUMOUR + SECOND


def test_a_stack_takes_half_a_gigabyte_at_most() -> None:
    jobs = [job(n) for n in range(18)]
    assert [len(stack) for stack in group_stacks(jobs[:17], RULE, 2048)] == [17]
    assert [len(stack) for stack in group_stacks(jobs, RULE, 2048)] == [1] * 18


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


def job(number: int | None, patient: str = "p") -> Job:
    path = PurePath(patient, f"{number}.png")
    return Job(path.with_suffix(""), patient, Slice(Path(path), path, patient, number), cast(Any, None))


def test_a_folder_too_long_for_a_stack_is_not_listed_whole() -> None:
    asked = 0

    def jobs() -> Any:
        nonlocal asked
        for n in range(10 * LONGEST):
            asked += 1
            yield job(n)

    assert len(next(group_stacks(jobs(), RULE, SIDE))) == 1
    assert asked == LONGEST + 1
    assert [len(stack) for stack in group_stacks((job(n) for n in range(LONGEST)), RULE, SIDE)] == [LONGEST]
    assert {len(stack) for stack in group_stacks(jobs(), MaskRule(0.5, 0.0), SIDE)} == {1}


def test_stacks_end_where_the_patient_does() -> None:
    jobs = [job(n, patient) for patient in ("p", "q") for n in range(9)]
    assert [len(stack) for stack in group_stacks([*jobs, job(None, "r")], RULE, SIDE)] == [9, 9, 1]
