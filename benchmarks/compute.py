"""Compare what computes the network, on prepared batches: no files, no resizing, no masks.

    python benchmarks/compute.py --checkpoint RUN/best.safetensors --slices FOLDER [--models DIR]

Every side has a process of its own; they take turns, one side computing while the others wait, round by round, because
a machine drifts: ratios are those of one round, and their median. Files that are missing in `--models` (fp32.onnx,
int8-stock.onnx, int8.onnx) are exported first, with the gate, which takes minutes; the first two with --no-rewrite.
OpenVINO and NNCF are optional (`pip install openvino nncf`; NNCF is no dependency of segport): sides whose library is
missing are left out with a line that says so. `FOLDER` holds 8-bit slices. Linux and macOS.
"""

import argparse
import multiprocessing as mp
import resource
import statistics as st
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from machine import machine
from numpy.typing import NDArray
from sides import FP32, NNCF, PAIRS, REWRITTEN, SIDES, STOCK, Side, make_model, prepared_slices

from segport.modelfile import read_contract
from segport.session import usable_cores

PROCESSES = mp.get_context("spawn")  # fork would hand the parent's memory on


@dataclass
class Row:
    """A side that runs. `times`: milliseconds a slice, one a round; `memory`: its process's peak, in bytes."""

    side: Side
    size: int
    pipe: Connection
    process: Any
    times: list[float] = field(default_factory=list)
    memory: int = 0


def main() -> int:
    """Make the files that are missing, run the rounds, print the table; return the exit code."""
    args = _arguments()
    with TemporaryDirectory(prefix="segport-benchmark-") as temporary:
        models = args.models or Path(temporary)
        models.mkdir(parents=True, exist_ok=True)
        for name in (FP32, STOCK, REWRITTEN, NNCF):
            if not (models / name).exists():
                _make(name, models, args.checkpoint, args.slices)
        batch = prepared_slices(args.slices, read_contract(models / FP32), args.batch)
        print(machine())
        print(f"{args.threads} threads, batch {args.batch}, {args.rounds} rounds of {args.calls} timed calls\n")
        rows = [r for s in SIDES if (r := _start(s, s.path(models, args.checkpoint), args.threads, batch))]
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            for row in rows:
                row.pipe.send((args.warm_up, args.calls))
                milliseconds, row.memory = row.pipe.recv()
                row.times.append(milliseconds)
        for row in rows:
            row.pipe.send(None)
            row.process.join()
    _print_table(rows)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of seg-train, in its run folder")
    parser.add_argument("--slices", type=Path, required=True, help="folder of 8-bit slices")
    parser.add_argument("--models", type=Path, help="folder of model files, kept; a temporary one by default")
    parser.add_argument("--batch", type=int, default=8, help="slices a call (%(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every side (usable cores: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--calls", type=int, default=10, help="timed calls a round (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="calls before them (%(default)s)")
    return parser.parse_args()


def _make(name: str, models: Path, checkpoint: Path, slices: Path) -> None:
    """Write a model file in a process of its own, which takes its memory and its libraries away with it."""
    print(f"makes {models / name}", file=sys.stderr)
    process = PROCESSES.Process(target=_make_or_say, args=(name, models, checkpoint, slices))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{name} could not be made (see above)")


def _make_or_say(name: str, models: Path, checkpoint: Path, slices: Path) -> None:
    try:
        make_model(name, models, checkpoint, slices)
    except ModuleNotFoundError as error:
        if name != NNCF:
            raise
        print(f"no {name}: {error}; pip install nncf openvino to have it compared")


def _start(side: Side, path: Path, threads: int, batch: NDArray[np.uint8]) -> Row | None:
    """Start a side's process and wait until it has loaded its file; None, with a line, where it cannot."""
    if not path.exists():
        print(f"left out: {side.name} ({path.name} is missing)")
        return None
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_serve, args=(theirs, side, path, threads, batch), daemon=True)
    process.start()
    theirs.close()  # or a side that dies would leave the parent waiting
    problem = ours.recv()
    if problem:
        print(f"left out: {side.name} ({problem})")
        return None
    files = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return Row(side, sum(f.stat().st_size for f in files), ours, process)


def _serve(pipe: Connection, side: Side, path: Path, threads: int, batch: NDArray[np.uint8]) -> None:
    """Load the file, then answer each (warm-up calls, timed calls) with (milliseconds a slice, peak memory)."""
    from segport.errors import UsageError

    try:
        step = side.load(path, threads)
    except (ModuleNotFoundError, UsageError) as error:
        pipe.send(str(error))
        return
    pipe.send("")
    while order := pipe.recv():
        warm_up, calls = order
        for _ in range(warm_up):
            step(batch)
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            step(batch)
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        pipe.send((1000 * st.median(seconds) / len(batch), peak))


def _print_table(rows: Sequence[Row]) -> None:
    """Print medians and, in brackets, the smallest and largest round."""
    print(f"| side | ms a slice | of {rows[0].side.name} | peak memory | file |\n|---|---|---|---|---|")
    for row in rows:
        ratio = _spread(_ratios(row, rows[0]), 3)
        print(
            f"| {row.side.name} | {_spread(row.times, 2)} | {ratio}"
            f" | {row.memory / 1e6:.0f} MB | {row.size / 1e6:.1f} MB |"
        )
    print()
    named = {row.side.name: row for row in rows}
    for over, under in PAIRS:
        if over in named and under in named:
            print(f"{over} / {under}: {_spread(_ratios(named[over], named[under]), 3)}")


def _ratios(row: Row, base: Row) -> list[float]:
    return [a / b for a, b in zip(row.times, base.times, strict=True)]


def _spread(numbers: Sequence[float], digits: int) -> str:
    return f"{st.median(numbers):.{digits}f} ({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
