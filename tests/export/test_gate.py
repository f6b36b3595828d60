"""The gate says yes to a faithful model, and no to everything else, each time for its own reason."""

import base64
import json
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from segport.cli import main as infer
from segport.contract import Output
from segport.errors import GateError, ModelError
from segport.modelfile import read_contract
from segport_export import build, export
from segport_export.build import embed_contract
from segport_export.cli import main
from segport_export.parity import Reference, check_parity
from segport_export.report import ParityReport
from segport_export.trace import ExportForm, check_form
from segport_train.checkpoint import load_network, save_checkpoint
from segport_train.model import SegmentationNetwork
from tampering import (
    align_corners,
    negate_one_convolution,
    negate_the_largest_weight_of_the_last_convolution,
    shift_last_bias,
    swap_channels,
)


def judge(reference: Reference, model: Path, precision: str = "fp32") -> ParityReport:
    return check_parity(reference, model, precision)


def failed(report: ParityReport) -> set[str]:
    return {c.name for c in report.checks if not c.passed}


def test_a_faithful_model_passes(reference, exported) -> None:
    report = judge(reference, exported["fp32"])
    assert report.failures == ()
    assert report.max_difference < 1e-4
    assert report.dice_pooled > 0.9999
    assert 0.005 < report.foreground < 0.5
    assert report.compared == 8 + 5  # shipped and hostile
    assert report.truth is not None
    assert report.truth.pooled_reference > 0.4, "the shared training learnt too little to prove anything"
    assert report.truth.interval is not None
    assert report.truth.interval[0] <= report.truth.loss <= report.truth.interval[1] + 1e-12


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (negate_one_convolution, {"logits", "farthest flip", "flips", "Dice"}),
        (negate_the_largest_weight_of_the_last_convolution, {"logits", "farthest flip"}),
        (swap_channels, {"logits", "farthest flip", "flips", "Dice"}),
        (align_corners, {"logits", "farthest flip", "flips", "Dice"}),
        (shift_last_bias, {"logits", "farthest flip", "flips", "Dice"}),
    ],
)
def test_a_tampered_graph_fails(reference, tampered, change, names: set[str]) -> None:
    report = judge(reference, tampered(change))
    assert failed(report) >= names
    assert "golden logits" in failed(report)  # seen at the place of use, too, without the checkpoint


@pytest.mark.parametrize("change", [negate_one_convolution, shift_last_bias])
def test_int8_tolerances_still_catch_a_tampered_graph(reference, tampered, change) -> None:
    assert failed(judge(reference, tampered(change), "int8")) - {"golden logits"}


def rewrite_contract(source: Path, target: Path, **changes: object) -> Path:
    embed_contract(source, target, replace(read_contract(source), **changes))
    return target


def test_a_wrong_threshold_is_caught_by_name(reference, exported, tmp_path: Path) -> None:
    # without goldens: they are halves, and one of their pixels may flip near a threshold that they were not made for
    model = rewrite_contract(exported["fp32"], tmp_path / "m.onnx", output=Output(threshold=0.3), golden=None)
    report = judge(reference, model)
    assert failed(report) == {"contract"}
    assert "output.threshold is 0.3, the checkpoint's is 0.5" in report.failures[0]


