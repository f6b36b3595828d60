"""seg-export as a user meets it: opsets, int8, the contract, usage."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from helpers import SAMPLE_DATA, write
from segport.cli import main as infer
from segport.contract import Input, ModelContract
from segport.errors import UsageError
from segport.golden import self_test
from segport.modelfile import read_contract
from segport.preprocess import prepare, stack, to_display
from segport.reading import read_slice
from segport.segmenter import Segmenter
from segport.sources import SliceTree, list_slices
from segport.windows import PatientWindows
from segport_export.cli import main
from segport_export.rundata import RunData

SHAPE_ARITHMETIC = {"Shape", "Gather", "Range", "Expand", "Slice", "ConstantOfShape", "If", "Loop"}


def op_types(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def dimensions(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("opset", [20])  # all of them at narrow width: test_opsets.py
def test_exactly_the_opset_and_rule_asked_for_come_through_the_gate(trained: Path, tmp_path: Path, opset: int) -> None:
    path = tmp_path / "model.onnx"
    options = ["--opset", str(opset), "--smallest-component", "0.2"]
    assert main([str(trained / "best.safetensors"), "--out", str(path), *options]) == 0
    model = onnx.load(path)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    assert not SHAPE_ARITHMETIC & set(op_types(model))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.parity.json"]
    contract = read_contract(path)
    assert contract.export is not None
    assert contract.export.opset == opset
    assert contract.output.smallest_component == 0.2


def test_the_default_is_opset_17_with_named_dimensions(exported) -> None:
    model = onnx.load(exported["fp32"])
    assert [o.version for o in model.opset_import] == [17]
    assert dimensions(model.graph.input[0]) == ["batch", 64, 64, 3]
    assert dimensions(model.graph.output[0]) == ["batch", 1, 64, 64]
    assert not SHAPE_ARITHMETIC & set(op_types(model))


def test_the_contract_carries_what_was_proven(exported, trained: Path) -> None:
    contract = read_contract(exported["int8"])
    assert contract.export is not None
    assert contract.export.precision == "int8"
    assert contract.export.parity["compared"] == 48 + 8  # the validation part and the shipped ones
    assert not {"worst_slice", "slices", "overlay"} & set(contract.export.parity)
    assert contract.export.rewrites == (
        "crop-to-centre", "merge-parallel-branches", "cut-into-bands", "take-pixels-as-quantized",
    )  # fmt: skip
    assert contract.origin.data["train"]["slices"] == 96
    assert not {p for p in ("patient_1", "patient_4", str(trained)) if p in contract.to_json()}
    assert contract.golden is not None
    assert self_test(Segmenter(exported["int8"], device="cpu")).passed


def test_int8_is_static_qdq_per_channel_with_an_exact_input(exported) -> None:
    model = onnx.load(exported["int8"])
    kinds = op_types(model)
    assert kinds["QuantizeLinear"] > kinds["Conv"]
    assert kinds["DequantizeLinear"] > 2 * kinds["Conv"]
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = [v for v in tensors.values() if v.ndim == 4]
    assert [v.dtype for v in weights].count(np.int8) == len(weights) - 1  # the last convolution stays float
    first = next(n for n in model.graph.node if n.op_type == "Conv")
    (pixels,) = [n for n in model.graph.node if first.input[0] in n.output]
    assert float(tensors[pixels.input[1]]) == pytest.approx(1 / 255)
    assert tensors[pixels.input[2]].dtype == np.uint8
    assert int(tensors[pixels.input[2]]) == 0
    scales = [tensors[n.input[1]] for n in model.graph.node if n.op_type == "DequantizeLinear"]
    assert max(s.size for s in scales) == 2048
    assert exported["int8"].stat().st_size < 45e6
    (source,) = [n for n in model.graph.node if pixels.input[0] in n.output]
    assert source.op_type == "Transpose"  # pixels are the first quantised tensor as they come


def test_the_exported_model_finds_the_sample_tumours(exported, tmp_path: Path, capsys) -> None:
    for precision, path in exported.items():
        out = tmp_path / precision
        assert infer([str(SAMPLE_DATA), "--model", str(path), "--out", str(out), "--score", "--device", "cpu"]) == 0
        scores = json.loads((out / "run.json").read_text())["scores"]
        assert scores["dice_pooled"] > 0.4


def test_rewritten_or_not_the_logits_are_the_same(trained: Path, exported, tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    assert main([str(trained / "best.safetensors"), "--out", str(path), "--no-rewrite"]) == 0
    plain, rewritten = Segmenter(path, device="cpu"), Segmenter(exported["fp32"], device="cpu")
    export = plain.contract.export
    assert export is not None
    assert export.rewrites == ()
    slices = [read_slice(s.path) for s in list_slices(SAMPLE_DATA).slices]
    batch = stack([prepare(pixels, plain.contract) for pixels in slices])
    assert np.abs(plain.logits(batch) - rewritten.logits(batch)).max() < 1e-5
    assert path.stat().st_size > 1.3 * exported["fp32"].stat().st_size


def test_fp16_of_a_fixed_batch_passes_the_gate_and_runs(trained: Path, tmp_path: Path, capsys) -> None:
    path, out = tmp_path / "half.onnx", tmp_path / "out"
    options = f"--precision fp16 --batch 5 --parity {SAMPLE_DATA}"
    assert main([str(trained / "best.safetensors"), "--out", str(path), *options.split()]) == 0
    assert infer(["--self-test", "--model", str(path), "--device", "cpu"]) == 0
    assert infer([str(SAMPLE_DATA), "--model", str(path), "--out", str(out), "--score", "--device", "cpu"]) == 0
    assert json.loads((out / "run.json").read_text())["batch_size"] == 5
    parity = read_contract(path).export.parity
    assert parity["compared"] == 48 + 8 + 5
    assert 0 < parity["max_difference"] < 0.2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--opset 9", "no resize that matches PyTorch's"),
        ("--opset 10", "no resize that matches PyTorch's"),
        ("--opset 26", "newest that is tested is 25"),
        ("--opset 12 --precision int8", "needs --opset 13 or newer"),
        ("--batch 0", "--batch is 0"),
        ("--batch several", "not a valid integer"),
        ("--smallest-component 2", "expected a share between 0 and 1"),
        ("--dice-budget 2", "expected a Dice between 0 and 1"),
        ("--reduce-range", "about int8 weights, not --precision fp32"),
        ("--calibration-slices 0", "--calibration-slices is 0"),
        ("--precision int4", "Invalid value"),
        ("--out model.bin", "expected a file whose name ends in .onnx"),
    ],
)
def test_what_cannot_be_exported_is_refused_up_front(tmp_path: Path, capsys, options: str, reason: str) -> None:
    assert main(["nothing.safetensors", "--out", str(tmp_path / "m.onnx"), *options.split()]) == 2
    assert reason in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_exits_3(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path / "nothing.safetensors"), "--out", str(tmp_path / "m.onnx")]) == 3
    assert "is not a readable checkpoint" in capsys.readouterr().err


def test_json_goes_to_stdout_alone(trained: Path, tmp_path: Path, capsys) -> None:
    options = f"--precision int8 --calibration {SAMPLE_DATA} --calibration-slices 9 --parity {SAMPLE_DATA} --json"
    assert main([str(trained / "best.safetensors"), "--out", str(tmp_path / "m.onnx"), *options.split()]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parity"]["compared"] == 48 + 8
    assert document["parity"]["passed"] is True
    assert len(document["parity"]["slices"]) == 48 + 8 + 5
    assert document["kept_float"] == []


def test_training_patients_calibrate_and_the_others_judge(trained: Path) -> None:
    run = RunData.beside(trained / "best.safetensors")
    calibration = {s.patient for s in run.calibration(None, 500)}
    parity = {s.patient for s in run.parity(None)}
    assert calibration
    assert parity
    assert all(p.startswith(("patient_1", "patient_2", "patient_3")) for p in calibration)
    assert all(p.startswith("patient_4") for p in parity)


def test_slices_of_16_bits_look_as_in_seg_infer_however_few_are_chosen(tmp_path: Path) -> None:
    data, contract = tmp_path / "data", ModelContract(Input(32))
    for number in range(1, 9):  # each brighter than the one before: a window of some of them is not the patient's
        write(data / f"p1/p1_{number}.png", np.arange(1024, dtype=np.uint16).reshape(32, 32) * number**2)
    parts = {f"p1/p1_{number}.png": "train" if number < 7 else "val" for number in range(1, 9)}
    windows = PatientWindows(SliceTree(data).slices_of_patient, contract)
    run = RunData(tmp_path / "run", data, None, None, parts, leave_out=False)
    for folder in (None, data):
        for chosen, names in ((run.calibration(folder, 2), ["p1_1", "p1_6"]), (run.parity(folder), ["p1_7", "p1_8"])):
            assert [s.path.stem for s in chosen] == names
            for item, display in zip(chosen, run.read_displays(chosen, folder, contract), strict=True):
                pixels = read_slice(item.path)
                np.testing.assert_array_equal(display, to_display(pixels, windows.window_of(item, pixels)))


def test_slices_that_were_trained_on_are_no_proof(trained: Path, tmp_path: Path) -> None:
    run = RunData.beside(trained / "best.safetensors")
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen/patient_1_copy_0").symlink_to(SAMPLE_DATA / "patient_1")
    with pytest.raises(UsageError, match="holds no slice that was not trained on"):
        run.parity(tmp_path / "seen")


def test_a_slice_that_cannot_be_compared_is_named(trained: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/broken_1.png").write_bytes(b"x")
    arguments = [str(trained / "best.safetensors"), "--out", str(tmp_path / "m.onnx"), "--parity", str(tmp_path / "in")]
    assert main(arguments) == 1
    assert "broken_1.png: cannot be decoded" in capsys.readouterr().err


def test_a_run_folder_of_somebody_else_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "split.csv").write_text("patient,part\n")
    with pytest.raises(UsageError, match="not as seg-train wrote it"):
        RunData.beside(tmp_path / "best.safetensors")


def test_files_that_training_left_out_are_left_out_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(SAMPLE_DATA / "patient_1", data / "patient_1")
    (data / "patient_1/patient_1_3.tif").write_bytes(b"broken")
    settings = {"data": str(data), "masks": None, "patient_pattern": None, "problems": "leave-out"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/settings.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "run/split.csv").write_text("patient,part\npatient_1,val\n")
    assert len(RunData.beside(tmp_path / "run/best.safetensors").parity(None)) == 11


def test_a_checkpoint_alone_has_only_the_shipped_slices(trained: Path, tmp_path: Path) -> None:
    run = RunData.beside(tmp_path / "best.safetensors")
    assert run.parity(None) == []
    with pytest.raises(UsageError, match="--calibration DATA"):
        run.calibration(None, 8)
    assert len(run.calibration(SAMPLE_DATA, 500)) == 48
