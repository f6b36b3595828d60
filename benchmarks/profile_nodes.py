"""Where the time goes inside the network: ONNX Runtime's profiler, and OpenVINO's counters beside it.

    python benchmarks/profile_nodes.py int8.onnx --stock int8-stock.onnx

Prints multiply-accumulates and times by part of the network, times by type of node, and the slowest nodes, in
milliseconds a slice: medians over the calls, files and engines taking turns. `--stock` is profiled in both engines.
Needs `segport[export]`; OpenVINO (`segport[openvino]`) is left out where it is missing. Counters cost time
themselves: whole models are for compute.py.
"""

import argparse
import json
import re
import statistics as st
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
from common import import_quietly
from machine import machine
from numpy.typing import NDArray

from segport.modelfile import read_contract
from segport.session import usable_cores

PARTS = ("stem", "layer1", "layer2", "layer3", "layer4", "pyramid", "head", "decoder")
PART_OF = {
    "layer": r"/backbone/(layer\d)/",
    "decoder": r"/(reduce|refine|Concat_1$)",
    "pyramid": r"/(convs\.|pooled|AveragePool|Concat)",
    "head": r"/(project|cl)",
}
# What engines append to the names of the nodes they fuse, split or bring into another layout.
APPENDED = re.compile(r"(_token_\d+|_nchwc|_quant|/GatherSliceToSplitFusion|/WithoutBiases|_original)+$")

SMALLEST = 0.005  # milliseconds; what would be printed as 0.00 is left out


@dataclass(frozen=True)
class Node:
    """A node as an engine ran it. `time`: milliseconds a slice."""

    name: str
    kind: str
    part: str
    time: float


def main() -> int:
    """Profile, print, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an .onnx of seg-export")
    parser.add_argument("--stock", type=Path, help="one of seg-export --no-rewrite, to compare with")
    parser.add_argument("--top", type=int, default=20, help="how many of the slowest nodes (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="slices a call (%(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="(usable cores: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="the files and engines take turns (%(default)s)")
    parser.add_argument("--calls", type=int, default=10, help="of a round (%(default)s)")
    args = parser.parse_args()
    size = read_contract(args.model).input.size
    batch = np.random.default_rng(0).integers(0, 256, (args.batch, size, size, 3), np.uint8)

    files = {"stock": args.stock, "model": args.model} if args.stock else {"model": args.model}
    sides: dict[str, OnnxRuntimeProfile | OpenVinoProfile] = {
        f"ONNX Runtime {name}": OnnxRuntimeProfile(path, batch, args.threads) for name, path in files.items()
    }
    name, path = next(iter(files.items()))
    try:
        sides[f"OpenVINO {name}"] = OpenVinoProfile(path, batch, args.threads)
    except ModuleNotFoundError as error:
        print(f"left out: OpenVINO ({error})")
    for _ in range(args.rounds):
        for side in sides.values():
            for _ in range(args.calls):
                side.call()
    columns = {name: side.nodes() for name, side in sides.items()}
    print(f"{machine()}\n{args.threads} threads, batch {args.batch}, ms a slice\n")
    macs = {f"GMAC {name}": multiply_accumulates(path) for name, path in files.items()}
    times = {name: _sums(nodes, lambda n: n.part) for name, nodes in columns.items()}
    named = [part for part in PARTS if any(part in sums for sums in macs.values())]  # not all have a decoder
    _print_table("part", [*named, "all"], macs | times)
    by_kind = {name: _sums(nodes, lambda n: n.kind) for name, nodes in columns.items()}
    kinds = {kind for sums in by_kind.values() for kind, time in sums.items() if time >= SMALLEST} - {"all"}
    _print_table("type", sorted(kinds, key=lambda k: -max(sums.get(k, 0.0) for sums in by_kind.values())), by_kind)
    by_name = {name: _sums(nodes, lambda n: n.name) for name, nodes in columns.items()}
    slowest = sorted(columns["ONNX Runtime model"], key=lambda n: -n.time)[: args.top]
    _print_table("node", [n.name for n in slowest], by_name)
    return 0


class OnnxRuntimeProfile:
    """A file in ONNX Runtime with its profiler on."""

    def __init__(self, path: Path, batch: NDArray[np.uint8], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # errors
        options.enable_profiling = True
        self._folder = TemporaryDirectory()
        options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._path, self._batch = path, batch

    def call(self) -> None:
        """Compute the batch once."""
        self._session.run(None, {"pixels": self._batch})

    def nodes(self) -> list[Node]:
        """End the profile; return the nodes in order of execution."""
        with self._folder:
            events = json.loads(Path(self._session.end_profiling()).read_bytes())
        found = defaultdict(list)
        for event in events:
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
                name = event["name"].removesuffix("_kernel_time")
                found[name, event["args"]["op_name"]].append(event["dur"] / 1000 / len(self._batch))
        return _medians(found, parts_of_file(self._path))


class OpenVinoProfile:
    """A file in OpenVINO with its counters on; raises `ModuleNotFoundError` where that is not installed."""

    def __init__(self, path: Path, batch: NDArray[np.uint8], threads: int) -> None:
        core = import_quietly("openvino").Core()
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
        self._request = core.compile_model(core.read_model(path), "CPU", options).create_infer_request()
        self._batch, self._found = batch, defaultdict[tuple[str, str], list[float]](list)

    def call(self) -> None:
        """Compute the batch once and read the counters."""
        self._request.infer({"pixels": self._batch})
        for node in self._request.profiling_info:
            milliseconds = 1000 * node.real_time.total_seconds() / len(self._batch)
            self._found[node.node_name, node.node_type].append(milliseconds)

    def nodes(self) -> list[Node]:
        """Return the nodes."""
        return _medians(self._found, {})


def multiply_accumulates(path: Path) -> dict[str, float]:
    """Return billions of multiply-accumulates a slice in the convolutions of each part, padding counted as data."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    parts, sums = parts_of_file(path), defaultdict[str, float](float)
    for node in graph.node:
        if node.op_type == "Conv":
            _, *taps = shapes[node.input[1]]
            amount = np.prod(taps) * np.prod(shapes[node.output[0]][1:]) / 1e9
            for part in (parts[node.name], "all"):
                sums[part] += float(amount)
    return sums


