"""What benchmarks share: a process for each side, imports that report nothing, figures of several rounds."""

import importlib
import multiprocessing as mp
import statistics as st
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

PROCESSES = mp.get_context("spawn")  # fork would hand the parent's memory on

T = TypeVar("T")


def start_side(name: str, serve: Callable[..., None], *args: object, daemon: bool) -> tuple[Connection, Any] | None:
    """Start `serve(pipe, *args)` in a process, wait until it has loaded; None, with a line, where it cannot.

    Returns (pipe, process). A daemon ends with its parent, and may have no processes of its own.
    """
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=serve, args=(theirs, *args), daemon=daemon)
    process.start()
    theirs.close()  # or a side that dies would leave the parent waiting
    problem = ours.recv()
    if problem:
        print(f"left out: {name} ({problem})")
        return None
    return ours, process


def load_or_say(pipe: Connection, load: Callable[[], T]) -> T | None:
    """Return what `load` returns and tell the parent so; where it raises, tell it why, and return None."""
    try:
        loaded = load()
    except Exception as error:  # noqa: BLE001  (libraries raise what they like, and the parent waits for a word)
        pipe.send(" ".join(str(error).split()) or repr(error))
        return None
    pipe.send("")
    return loaded


def import_quietly(name: str) -> Any:
    """Import OpenVINO or NNCF; without openvino_telemetry neither reports its use (`segport.openvino_engine`)."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # makes its import an ImportError
    return importlib.import_module(name)


def spread(numbers: Sequence[float], digits: int) -> str:
    """Return the median and, in brackets, the smallest and largest; nothing of no numbers."""
    if not numbers:
        return ""
    return f"{st.median(numbers):.{digits}f} ({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"
