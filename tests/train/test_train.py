"""seg-train as a user meets it: runs, reports, kills and resumes."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from helpers import square, write
from segport_train import loop
from segport_train.checkpoint import load_checkpoint, load_network
from segport_train.model import weights_sha256
from segport_train.progress import Progress
from segport_train.trainer import Trainer
from tiny_runs import rows, train

pytestmark = pytest.mark.usefixtures("thin")


def test_a_run_leaves_everything_that_was_promised(data: Path, tmp_path: Path, capsys) -> None:
    assert train(data, tmp_path / "run") == 0
    run = tmp_path / "run"
    names = {p.name for p in run.iterdir()}
    assert names == {
        "best.safetensors", "last.safetensors", "metrics.csv", "settings.json", "split.csv", "curves.png",
        "report.md", "report.html", "report.css", "patients.csv", "slices.csv", "calibration.csv", "calibration.png",
        "worst.png", ".segport", "cache",
    }  # fmt: skip
    metrics = rows(run / "metrics.csv")
    assert [r["epoch"] for r in metrics] == ["1", "2", "3"]
    assert {"train_accuracy", "train_nothing", "val_accuracy", "val_nothing", "val_dice_mean_per_patient"} <= set(
        metrics[0]
    )
    assert float(metrics[0]["val_nothing"]) == pytest.approx(1 - 512 / 4096)
    assert {r["part"] for r in rows(run / "split.csv")} == {"train", "val", "test"}
    report = (run / "report.md").read_text()
    assert "## test: 1 patient, 4 slices, 2 of them with tumour" in report
    assert "| accuracy, pooled pixels | " in report
    assert "| 0.8750 |\n" in report
    captured = capsys.readouterr()
    assert report in captured.out
    assert "nothing 0.8750" in captured.err
    assert json.loads((run / "settings.json").read_text())["settings"]["lr"] == 1e-3


def test_the_checkpoint_carries_its_contract_and_no_name_of_a_patient(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run")
    network, contract = load_network(tmp_path / "run/best.safetensors")
    assert contract.input.size == 32
    assert contract.origin.output_stride == 16
    assert contract.origin.data["train"]["patients"] == 2
    assert contract.training_range.sizes == ((32, 32),)
    assert "val/mean-per-patient" in contract.origin.dice
    text = contract.to_json()
    assert "p0" not in text
    assert str(tmp_path) not in text
    assert not network.training


def test_a_seed_decides_the_weights(data: Path, tmp_path: Path) -> None:
    hashes = set()
    for name, seed in (("a", "4"), ("b", "4"), ("c", "5")):
        train(data, tmp_path / name, "--epochs", "1", "--seed", seed)
        hashes.add(load_checkpoint(tmp_path / name / "last.safetensors").contract.origin.weights_sha256)
    assert len(hashes) == 2


def test_a_run_is_never_started_over_and_never_resumed_with_other_settings(data: Path, tmp_path: Path, capsys) -> None:
    assert train(data, tmp_path / "run", "--resume") == 2
    assert "run without --resume" in capsys.readouterr().err
    assert train(data, tmp_path / "run", "--epochs", "1") == 0
    assert train(data, tmp_path / "run", "--epochs", "1") == 3
    assert "go on with --resume" in capsys.readouterr().err
    assert train(data, tmp_path / "run", "--resume", "--lr", "0.5") == 2
    error = capsys.readouterr().err
    assert "lr: 0.001 then, 0.5 now" in error
    assert "epochs: 1 then, 3 now" in error
    recorded = json.loads((tmp_path / "run/settings.json").read_text())
    (tmp_path / "run/settings.json").write_text(json.dumps(recorded | {"threads": 64}))
    assert train(data, tmp_path / "run", "--resume", "--epochs", "1") == 0
    assert "threads was 64 then" in capsys.readouterr().err
    (data / "p0/p0_1.png").rename(data / "p0/p0_9.png")
    (data / "p0/p0_1_mask.png").rename(data / "p0/p0_9_mask.png")
    assert train(data, tmp_path / "run", "--resume", "--epochs", "1") == 2
    assert "order:" in capsys.readouterr().err
    write(data / "p0/p0_9.png", square(32, value=7))
    assert train(data, tmp_path / "run", "--resume", "--epochs", "1") == 2
    assert "data:" in capsys.readouterr().err


def test_one_slice_is_too_few(tmp_path: Path, capsys) -> None:
    write(tmp_path / "data/a/a_1.png", square(32, low=8, high=24))
    write(tmp_path / "data/a/a_1_mask.png", square(32, low=8, high=24)[..., 1])
    assert train(tmp_path / "data", tmp_path / "run") == 2
    assert (
        "1 slice is too few to train on: batch normalisation needs two; remedy: more slices" in capsys.readouterr().err
    )


def test_an_interrupt_exits_130_and_says_how_to_go_on(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def interrupted(*_: object) -> Progress:
        raise KeyboardInterrupt

    trained = loop._train_epoch
    monkeypatch.setattr(loop, "_train_epoch", interrupted)
    assert train(data, tmp_path / "run") == 130
    assert "interrupted; start again; there is no checkpoint yet" in capsys.readouterr().err
    calls, real = iter([False, True]), trained
    monkeypatch.setattr(loop, "_train_epoch", lambda *args: interrupted() if next(calls) else real(*args))
    assert train(data, tmp_path / "run") == 130
    assert f"interrupted; --resume goes on from {tmp_path / 'run/last.safetensors'}" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_a_step_loses_none(data: Path, tmp_path: Path, monkeypatch, capsys, number: int) -> None:
    assert train(data, tmp_path / "whole", "--epochs", "1") == 0
    steps, real = [], Trainer.step

    def step(trainer: Trainer, *more: Any) -> torch.Tensor:
        steps.append(1)
        signal.raise_signal(number)
        return real(trainer, *more)

    monkeypatch.setattr(Trainer, "step", step)
    assert train(data, tmp_path / "run", "--epochs", "1") == 130
    assert "interrupted; --resume goes on from" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "step", real)
    assert load_checkpoint(tmp_path / "run/last.safetensors").progress["step"] == len(steps) == 1
    assert train(data, tmp_path / "run", "--epochs", "1", "--resume") == 0
    whole, run = (load_checkpoint(tmp_path / f"{name}/last.safetensors").weights for name in ("whole", "run"))
    assert weights_sha256(whole) == weights_sha256(run)


def test_a_second_interrupt_stops_at_once(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def step(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", step)
    assert train(data, tmp_path / "run", "--epochs", "1") == 130
    assert "interrupted; start again; there is no checkpoint yet" in capsys.readouterr().err


def test_files_left_out_are_listed_and_a_slice_split_warns(data: Path, tmp_path: Path, capsys) -> None:
    (data / "p0/p0_1_mask.png").unlink()
    assert train(data, tmp_path / "run", "--problems", "leave-out", "--split", "slice", "--epochs", "1") == 0
    error = capsys.readouterr().err
    assert "p0_1.png: has no mask" in error
    assert "leaks" in error
    assert "relative" in (tmp_path / "run/split.csv").read_text()
    report = (tmp_path / "run/report.md").read_text()
    assert "Left out: 1 files" in report
    assert "copying the nearest training slice" in report
    assert "read the scores as optimistic" in report


def test_data_that_is_not_uint8_is_trained_through_the_contracts_rule(tmp_path: Path) -> None:
    for n in range(1, 5):
        write(tmp_path / f"data/p{n}/p{n}_1.png", square(32, low=8, high=24, value=196 + n).astype(np.uint16) * 100)
        write(tmp_path / f"data/p{n}/p{n}_1_mask.png", square(32, low=8, high=24)[..., 1])
    assert train(tmp_path / "data", tmp_path / "run", "--epochs", "1", "--batch-size", "2") == 0
    contract = load_checkpoint(tmp_path / "run/last.safetensors").contract
    assert max(levels[2] for levels in contract.training_range.intensity) == pytest.approx(140, abs=2)


def test_the_missing_extra_is_named() -> None:
    blocked = "import sys; sys.modules['torch'] = None"
    code = f"{blocked}; from segport_train.cli import main; sys.exit(main(['x', '--out', 'y']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'segport[train]'" in done.stderr


def test_the_contract_says_what_auto_became(data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path / "run", "--epochs", "1") == 0
    recorded = json.loads((tmp_path / "run/settings.json").read_text())
    settings = load_checkpoint(tmp_path / "run/best.safetensors").contract.origin.settings
    found = [settings[name] for name in ("precision", "device", "processes")]
    assert found == [recorded["precision"], "cpu", 1]
    assert recorded["precision"] in ("bf16", "fp32")
    assert recorded["threads"] == torch.get_num_threads() == 1  # thin networks compute on one
    assert recorded["versions"]["opencv"] == cv2.__version__
