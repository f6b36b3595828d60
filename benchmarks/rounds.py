"""Sides that take turns: each in a process of its own, one computing while the others wait, round by round."""

import argparse
import resource
import statistics as st
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from common import load_or_say, start_side
from numpy.typing import NDArray
from sides import Side

from segport.session import usable_cores


@dataclass
class Row:
    """A side that runs. `times`: milliseconds a slice, one a round; `memory`: its process's peak, in bytes."""

    side: Side
    size: int
    pipe: Connection
    process: Any
    times: list[float] = field(default_factory=list)
    memory: int = 0


def add_timing(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is timed: batch, threads, rounds, calls and warm-up."""
    parser.add_argument("--batch", type=int, default=8, help="slices a call (%(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every side (usable cores: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--calls", type=int, default=10, help="timed calls a round (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="calls before them (%(default)s)")


def take_turns(rows: Sequence[Row], rounds: int, warm_up: int, calls: int) -> None:
    """Fill the rows' times and memory, then end their processes."""
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for row in rows:
            row.pipe.send((warm_up, calls))
            milliseconds, row.memory = row.pipe.recv()
            row.times.append(milliseconds)
    for row in rows:
        row.pipe.send(None)
        row.process.join()


def start(side: Side, path: Path, threads: int, batch: NDArray[np.uint8]) -> Row | None:
    """Start a side's process and wait until it has loaded its file; None, with a line, where it cannot."""
    if not path.exists():
        print(f"left out: {side.name} ({path.name} is missing)")
        return None
    started = start_side(side.name, _serve, side, path, threads, batch, daemon=True)
    files = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return Row(side, sum(f.stat().st_size for f in files), *started) if started else None


def _serve(pipe: Connection, side: Side, path: Path, threads: int, batch: NDArray[np.uint8]) -> None:
    """Load the file, then answer each (warm-up calls, timed calls) with (milliseconds a slice, peak memory)."""
    step = load_or_say(pipe, lambda: side.load(path, threads))
    if step is None:
        return
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
