"""Reads broken pictures, one for each line on stdin ("format seed"), and answers each with one line of JSON.

Run as `python -m fuzz.child MODULE:READER FOLDER`.
"""

import ctypes
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzz.mutate import make
from fuzz.sizes import claimed_size
from segport.contract import Input, ModelContract
from segport.errors import SliceError
from segport.preprocess import prepare, restore, to_mask

try:
    import resource
except ImportError:  # Windows: memory is not bounded there
    resource = None

Reader = Callable[[Path], np.ndarray]
CONTRACT = ModelContract(Input(64))
MAX_MEMORY = 1_500_000_000  # bytes the child may ever hold
PERTURB = -6  # glibc's mallopt: what fresh memory is filled with


def judge(reader: Reader, data: bytes, path: Path) -> tuple[str, str]:
    """Return ("read", shape), ("refused", message) or ("failed", why) for one file."""
    try:
        pixels = reader(path)
        again = _read_in_other_memory(reader, path)
        if again is not None and (again.shape != pixels.shape or again.tobytes() != pixels.tobytes()):
            return "failed", "two readings differ: pixels come from memory that was never written"
        prepared = prepare(pixels, CONTRACT, None if pixels.dtype == np.uint8 else ((0.0, 1000.0),))
    except SliceError as error:
        if not str(error).isprintable() or not str(error).strip():
            return "failed", f"the message is not one line of text: {str(error)!r}"
        return "refused", str(error)
    mask = to_mask(restore(np.zeros((64, 64), np.float32), pixels.shape[:2]), 0.5)
    claims = {
        "size": (pixels.shape[:2], claimed_size(data)),
        "prepared slice": ((prepared.dtype, prepared.shape), (np.uint8, (64, 64, 3))),
        "mask": (mask.shape, pixels.shape[:2]),
    }
    wrong = [
        f"{what} is {found}, expected {expected}" for what, (found, expected) in claims.items() if found != expected
    ]
    return ("failed", "; ".join(wrong)) if wrong else ("read", f"{pixels.dtype} {pixels.shape}")


def _read_in_other_memory(reader: Reader, path: Path) -> np.ndarray | None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return None
    mallopt(PERTURB, 0x55)
    try:
        return reader(path)
    finally:
        mallopt(PERTURB, 0xAA)


def peak_memory() -> int:
    """Return the peak of this process in bytes. Linux's ru_maxrss begins at that of the parent, which may be large."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    module, name = sys.argv[1].split(":")
    reader: Reader = getattr(importlib.import_module(module), name)
    folder = Path(sys.argv[2])
    warnings.simplefilter("error")
    if sys.platform == "linux":  # a belt for the machine: the verdict is MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))
    for line in sys.stdin:
        case, seed = line.split()
        data = make(case, int(seed))
        path = folder / f"{case}.{case.split('-')[0]}"
        path.write_bytes(data)
        try:
            verdict, why = judge(reader, data, path)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
            verdict, why = "failed", f"{type(error).__name__}: {error}"
        if peak_memory() > MAX_MEMORY:
            verdict, why = "failed", f"took {peak_memory():,} bytes of memory"
        print(json.dumps([verdict, why]), flush=True)
        if peak_memory() > MAX_MEMORY:
            break


if __name__ == "__main__":
    main()
