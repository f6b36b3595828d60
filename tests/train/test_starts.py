"""What a run of seg-train may start from."""

import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch

from segport.contract import KEY
from segport.errors import ModelError
from segport_train import init, loop
from segport_train.checkpoint import load_checkpoint, load_network
from segport_train.model import PLUS
from segport_train.progress import Progress
from tiny_runs import train

pytestmark = pytest.mark.usefixtures("thin")


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
    monkeypatch.setattr(init, "file_sha256", hashed := mock.Mock(wraps=init.file_sha256))
    train(data, tmp_path / "second", "--epochs", "1", "--init", str(tmp_path / "first/last.safetensors"))
    assert hashed.call_count == 1  # a file of weights may be large
    assert load_checkpoint(tmp_path / "second/last.safetensors").contract.origin.weights_sha256 == first


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