def test_altered_golden_logits_are_caught_by_name(reference, exported, tmp_path: Path, capsys) -> None:
    golden = read_contract(exported["fp32"]).golden
    logits = np.frombuffer(zlib.decompress(base64.b64decode(golden.logits)), "<f2") + np.float16(0.5)
    packed = base64.b64encode(zlib.compress(logits.tobytes())).decode()
    model = rewrite_contract(exported["fp32"], tmp_path / "m.onnx", golden=replace(golden, logits=packed))
    report = judge(reference, model)
    assert failed(report) == {"golden logits"}
    assert "mask pixels flip against the golden logits in the file" in report.failures[0]
    assert infer(["--self-test", "--model", str(model), "--device", "cpu"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_truncated_file_is_refused(reference, exported, tmp_path: Path) -> None:
    for share in (0.3, 0.9, 0.9999):
        data = exported["fp32"].read_bytes()
        (tmp_path / "m.onnx").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ModelError, match=r"m\.onnx"):
            judge(reference, tmp_path / "m.onnx")


def test_an_opset_9_file_is_caught_by_its_masks(reference, trained: Path, tmp_path: Path) -> None:
    """Its Upsample aligns pixels otherwise than PyTorch; nothing but numbers would tell."""
    contract = load_network(trained / "best.safetensors")[1]
    form = ExportForm(reference.network, 64, 16).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            form, (torch.zeros((2, 64, 64, 3), dtype=torch.uint8),), str(tmp_path / "nine.onnx"), dynamo=False,
            opset_version=9, input_names=["pixels"], output_names=["logits"],
            dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    embed_contract(tmp_path / "nine.onnx", tmp_path / "model.onnx", contract)
    report = judge(reference, tmp_path / "model.onnx")
    assert report.max_difference > 0.1
    assert report.flips > 100
    assert any("a logit differs" in f for f in report.failures)
    assert any("of the mask pixels flip" in f for f in report.failures)


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
    real = build.trace

    def wrong(network, size, output_stride, opset, path) -> str:
        name = real(network, size, output_stride, opset, path)
        model = onnx.load(path)
        shift_last_bias(model)
        onnx.save(model, path)
        return name

    monkeypatch.setattr(build, "trace", wrong)
    target = tmp_path / "model.onnx"
    arguments = [str(trained / "best.safetensors"), "--out", str(target)]
    assert main(arguments) == 1
    assert "no file was written" in capsys.readouterr().err
    assert not target.exists()
    target.write_bytes(b"earlier")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "did not pass the gate" in error
    assert "worst slice: " in error
    assert "the earlier file is untouched" in error
    assert target.read_bytes() == b"earlier"
    assert not json.loads((tmp_path / "model.rejected.json").read_text())["passed"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.rejected.json", "model.rejected.png"]
    monkeypatch.setattr(build, "trace", real)
    assert main(arguments) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.parity.json"]


@pytest.mark.parametrize("arm", ["self-test", "logits"])
def test_a_finished_file_that_differs_from_the_one_that_passed_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch, capsys, arm: str
) -> None:
    if arm == "self-test":
        monkeypatch.setattr(export, "self_test", lambda _: type("Failed", (), {"passed": False}))
    else:
        monkeypatch.setattr(export, "golden_logits", lambda _: np.random.default_rng().random(3))
    assert main([str(trained / "best.safetensors"), "--out", str(tmp_path / "m.onnx")]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_logits_that_change_with_the_batch_size_are_seen(exported) -> None:
    from segport.segmenter import Segmenter
    from segport_export.parity import call_difference
    from segport_export.tolerance import BATCH_SIZES

    segmenter = Segmenter(exported["fp32"], device="cpu")
    prepared = [np.full((64, 64, 3), value, np.uint8) for value in (10, 90, 200)]
    found = segmenter.logits(np.stack(prepared))
    assert call_difference(segmenter, prepared, found) < 1e-3
    asked: list[int] = []

    class Moody:
        def logits(self, batch: np.ndarray) -> np.ndarray:
            asked.append(len(batch))
            return np.full((len(batch), 64, 64), np.nan if len(batch) == 5 else 0, np.float32)

    assert call_difference(Moody(), prepared, np.zeros((3, 64, 64), np.float32)) == np.inf  # type: ignore[arg-type]
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
    model = onnx.load(exported["fp32"])
    model.graph.node[0].domain = "com.microsoft"
    with pytest.raises(GateError, match="the exporter gave"):
        check_form(model, 17)
    model = onnx.load(exported["fp32"])
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(GateError, match="cannot be exported with torch"):
        check_form(model, 17)


def test_a_stripped_contract_is_refused(reference, tampered: Callable) -> None:
    with pytest.raises(ModelError, match="holds no segport contract"):
        judge(reference, tampered(lambda m: m.ClearField("metadata_props")))


def test_logits_that_are_not_finite_are_the_gates_business(reference, tampered) -> None:
    def overflow(model: onnx.ModelProto) -> None:
        last = [n for n in model.graph.node if n.op_type == "Conv"][-1]
        (bias,) = [t for t in model.graph.initializer if t.name == last.input[2]]
        bias.CopyFrom(onnx.numpy_helper.from_array(np.full(1, np.inf, np.float32), bias.name))

    with pytest.raises(GateError, match=r"the fp32 model fails on slices of the gate: .*not finite"):
        judge(reference, tampered(overflow))


def test_golden_logits_with_limits_of_their_own_are_caught(reference, exported, tmp_path: Path) -> None:
    golden = replace(read_contract(exported["fp32"]).golden, tolerance=1e9, flip_share=1.0)
    report = judge(reference, rewrite_contract(exported["fp32"], tmp_path / "m.onnx", golden=golden))
    assert failed(report) == {"contract"}
    assert "may differ by more than its precision allows" in report.failures[0]
