"""Recover the network's convolutions from a model file: the inverse of seg-export's folding, rewriting and rounding.

Names of operators are an exporter's own and rewritten operators have others, so a convolution is known by what it
reads: the convolutions whose outputs reach its input without another convolution between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from segport.errors import ModelError
from segport_train.graphfile import GraphFile, Node, read_graph
from segport_train.model import ATROUS_RATES, SegmentationNetwork

POOLED = "pooled"  # stands among what a convolution reads where a mean over the whole map lies between
BACKBONE, HEAD, DECODER = "net.backbone", "net.classifier", "net.decoder"

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Folded:
    """A convolution with its normalisation inside: weight [out, in, k, k] and bias [out]."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class _Found:
    """A convolution of the file; `reads`: the convolutions before it, in the order in which they are joined."""

    reads: tuple[str, ...]
    dilation: int
    folded: Folded


def recover_convolutions(path: Path, output_stride: int, network: SegmentationNetwork) -> dict[str, Folded]:
    """Return the folded convolutions of a model file, in any precision, by the names of the network's modules.

    `network` gives names and shapes; `output_stride`: the model's. Taps that read padding alone, which seg-export
    leaves out, come back as zeros. Raises `ModelError` where the graph is not that of such a network.
    """
    return _Recovery(path, output_stride, network).run()


