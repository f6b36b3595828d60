"""Measure start-up and memory of seg-infer as a user meets them: `--help`, the first mask, peak memory by folder size.

    python benchmarks/memory.py --slices FOLDER [--counts 1000 20000] [--model MODEL]

Every figure is of a process of its own. The slices are links to those of FOLDER. Linux and macOS.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import spread
from folder import link_slices
from machine import machine

from segport.segmenter import default_model

COMMAND = [sys.executable, "-c", "import sys; from segport.cli import main; sys.exit(main())"]


def main() -> int:
    """Print the figures; return the exit code."""
    args = _arguments()
    print(machine())
    helps = [_seconds([*COMMAND, "--help"]) for _ in range(args.rounds)]
    print(f"seg-infer --help: {spread(helps, 3)} s")
    peaks = []
    with tempfile.TemporaryDirectory(prefix="segport-benchmark-") as temporary:
        for count in args.counts:
            slices = link_slices(args.slices, Path(temporary, f"slices_{count}"), count)
            if not peaks:
                firsts = [_first_mask(slices, Path(temporary, f"first_{i}"), args) for i in range(args.rounds)]
                print(f"first mask of {count} slices after {spread(firsts, 2)} s")
            start = time.perf_counter()
            peaks.append(_peak(slices, Path(temporary, f"out_{count}"), args))
            seconds = time.perf_counter() - start
            print(
                f"{count} slices: {seconds:.0f} s, peak memory {peaks[-1] / 1e6:.1f} MB,"
                f" {peaks[-1] / peaks[0]:.4f} of the first"
            )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=Path, required=True, help="folder of slices")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1000, 20000], help="slices of the folders (%(default)s)"
    )
    parser.add_argument("--model", type=Path, default=default_model(), help="(the embedded one)")
    parser.add_argument("--rounds", type=int, default=5, help="of the times (%(default)s)")
    parser.add_argument("options", nargs="*", help="further options of seg-infer, after --")
    return parser.parse_args()


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def _infer(slices: Path, out: Path, args: argparse.Namespace) -> list[str]:
    return [*COMMAND, str(slices), "--out", str(out), "--model", str(args.model), "--quiet", *args.options]


def _first_mask(slices: Path, out: Path, args: argparse.Namespace) -> float:
    """Return the seconds from the command to the first file that has a mask's name."""
    start = time.perf_counter()
    with subprocess.Popen(_infer(slices, out, args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(out.rglob("*_mask.png")):
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def _peak(slices: Path, out: Path, args: argparse.Namespace) -> int:
    """Return the peak resident memory of a run in bytes."""
    with subprocess.Popen(_infer(slices, out, args), stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"seg-infer ended with {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
