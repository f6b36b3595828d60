"""Weights recovered out of model files: the same masks, in evaluation and in training, for every form of export."""

from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from helpers import TINY
from narrow import narrow_network, traced
from segport.errors import ModelError
from segport.golden import golden_slices
from segport.modelfile import read_contract
from segport.preprocess import prepare, stack
from segport.segmenter import default_model
from segport_export.half import to_half
from segport_export.quantize import quantize
from segport_export.rewrite import FLOAT_REWRITES, INT8_REWRITES, rewrite
from segport_train.graphfile import read_graph
from segport_train.model import PLAIN, PLUS, SegmentationNetwork
from segport_train.recover import recover_convolutions
from segport_train.unfold import unfold
from tampering import negate_one_convolution


def golden(size: int = 64) -> np.ndarray:
    contract = narrow_network(size)[1]
    return stack([prepare(s, contract) for s in golden_slices()])


def export(
    folder: Path,
    precision: str,
    *,
    opset: int = 17,
    size: int = 64,
    stride: int = 8,
    architecture: str = PLAIN,
    plain: bool = False,
) -> Path:
    """Return the file of a narrow network in the form that seg-export gives it."""
    contract = narrow_network(size, stride, architecture)[1]
    path = traced(folder, opset, size=size, output_stride=stride, architecture=architecture)
    rewrite(path, folder / "float.onnx", () if plain else FLOAT_REWRITES)
    path = folder / "float.onnx"
    if precision == "fp16":
        to_half(path, folder / "half.onnx")
        path = folder / "half.onnx"
    if precision == "int8":
        quantize(path, folder / "int8.onnx", [*golden(size)], contract)
        path = folder / "int8.onnx"
    rewrite(path, folder / "last.onnx", INT8_REWRITES if precision == "int8" and not plain else ())
    return folder / "last.onnx"


def recovered(path: Path, size: int = 64, stride: int = 8, architecture: str = PLAIN) -> SegmentationNetwork:
    """Return a narrow network that started at random and got the file's weights."""
    network = deepcopy(narrow_network(size, stride, architecture)[0])
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    unfold(network, recover_convolutions(path, stride, network), [torch.from_numpy(golden(size))])
    return network


def run(path: Path, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"pixels": pixels})[0])


def evaluated(network: nn.Module, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(network.eval()(torch.from_numpy(pixels)))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * ((a > 0) & (b > 0)).sum() / ((a > 0).sum() + (b > 0).sum()))


@pytest.mark.parametrize(
    ("precision", "options", "largest"),
    [
        ("fp32", {"opset": 20}, 1e-3),
        ("fp32", {"plain": True}, 1e-3),
        ("fp32", {"stride": 16}, 1e-3),
        ("fp16", {}, 0.2),
        ("int8", {}, 4),
        ("fp32", {"architecture": PLUS}, 1e-3),
        ("fp32", {"architecture": PLUS, "stride": 16, "opset": 20}, 1e-3),
        ("int8", {"architecture": PLUS}, 4),
    ],
)
def test_every_form_of_export_gives_its_masks_back(tmp_path: Path, precision: str, options, largest: float) -> None:
    """Logits reach 23. An int8 model is compared with the network it was made from: its activations are rounded,
    those of the recovered network are not. What is left is the rounding of weights, which a random network shows most.
    """
    path = export(tmp_path, precision, **options)
    form = options.get("size", 64), options.get("stride", 8), options.get("architecture", PLAIN)
    found = evaluated(recovered(path, *form), golden(form[0]))
    expected = evaluated(narrow_network(*form)[0], golden(form[0])) if precision == "int8" else run(path, golden())
    assert np.abs(found - expected).max() < largest
    assert dice(found, expected) > (0.96 if precision == "int8" else 0.99)


def test_a_model_of_no_output_stride_is_refused() -> None:
    with pytest.raises(ModelError, match="has output stride 1, expected 8 or 16"):
        recover_convolutions(Path("tiny.onnx"), 1, narrow_network()[0])