def parts_of_file(path: Path) -> dict[str, str]:
    """Return the part each node belongs to: nodes that a rewrite made go with the traced one before them."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return {n.name: n.part for n in _nodes(((n.name, n.op_type, 0.0) for n in nodes), {})}


def _nodes(ran: Iterable[tuple[str, str, float]], known: dict[str, str]) -> list[Node]:
    nodes, part = list[Node](), PARTS[0]
    for raw, kind, time in ran:
        name = APPENDED.sub("", raw)
        matches = ((found, key) for key, pattern in PART_OF.items() if (found := re.match(pattern, name)))
        found, key = next(matches, (None, ""))
        part = known.get(name) or (part if found is None else found[1] if key == "layer" else key)
        nodes.append(Node(name, kind, part, time))
    return nodes


def _medians(times: dict[tuple[str, str], list[float]], known: dict[str, str]) -> list[Node]:
    return _nodes(((name, kind, st.median(calls)) for (name, kind), calls in times.items()), known)


def _sums(nodes: Iterable[Node], key: Callable[[Node], str]) -> dict[str, float]:
    sums = defaultdict[str, float](float)
    for node in nodes:
        for name in (key(node), "all"):
            sums[name] += node.time
    return sums


def _print_table(title: str, names: Iterable[str], columns: dict[str, dict[str, float]]) -> None:
    print(f"| {' | '.join([title, *columns])} |\n|{'---|' * (1 + len(columns))}")
    for name in names:
        cells = [f"{sums[name]:.2f}" if name in sums else "" for sums in columns.values()]
        print(f"| {' | '.join([name, *cells])} |")
    print()


if __name__ == "__main__":
    sys.exit(main())
