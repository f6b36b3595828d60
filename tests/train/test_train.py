"""seg-train as a user meets it: runs, reports, kills and resumes."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers import square, write
from segport.contract import KEY
from segport.errors import ModelError
from segport.scoring import Agreement, Counts
from segport_train import loop, trainer
from segport_train.checkpoint import load_checkpoint, load_network
from segport_train.cli import main
from segport_train.evaluation import Evaluation, SliceScore
from segport_train.model import PLUS, weights_sha256
from segport_train.progress import Progress
from segport_train.trainer import Trainer
from thin import thin_networks

TINY = "--size 32 --output-stride 16 --epochs 3 --batch-size 4 --optimizer adamw --loss bce-dice --device cpu --seed 4"


@pytest.fixture(autouse=True)
def thin() -> Iterator[None]:
    with thin_networks():
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for p in range(4):
        for n in range(1, 5):
            write(tmp_path / f"data/p{p}/p{p}_{n}.png", square(32, low=8, high=24, value=50 * n + p))
            write(tmp_path / f"data/p{p}/p{p}_{n}_mask.png", square(32, low=8, high=24 if n > 2 else 8)[..., 1])
    return tmp_path / "data"


def train(data: Path, out: Path, *more: str) -> int:
    return main([str(data), "--out", str(out), *TINY.split(), *more])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_a_run_can_start_from_a_checkpoint(data: Path, tmp_path: Path, capsys) -> None:
    train(data, tmp_path / "first")
    init = str(tmp_path / "first/last.safetensors")
    assert train(data, tmp_path / "second", "--init", init, "--output-stride", "8", "--epochs", "1") == 0
    assert train(data, tmp_path / "third", "--init", str(tmp_path / "nothing")) == 3
    assert "is neither none, default, imagenet nor a file; expected" in capsys.readouterr().err
    (tmp_path / "cut.safetensors").write_bytes(Path(init).read_bytes()[:999])
    assert train(data, tmp_path / "third", "--init", str(tmp_path / "cut.safetensors")) == 3
    assert "is not a readable checkpoint" in (said := capsys.readouterr().err)
    assert "remedy: a copy of it" in said


def test_a_run_with_a_decoder_hands_its_architecture_on(data: Path, tmp_path: Path, capsys) -> None:
    assert train(data, tmp_path / "first", "--architecture", "deeplabv3plus", "--epochs", "2") == 0
    network, contract = load_network(tmp_path / "first/best.safetensors")
    assert contract.origin.architecture == "deeplabv3plus_resnet50"
    with torch.inference_mode():
        assert network(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape == (2, 1, 32, 32)
    init = str(tmp_path / "first/last.safetensors")
    assert train(data, tmp_path / "second", "--init", init, "--epochs", "1") == 0
    assert load_checkpoint(tmp_path / "second/last.safetensors").contract.origin.architecture == PLUS
    capsys.readouterr()
    assert train(data, tmp_path / "first", "--architecture", "deeplabv3", "--epochs", "2", "--resume") == 2
    assert "architecture: deeplabv3plus then, deeplabv3 now" in capsys.readouterr().err


def test_the_weights_of_a_checkpoint_are_what_a_run_starts_from(data: Path, tmp_path: Path, monkeypatch) -> None:
    train(data, tmp_path / "first", "--epochs", "1")
    first = load_checkpoint(tmp_path / "first/last.safetensors").contract.origin.weights_sha256
    monkeypatch.setattr(loop, "_train_epoch", lambda *_: Progress(step=1, loss=0.5))
    train(data, tmp_path / "second", "--epochs", "1", "--init", str(tmp_path / "first/last.safetensors"))
    assert load_checkpoint(tmp_path / "second/last.safetensors").contract.origin.weights_sha256 == first


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


def test_checkpoints_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="holds no segport contract"):
        load_checkpoint(tmp_path / "other.safetensors")
    from segport.contract import Input, ModelContract

    save_file({"model.a": torch.zeros(1)}, tmp_path / "odd.safetensors", {KEY: ModelContract(Input(32)).to_json()})
    with pytest.raises(ModelError, match="do not fit a DeepLabV3-ResNet50"):
        load_network(tmp_path / "odd.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "odd.safetensors").read_bytes()[:40])
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "cut.safetensors")


def test_the_missing_extra_is_named() -> None:
    blocked = "import sys; sys.modules['torch'] = None"
    code = f"{blocked}; from segport_train.cli import main; sys.exit(main(['x', '--out', 'y']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'segport[train]'" in done.stderr


def evaluation(*patients: tuple[int, int]) -> Evaluation:
    """Return what a part scores whose patients have so many pixels of tumour, of which so many are found."""
    counts = [Counts(tp=found, fn=tumour - found, tn=99) for tumour, found in patients]
    return Evaluation(tuple(SliceScore(i, f"p{i}", f"p{i}", "", Agreement(c)) for i, c in enumerate(counts)))


def test_the_epoch_with_the_best_dice_on_val_is_kept(data: Path, tmp_path: Path, monkeypatch) -> None:
    found = iter([2, 7, 5])  # of 10, by epoch; the patient without tumour counts for nothing
    real, saved = Trainer.evaluate, []

    def evaluate(trainer: Trainer, network, part, *, detailed: bool = False) -> Evaluation:
        if part.augmented or len(saved) == 3:  # the training part; the report
            return real(trainer, network, part, detailed=detailed)
        saved.append(weights_sha256(network.state_dict()))
        return evaluation((10, next(found)), (0, 0))

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    assert train(data, tmp_path / "run", "--test", "0") == 0
    assert len(set(saved)) == 3
    assert [r["best"] for r in rows(tmp_path / "run/metrics.csv")] == ["True", "True", "False"]
    best = load_checkpoint(tmp_path / "run/best.safetensors")
    assert weights_sha256(best.weights) == saved[1]
    assert best.contract.origin.dice["val/pooled"] == round(14 / 17, 4)
    assert best.contract.origin.dice["val/mean-per-patient"] == round((14 / 17 + 1) / 2, 4)
    assert weights_sha256(load_checkpoint(tmp_path / "run/last.safetensors").weights) == saved[2]


@pytest.mark.parametrize("val", ["0", "0.25"])
def test_without_tumour_in_val_the_last_epoch_is_kept(data: Path, tmp_path: Path, capsys, val: str) -> None:
    parts = [f"p{n},{part}" for n, part in enumerate(("train", "train", "val", "test"))]
    (tmp_path / "split.csv").write_text("patient,part\n" + "\n".join(parts))
    for path in (data / "p2").glob("*_mask.png"):
        write(path, np.zeros((32, 32), np.uint8))
    options = ["--split-file", str(tmp_path / "split.csv")] if val != "0" else ["--val", "0"]
    assert train(data, tmp_path / "run", *options) == 0
    assert [r["best"] for r in rows(tmp_path / "run/metrics.csv")] == ["True"] * 3
    best, last = (load_checkpoint(tmp_path / f"run/{name}.safetensors").weights for name in ("best", "last"))
    assert weights_sha256(best) == weights_sha256(last)
    said = capsys.readouterr().err
    assert ("the val part has no slice with tumour: best.safetensors will be the last epoch" in said) == (val != "0")


def test_the_contract_says_what_auto_became(data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path / "run", "--epochs", "1") == 0
    recorded = json.loads((tmp_path / "run/settings.json").read_text())
    settings = load_checkpoint(tmp_path / "run/best.safetensors").contract.origin.settings
    found = [settings[name] for name in ("precision", "device", "processes")]
    assert found == [recorded["precision"], "cpu", 1]
    assert recorded["precision"] in ("bf16", "fp32")
    assert recorded["threads"] == torch.get_num_threads() == 1  # thin networks compute on one
    assert recorded["versions"]["opencv"] == cv2.__version__


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_step_takes_the_fast_paths(data: Path, tmp_path: Path, monkeypatch, optimizer: str) -> None:
    seen, real = [], Trainer.step

    def step(trainer: Trainer, batch, *where: int) -> torch.Tensor:
        first = trainer.network.net.backbone.conv1
        seen.append(
            (first.weight.is_contiguous(memory_format=torch.channels_last), trainer.optimizer.defaults["fused"])
        )
        first.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
        return real(trainer, batch, *where)

    monkeypatch.setattr(Trainer, "step", step)
    assert train(data, tmp_path / "run", "--epochs", "1", "--precision", "bf16", "--optimizer", optimizer) == 0
    assert seen[0] == (True, True)
    assert seen[1] == torch.bfloat16


def test_large_gradients_are_clipped(data: Path, tmp_path: Path, monkeypatch) -> None:
    norms, real = [], torch.optim.AdamW.step

    def step(optimizer: torch.optim.AdamW, *more: object) -> object:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))))
        return real(optimizer, *more)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    monkeypatch.setattr(trainer, "AUXILIARY_WEIGHT", 1e3)
    assert train(data, tmp_path / "run", "--epochs", "1") == 0
    assert max(norms) == pytest.approx(trainer.GRADIENT_NORM, rel=1e-3)


def test_weights_that_know_patients_of_val_or_test_are_refused(data: Path, tmp_path: Path, capsys) -> None:
    assert train(data, tmp_path / "first", "--epochs", "1") == 0
    init = ("--init", str(tmp_path / "first/best.safetensors"), "--epochs", "1")
    assert train(data, tmp_path / "same", *init) == 0
    assert "it was trained on no patient of val or test" in (tmp_path / "same/report.md").read_text()
    capsys.readouterr()
    assert train(data, tmp_path / "other", *init, "--seed", "5") == 2
    said = capsys.readouterr().err
    assert "was made with patients that are in val or test: p" in said
    assert "remedy: the --split, --seed and --fold of that run" in said
    (tmp_path / "alone").mkdir()
    copy = shutil.copy(tmp_path / "first/best.safetensors", tmp_path / "alone")
    assert train(data, tmp_path / "other", "--init", str(copy), "--epochs", "1", "--seed", "5") == 0
    assert "if patients of val or test had a part in that" in (tmp_path / "other/report.md").read_text()
