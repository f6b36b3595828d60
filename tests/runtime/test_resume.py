"""The same command again does what is missing or stale, and nothing else."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import TINY, infer, read, rows, square, write
from segport.cli import main
from trees import check_whole, contents, segment_three, times

Change = Callable[[Path], object]
PLAIN_TIFF = (cv2.IMWRITE_TIFF_COMPRESSION, 1)  # as large whatever it holds


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return segment_three(tmp_path)


def segmented(tree: Path, *options: object, code: int = 0) -> set[str]:
    """Run again; return the stems of the slices whose masks were written anew, and check that all is whole."""
    before = times(tree / "in-masks")
    assert infer(tree / "in", *options) == code
    check_whole(tree / "in-masks")
    return {n.removesuffix("_mask.png") for n, t in times(tree / "in-masks").items() if before.get(n) != t}


def reasons(tree: Path, capsys: pytest.CaptureFixture[str], *options: object) -> dict[str, str]:
    """Return what --dry-run says of each slice."""
    capsys.readouterr()
    assert infer(tree / "in", *options, "--dry-run", "--json") == 0
    return {Path(s["slice"]).stem: s["reason"] for s in json.loads(capsys.readouterr().out)}


def alter_secretly(path: Path) -> None:
    """Change bytes but neither size nor time."""
    data, facts = bytearray(path.read_bytes()), path.stat()
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def test_a_second_run_does_nothing_and_says_so(tree: Path, capsys) -> None:
    before = contents(tree / "in-masks")
    assert segmented(tree) == set()
    assert "3 masks in" in (said := capsys.readouterr().out)
    assert "3 of them up to date before" in said
    assert contents(tree / "in-masks") == before


def slice_of(tree: Path) -> Path:
    return tree / "in/a_1.png"


def mask_of(tree: Path) -> Path:
    return tree / "in-masks/a_1_mask.png"


STALE: dict[str, tuple[Change, str]] = {
    "changed slice": (lambda t: write(slice_of(t), square(value=180)), "the slice changed"),
    "changed slice of the same size": (
        lambda t: slice_of(t).write_bytes((t / "in/b_1.png").read_bytes()[:-20] + b"x" * 20),
        "the slice changed",
    ),
    "missing mask": (lambda t: mask_of(t).unlink(), "a_1_mask.png is missing"),
    "broken mask": (lambda t: mask_of(t).write_bytes(b"x" * 200), "a_1_mask.png is damaged or older"),
    "truncated mask": (lambda t: os.truncate(mask_of(t), 40), "a_1_mask.png is damaged or older"),
    "mask that is a link to nothing": (
        lambda t: (mask_of(t).unlink(), mask_of(t).symlink_to(t / "none")),
        "a_1_mask.png is missing",
    ),
}


@pytest.mark.parametrize("change", STALE)
def test_what_is_stale_alone_is_done_again(tree: Path, capsys, change: str) -> None:
    before = times(tree / "in-masks")
    alter, reason = STALE[change]
    alter(tree)
    assert reasons(tree, capsys) == {"a_1": reason, "a_2": "", "b_1": ""}
    assert infer(tree / "in") in (0, 1)
    changed = {n for n, t in times(tree / "in-masks").items() if before[n] != t}
    assert changed <= {"a_1_mask.png"}
    check_whole(tree / "in-masks")
    assert set(reasons(tree, capsys).values()) <= {"", "failed before"}


def test_a_damaged_mask_is_replaced_by_what_it_was(tree: Path) -> None:
    before = contents(tree / "in-masks")
    mask_of(tree).write_bytes(b"\x89PNG")
    assert segmented(tree) == {"a_1"}
    assert contents(tree / "in-masks") == before


def test_a_mask_that_was_edited_is_replaced_only_to_overwrite(tree: Path, capsys) -> None:
    before = contents(tree / "in-masks")
    write(mask_of(tree), square()[..., 0])
    edited = mask_of(tree).read_bytes()
    for options in ((), ("--threshold", 0.9), ("--verify",)):
        assert infer(tree / "in", *options) == 1
        assert "a_1_mask.png was changed after seg-infer wrote it; remedy: move it away" in capsys.readouterr().err
        assert mask_of(tree).read_bytes() == edited
    assert [r["status"] for r in rows(tree / "in-masks")] == ["failed", "written", "written"]
    assert infer(tree / "in", "--overwrite") == 0
    assert contents(tree / "in-masks") == before


def test_an_older_mask_is_no_edited_one(tree: Path, capsys) -> None:
    """A run that is killed between a slice's line and its mask's name leaves the mask that was there before."""
    older = mask_of(tree).read_bytes()
    write(slice_of(tree), square(low=20))
    assert infer(tree / "in") == 0
    newer = mask_of(tree).read_bytes()
    assert newer != older
    mask_of(tree).write_bytes(older)
    assert reasons(tree, capsys)["a_1"] == "a_1_mask.png is damaged or older"
    assert infer(tree / "in") == 0
    assert mask_of(tree).read_bytes() == newer


def test_what_does_not_decide_pixels_makes_nothing_stale(tree: Path) -> None:
    os.utime(slice_of(tree))
    assert segmented(tree, "--batch-size", 1, "--threads", 1, "--device", "auto", "--spacing", 1, 1, 5) == set()
    header = (tree / "in-masks/patients.csv").read_text().splitlines()[0]
    assert "tumour_volume_ml" in header


def test_another_model_or_threshold_makes_all_stale(tree: Path, capsys) -> None:
    assert set(reasons(tree, capsys, "--threshold", 0.9).values()) == {"other settings"}
    assert segmented(tree, "--threshold", 0.9) == {"a_1", "a_2", "b_1"}
    assert segmented(tree, "--threshold", 0.9) == set()
    other = tree / "other.onnx"
    other.write_bytes(TINY.read_bytes() + b"\x3a\x00")  # an empty field that protobuf passes over
    arguments = [str(tree / "in"), "--model", str(other), "--device", "cpu", "--quiet", "--dry-run"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("(stale: another model)") == 3
    assert segmented(tree) == {"a_1", "a_2", "b_1"}


@pytest.mark.parametrize("path", ["in/a_1.png", "in-masks/a_1_mask.png"])
def test_only_verify_finds_what_kept_its_size_and_time(tree: Path, path: str) -> None:
    alter_secretly(tree / path)  # neither can be decoded any more
    assert infer(tree / "in") == 0
    broken = path.startswith("in/")
    assert infer(tree / "in", "--verify") == int(broken)
    assert rows(tree / "in-masks")[0]["status"] == ("failed" if broken else "written")
    assert mask_of(tree).exists() == (not broken)
    check_whole(tree / "in-masks")


def test_a_slice_that_failed_is_tried_again_and_written_once_mended(tree: Path, capsys) -> None:
    before, good = contents(tree / "in-masks"), slice_of(tree).read_bytes()
    slice_of(tree).write_bytes(good[:60])
    assert segmented(tree, code=1) == set()
    assert not mask_of(tree).exists()  # it was another slice's
    assert reasons(tree, capsys)["a_1"] == "failed before"
    slice_of(tree).write_bytes(good)
    assert segmented(tree) == {"a_1"}
    assert contents(tree / "in-masks") == before


def test_added_slices_are_done_and_removed_ones_leave_the_tables(tree: Path) -> None:
    write(tree / "in/c_1.png", square())
    assert segmented(tree) == {"c_1"}
    slice_of(tree).unlink()
    assert segmented(tree) == set()
    assert [r["path"] for r in rows(tree / "in-masks")] == ["a_2.png", "b_1.png", "c_1.png"]
    assert mask_of(tree).exists()


def test_overwrite_does_all(tree: Path, capsys) -> None:
    assert set(reasons(tree, capsys, "--overwrite").values()) == {"--overwrite"}
    assert segmented(tree, "--overwrite") == {"a_1", "a_2", "b_1"}


@pytest.mark.parametrize("ending", ["_mask.png", "_overlay.png"])
def test_a_foreign_file_is_replaced_only_to_overwrite(tree: Path, capsys, ending: str) -> None:
    write(tree / "in/c_1.png", square())
    foreign = tree / f"in-masks/c_1{ending}"
    foreign.write_bytes(b"by hand")
    write(tree / "in/d_1.png", square())
    assert infer(tree / "in", "--overlay") == 1
    assert foreign.read_bytes() == b"by hand"
    assert "already there and no run of seg-infer wrote it; remedy: --overwrite" in capsys.readouterr().err
    assert [r["status"] for r in rows(tree / "in-masks")] == ["written", "written", "written", "failed", "written"]
    assert infer(tree / "in", "--overlay") == 1
    assert foreign.read_bytes() == b"by hand"
    assert infer(tree / "in", "--overlay", "--overwrite") == 0
    assert check_whole(tree / "in-masks") == 5


def test_overlays_and_scores_can_be_added_later(tree: Path, capsys) -> None:
    assert reasons(tree, capsys, "--overlay")["a_1"] == "a_1_overlay.png is missing"
    assert infer(tree / "in", "--overlay") == 0
    assert set(reasons(tree, capsys, "--overlay", "--score").values()) == {"not scored against this true mask"}
    assert infer(tree / "in", "--overlay", "--score") == 0
    assert rows(tree / "in-masks")[0]["dice_1_if_both_empty"] == "1.0000"
    assert set(reasons(tree, capsys, "--overlay").values()) == {"its overlay shows the true mask"}
    write(tree / "in/b_1_mask.png", square(low=20)[..., 1])
    assert reasons(tree, capsys, "--overlay", "--score") == {
        "a_1": "",
        "a_2": "",
        "b_1": "not scored against this true mask",
    }


def test_all_of_a_deep_patient_is_stale_when_one_slice_changes(tmp_path: Path, capsys) -> None:
    for name in ("a_1", "a_2", "b_1"):
        write(tmp_path / f"in/{name}.png", square().astype(np.uint16) * 9)
    assert infer(tmp_path / "in") == 0
    write(tmp_path / "in/a_2.png", square().astype(np.uint16) * 200)
    stale = reasons(tmp_path, capsys)
    assert stale["b_1"] == ""
    assert stale["a_2"] == "the slice changed"
    assert stale["a_1"] == "other slices of the patient changed, and with them the intensity window"
    assert segmented(tmp_path) == {"a_1", "a_2"}
    assert segmented(tmp_path) == set()


def test_verify_sees_that_another_slice_of_a_deep_patient_changed(tmp_path: Path, capsys) -> None:
    (tmp_path / "in/other").mkdir(parents=True)
    for name, scale in (("a_1", 9), ("a_2", 9), ("b_1", 9), ("other/a_2", 8)):
        cv2.imwrite(str(tmp_path / f"in/{name}.tif"), square().astype(np.uint16) * scale, PLAIN_TIFF)
    shutil.move(tmp_path / "in/other", tmp_path / "other")
    changed, facts = tmp_path / "in/a_2.tif", (tmp_path / "in/a_2.tif").stat()
    assert infer(tmp_path / "in") == 0
    assert infer(tmp_path / "in", "--verify") == 0
    assert set(reasons(tmp_path, capsys, "--verify").values()) == {""}
    changed.write_bytes((tmp_path / "other/a_2.tif").read_bytes())
    os.utime(changed, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert changed.stat().st_size == facts.st_size
    assert set(reasons(tmp_path, capsys).values()) == {""}
    stale = reasons(tmp_path, capsys, "--verify")
    assert (bool(stale["a_1"]), bool(stale["a_2"]), bool(stale["b_1"])) == (True, True, False)


def test_a_dry_run_writes_nothing_and_needs_no_lock(tmp_path: Path, capsys) -> None:
    write(tmp_path / "in/a_1.png", square())
    assert reasons(tmp_path, capsys) == {"a_1": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_results_of_another_input_are_refused_and_left(tree: Path, capsys) -> None:
    write(tree / "more/a_1.png", square(value=0))
    before = contents(tree / "in-masks")
    assert infer(tree / "more", "--out", tree / "in-masks") == 3
    assert "holds the results of another run, over in;" in capsys.readouterr().err
    (tree / "elsewhere").mkdir()
    (tree / "more").rename(tree / "elsewhere/in")  # of the same name, so only the slice is in the way
    assert infer(tree / "elsewhere/in", "--out", tree / "in-masks") == 1
    assert re.search(r"its mask would replace that of .*in/a_1.png", capsys.readouterr().err)
    assert contents(tree / "in-masks").items() >= {n: d for n, d in before.items() if n.endswith(".png")}.items()
    assert (read(mask_of(tree)) > 0).any()


def test_what_the_ledger_says_of_a_moved_input_still_counts(tree: Path) -> None:
    (tree / "new").mkdir()
    (tree / "in").rename(tree / "new/in")
    (tree / "in-masks").rename(tree / "new/in-masks")
    assert segmented(tree / "new") == set()


def test_a_mask_whose_line_is_lost_is_foreign(tree: Path, capsys) -> None:
    ledger = tree / "in-masks/ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(line for line in lines if b'"a_1"' not in line))
    assert infer(tree / "in") == 1
    assert "a_1_mask.png is already there" in capsys.readouterr().err
    assert rows(tree / "in-masks")[0]["status"] == "failed"


def test_a_run_without_score_says_nothing_of_a_true_mask_that_did_not_fit(tree: Path, capsys) -> None:
    before = contents(tree / "in-masks")
    write(tree / "in/a_1_mask.png", square(32)[..., 1])
    assert infer(tree / "in", "--score") == infer(tree / "in", "--score") == 1
    assert capsys.readouterr().err.count("not scored: its mask a_1_mask.png is (32, 32)") == 2
    assert infer(tree / "in") == 0
    assert contents(tree / "in-masks") == before
