"""Compare what computes the network, on prepared batches: no files, no resizing, no masks.

    python benchmarks/compute.py --checkpoint RUN/best.safetensors --slices FOLDER [--models DIR]

Every side has a process of its own; they take turns, one side computing while the others wait, round by round, because
a machine drifts: ratios are those of one round, and their median. Files that are missing in `--models` (fp32.onnx,
int8-stock.onnx, int8.onnx) are exported first, with the gate, which takes minutes; the first two with --no-rewrite.
OpenVINO and NNCF are optional (`pip install openvino nncf`; NNCF is no dependency of segport): sides whose library is
missing are left out with a line that says so. `FOLDER` holds 8-bit slices. Linux and macOS.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from common import PROCESSES, spread
from machine import machine
from rounds import Row, add_timing, start, take_turns
from sides import FP32, NNCF, PAIRS, REWRITTEN, SIDES, STOCK, make_model, prepared_slices

from segport.modelfile import read_contract


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
        rows = [r for s in SIDES if (r := start(s, s.path(models, args.checkpoint), args.threads, batch))]
        take_turns(rows, args.rounds, args.warm_up, args.calls)
    _print_table(rows)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of seg-train, in its run folder")
    parser.add_argument("--slices", type=Path, required=True, help="folder of 8-bit slices")
    parser.add_argument("--models", type=Path, help="folder of model files, kept; a temporary one by default")
    add_timing(parser)
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


def _print_table(rows: Sequence[Row]) -> None:
    """Print medians and, in brackets, the smallest and largest round."""
    print(f"| side | ms a slice | of {rows[0].side.name} | peak memory | file |\n|---|---|---|---|---|")
    for row in rows:
        ratio = spread(_ratios(row, rows[0]), 3)
        print(
            f"| {row.side.name} | {spread(row.times, 2)} | {ratio}"
            f" | {row.memory / 1e6:.0f} MB | {row.size / 1e6:.1f} MB |"
        )
    print()
    named = {row.side.name: row for row in rows}
    for over, under in PAIRS:
        if over in named and under in named:
            print(f"{over} / {under}: {spread(_ratios(named[over], named[under]), 3)}")


def _ratios(row: Row, base: Row) -> list[float]:
    return [a / b for a, b in zip(row.times, base.times, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
