"""The curves of a training as one picture."""

from pathlib import Path
from typing import Any

from segport.outputs import atomic_path


def draw_curves(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw loss, Dice and accuracy (with the nothing-baseline) over epochs from rows of metrics.csv, as PNG."""
    from matplotlib.figure import Figure  # here: it takes a second, and `--help` must not pay for it

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = {
        "loss": ("step_loss", "train_loss", "val_loss"),
        "Dice": ("train_dice_pooled", "train_dice_mean_per_patient", "val_dice_pooled", "val_dice_mean_per_patient"),
        "accuracy at probability 0.5": ("train_accuracy", "train_nothing", "val_accuracy", "val_nothing"),
    }
    epochs = [r["epoch"] for r in rows]
    for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in names:
            axes.plot(epochs, [r[name] for r in rows], label=name, linestyle="--" if "nothing" in name else "-")
        axes.set(title=title, xlabel="epoch")
        axes.legend(fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
