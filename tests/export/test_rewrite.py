"""Every rewrite on its own: the same logits, less to compute; int8 to the last bit."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from narrow import narrow_network, pixels, traced
from segport.errors import GateError
from segport.golden import golden_slices
from segport.preprocess import prepare
from segport_export.branches import merge_parallel_branches
from segport_export.quantize import quantize
from segport_export.rewrite import FLOAT_REWRITES, INT8_REWRITES, rewrite, take_pixels_as_quantized
from segport_export.taps import bands, crop_to_centre, cut_into_bands
from segport_train.model import PLUS


def run(model: Path | bytes, batch: np.ndarray) -> np.ndarray:
    source = str(model) if isinstance(model, Path) else model
    return ort.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, {"pixels": batch})[0]


def difference(a: Path, b: Path, size: int = 64) -> float:
    """Return the largest difference of a logit, relative to the largest logit (noise drives them far out)."""
    expected = run(b, pixels(size))
    return float(np.abs(run(a, pixels(size)) - expected).max() / np.abs(expected).max())


def kinds(path: Path) -> Counter[str]:
    return Counter(n.op_type for n in onnx.load(path).graph.node)


def kernels(path: Path) -> list[tuple[int, ...]]:
    graph = onnx.load(path).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    return [shapes[n.input[1]] for n in graph.node if n.op_type == "Conv" and n.input[1] in shapes]


@pytest.fixture(scope="module", params=[17, 20])
def graph(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return traced(tmp_path_factory.mktemp("narrow"), request.param)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    rewrite(traced(folder), folder / "float.onnx", FLOAT_REWRITES)
    contract = narrow_network()[1]
    quantize(folder / "float.onnx", folder / "int8.onnx", [prepare(s, contract) for s in golden_slices()], contract)
    return folder / "int8.onnx"


@pytest.mark.parametrize("change", [crop_to_centre, merge_parallel_branches, cut_into_bands])
def test_a_rewrite_of_the_float_graph_keeps_the_logits(graph: Path, tmp_path: Path, change) -> None:
    before = (crop_to_centre,) if change is merge_parallel_branches else ()
    assert rewrite(graph, tmp_path / "r.onnx", (*before, change))[-1] == change.__name__.replace("_", "-")
    assert difference(tmp_path / "r.onnx", graph) < 2e-6


@pytest.mark.parametrize(("size", "output_stride"), [(64, 8), (64, 16), (192, 16)])
def test_all_of_them_keep_the_logits_in_every_form_of_the_network(
    tmp_path: Path, size: int, output_stride: int
) -> None:
    """At 192 pixels and stride 16 rate 6 is exactly half the map: no output position sees only the centre tap."""
    graph = traced(tmp_path, size=size, output_stride=output_stride)
    names = rewrite(graph, tmp_path / "r.onnx", (*FLOAT_REWRITES, *INT8_REWRITES))
    assert names == ("crop-to-centre", "merge-parallel-branches", "cut-into-bands")
    assert difference(tmp_path / "r.onnx", graph, size) < 2e-6


def test_they_leave_a_decoder_as_it_is(tmp_path: Path) -> None:
    """Its Concat joins two convolutions' maps as the pyramid's does, but of two tensors."""
    graph = traced(tmp_path, architecture=PLUS)
    names = rewrite(graph, tmp_path / "r.onnx", (*FLOAT_REWRITES, *INT8_REWRITES))
    assert names == ("crop-to-centre", "merge-parallel-branches", "cut-into-bands")
    assert difference(tmp_path / "r.onnx", graph) < 2e-6


def test_kernels_that_see_their_centre_alone_become_1x1_and_merge(graph: Path, tmp_path: Path) -> None:
    """On the 8x8 map rates 12, 24 and 36 all do: with the 1x1 branch, four of 256 / 8 channels."""
    rewrite(graph, tmp_path / "r.onnx", FLOAT_REWRITES)
    assert sum(k[:2] == (32, 256) for k in kernels(graph)) == 5  # four branches and the pooled one
    assert (4 * 32, 256, 1, 1) in kernels(tmp_path / "r.onnx")
    assert not {k for k in kernels(tmp_path / "r.onnx") if k[:2] == (32, 256) and k[2] == 3}
    assert (tmp_path / "r.onnx").stat().st_size < graph.stat().st_size


def test_bands_of_an_int8_graph_give_the_same_integers(int8: Path, tmp_path: Path) -> None:
    assert rewrite(int8, tmp_path / "r.onnx", (cut_into_bands,)) == ("cut-into-bands",)
    assert kinds(tmp_path / "r.onnx")["Conv"] > kinds(int8)["Conv"]
    assert np.array_equal(run(tmp_path / "r.onnx", pixels()), run(int8, pixels()))
    stored = (onnx.load(p).graph.initializer for p in (int8, tmp_path / "r.onnx"))
    weights = [sum(t.ByteSize() for t in tensors if len(t.dims) == 4) for tensors in stored]
    assert weights[0] == weights[1]  # none is stored twice


def test_pixels_are_taken_as_the_first_quantised_tensor(int8: Path, tmp_path: Path) -> None:
    assert rewrite(int8, tmp_path / "r.onnx", (take_pixels_as_quantized,)) == ("take-pixels-as-quantized",)
    assert {"Cast", "Mul"} & set(kinds(int8))
    assert not {"Cast", "Mul"} & set(kinds(tmp_path / "r.onnx"))
    assert np.array_equal(run(tmp_path / "r.onnx", pixels()), run(int8, pixels()))


def test_another_first_scale_is_not_taken_for_the_pixels(int8: Path, tmp_path: Path) -> None:
    model = onnx.load(int8)
    first = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    (scale,) = [t for t in model.graph.initializer if t.name == first.input[1]]
    scale.CopyFrom(numpy_helper.from_array(np.float32(2 / 255).reshape(tuple(scale.dims)), scale.name))
    onnx.save(model, tmp_path / "other.onnx")
    assert rewrite(tmp_path / "other.onnx", tmp_path / "r.onnx", (take_pixels_as_quantized,)) == ()


def test_without_rewrites_the_graph_computes_the_same(graph: Path, tmp_path: Path) -> None:
    assert rewrite(graph, tmp_path / "r.onnx", ()) == ()
    assert "Constant" not in kinds(tmp_path / "r.onnx")
    assert np.array_equal(run(tmp_path / "r.onnx", pixels()), run(graph, pixels()))


def test_a_size_that_is_not_constant_is_refused(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(graph)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    onnx.save(model, tmp_path / "dynamic.onnx")
    with pytest.raises(GateError, match="need a constant height and width"):
        rewrite(tmp_path / "dynamic.onnx", tmp_path / "r.onnx", FLOAT_REWRITES)


@pytest.mark.parametrize("attribute", [{"strides": [2, 2]}, {"pads": [1] * 4}])
def test_branches_that_are_no_plain_1x1_are_left_alone(tmp_path: Path, attribute: dict[str, list[int]]) -> None:
    tensors = {f"w{k}": np.ones((2, 3, 1, 1), np.float32) for k in (1, 2)} | {"b": np.ones(2, np.float32)}
    tensors |= {"w3": np.ones((1, 4, 1, 1), np.float32), "b3": np.ones(1, np.float32)}
    side = 4 if "strides" in attribute else 10
    nodes = [helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT)]
    for k in (1, 2):
        nodes.append(helper.make_node("Conv", ["x", f"w{k}", "b"], [f"c{k}"], **attribute))
        nodes.append(helper.make_node("Relu", [f"c{k}"], [f"r{k}"]))
    nodes.append(helper.make_node("Concat", ["r1", "r2"], ["j"], axis=1))
    nodes.append(helper.make_node("Conv", ["j", "w3", "b3"], ["y"]))
    graph = helper.make_graph(
        nodes, "branches",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, side, side])],
        [numpy_helper.from_array(v, k) for k, v in tensors.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "b.onnx")
    assert rewrite(tmp_path / "b.onnx", tmp_path / "r.onnx", (merge_parallel_branches,)) == ()


@given(size=st.integers(1, 24), kernel=st.sampled_from([1, 3, 5]), dilation=st.integers(1, 40))
def test_bands_name_exactly_the_taps_that_read_data(size: int, kernel: int, dilation: int) -> None:
    covered = 0
    for band in bands(size, kernel, dilation):
        count = band.source[1] - band.source[0] - (band.kernel - 1) * dilation
        for position in range(covered, covered + count):
            used = [t for t in range(kernel) if 0 <= position + (t - kernel // 2) * dilation < size]
            assert used == list(range(*band.taps))
        covered += count
    assert covered == size


@settings(max_examples=25, deadline=None)
@given(size=st.integers(4, 20), dilation=st.integers(1, 24))
def test_one_convolution_of_any_dilation_keeps_its_values(tmp_path_factory, size: int, dilation: int) -> None:
    folder = tmp_path_factory.mktemp("one")
    rng = np.random.default_rng(size * 100 + dilation)
    tensors = {"w": rng.normal(size=(5, 3, 3, 3)), "b": rng.normal(size=5)}
    conv = helper.make_node("Conv", ["x", "w", "b"], ["z"], dilations=[dilation] * 2, pads=[dilation] * 4)
    cast = helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT)
    negate = helper.make_node("Neg", ["z"], ["y"])
    graph = helper.make_graph(
        [cast, conv, negate], "one",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5, size, size])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in tensors.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "one.onnx")
    rewrite(folder / "one.onnx", folder / "r.onnx", (crop_to_centre, cut_into_bands))
    batch = rng.integers(0, 256, (2, 3, size, size), np.uint8)
    expected = run(folder / "one.onnx", batch)
    assert np.abs(run(folder / "r.onnx", batch) - expected).max() <= 1e-5 * np.abs(expected).max()
