"""From the eager network to a float ONNX graph of exactly the opset that was asked for, in one file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from segport.errors import GateError
from segport_train.model import LOW_STRIDE, SegmentationNetwork

FIRST_DYNAMO_OPSET = 18  # asked for less, torch.onnx's default exporter silently returns 18
INPUT, OUTPUT = "pixels", "logits"


class ExportForm(nn.Module):
    """The network's own modules in a form whose graph holds no shape arithmetic: every resize has a constant scale.

    Pixels uint8 [N, size, size, 3] to logits float32 [N, 1, size, size], as `SegmentationNetwork` in eval mode.
    """

    def __init__(self, network: SegmentationNetwork, size: int, output_stride: int) -> None:
        super().__init__()
        pyramid, *head = cast(Any, network.net.classifier)
        self.network, self.decoder = network, cast(Any, getattr(network.net, "decoder", None))
        self.branches = nn.ModuleList(list(pyramid.convs)[:-1])
        self.pooled = nn.Sequential(*list(pyramid.convs[-1])[1:])  # its convolution; pooling and resize are below
        self.project, self.classify = pyramid.project, nn.Sequential(*head)
        self.cells, self.stride = size // output_stride, output_stride

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = cast(Any, self.network.net.backbone)(self.network.normalise(pixels))
        x = features["out"]
        pooled = enlarge(self.pooled(avg_pool2d(x, self.cells)), self.cells)
        x = self.project(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))
        if self.decoder is None:
            return enlarge(self.classify(x), self.stride)
        fine = self.decoder.reduce(features["low"])
        x = self.decoder.refine(torch.cat([enlarge(x, self.stride // LOW_STRIDE), fine], dim=1))
        return enlarge(x, LOW_STRIDE)


def enlarge(maps: torch.Tensor, factor: int) -> torch.Tensor:
    """Return the maps on a grid `factor` times as fine, by bilinear interpolation."""
    return interpolate(maps, scale_factor=float(factor), mode="bilinear", align_corners=False)


def trace(network: SegmentationNetwork, size: int, output_stride: int, opset: int, path: Path) -> str:
    """Write the float graph to `path`; return the exporter's name ("dynamo" or "torchscript").

    Raises `GateError` when the exporter gives another opset or keeps weights in a second file.
    """
    form = ExportForm(network, size, output_stride).eval()
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)  # two: a batch of one becomes a constant
    exporter = "dynamo" if opset >= FIRST_DYNAMO_OPSET else "torchscript"
    with warnings.catch_warnings(), _as_gate_error(opset):
        # The older exporter is deprecated, and the only one that writes opsets below 18.
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program = torch.onnx.export(
                form,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                external_data=False,
                verbose=False,
            )
            cast(Any, program).save(path, external_data=False)
        else:
            torch.onnx.export(
                form,
                (example,),
                str(path),
                dynamo=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
    check_form(onnx.load(path, load_external_data=False), opset)
    return exporter


def check_form(model: onnx.ModelProto, opset: int) -> None:
    """Raise `GateError` unless the model has exactly this opset, no other domain in use and no external weights."""
    found = {o.domain or "ai.onnx": o.version for o in model.opset_import}
    domains = {node.domain or "ai.onnx" for node in model.graph.node}
    if found.get("ai.onnx") != opset or domains != {"ai.onnx"}:
        raise GateError(f"--opset {opset}: the exporter gave {found}; this combination cannot be exported here")
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
        raise GateError("the exporter put weights into a second file; expected a single one")
    with _as_gate_error(opset):
        onnx.checker.check_model(model)


@contextmanager
def _as_gate_error(opset: int) -> Iterator[None]:
    """Say in one line when a library cannot make or accept this opset."""
    try:
        yield
    except (torch.onnx.OnnxExporterError, onnx.checker.ValidationError, RuntimeError) as error:
        versions = f"torch {torch.__version__}, onnx {onnx.__version__}"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise GateError(f"--opset {opset} cannot be exported with {versions}: {reason}") from error
