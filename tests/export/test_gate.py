"""The gate says yes to a faithful model, and no to everything else, each time for its own reason."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from helpers import square
from segport.errors import GateError, ModelError
from segport.modelfile import read_contract
from segport_export import export
from segport_export.cli import main
from segport_export.export import embed_contract
from segport_export.parity import TOLERANCES, ParityReport, ParitySlice, check_parity
from segport_export.trace import check_form
from segport_train.checkpoint import load_network, save_checkpoint
from segport_train.model import SegmentationNetwork
from tampering import negate_one_convolution, shift_last_bias, swap_channels


@pytest.fixture(scope="module")
def network(trained: Path) -> SegmentationNetwork:
    return load_network(trained / "best.safetensors")[0]


def judge(network: SegmentationNetwork, model: Path, shipped: list[ParitySlice]) -> ParityReport:
    return check_parity(network, model, shipped, "fp32")


def test_a_faithful_model_passes(network, exported, shipped) -> None:
    report = judge(network, exported["fp32"], shipped)
    assert report.failures == ()
    assert report.max_difference < 1e-4
    assert report.dice_pooled > 0.9999
    assert 0.005 < report.foreground < 0.5
    assert report.truth_dice_reference is not None
    assert report.truth_dice_reference > 0.4, "the shared training learnt too little to prove anything"


@pytest.mark.parametrize("change", [negate_one_convolution, shift_last_bias, swap_channels])
def test_a_tampered_graph_fails(network, shipped, tampered, change) -> None:
    report = judge(network, tampered(change), shipped)
    text = "; ".join(report.failures)
    assert "a logit differs by" in text
    assert "of the mask pixels flip" in text
    assert "from the threshold" in text


@pytest.mark.parametrize("change", [negate_one_convolution, shift_last_bias])
def test_int8_tolerances_still_catch_a_tampered_graph(network, shipped, tampered, change) -> None:
    assert check_parity(network, tampered(change), shipped, "int8").failures


def test_an_opset_9_file_is_caught_by_its_masks(network, trained: Path, shipped, tmp_path: Path) -> None:
    """Its Upsample aligns pixels otherwise than PyTorch; nothing but numbers would tell."""
    contract = load_network(trained / "best.safetensors")[1]
    form = export.trace.__globals__["ExportForm"](network, 64, 16).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            form, (torch.zeros((2, 64, 64, 3), dtype=torch.uint8),), str(tmp_path / "nine.onnx"), dynamo=False,
            opset_version=9, input_names=["pixels"], output_names=["logits"],
            dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    embed_contract(tmp_path / "nine.onnx", tmp_path / "model.onnx", contract)
    report = judge(network, tmp_path / "model.onnx", shipped)
    assert report.max_difference > 0.1
    assert any("a logit differs" in f for f in report.failures)


def test_masks_of_an_untrained_network_prove_nothing(trained: Path, tmp_path: Path, capsys) -> None:
    _, contract = load_network(trained / "best.safetensors")
    torch.manual_seed(0)
    untrained = SegmentationNetwork(contract, output_stride=16, auxiliary=True)
    with torch.no_grad():
        untrained.get_parameter("net.classifier.4.bias").fill_(-5)
    save_checkpoint(tmp_path / "untrained.safetensors", untrained, contract)
    assert main([str(tmp_path / "untrained.safetensors"), "--out", str(tmp_path / "m.onnx")]) == 1
    assert "nothing to prove" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_a_failure_leaves_an_earlier_file_untouched(trained: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    real = export.trace

    def wrong(network, size, output_stride, opset, path) -> str:
        name = real(network, size, output_stride, opset, path)
        model = onnx.load(path)
        shift_last_bias(model)
        onnx.save(model, path)
        return name

    monkeypatch.setattr(export, "trace", wrong)
    target = tmp_path / "model.onnx"
    arguments = [str(trained / "best.safetensors"), "--out", str(target)]
    assert main(arguments) == 1
    assert "no file was written" in capsys.readouterr().err
    assert not target.exists()
    target.write_bytes(b"earlier")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "does not give the same masks" in error
    assert "worst slice: " in error
    assert "the earlier file is untouched" in error
    assert target.read_bytes() == b"earlier"
    assert json.loads((tmp_path / "model.rejected.json").read_text())["failures"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.rejected.json"]
    monkeypatch.setattr(export, "trace", real)
    assert main(arguments) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.parity.json"]


def test_a_finished_file_that_differs_from_the_one_that_passed_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(export, "self_test", lambda _: type("Failed", (), {"passed": False}))
    assert main([str(trained / "best.safetensors"), "--out", str(tmp_path / "m.onnx")]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_every_limit_of_a_tolerance_can_fail() -> None:
    """Each check on its own, on two 8x8 slices with logits at hand."""
    from segport_export.parity import _Masks

    display = square(8, low=2, high=6)
    truth = np.asarray(display[..., 1] > 0, np.uint8)
    good = np.where(truth > 0, 5.0, -5.0).astype(np.float32)

    def failures(found: np.ndarray, batch_difference: float = 0.0) -> str:
        masks = _Masks(0.5, TOLERANCES["int8"])
        masks.add(ParitySlice("a", display, truth), good, found)
        return " ".join(masks.report("int8", good, found, batch_difference).failures)

    assert failures(good) == ""
    assert "a mask pixel flips" in failures(-good)
    assert "of the mask pixels flip" in failures(-good)
    assert "Dice between the masks is 0.0000" in failures(-good)
    assert "Dice against the truth falls by 1.0000" in failures(-good)
    assert "with the batch size" in failures(good, 9.0)
    assert "a mask pixel flips inf" in failures(good * np.nan)


def test_logits_that_change_with_the_batch_size_are_seen(exported) -> None:
    from segport.segmenter import Segmenter
    from segport_export.parity import BATCH_SIZES, _batch_difference

    segmenter = Segmenter(exported["fp32"], device="cpu")
    prepared = [np.full((64, 64, 3), value, np.uint8) for value in (10, 90, 200)]
    found = segmenter.logits(np.stack(prepared))
    assert _batch_difference(segmenter, prepared, found) < 1e-3
    asked: list[int] = []

    class Moody:
        def logits(self, batch: np.ndarray) -> np.ndarray:
            asked.append(len(batch))
            return np.full((len(batch), 64, 64), np.nan if len(batch) == 5 else 0, np.float32)

    assert _batch_difference(Moody(), prepared, np.zeros((3, 64, 64), np.float32)) == np.inf  # type: ignore[arg-type]
    assert tuple(asked) == BATCH_SIZES


def test_embedding_changes_nothing_but_the_contract(exported, tmp_path: Path) -> None:
    contract = read_contract(exported["fp32"])
    embed_contract(exported["fp32"], tmp_path / "again.onnx", contract)
    assert (tmp_path / "again.onnx").read_bytes() == exported["fp32"].read_bytes()


def test_another_opset_or_external_weights_are_refused(exported) -> None:
    model = onnx.load(exported["fp32"])
    with pytest.raises(GateError, match="the exporter gave"):
        check_form(model, 18)
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(GateError, match="second file"):
        check_form(model, 17)


def test_a_stripped_contract_is_refused(network, shipped, tampered: Callable) -> None:
    with pytest.raises(ModelError, match="holds no segport contract"):
        judge(network, tampered(lambda m: m.ClearField("metadata_props")), shipped)
