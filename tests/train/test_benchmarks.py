"""Benchmarks end: a side that cannot load is named and left out, and what is not asked for is not trained."""

import importlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers import ROOT, SAMPLE_DATA, TINY

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what imports a benchmark by its name, as its own command does."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    return tmp_path / "damaged.onnx"


def test_a_side_that_cannot_load_its_model_is_left_out(load, damaged: Path) -> None:
    compared = ("ONNX Runtime loop, one by one", "OpenVINO int8 loop, one by one")
    others = [name for name in load("folder_sides").SIDES if name not in compared]
    options = ["--slices", SAMPLE_DATA, "--model", TINY, "--stock", damaged, "--count", 2, "--rounds", 1]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "folder.py", *map(str, options), "--leave-out", *others],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # it would wait for ever
    )
    assert done.returncode == 0, done.stderr
    assert f"left out: {compared[1]} (" in done.stdout
    assert f"| {compared[0]} | " in done.stdout
    assert f"| {compared[1]} | " not in done.stdout


def test_a_side_of_rounds_that_cannot_load_its_file_is_left_out(load, damaged: Path, capsys) -> None:
    side = load("sides").Side("OpenVINO", "", partial(load("sides").openvino, precision=None))
    assert load("rounds").start(side, damaged, 1, np.zeros((1, 64, 64, 3), np.uint8)) is None
    assert "left out: OpenVINO (" in capsys.readouterr().out


@pytest.mark.parametrize("scratch", [True, False])
def test_fine_tuning_can_be_compared_without_training_from_scratch(
    load, tmp_path: Path, monkeypatch, capsys, scratch: bool
) -> None:
    patients = ["a", "b", "c", "d"]
    for patient in patients:
        (tmp_path / "data" / patient).mkdir(parents=True)
    (tmp_path / "split.csv").write_text("patient,part\n" + "".join(f"{p},test\n" for p in patients))
    finetune, trained = load("finetune"), []

    def call(command: str, *arguments: str) -> None:
        if command == "seg-train":
            trained.append(arguments)
            return
        out = Path(arguments[arguments.index("--out") + 1])
        out.mkdir(exist_ok=True)
        rows = "".join(f"{p},0.5\n" for p in patients)
        (out / "patients.csv").write_text(f"patient,dice_1_if_both_empty\n{rows}")

    def read_part(run: Path, part: str) -> SimpleNamespace:
        taught = (tmp_path / "out/draw1.csv").read_text().splitlines()
        tested = [line.split(",")[0] for line in taught if line.endswith(",test")]
        return SimpleNamespace(patients={p: SimpleNamespace(dice=0.75) for p in tested})

    monkeypatch.setattr(finetune, "_call", call)
    monkeypatch.setattr(finetune, "read_part", read_part)
    options = ["--model", TINY, "--split", tmp_path / "split.csv", "--out", tmp_path / "out", "--draws", 1]
    more = [] if scratch else ["--no-scratch"]
    monkeypatch.setattr(sys, "argv", ["finetune.py", *map(str, [tmp_path / "data", *options, "--patients", 2, *more])])
    assert finetune.main() == 0
    assert ["--init" in arguments for arguments in trained] == [True, False][: 1 + scratch]
    header, _, row, whole = capsys.readouterr().out.splitlines()
    assert ("from scratch" in header) == scratch
    assert header.count("|") == row.count("|") == whole.count("|") == (7 if scratch else 5)
    assert "no_scratch" not in json.loads((tmp_path / "out/arguments.json").read_bytes())  # it may be asked for later
