"""Compare whole folders: slices from the disk in, masks on the disk out.

    python benchmarks/folder.py --slices FOLDER [--stock int8-stock.onnx] [--checkpoint RUN/best.safetensors]

Sides: the bare session (prepared batches in memory, no files: what no runtime can beat), seg-infer, and what people
write by hand: plain loops over ONNX Runtime and OpenVINO with OpenCV in and out, and eager PyTorch fed by a DataLoader.
Every side has a process of its own with its model loaded; they take turns, round by round, each writing into a fresh
folder. Ratios are those of one round, and their median. `--stock` is the model OpenVINO gets (an int8 export with
--no-rewrite, which it computes fastest; the embedded one by default); sides that cannot load, where a file or a library
is missing, say, are left out with a line that says why. The first `--count` slices of FOLDER, which
must be 8-bit RGB, are taken (as links).
"""

import argparse
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from common import load_or_say, spread, start_side
from folder_sides import SIDES, Case
from machine import machine

from segport.segmenter import default_model
from segport.session import usable_cores
from segport.settings import RunSettings
from segport.sources import SliceTree

BARE, OURS = "bare session", "seg-infer"


def main() -> int:
    """Run the rounds and print the table; return the exit code."""
    args = _arguments()
    print(machine())
    print(f"{args.count} slices, {args.threads} threads, batches of {args.batch}, {args.rounds} rounds\n")
    with tempfile.TemporaryDirectory(prefix="segport-benchmark-") as temporary:
        slices = link_slices(args.slices, Path(temporary, "slices"), args.count)
        case = Case(slices, Path(temporary), args.model, args.stock, args.checkpoint, args.batch, args.threads)
        pipes: dict[str, Connection] = {}
        try:
            for name in SIDES:
                # no daemon: PyTorch's loader has a process of its own
                if name not in args.leave_out and (started := start_side(name, _serve, name, case, daemon=False)):
                    pipes[name] = started[0]
            seconds: dict[str, list[float]] = {name: [] for name in pipes}
            for number in range(args.rounds):
                for name, pipe in pipes.items():
                    print(f"round {number + 1} of {args.rounds}: {name}", file=sys.stderr)
                    pipe.send(number)
                    answer = pipe.recv()
                    if isinstance(answer, str):
                        sys.exit(f"{name}: {answer}")
                    seconds[name].append(answer)
        finally:  # a side waits for its next round until its pipe is closed
            for pipe in pipes.values():
                pipe.close()
    print_table(seconds, args.count)
    return 0


def link_slices(source: Path, target: Path, count: int) -> Path:
    """Make a tree of links to `count` slices of `source`; after the last come all of them again, in new folders."""
    tree = SliceTree(source)
    found = [item for folder in tree.folders() for item in tree.slices(folder, paired=False)]
    if not found:
        sys.exit(f"{source}: holds no slice")
    for number in range(count):
        item, again = found[number % len(found)], number // len(found)
        link = target / f"copy_{again}" / item.relative
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(item.path.resolve())
    return target


def print_table(seconds: dict[str, list[float]], count: int) -> None:
    """Print a row a side: medians and, in brackets, the smallest and largest round."""
    print(f"| side | slices a second | ms a slice | of the {BARE}'s rate |\n|---|---|---|---|")
    for name, times in seconds.items():
        rate = [b / t for b, t in zip(seconds[BARE], times, strict=True)] if BARE in seconds else []
        columns = (spread([count / t for t in times], 1), spread([1000 * t / count for t in times], 2), spread(rate, 3))
        print(f"| {name} | {' | '.join(columns)} |")
    print()
    for name, times in seconds.items():
        if OURS in seconds and name != OURS:
            ratio = [t / o for t, o in zip(times, seconds[OURS], strict=True)]
            print(f"{name} takes {spread(ratio, 2)} times as long as {OURS}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=Path, required=True, help="folder of 8-bit slices")
    parser.add_argument("--count", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--model", type=Path, default=default_model(), help="(the embedded one)")
    parser.add_argument("--stock", type=Path, default=default_model(), help="the model OpenVINO gets")
    parser.add_argument("--checkpoint", type=Path, help="of seg-train, for eager PyTorch")
    parser.add_argument(
        "--batch", type=int, default=RunSettings.batch_size, help="slices a call, where batches are taken (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=usable_cores(), help="(usable cores: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="SIDE", help="sides not to run")
    return parser.parse_args()


def _serve(pipe: Connection, name: str, case: Case) -> None:
    """Load the model, then answer each round's number with the seconds that the folder took."""
    from segport.errors import SegportError

    work = load_or_say(pipe, lambda: SIDES[name](case))
    if work is None:
        return
    try:
        while True:
            pipe.send(work(case.folder / f"{name} {pipe.recv()}".replace("/", " ")))
    except EOFError:  # closed: no further round
        return
    except (OSError, RuntimeError, SegportError) as error:
        pipe.send(str(error))


if __name__ == "__main__":
    sys.exit(main())
