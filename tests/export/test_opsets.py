"""Every opset and precision at narrow width: exactly that opset, no shape arithmetic, and other engines agree."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from narrow import narrow_network, pixels
from segport.golden import golden_slices
from segport.openvino_engine import _import_openvino
from segport.preprocess import prepare, stack
from segport_export.build import Build
from segport_export.parity import Reference, check_parity
from segport_export.rundata import RunData
from segport_export.settings import NEWEST_OPSET, OLDEST_OPSET, ExportSettings
from segport_export.subjects import parity_slices
from segport_train.model import PLAIN, PLUS

# Slice and Concat of constants cut kernels; nothing may compute shapes, or land on the CPU beside CUDA.
SHAPE_ARITHMETIC = {"Shape", "Gather", "Range", "Expand", "ConstantOfShape", "If", "Loop", "Reshape", "Unsqueeze"}
EVERY = range(OLDEST_OPSET, NEWEST_OPSET + 1)
SWEEP = [(o, "fp32", True) for o in EVERY] + [(o, "fp32", False) for o in (13, 17, 21, 25)]
SWEEP += [(o, p, True) for o in (13, 17, 21, 25) for p in ("fp16", "int8")]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return narrow_reference(PLAIN)


def narrow_reference(architecture: str) -> Reference:
    network, contract = narrow_network(architecture=architecture)
    slices = parity_slices(RunData.beside(Path("nowhere/x")), None, contract)
    return Reference(network, contract, [s for s in slices if not s.hostile])  # it has learnt nothing about those


def build(reference: Reference, folder: Path, opset: int, precision: str, **options) -> Path:
    settings = ExportSettings(Path("narrow"), folder / "m.onnx", opset=opset, precision=precision, **options)
    prepared = [prepare(s, reference.contract) for s in golden_slices()]
    return Build(reference.network, reference.contract, settings, folder).candidate(prepared).path


@pytest.mark.parametrize(("opset", "precision"), [(11, "fp32"), (17, "fp32"), (17, "int8"), (21, "fp16"), (25, "int8")])
def test_a_decoder_comes_through_too(tmp_path: Path, opset: int, precision: str) -> None:
    test_the_sweep(narrow_reference(PLUS), tmp_path, opset, precision, rewritten=True)


@pytest.mark.parametrize(("opset", "precision", "rewritten"), SWEEP)
def test_the_sweep(reference: Reference, tmp_path: Path, opset: int, precision: str, rewritten: bool) -> None:
    path = build(reference, tmp_path, opset, precision, rewrite=rewritten)
    model = onnx.load(path, load_external_data=False)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
    dimensions = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dimensions == ["batch", 64, 64, 3]
    assert not SHAPE_ARITHMETIC & {n.op_type for n in model.graph.node}
    report = check_parity(reference, path, precision)
    # Rounding moves masks of so narrow a network more than the full one's: what counts here is where, not how many.
    allowed = set() if precision == "fp32" else {"flips", "Dice", "Dice budget"}
    assert {c.name for c in report.checks if not c.passed} <= allowed, report.failures
    assert report.dice_pooled > 0.95


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_other_engines_agree(reference: Reference, tmp_path: Path, precision: str) -> None:
    path = build(reference, tmp_path, 21, precision)  # onnx.reference has DequantizeLinear from 19 on
    batch = stack(reference.prepared[:1])
    expected = reference.logits[:1, None]
    limit = {"fp32": 1e-4, "int8": 2}[precision]
    (by_reference,) = ReferenceEvaluator(str(path)).run(None, {"pixels": batch})
    openvino = _import_openvino()  # without its telemetry
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    by_openvino = compiled({"pixels": batch})["logits"]
    for found in (by_reference, by_openvino):
        assert found.shape == (1, 1, 64, 64)
        assert np.abs(found - expected).max() < limit


def test_fp16_stores_halves_and_gives_floats(reference: Reference, tmp_path: Path) -> None:
    model = onnx.load(build(reference, tmp_path, 17, "fp16"))
    kinds = {t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    onnx.checker.check_model(model, full_check=True)


def test_reduced_range_keeps_weights_within_7_bits(reference: Reference, tmp_path: Path) -> None:
    largest = {}
    for reduce_range in (False, True):
        model = onnx.load(build(reference, tmp_path, 17, "int8", reduce_range=reduce_range))
        weights = [
            onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8
        ]
        largest[reduce_range] = max(int(np.abs(w.astype(int)).max()) for w in weights if w.ndim == 4)
    assert largest == {False: 127, True: 64}


def test_a_fixed_batch_stands_in_the_file_and_any_number_of_slices_goes_through(
    reference: Reference, tmp_path: Path
) -> None:
    from segport.segmenter import Segmenter

    path = build(reference, tmp_path, 17, "fp32", batch=4)
    model = onnx.load(path)
    assert [v.type.tensor_type.shape.dim[0].dim_value for v in (model.graph.input[0], model.graph.output[0])] == [4, 4]
    assert check_parity(reference, path, "fp32").failures == ()
    for engine in ("onnxruntime", "openvino"):
        segmenter = Segmenter(path, device="cpu", engine=engine)
        assert segmenter.session.batch == 4
        batch = pixels(count=9)
        together = segmenter.logits(batch)
        assert together.shape == (9, 64, 64)
        one_by_one = np.concatenate([segmenter.logits(batch[i : i + 1]) for i in range(9)])
        assert np.abs(together - one_by_one).max() < 1e-4


def test_a_weight_beyond_fp16_is_named(reference: Reference, tmp_path: Path) -> None:
    from segport.errors import GateError
    from segport_export.half import to_half

    model = onnx.load(build(reference, tmp_path, 17, "fp32"))
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] = 1e5
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "huge.onnx")
    with pytest.raises(GateError, match="holds 100000, fp16 ends at 65504"):
        to_half(tmp_path / "huge.onnx", tmp_path / "half.onnx")


def test_the_contract_of_the_narrow_network_is_its_own(reference: Reference, tmp_path: Path) -> None:
    other = replace(reference.contract, origin=replace(reference.contract.origin, weights_sha256="other"))
    path = build(reference, tmp_path, 17, "fp32")
    elsewhere = Reference(reference.network, other, reference.slices)
    assert any("exported from other weights" in f for f in check_parity(elsewhere, path, "fp32").failures)
