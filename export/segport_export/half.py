"""Float graph to fp16 weights and arithmetic, for CUDA; the logits stay float32.

ONNX Runtime's own converter (`onnxruntime.transformers.float16`, 1.31) leaves nodes out of order and types that
contradict each other around Resize, so that onnx refuses its result: hence these few lines.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from segport.errors import GateError
from segport_export.graph import Builder, given, values

LARGEST = float(np.finfo(np.float16).max)


def to_half(source: Path, target: Path) -> None:
    """Write the fp16 twin of the float model `source` to `target`.

    The last Resize, from the network's stride to the slice, runs in float32. Raises `GateError` for a weight beyond
    fp16's range.
    """
    model = ir.load(source)
    graph = model.graph
    nodes = list(graph)
    resizes = [n for n in nodes if n.op_type == "Resize"]
    kept = {v.name for n in resizes for v in n.inputs[1:] if v is not None}  # scales are float32 by definition
    for name, weights in list(graph.initializers.items()):
        if weights.dtype == ir.DataType.FLOAT and name not in kept:
            found = values(weights)
            if np.abs(found).max(initial=0) > LARGEST:
                raise GateError(f"--precision fp16: {name} holds {np.abs(found).max():g}, fp16 ends at {LARGEST:g}")
            weights.const_value = ir.tensor(found.astype(np.float16), name=name)
            weights.type = ir.TensorType(ir.DataType.FLOAT16)
    for node in nodes:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16)
        for output in node.outputs:
            if not output.is_graph_output():
                output.type = output.shape = None  # of the float graph
    last = resizes[-1]
    build = Builder(graph)
    last.replace_input_with(0, build.node("Cast", [given(last.inputs[0])], {"to": ir.DataType.FLOAT}))
    graph.insert_before(last, build.made)
    ir.save(model, target)
