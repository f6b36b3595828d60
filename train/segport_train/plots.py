"""The pictures of a training: curves, calibration, worst slices."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segport.outputs import atomic_path
from segport_train.calibration import NEAR, Calibration


def draw_curves(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw loss, Dice and accuracy (with the nothing-baseline) over epochs from rows of metrics.csv, as PNG.

    Epochs in which a figure was not measured have no point; lines join the others.
    """
    figure = _figure(12, 3.6)
    panels = {
        "loss": ("step_loss", "train_loss", "val_loss"),
        "Dice": ("train_dice_pooled", "train_dice_mean_per_patient", "val_dice_pooled", "val_dice_mean_per_patient"),
        "accuracy at probability 0.5": ("train_accuracy", "train_nothing", "val_accuracy", "val_nothing"),
    }
    for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in names:
            measured = [(r["epoch"], r[name]) for r in rows if r[name] is not None]
            if measured:
                epochs, values = zip(*measured, strict=True)
                axes.plot(epochs, values, label=name, linestyle="--" if "nothing" in name else "-", marker=".")
        axes.set(title=title, xlabel="epoch", xlim=(rows[0]["epoch"] - 0.5, rows[-1]["epoch"] + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.lines:
            axes.legend(fontsize="small")
    _save(figure, path)


def draw_calibration(path: Path, parts: Mapping[str, Calibration]) -> None:
    """Draw the reliability curve of each part, and below it how many pixels each bin holds, as PNG."""
    figure = _figure(6, 6.4)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot((0, 1), (0, 1), color="0.7", linestyle="--", label="perfectly calibrated")
    for part, one in parts.items():
        bins, errors = one.curve(), (one.error(), one.error(NEAR))
        probabilities = [b.probability for b in bins]
        whole, near = ("-" if e is None else f"{e:.4f}" for e in errors)
        label = f"{part}: ECE {whole}, {near} from probability {NEAR}"
        curve.plot(probabilities, [b.tumour for b in bins], marker="o", clip_on=False, label=label)
        counts.plot(probabilities, [b.pixels for b in bins], marker="o", clip_on=False)
    curve.set(ylabel="share of the pixels that is tumour", xlim=(0, 1), ylim=(0, 1), title="Calibration, all pixels")
    curve.legend(fontsize="small", loc="upper left")
    counts.set(xlabel="mean probability of the pixels in a bin", ylabel="pixels", yscale="log")
    _save(figure, path)


def draw_worst(path: Path, titles: Sequence[str], pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Draw up to ten pictures, uint8 RGB [H, W, 3], with the lines of their titles below, in rows of five, as PNG."""
    columns = min(len(pictures), 5)
    rows = -(-len(pictures) // columns)
    figure = _figure(3.1 * columns, 3.7 * rows + 0.4)
    figure.suptitle("outlines on FLAIR: truth in green, mask in red", fontsize="medium")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(pictures) :]:
        axes.axis("off")
    for axes, title, picture in zip(grid, titles, pictures, strict=False):  # a last row may have free places
        axes.imshow(picture)
        axes.set(xticks=(), yticks=(), frame_on=False)
        axes.set_xlabel(title, fontsize=8, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a script the font has not; the report has the names
        _save(figure, path, dpi=160)  # near the pictures' own 512 pixels


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # here: it takes a second, and `--help` must not pay for it

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path, *, dpi: int = 110) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
