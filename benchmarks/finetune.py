"""Fine-tune a model on a few patients, and train as long from scratch: what a start buys on other patients.

    python benchmarks/finetune.py DATA --model MODEL.onnx --split RUN/split.csv --out DIR [--no-scratch]

`RUN` is the run that MODEL was exported from. Of its patients in the part "test", which it was never trained on, each
draw takes some to train on; all others are scored by the model as it is, by the fine-tuned one and by the one from
scratch, unless `--no-scratch` leaves that out. Runs that are finished in `DIR` are taken as they are, so an interrupted
call goes on.
"""

import argparse
import csv
import json
import shlex
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np

from segport.modelfile import file_sha256, read_contract
from segport.outputs import write_csv, write_json
from segport.scoring import bootstrap_interval
from segport_train.results import read_part

AS_IS, TUNED, SCRATCH = "as it is", "fine-tuned", "from scratch"
BINARIES = Path(sys.executable).parent

Dice = dict[str, float]
"""Of patients, by their names."""


def main() -> int:
    """Train what is missing, print the table; return the exit code."""
    args = _arguments()
    with args.split.open(newline="", encoding="utf-8") as file:
        apart = sorted(row["patient"] for row in csv.DictReader(file) if row["part"] == "test")
    _refuse_others(args)
    data = args.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    for patient in apart:
        if not (data / patient).exists():
            (data / patient).symlink_to((args.data / patient).resolve())
    scores = [_draw(number, apart, data, args) for number in range(1, args.draws + 1)]
    ways = [*scores[0]]
    print(f"| {' | '.join([f'draw of {args.patients} patients', *ways, *(f'{TUNED} - {o}' for o in _others(ways))])} |")
    print("|---" * 2 * len(ways) + "|")
    for number, draw in enumerate(scores, 1):
        print(_row(str(number), draw))
    print(_row("all, each patient's mean", {way: _means([draw[way] for draw in scores]) for way in ways}))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of patients")
    parser.add_argument("--model", type=Path, required=True, help="an .onnx of seg-export")
    parser.add_argument("--split", type=Path, required=True, help="split.csv of the run it comes from")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--draws", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--patients", type=int, default=5, help="to train on in each (%(default)s)")
    parser.add_argument(
        "--options", default="--optimizer muon --loss bce-dice --epochs 20", help="of both (%(default)s)"
    )
    parser.add_argument("--fine", default="--lr 3e-4", help="of fine-tuning (%(default)s)")
    parser.add_argument("--scratch", default="", help="of training from scratch")
    parser.add_argument("--no-scratch", action="store_true", help="do not train from scratch")
    return parser.parse_args()


def _refuse_others(args: argparse.Namespace) -> None:
    """End where DIR holds runs of other arguments; more draws of the same are welcome, and more ways."""
    known = args.out / "arguments.json"
    given = {n: str(v) for n, v in vars(args).items() if n not in ("out", "draws", "no_scratch")} | {
        "sha256": file_sha256(args.model)
    }
    if known.exists() and (before := json.loads(known.read_bytes())) != given:
        sys.exit(f"{args.out}: holds runs of other arguments ({before}); remedy: another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(known, given)


def _draw(number: int, apart: list[str], data: Path, args: argparse.Namespace) -> dict[str, Dice]:
    """Return the Dice of each patient that was not drawn, by the ways that are compared."""
    taught = set(np.random.default_rng(number).choice(apart, args.patients, replace=False))
    split = args.out / f"draw{number}.csv"
    write_csv(split, ["patient", "part"], [(p, "train" if p in taught else "test") for p in apart])
    origin, size = read_contract(args.model).origin, read_contract(args.model).input.size
    form = ["--architecture", origin.architecture.removesuffix("_resnet50"), "--size", str(size)]
    form += [
        "--output-stride",
        str(origin.output_stride),
        "--split-file",
        str(split),
        "--cache",
        str(args.out / "cache"),
    ]
    own = {TUNED: f"--init {shlex.quote(str(args.model))} {args.fine}"}
    own |= {} if args.no_scratch else {SCRATCH: args.scratch}
    dice = {AS_IS: _score(args.model, data, args.out / "as-it-is", taught)}
    for way, options in own.items():
        run = args.out / f"draw{number}-{way.replace(' ', '-')}"
        if not (run / "report.md").exists():
            resume = ["--resume"] if (run / "last.safetensors").exists() else []
            common = ["--seed", str(number), "--evaluate-train-every", "1000", *shlex.split(args.options)]
            _call("seg-train", str(data), "--out", str(run), *form, *common, *shlex.split(options), *resume)
        dice[way] = {patient: counts.dice for patient, counts in read_part(run, "test").patients.items()}
    return dice


def _score(model: Path, data: Path, out: Path, taught: set[str]) -> Dice:
    _call("seg-infer", str(data), "--model", str(model), "--out", str(out), "--score", "--quiet")  # goes on by itself
    with (out / "patients.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["patient"] not in taught]
    return {row["patient"]: float(row["dice_1_if_both_empty"]) for row in rows}


def _means(draws: list[Dice]) -> Dice:
    """Return each patient's mean: one that several draws scored is one patient."""
    patients = {patient for draw in draws for patient in draw}
    return {p: float(np.mean([draw[p] for draw in draws if p in draw])) for p in sorted(patients)}


def _call(command: str, *arguments: str) -> None:
    subprocess.run([str(BINARIES / command), *arguments], check=True, stdout=sys.stderr)


def _row(name: str, ways: dict[str, Dice]) -> str:
    means = [_mean([*dice.values()]) for dice in ways.values()]
    differences = [_mean([dice - ways[o][p] for p, dice in ways[TUNED].items()]) for o in _others(ways)]
    return f"| {' | '.join([name, *means, *differences])} |"


def _others(ways: Collection[str]) -> list[str]:
    """Return what the fine-tuned model is compared with."""
    return [way for way in (SCRATCH, AS_IS) if way in ways]


def _mean(values: list[float]) -> str:
    low, high = bootstrap_interval(values)
    return f"{np.mean(values):.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
