"""An int8 model that fails keeps in fp32 what measuring shows to be sensitive, and says so."""

from pathlib import Path

import pytest
import torch

from helpers import SAMPLE_DATA
from segport.modelfile import read_contract
from segport_export import export
from segport_export.cli import main
from segport_train.checkpoint import load_network, save_checkpoint

SENSITIVE = "layer4.1.conv2"
INT8 = f"--precision int8 --calibration {SAMPLE_DATA} --calibration-slices 16"


@pytest.fixture(scope="module")
def spoilt(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose network answers as before, though one layer cannot be quantised.

    A dead channel gets huge weights behind it: they multiply zeros, but stretch the scale of every other weight.
    """
    network, contract = load_network(trained / "best.safetensors")
    block = network.net.backbone.layer4[1]
    with torch.no_grad():
        block.bn1.weight[0] = block.bn1.bias[0] = 0
        block.conv2.weight[:, 0] = 40
    path = tmp_path_factory.mktemp("spoilt") / "best.safetensors"
    save_checkpoint(path, network, contract)
    return path


def test_the_layer_that_costs_the_masks_is_found_and_kept(spoilt: Path, tmp_path: Path, capsys) -> None:
    assert main(f"{spoilt} --out {tmp_path}/m.onnx {INT8}".split()) == 0
    captured = capsys.readouterr()
    assert "int8 does not pass" in captured.err
    assert "trying with 2 of" in captured.err
    (line,) = [row for row in captured.out.splitlines() if row.startswith("kept in fp32")]
    kept = line.split()[3:]
    assert SENSITIVE in kept[0].replace("/", ".")
    export_entry = read_contract(tmp_path / "m.onnx").export
    assert export_entry is not None
    assert len(export_entry.calibration["kept_float"]) == 2
    assert export_entry.parity["dice_pooled"] > 0.97


def test_where_that_does_not_help_it_says_what_was_tried(spoilt: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(export, "rank_layers", lambda *_: [f"none_{k}" for k in range(8)])
    monkeypatch.setattr(export, "KEPT", (1,))
    assert main(f"{spoilt} --out {tmp_path}/m.onnx {INT8}".split()) == 1
    error = capsys.readouterr().err
    assert "with 1 sensitive layers in fp32, too; remedy: train longer, --calibration-slices 64" in error
    assert not (tmp_path / "m.onnx").exists()


def test_no_layer_can_help_masks_that_prove_nothing(trained: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    network, contract = load_network(trained / "best.safetensors")
    with torch.no_grad():
        network.get_parameter("net.classifier.4.bias").fill_(-50)
    save_checkpoint(tmp_path / "empty.safetensors", network, contract)
    monkeypatch.setattr(export, "rank_layers", lambda *_: pytest.fail("layers were measured for nothing"))
    assert main(f"{tmp_path}/empty.safetensors --out {tmp_path}/m.onnx {INT8}".split()) == 1
    assert "nothing to prove" in capsys.readouterr().err
