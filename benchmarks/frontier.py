"""Draw Dice against milliseconds a slice for several model files: what a size, a stride and a precision buy.

    python benchmarks/frontier.py --slices FOLDER --out frontier.png MODEL.onnx [MODEL.onnx ...]

`FOLDER` holds slices with masks of patients that none of the models was trained on. Milliseconds: computing alone, as
in `compute.py`, the files taking turns. Dice: `seg-infer --score` over the folder. Prints a table, writes the picture.
"""

import argparse
import json
import statistics as st
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from common import spread
from machine import machine
from rounds import Row, add_timing, start, take_turns
from sides import Side, prepared_slices, segport_engine

from segport.modelfile import read_contract

STYLES = {"int8": ("tab:blue", "o", True), "fp16": ("tab:green", "^", False), "fp32": ("tab:orange", "s", False)}
LEAST_SPAN = 0.04  # of Dice: differences that are noise shall not fill the picture

Scored = tuple[Row, dict[str, float]]


def main() -> int:
    """Measure, print the table, draw the picture; return the exit code."""
    args = _arguments()
    scores = [_score(model, args.slices) for model in args.models]
    print(machine())
    print(f"{args.threads} threads, batch {args.batch}, {args.rounds} rounds of {args.calls} timed calls\n")
    rows = []
    for model in args.models:
        side = Side(_name(model), model.name, partial(segport_engine, engine="onnxruntime"))
        batch = prepared_slices(args.slices, read_contract(model), args.batch)
        if (row := start(side, model, args.threads, batch)) is None:
            return 1
        rows.append(row)
    take_turns(rows, args.rounds, args.warm_up, args.calls)
    measured = list(zip(rows, scores, strict=True))
    _print_table(measured)
    _draw(measured, args.out)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help=".onnx files of seg-export")
    parser.add_argument("--slices", type=Path, required=True, help="folder of 8-bit slices with masks")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    add_timing(parser)
    return parser.parse_args()


def _name(model: Path) -> str:
    contract = read_contract(model)
    decoder = " decoder" if "plus" in contract.origin.architecture else ""
    precision = contract.export.precision if contract.export else "?"
    return f"{contract.input.size} px stride {contract.origin.output_stride}{decoder} {precision}"


def _score(model: Path, slices: Path) -> dict[str, float]:
    with TemporaryDirectory(prefix="segport-frontier-") as out:
        command = [str(Path(sys.executable).parent / "seg-infer"), str(slices), "--model", str(model), "--out", out]
        done = subprocess.run([*command, "--score", "--json", "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{model}: {done.stderr}")
    return dict(json.loads(done.stdout)["scores"])


def _print_table(measured: list[Scored]) -> None:
    print("| model | ms a slice | Dice mean per patient | median | pooled | file |\n|---|---|---|---|---|---|")
    for row, scores in measured:
        figures = [scores[f"dice_{name}"] for name in ("mean_per_patient", "median_per_patient", "pooled")]
        cells = " | ".join(f"{figure:.3f}" for figure in figures)
        print(f"| {row.side.name} | {spread(row.times, 1)} | {cells} | {row.size / 1e6:.1f} MB |")


def _draw(measured: list[Scored], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for row, scores in measured:
        name, _, precision = row.side.name.rpartition(" ")
        place = st.median(row.times), scores["dice_mean_per_patient"]
        colour, marker, above = STYLES[precision]
        axes.plot(*place, marker, color=colour, label=precision)
        axes.annotate(name, place, (0, 8 if above else -14), textcoords="offset points", fontsize=8, ha="center")
    axes.set(xscale="log", xlabel="milliseconds a slice", ylabel="Dice, mean per patient")
    known = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(known.values(), known.keys(), loc="lower right")
    axes.margins(x=0.15, y=0.15)
    low, high = axes.get_ylim()
    middle = (low + high) / 2
    axes.set_ylim(min(low, middle - LEAST_SPAN / 2), max(high, middle + LEAST_SPAN / 2))
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
