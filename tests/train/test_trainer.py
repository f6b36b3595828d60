"""What the trainer does in a step, and which epoch it keeps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import write
from segport.scoring import Agreement, Counts
from segport_train import trainer
from segport_train.checkpoint import load_checkpoint
from segport_train.evaluation import Evaluation, SliceScore
from segport_train.model import weights_sha256
from segport_train.trainer import Trainer
from tiny_runs import rows, train

pytestmark = pytest.mark.usefixtures("thin")


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
    assert ("the val part has no slice with tumour: best.safetensors will be the last epoch's" in said) == (val != "0")


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
