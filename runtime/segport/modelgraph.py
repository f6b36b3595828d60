"""Refuse a graph that seg-export cannot have written, from its bytes: no engine has seen it yet.

An engine that loads a graph computes what depends on constants alone, so a file of 1 kB can ask for all the memory
there is. Two rules stand against that, and neither is enough by itself:

- `OPERATORS`, all that seg-export writes. A list of forbidden ones would have to name, for all later opsets too, every
  operator that makes much out of little (ConstantOfShape, Range, Expand, Tile, random numbers) or never ends
  (Loop). The list cannot refuse an honest file at its user's: seg-export opens what it wrote through this module, so if
  an exporter took to another operator, that is where it would be seen, and added here.
- What depends on constants alone may only be cut, joined and rescaled (`FOLDED`), and may not grow beyond `MAX_VALUES`:
  joining a tensor with itself 30 times needs no unusual operator.

What a graph computes from the pixels, at run time, is not bounded here.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from segport.protobuf import NO_NUMBER, Field, ProtobufFile

# What opsets 11 to 25 give with both of torch's exporters in fp32, fp16 and int8, rewritten or not; and what torch adds
# below opset 11 (Constant, Identity, Pad, Upsample): such a file is for the gate to refuse, with figures.
# With how many values each needs and how many it may read: OpenVINO 2026.4 crashes on a Conv without weights.
OPERATORS = {
    b"Add": (2, 2),
    b"AveragePool": (1, 1),
    b"Cast": (1, 1),
    b"Concat": (1, 256),
    b"Constant": (0, 0),
    b"Conv": (2, 3),
    b"DequantizeLinear": (2, 3),
    b"Identity": (1, 1),
    b"MaxPool": (1, 1),
    b"Mul": (2, 2),
    b"Pad": (1, 3),
    b"QuantizeLinear": (2, 3),
    b"Relu": (1, 1),
    b"Resize": (1, 4),
    b"Slice": (3, 5),
    b"Transpose": (1, 1),
    b"Upsample": (1, 2),
}
FOLDED = frozenset((b"Concat", b"Constant", b"DequantizeLinear", b"Identity", b"Slice"))
DOMAINS = (b"", b"ai.onnx")

MAX_NAME = 512  # bytes; PyTorch's module paths take about 60
MAX_RANK = 8
MAX_VALUES = 2**29  # numbers in constants, stored and computed, cuts counted whole; the embedded model has 0.2e9

# Numbers of fields in onnx.proto
GRAPH, TRAINING, FUNCTIONS = 7, 20, 25  # of ModelProto
NODE, INITIALIZER, INPUT, OUTPUT, SPARSE_INITIALIZER = 1, 5, 11, 12, 15  # of GraphProto
NODE_INPUT, NODE_OUTPUT, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7  # of NodeProto
TENSOR, NESTED = 5, (6, 10, 11, 22, 23)  # of AttributeProto; graphs, lists of tensors, sparse tensors
DIMS, TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 1, 8, 13, 14  # of TensorProto
PORT_NAME, SIZE_NAME = (1,), (2, 1, 2, 1, 2)  # of ValueInfoProto; the second is type.tensor_type.shape.dim.dim_param


class _Node(NamedTuple):
    """An operator with the names it reads and makes; `stored`: at least as many as the numbers in its attributes."""

    operator: bytes
    inputs: list[bytes]
    outputs: list[bytes]
    stored: int


def check_graph(file: ProtobufFile, top: Sequence[Field]) -> None:
    """Raise `ModelError` for a graph that seg-export cannot have written; `top`: the fields of the ModelProto."""
    nodes: list[_Node] = []
    sizes: dict[bytes, int] = {}
    given: set[bytes] = set()
    for field in top:
        if field.number in (TRAINING, FUNCTIONS):
            raise file.refused("functions or a training graph")
        for part in file.fields(field.start, field.end) if field.number == GRAPH else ():  # protobuf joins several
            if part.number == NODE:
                nodes.append(_read_node(file, part))
            elif part.number == INITIALIZER:
                name, values = _read_tensor(file, part)
                sizes[name] = values
            elif part.number == INPUT:
                given.update(_read_port(file, part))
            elif part.number == OUTPUT:
                _read_port(file, part)
            elif part.number == SPARSE_INITIALIZER:
                raise file.refused("sparse tensors")
    _check_constants(file, nodes, sizes, given)


def _check_constants(file: ProtobufFile, nodes: list[_Node], sizes: dict[bytes, int], computed: set[bytes]) -> None:
    """Follow the constants through the graph: `sizes` by name; `computed`: what depends on the pixels. Both grow."""
    total = sum(sizes.values())
    for node in nodes:
        read = [name for name in node.inputs if name]
        if all(name in sizes for name in read):
            if node.operator not in FOLDED:
                raise file.refused(f"an operator {_text(node.operator)} that reads nothing but constants")
            made = node.stored + sum(sizes[name] for name in read)
            total += made
            sizes.update(dict.fromkeys(node.outputs, made))
        elif all(name in sizes or name in computed for name in read):
            computed.update(node.outputs)
        else:
            raise file.refused(f"an operator {_text(node.operator)} that reads what no operator before it makes")
        if total > MAX_VALUES:
            raise file.refused(f"constants that become more than {MAX_VALUES} numbers when they are loaded")


def _read_port(file: ProtobufFile, port: Field) -> list[bytes]:
    """Return the name of an input or output; ONNX Runtime fails over names that are not UTF-8 when it is asked."""
    names = [[file.read(f, MAX_NAME, "a name") for f in _reach(file, port, path)] for path in (PORT_NAME, SIZE_NAME)]
    try:
        b"".join(names[0] + names[1]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise file.damaged("an input or output whose name is not UTF-8") from error
    return names[0]


def _reach(file: ProtobufFile, message: Field, path: Sequence[int]) -> Iterator[Field]:
    """Yield the fields at the end of a path of field numbers."""
    for field in file.fields(message.start, message.end):
        if field.number == path[0]:
            yield from _reach(file, field, path[1:]) if path[1:] else (field,)


def _read_node(file: ProtobufFile, node: Field) -> _Node:
    operator = domain = b""
    inputs: list[bytes] = []
    outputs: list[bytes] = []
    stored = node.end - node.start
    for field in file.fields(node.start, node.end):
        if field.number == ATTRIBUTE:
            stored += _read_attribute(file, field)
        elif field.number == NODE_INPUT:
            inputs.append(file.read(field, MAX_NAME, "a name"))
        elif field.number == NODE_OUTPUT:
            outputs.append(file.read(field, MAX_NAME, "a name"))
        elif field.number == OP_TYPE:
            operator = file.read(field, MAX_NAME, "a name")
        elif field.number == DOMAIN:
            domain = file.read(field, MAX_NAME, "a name")
    if operator not in OPERATORS or domain not in DOMAINS:
        name = operator if domain in DOMAINS else domain + b"." + operator
        raise file.refused(f"the operator {_text(name)}")
    needed, most = OPERATORS[operator]
    if not needed <= len(inputs) <= most or not all(inputs[:needed]) or len(outputs) != 1:
        names = [len([name for name in side if name]) for side in (inputs, outputs)]
        raise file.refused(f"an operator {_text(operator)} that reads {names[0]} values and makes {names[1]}")
    return _Node(operator, inputs, outputs, stored)


def _read_attribute(file: ProtobufFile, attribute: Field) -> int:
    """Return how many numbers its tensors hold."""
    values = 0
    for field in file.fields(attribute.start, attribute.end):
        if field.number in NESTED:
            raise file.refused("an attribute with a graph, a sparse tensor or a list of tensors")
        if field.number == TENSOR:
            values += _read_tensor(file, field)[1]
    return values


def _read_tensor(file: ProtobufFile, tensor: Field) -> tuple[bytes, int]:
    """Return a tensor's name and how many numbers its shape promises."""
    name, dims = b"", list[int]()
    for field in file.fields(tensor.start, tensor.end, numbers=True):
        if field.number == EXTERNAL_DATA or (field.number == DATA_LOCATION and field.value != 0):
            raise file.refused(f"a tensor {_text(name)} that lies in another file (external data)")
        if field.number == DIMS:
            dims.append(field.value)
        elif field.number == TENSOR_NAME and field.value == NO_NUMBER:
            name = file.read(field, MAX_NAME, "a name")
    size, values = tensor.end - tensor.start, math.prod(dims[:MAX_RANK])
    if len(dims) > MAX_RANK or NO_NUMBER in dims or values > 8 * size:  # no type takes less than one bit
        raise file.refused(f"a tensor {_text(name)} of shape {dims[:MAX_RANK]} in {size} bytes")
    return name, values


def _text(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))