def test_in_training_mode_the_logits_are_the_same_on_the_slices_that_were_measured(tmp_path: Path) -> None:
    path = export(tmp_path, "fp32")
    network = recovered(path).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        found = network(torch.from_numpy(golden())).numpy()
    assert np.abs(found - run(path, golden())).max() < 0.05


def test_kernels_have_the_norm_of_those_they_replace(tmp_path: Path) -> None:
    weight = cast(Any, recovered(export(tmp_path, "fp32"))).net.backbone.layer2[1].conv2.weight
    norms = weight.detach().flatten(1).norm(dim=1)
    assert norms.numpy() == pytest.approx(float(norms[0]), rel=1e-4)
    assert float(norms[0]) == pytest.approx(weight[0].numel() ** 0.5, rel=0.1)  # standard normal ones here


def test_a_channel_that_is_constant_stays_what_it_was(tmp_path: Path) -> None:
    folded = recover_convolutions(export(tmp_path, "fp32"), 8, narrow_network()[0])
    name = "net.backbone.layer1.0.conv1"
    folded[name].weight[0] = 0
    network = deepcopy(narrow_network()[0])
    unfold(network, folded, [torch.from_numpy(golden())])
    seen: list[torch.Tensor] = []
    cast(Any, network.net.backbone).layer1[0].bn1.register_forward_hook(lambda *call: seen.append(call[2].clone()))
    for mode in (True, False):
        with torch.no_grad():
            network.train(mode)(torch.from_numpy(golden()))
    for outputs in seen:
        assert outputs[:, 0].numpy() == pytest.approx(float(folded[name].bias[0]), abs=1e-5)


def test_a_changed_weight_is_recovered_as_it_is(tmp_path: Path) -> None:
    path = export(tmp_path, "fp32")
    before = run(path, golden())
    model = onnx.load(path)
    negate_one_convolution(model)
    onnx.save(model, path)
    found = evaluated(recovered(path), golden())
    assert np.abs(found - run(path, golden())).max() < 1e-3
    assert np.abs(found - before).max() > 1


def test_constants_are_read_as_the_onnx_package_reads_them(tmp_path: Path) -> None:
    path = export(tmp_path, "int8")
    read = read_graph(path)
    graph = onnx.load(path).graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type != onnx.TensorProto.INT64}
    assert read.constants.keys() == stored.keys()
    assert all((read.constants[n] == t).all() and read.constants[n].dtype == t.dtype for n, t in stored.items())
    assert [n.op_type for n in graph.node] == [n.operator for n in read.nodes]
    numbers = onnx.helper.make_tensor("numbers", onnx.TensorProto.INT32, [3], [-1, 300, -(2**31)])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [numbers])), tmp_path / "numbers.onnx")
    assert read_graph(tmp_path / "numbers.onnx").constants["numbers"].tolist() == [-1, 300, -(2**31)]


def test_a_graph_of_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be recovered.*in the place of net.backbone.conv1"):
        recover_convolutions(TINY, 8, narrow_network()[0])
    path = export(tmp_path, "fp32")
    with torch.device("meta"):
        full = SegmentationNetwork(narrow_network()[1], output_stride=8, auxiliary=False)
    with pytest.raises(ModelError, match=r"in the place of net.backbone.conv1, \[64, 3, 7, 7\]"):
        recover_convolutions(path, 8, full)
    shallow = deepcopy(narrow_network()[0])
    del cast(Any, shallow.net.backbone).layer3[5]
    with pytest.raises(ModelError, match="cannot be recovered"):
        recover_convolutions(path, 8, shallow)


def test_the_embedded_model_gives_its_masks_back() -> None:
    path = default_model()
    contract = read_contract(path)
    network = SegmentationNetwork(contract, output_stride=contract.origin.output_stride, auxiliary=True)
    pixels = stack([prepare(s, contract) for s in golden_slices()])
    unfold(network, recover_convolutions(path, contract.origin.output_stride, network), [torch.from_numpy(pixels)])
    found, expected = evaluated(network, pixels), run(path, pixels)
    assert contract.export is not None
    rounding = contract.export.parity["mean_difference"]  # of a logit, as the gate measured it against PyTorch
    assert np.abs(found - expected).mean() < 1.5 * rounding
    assert dice(found, expected) > 0.99
