"""Float graph to int8: ONNX Runtime's static quantisation (QDQ, u8 activations, s8 weights per channel)."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from segport.contract import ModelContract
from segport_export.trace import INPUT


class _Slices(CalibrationDataReader):  # type: ignore[misc]  # untyped base
    """Feeds prepared slices one by one."""

    def __init__(self, prepared: Sequence[NDArray[np.uint8]]) -> None:
        self.rest = iter(prepared)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        pixels = next(self.rest, None)
        return None if pixels is None else {INPUT: pixels[np.newaxis]}


def quantize(
    source: Path,
    target: Path,
    prepared: Sequence[NDArray[np.uint8]],
    contract: ModelContract,
    *,
    keep: Sequence[str] = (),
    reduce_range: bool = False,
) -> dict[str, Any]:
    """Write the int8 twin of the float model `source` to `target`; return how it was calibrated.

    `prepared`: slices of training patients, uint8 [size, size, 3]. `keep`: names of nodes that stay float, besides
    normalisation, the last convolution and the resize behind it: logits are not rounded to 8 bits. `reduce_range`:
    weights of 7 bits, whose products cannot saturate on CPUs without VNNI. Where the contract's mean is 0 and std 1,
    the first quantisation is exact (a grey level is a quantum).

    Ranges are the least and largest values seen. Clipping the rarest activations makes finer steps and smaller errors
    on average, but a rare activation can be a tumour's only voice: at percentile 99.999 one spot lost 2.8 logits.
    """
    shaped = target.with_suffix(".shaped.onnx")
    quant_pre_process(str(source), str(shaped), skip_optimization=True, skip_symbolic_shape=True)
    graph = onnx.load(shaped).graph
    first = next(node for node in graph.node if node.op_type == "Conv")
    before = [node.name for node in graph.node[: list(graph.node).index(first)]]
    last = max(k for k, node in enumerate(graph.node) if node.op_type == "Conv")
    behind = [node.name for node in graph.node[last:]]
    exact = not any(contract.input.mean) and set(contract.input.std) == {1.0}
    options: dict[str, Any] = {}
    if exact:
        options["TensorQuantOverrides"] = {
            first.input[0]: [{"scale": np.array(contract.input.scale, np.float32), "zero_point": np.array(0, np.uint8)}]
        }
    with redirect_stdout(sys.stderr):  # it reports progress with print()
        quantize_static(
            str(shaped),
            str(target),
            _Slices(prepared),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
            nodes_to_exclude=[*before, *behind, *keep],
            calibrate_method=CalibrationMethod.MinMax,
            calibration_providers=["CPUExecutionProvider"],
            extra_options=options,
        )
    shaped.unlink()
    how = {"method": "minmax", "slices": len(prepared), "exact_input": exact}
    return how | ({"kept_float": [*keep]} if keep else {}) | ({"reduce_range": True} if reduce_range else {})
