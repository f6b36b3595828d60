"""Read the operators and constants of a model file that seg-export wrote, without the onnx package."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segport.modelfile import MAX_BYTES, MAX_FIELDS
from segport.modelgraph import (
    ATTRIBUTE,
    DIMS,
    GRAPH,
    INITIALIZER,
    MAX_NAME,
    NODE,
    NODE_INPUT,
    NODE_OUTPUT,
    OP_TYPE,
    TENSOR_NAME,
)
from segport.protobuf import NO_NUMBER, Field, ProtobufFile

# Numbers of fields in onnx.proto that the runtime never reads
ATTRIBUTE_NAME, INTEGERS = 1, 8  # of AttributeProto
DATA_TYPE, FLOATS, INT32S, RAW = 2, 4, 5, 9  # of TensorProto
TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 10: "<f2"}  # TensorProto.DataType: what weights and scales are held in


@dataclass(frozen=True)
class Node:
    """An operator: its type, the names it reads and makes, and its attributes that are lists of integers."""

    operator: str
    inputs: list[str]
    outputs: list[str]
    integers: dict[str, list[int]]


@dataclass
class GraphFile:
    """Nodes in the order they are computed in; constants by name, those of other types than `TYPES` left out."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)


def read_graph(path: Path) -> GraphFile:
    """Return the graph of a file that `read_contract` has accepted; raises `ModelError` for damaged bytes."""
    graph = GraphFile()
    with path.open("rb") as opened:
        file = ProtobufFile(opened, str(path), MAX_FIELDS)
        for top in [f for f in file.fields(0, file.size) if f.number == GRAPH]:
            for part in list(file.fields(top.start, top.end)):
                if part.number == NODE:
                    graph.nodes.append(_read_node(file, part))
                elif part.number == INITIALIZER:
                    graph.constants.update(_read_constant(file, part))
    return graph


def _read_node(file: ProtobufFile, node: Field) -> Node:
    read = Node("", [], [], {})
    operator = ""
    for part in file.fields(node.start, node.end):
        if part.number == NODE_INPUT:
            read.inputs.append(_text(file, part))
        elif part.number == NODE_OUTPUT:
            read.outputs.append(_text(file, part))
        elif part.number == OP_TYPE:
            operator = _text(file, part)
        elif part.number == ATTRIBUTE:
            read.integers.update(_read_integers(file, part))
    return Node(operator, read.inputs, read.outputs, read.integers)


def _read_integers(file: ProtobufFile, attribute: Field) -> dict[str, list[int]]:
    name, values = "", list[int]()
    for part in file.fields(attribute.start, attribute.end, numbers=True):
        if part.number == ATTRIBUTE_NAME:
            name = _text(file, part)
        elif part.number == INTEGERS:
            packed = part.value == NO_NUMBER
            values += _varints(file.read(part, MAX_NAME, "a list")) if packed else [part.value]
    return {name: values} if values else {}


def _read_constant(file: ProtobufFile, tensor: Field) -> dict[str, NDArray[Any]]:
    """Return the constant by its name; nothing for a type that no weight has."""
    name, dims, kind, content = "", list[int](), 0, list[tuple[int, bytes]]()
    for part in file.fields(tensor.start, tensor.end, numbers=True):
        if part.number == DIMS:
            dims.append(part.value)
        elif part.number == DATA_TYPE:
            kind = part.value
        elif part.number == TENSOR_NAME:
            name = _text(file, part)
        elif part.number in (FLOATS, INT32S, RAW) and part.value == NO_NUMBER:
            content.append((part.number, file.read(part, MAX_BYTES, "a tensor")))
    if kind not in TYPES:
        return {}
    dtype = np.dtype(TYPES[kind])
    values = np.concatenate([np.empty(0, dtype), *(_decode(number, data, dtype) for number, data in content)])
    if values.size != math.prod(dims):
        raise file.damaged(f"a tensor {name!r} of shape {dims} with {values.size} values")
    return {name: values.reshape(dims)}


def _decode(number: int, data: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    if number == INT32S:
        return np.array(list(_varints(data)), np.int64).astype(dtype)
    return np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)


def _varints(data: bytes) -> Iterator[int]:
    """Yield the signed numbers of a packed list."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            value &= 2**64 - 1
            yield value - 2**64 if value >= 2**63 else value
            value = shift = 0


def _text(file: ProtobufFile, part: Field) -> str:
    return file.read(part, MAX_NAME, "a name").decode("utf-8", "backslashreplace")
