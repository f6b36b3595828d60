"""Changes to a graph that a gate must notice."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

Change = Callable[[onnx.ModelProto], None]


def negate_one_convolution(model: onnx.ModelProto) -> None:
    """Turn the sign of one weight tensor in the middle of the network."""
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    _replace(model, convolutions[len(convolutions) // 2].input[1], lambda w: -w)


def negate_the_largest_weight_of_the_last_convolution(model: onnx.ModelProto) -> None:
    """Turn the sign of a single number."""

    def change(weights: Any) -> Any:
        changed = weights.copy()
        changed.flat[np.abs(weights).argmax()] *= -1
        return changed

    last = [n for n in model.graph.node if n.op_type == "Conv"][-1]
    _replace(model, last.input[1], change)


def align_corners(model: onnx.ModelProto) -> None:
    """Resize with corners aligned, not pixels: masks grow or shrink a little towards the border."""
    last = [n for n in model.graph.node if n.op_type == "Resize"][-1]
    for attribute in last.attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"align_corners"


def shift_last_bias(model: onnx.ModelProto) -> None:
    """Add one logit to every pixel."""
    last = [n for n in model.graph.node if n.op_type == "Conv"][-1]
    _replace(model, last.input[2], lambda b: b + 1)


def swap_channels(model: onnx.ModelProto) -> None:
    """Read RGB as BGR."""
    first = next(n for n in model.graph.node if n.op_type == "Conv")
    _replace(model, first.input[1], lambda w: w[:, ::-1])


def _replace(model: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> None:
    (tensor,) = [t for t in model.graph.initializer if t.name == name]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)).copy(), name))
