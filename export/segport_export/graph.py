"""Making nodes and constants for a graph that is being rewritten, and reading its convolutions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class Builder:
    """Collects new nodes in order; `place_after` puts them into the graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph, self.made = graph, list[ir.Node]()

    def node(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """Return the one output of a new node."""
        self.made.append(ir.node(op_type, inputs, attributes))
        return self.made[-1].outputs[0]

    def constant(self, values: NDArray[Any], like: str) -> ir.Value:
        """Return a new constant, named after `like`."""
        names = self.graph.initializers
        name = next(n for k in range(len(names) + 1) if (n := f"{like}_{k}") not in names)
        tensor = ir.tensor(np.ascontiguousarray(values), name=name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(values.shape))
        self.graph.register_initializer(value)
        return value

    def slice(self, x: ir.Value, ranges: Mapping[int, tuple[int, int]]) -> ir.Value:
        """Return x[first:last] on each axis of `ranges`; x itself where that is known to be all of it."""
        shape = dict(enumerate(static_shape(x)))
        cut = {axis: r for axis, r in ranges.items() if r != (0, shape.get(axis))}
        if not cut:
            return x
        columns = ([r[0] for r in cut.values()], [r[1] for r in cut.values()], list(cut))
        return self.node("Slice", [x, *(self.constant(np.array(c, np.int64), "slice") for c in columns)])

    def join(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        """Return the parts one after the other on an axis; the one part itself."""
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, {"axis": axis})

    def place_after(self, node: ir.Node) -> None:
        """Insert the collected nodes."""
        self.graph.insert_after(node, self.made)


@dataclass(frozen=True)
class Convolution:
    """A convolution over maps of a static size [.., channels, size, size] with a square, odd kernel."""

    node: ir.Node
    size: int
    kernel: int
    dilation: int

    @property
    def weights(self) -> ir.Value:
        """The second input, [output channels, input channels, kernel, kernel]."""
        return given(self.node.inputs[1])


def same_convolutions(graph: ir.Graph) -> list[Convolution]:
    """Return the convolutions, in order, of stride 1 whose padding keeps the size, one group, square maps."""
    found = []
    for node in graph:
        if node.op_type != "Conv":
            continue
        (rows, columns), kernels = static_shape(given(node.inputs[0]))[2:], static_shape(given(node.inputs[1]))[2:]
        strides, dilations = ints(node, "strides", [1, 1]), ints(node, "dilations", [1, 1])
        padding = [dilations[0] * (kernels[0] // 2)] * 4
        square = rows == columns and kernels[0] == kernels[1] and kernels[0] % 2 == 1 and dilations[0] == dilations[1]
        groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
        if square and strides == [1, 1] and ints(node, "pads", [0] * 4) == padding and groups == 1:
            found.append(Convolution(node, rows, kernels[0], dilations[0]))
    return found


def convolution_attributes(kernel: tuple[int, int], pads: tuple[int, int], dilation: int) -> dict[str, list[int]]:
    """Return attributes of a convolution of stride 1; `pads`: rows and columns, on both sides."""
    return {"kernel_shape": [*kernel], "pads": [*pads, *pads], "strides": [1, 1], "dilations": [dilation] * 2}


def static_shape(value: ir.Value) -> list[int]:
    """Return the shape; 0 for a dimension that is not known."""
    return [d if isinstance(d, int) else 0 for d in value.shape or ()]


def ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """Return an attribute that is a list of integers."""
    return list(node.attributes[name].as_ints()) if name in node.attributes else default


def values(constant: ir.Value) -> NDArray[Any]:
    """Return the values of a constant."""
    if constant.const_value is None:
        raise TypeError(f"{constant.name} is not a constant")
    return constant.const_value.numpy()


def given(value: ir.Value | None) -> ir.Value:
    """Return an input that is known to be there."""
    if value is None:
        raise TypeError("an input that should be there is left out")
    return value
