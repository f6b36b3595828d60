"""The weights of a run, averaged with those that it began with."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from segport.contract import Input, ModelContract
from segport_train.average import average_weights, measure_statistics
from segport_train.checkpoint import load_checkpoint
from segport_train.hardware import Hardware
from segport_train.model import SegmentationNetwork, weights_sha256
from tiny_runs import train

FP32 = Hardware(torch.device("cpu"), "fp32")

pytestmark = pytest.mark.usefixtures("thin")


@pytest.fixture
def first(data: Path, tmp_path: Path) -> Path:
    assert train(data, tmp_path / "first", "--val", "0") == 0
    return tmp_path / "first/last.safetensors"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).weights


def learnt(path: Path) -> dict[str, torch.Tensor]:
    """Return what an optimizer changes: no statistics."""
    return {n: t for n, t in weights(path).items() if "running" not in n and "num_batches" not in n}


def network(seed: int) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return SegmentationNetwork(ModelContract(Input(32)), output_stride=16, auxiliary=True)


def test_each_weight_is_the_mean_of_both() -> None:
    one, other = network(1), network(2)
    expected = (one.net.backbone.conv1.weight + other.net.backbone.conv1.weight) / 2
    average_weights(one, other.state_dict())
    assert torch.allclose(one.net.backbone.conv1.weight, expected)


def test_statistics_are_those_of_the_slices_and_no_weight_changes() -> None:
    one = network(1)
    before = {n: p.clone() for n, p in one.named_parameters()}
    slices = [torch.randint(0, 255, (4, 32, 32, 3), dtype=torch.uint8) for _ in range(3)]
    measure_statistics(one, slices, FP32)
    maps = [one.net.backbone.conv1(one.normalise(pixels)) for pixels in slices]
    norm = one.net.backbone.bn1
    assert torch.allclose(norm.running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0), atol=1e-5)
    assert torch.allclose(norm.running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0), rtol=1e-4)
    assert all(torch.equal(p, before[n]) for n, p in one.named_parameters())
    norms = [m for m in one.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.momentum == 0.1 and not m.training and m.num_batches_tracked == 3 for m in norms)


def test_a_run_ends_with_the_mean_of_its_start_and_its_end(data: Path, tmp_path: Path, first: Path) -> None:
    assert train(data, tmp_path / "run", "--val", "0", "--init", str(first), "--average-init") == 0
    start, last, best = learnt(first), learnt(tmp_path / "run/last.safetensors"), tmp_path / "run/best.safetensors"
    assert all(torch.allclose(t, (start[n] + last[n]) / 2, atol=1e-6) for n, t in learnt(best).items())
    assert not all(torch.allclose(t, last[n], atol=1e-6) for n, t in learnt(best).items())
    assert load_checkpoint(best).contract.origin.settings["averaged"] is True
    report = (tmp_path / "run/report.md").read_text()
    assert "Its weights are the means of those that the run began with and those of the last epoch." in report
    assert train(data, tmp_path / "plain", "--val", "0", "--init", str(first)) == 0
    assert "Its weights are the means" not in (tmp_path / "plain/report.md").read_text()
    scores = [(tmp_path / f"{name}/patients.csv").read_text() for name in ("run", "plain")]
    assert scores[0] != scores[1]


def test_a_run_that_was_killed_while_it_averages_ends_with_the_same(
    data: Path, tmp_path: Path, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--val", "0", "--init", str(first), "--average-init")
    assert train(data, tmp_path / "whole", *options) == 0

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("segport_train.loop.measure_statistics", die)
        assert train(data, tmp_path / "run", *options) == 130
    assert train(data, tmp_path / "run", *options, "--resume") == 0
    whole, run = (weights_sha256(weights(tmp_path / f"{name}/best.safetensors")) for name in ("whole", "run"))
    assert whole == run
    assert (tmp_path / "whole/patients.csv").read_text() == (tmp_path / "run/patients.csv").read_text()


@pytest.mark.parametrize("better", [True, False])
def test_val_decides_whether_the_mean_is_kept(
    data: Path, tmp_path: Path, first: Path, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    scores = iter([0.5, 0.7, 0.6, 0.8 if better else 0.6])
    monkeypatch.setattr("segport_train.loop._score", lambda val, epoch: next(scores))
    split = tmp_path / "split.csv"
    split.write_text((first.parent / "split.csv").read_text().replace(",test", ",val"))
    options = ("--split-file", str(split), "--init", str(first), "--average-init")
    assert train(data, tmp_path / "run", *options) == 0
    settings = load_checkpoint(tmp_path / "run/best.safetensors").contract.origin.settings
    assert settings.get("averaged", False) is better


def test_what_cannot_be_averaged_with_is_refused(data: Path, tmp_path: Path, first: Path, capsys) -> None:
    assert train(data, tmp_path / "none", "--average-init") == 2
    assert "--average-init averages with --init: it needs that" in capsys.readouterr().err
    other = ("--architecture", "deeplabv3plus", "--val", "0")
    assert train(data, tmp_path / "other", *other, "--init", str(first), "--average-init") == 2
    assert "does not hold the whole network" in capsys.readouterr().err
    options = ("--val", "0", "--init", str(first), "--average-init")
    assert train(data, tmp_path / "run", *options) == 0
    shutil.copy(tmp_path / "run/last.safetensors", first)
    assert train(data, tmp_path / "run", *options, "--resume") == 2
    assert "is not what the run began with" in capsys.readouterr().err