class _Recovery:
    """Follows the network through the file's convolutions; each is taken once."""

    def __init__(self, path: Path, output_stride: int, network: SegmentationNetwork) -> None:
        if output_stride not in ATROUS_RATES:
            raise ModelError(f"{path}: has output stride {output_stride}, expected 8 or 16: a model of seg-export")
        self.path, self.rates = path, ATROUS_RATES[output_stride]
        self.shapes = {n.removesuffix(".weight"): tuple(p.shape) for n, p in network.named_parameters() if p.ndim == 4}
        self.depths = [len(cast(Any, network.net.backbone)[f"layer{n}"]) for n in (1, 2, 3, 4)]
        self.found = _find_convolutions(read_graph(path), path)
        self.result: dict[str, Folded] = {}

    def run(self) -> dict[str, Folded]:
        low, x = self._backbone()
        pyramid = self._pyramid(x)
        if f"{DECODER}.reduce.0" in self.shapes:
            fine = self._take(f"{DECODER}.reduce.0", low)
            self._take(f"{DECODER}.refine.3", [self._take(f"{DECODER}.refine.0", [pyramid, fine])])
        else:
            self._take(f"{HEAD}.4", [self._take(f"{HEAD}.1", [pyramid])])
        if self.found:
            raise self._refused(f"{len(self.found)} convolutions more than such a network has")
        return self.result

    def _backbone(self) -> tuple[list[str], list[str]]:
        """Return the convolutions whose outputs are summed up in layer 1's last map and in the backbone's."""
        low = x = [self._take(f"{BACKBONE}.conv1", [])]
        for layer, depth in enumerate(self.depths, 1):
            for index in range(depth):
                block = f"{BACKBONE}.layer{layer}.{index}"
                y = [self._take(f"{block}.conv1", x)]
                beside = [self._take(f"{block}.downsample.0", x)] if f"{block}.downsample.0" in self.shapes else x
                for step in (2, 3):
                    y = [self._take(f"{block}.conv{step}", y)]
                x = [*y, *beside]
            low = x if layer == 1 else low
        return low, x

    def _pyramid(self, x: Sequence[str]) -> str:
        """Take the parallel branches, of which several may be merged, and the projection of all; return its key."""
        names = [f"{HEAD}.0.convs.{k}.0" for k in range(len(self.rates) + 1)]
        pooled = self._take(f"{HEAD}.0.convs.4.1", [POOLED, *x])
        readers = [key for key, one in self.found.items() if set(one.reads) == set(x)]
        branches: dict[str, list[str]] = {}  # key in the file: the branches in it, in their order
        for key in readers:
            one = self.found[key]
            if one.folded.weight.shape[2] > 1 and one.dilation in self.rates:
                branches[key] = [names[1 + self.rates.index(one.dilation)]]
        rest = [n for n in names if [n] not in branches.values()]
        branches |= {key: rest for key in readers if key not in branches}
        for key, inside in branches.items():
            whole = self.found.pop(key).folded
            if len(whole.bias) != sum(self.shapes[n][0] for n in inside):
                raise self._refused(f"parallel branches of {len(whole.bias)} channels for {', '.join(inside)}")
            ends = np.cumsum([self.shapes[n][0] for n in inside])[:-1]
            for name, weight, bias in zip(
                inside, np.split(whole.weight, ends), np.split(whole.bias, ends), strict=True
            ):
                self._put(name, Folded(weight, bias))
        order = [*names, f"{HEAD}.0.convs.4.1"]
        branches[pooled] = order[-1:]
        return self._project([*branches], [order.index(n) for key in self._joined(branches) for n in branches[key]])

    def _joined(self, branches: dict[str, list[str]]) -> tuple[str, ...]:
        """Return the branches' keys in the order in which the file joins their channels."""
        for one in self.found.values():
            if set(one.reads) == set(branches):
                return one.reads
        raise self._refused("no convolution that reads all parallel branches")

    def _project(self, reads: Sequence[str], order: Sequence[int]) -> str:
        """Take the projection with its input channels in the network's order."""
        name = f"{HEAD}.0.project.0"
        key = self._take(name, reads)
        one = self.result[name]
        parts = np.split(one.weight, len(order), axis=1)
        self.result[name] = Folded(np.concatenate([parts[order.index(k)] for k in range(len(order))], 1), one.bias)
        return key

    def _take(self, name: str, reads: Sequence[str]) -> str:
        """Move the convolution that reads `reads` and has the channels of `name` to the result; return its key."""
        for key, one in self.found.items():
            if set(one.reads) == set(reads) and one.folded.weight.shape[:2] == self.shapes[name][:2]:
                self._put(name, self.found.pop(key).folded)
                return key
        raise self._refused(f"no convolution in the place of {name}, {list(self.shapes[name])}")

    def _put(self, name: str, one: Folded) -> None:
        """Keep a convolution, with zeros for taps that the file left out."""
        expected, found = self.shapes[name], one.weight.shape
        if found[:2] == expected[:2] and found[2:] == (1, 1) != expected[2:]:
            weight = np.zeros(expected, np.float32)
            weight[:, :, expected[2] // 2, expected[3] // 2] = one.weight[:, :, 0, 0]
            one = Folded(weight, one.bias)
        if one.weight.shape != expected:
            raise self._refused(f"a convolution {list(found)} in the place of {name}, {list(expected)}")
        self.result[name] = one

    def _refused(self, found: str) -> ModelError:
        return ModelError(
            f"{self.path}: its weights cannot be recovered: the graph has {found}; expected a DeepLabV3-ResNet50 that"
            " seg-export wrote; remedy: --init with the checkpoint it was exported from"
        )


def _find_convolutions(graph: GraphFile, path: Path) -> dict[str, _Found]:
    """Return the file's convolutions by the name of their stored weights: bands that share them are one."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    reads: dict[str, tuple[str, ...]] = {}
    found: dict[str, _Found] = {}
    for node in graph.nodes:
        if _is_constant(node.inputs[0], graph, makers):
            continue
        before = tuple(dict.fromkeys(key for name in node.inputs for key in reads.get(name, ())))
        if node.operator == "AveragePool":
            before = (POOLED, *before)
        if node.operator == "Conv":
            key, weight = _constant(node.inputs[1], graph, makers, path)
            if key not in found:
                no_bias = np.zeros(len(weight), np.float32)
                bias = _constant(node.inputs[2], graph, makers, path)[1] if len(node.inputs) > 2 else no_bias
                found[key] = _Found(before, node.integers.get("dilations", [1])[0], Folded(weight, bias[: len(weight)]))
            before = (key,)
        reads.update(dict.fromkeys(node.outputs, before))
    return found


def _is_constant(name: str, graph: GraphFile, makers: dict[str, Node]) -> bool:
    while name in makers:
        name = makers[name].inputs[0] if makers[name].inputs else ""
    return name in graph.constants


def _constant(name: str, graph: GraphFile, makers: dict[str, Node], path: Path) -> tuple[str, Array]:
    """Return name and float values of the whole stored tensor behind a value that bands may have cut or repeated."""
    scales: list[str] = []
    while name in makers and makers[name].inputs:
        node = makers[name]
        if node.operator == "DequantizeLinear":
            scales = node.inputs[1:]
        name = node.inputs[0]
    if name not in graph.constants or any(s not in graph.constants for s in scales):
        raise ModelError(f"{path}: the weights {name!r} are not stored in a way that can be read back")
    values = graph.constants[name].astype(np.float64)
    if len(scales) == 2:
        values -= _per_channel(graph.constants[scales[1]], values.shape)
    if scales:
        values *= _per_channel(graph.constants[scales[0]], values.shape)
    return name, values.astype(np.float32)


def _per_channel(given: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return scales or zero points, of which there is one or one a channel (or more, where bands repeat them)."""
    wide = given.astype(np.float64)
    return wide[: shape[0]].reshape(-1, *[1] * (len(shape) - 1)) if wide.ndim else wide
