"""From network to candidate: trace, rewrite, lower the precision, and put the contract into the file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from segport.contract import KEY, Export, ModelContract
from segport.errors import GateError
from segport_export.half import to_half
from segport_export.quantize import quantize
from segport_export.rewrite import FLOAT_REWRITES, INT8_REWRITES, rewrite
from segport_export.settings import ExportSettings
from segport_export.trace import check_form, trace
from segport_train.describe import versions
from segport_train.model import SegmentationNetwork


@dataclass(frozen=True)
class Candidate:
    """A file that may become the model, and the contract in it."""

    path: Path
    contract: ModelContract


class Build:
    """The float graph, traced once, and the candidates that are made from it in `folder`."""

    def __init__(
        self, network: SegmentationNetwork, contract: ModelContract, settings: ExportSettings, folder: Path
    ) -> None:
        self.contract, self.settings, self.folder = contract, settings, folder
        traced, self.float_graph = folder / "traced.onnx", folder / "float.onnx"
        size, stride = contract.input.size, contract.origin.output_stride
        self.exporter = trace(network, size, stride, settings.opset, traced)
        self.rewrites = rewrite(traced, self.float_graph, FLOAT_REWRITES if settings.rewrite else ())
        self.int8_graph = folder / "int8.onnx"

    def candidate(self, prepared: Sequence[NDArray[np.uint8]] = (), keep: Sequence[str] = ()) -> Candidate:
        """Return a candidate of the precision that was asked for.

        `prepared`: slices to calibrate int8 on, uint8 [size, size, 3]; `keep`: layers that stay float in it.
        """
        s, graph, calibration = self.settings, self.float_graph, dict[str, Any]()
        if s.precision == "int8":
            graph = self.int8_graph
            calibration = quantize(
                self.float_graph, graph, prepared, self.contract, keep=keep, reduce_range=s.reduce_range
            )
        elif s.precision == "fp16":
            graph = self.folder / "half.onnx"
            to_half(self.float_graph, graph)
        last, path = self.folder / "last.onnx", self.folder / "candidate.onnx"
        names = self.rewrites + rewrite(graph, last, INT8_REWRITES if s.rewrite and s.precision == "int8" else ())
        if s.batch is not None:
            fix_batch(last, s.batch)
        export = Export(s.opset, self.exporter, s.precision, names, versions("torch", "onnx", "numpy"), calibration)
        contract = replace(self.contract, export=export)
        embed_contract(last, path, contract)
        check_form(onnx.load(path, load_external_data=False), s.opset)
        return Candidate(path, contract)


def fix_batch(model: Path, batch: int) -> None:
    """Make the batch a constant dimension of the file, in place."""
    loaded = onnx.load(model)
    for value in (*loaded.graph.input, *loaded.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del loaded.graph.value_info[:]
    onnx.save(loaded, model)


def embed_contract(source: Path, target: Path, contract: ModelContract) -> None:
    """Write `source` to `target` with this contract in `metadata_props`; raises `GateError` if the graph changed."""
    model = onnx.load(source, load_external_data=False)
    before = model.graph.SerializeToString(deterministic=True)
    kept = {p.key: p.value for p in model.metadata_props if p.key != KEY}
    onnx.helper.set_model_props(model, kept | {KEY: contract.to_json()})
    onnx.save(model, target)
    if onnx.load(target, load_external_data=False).graph.SerializeToString(deterministic=True) != before:
        raise GateError("embedding the contract changed the graph")
