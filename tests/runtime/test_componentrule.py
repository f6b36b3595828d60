"""The component rule: what is small beside a patient's largest component is left out, where the slices are a stack."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heads import SECOND, SIDE, SLICES, SPECK, TUMOUR, masks, total, write_head
from helpers import RULED, infer, read, rows, write


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


def test_black_slices_at_the_ends_do_not_count(tmp_path: Path) -> None:
    write_head(tmp_path / "in/p", first=8)
    for n in (*range(1, 8), *range(SLICES + 8, SLICES + 15)):
        write(tmp_path / f"in/p/p_{n}.png", np.full((SIDE, SIDE, 3), n % 3, np.uint8))
    assert infer(tmp_path / "in", "--model", RULED) == 0
    assert total(tmp_path / "in-masks") == TUMOUR + SECOND
