"""What an epoch gave: a row of metrics.csv and the line that the command prints."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from segport.errors import OutputError
from segport.outputs import write_csv
from segport_train.evaluation import Evaluation

UNMEASURED = ("", "nan")  # cells of metrics.csv; "nan" stands in files that were begun before 0.2


@dataclass(frozen=True)
class EpochReport:
    """One row of metrics.csv. Losses are means per slice in evaluation mode; scores at native size, probability 0.5.

    `step_loss`: mean over the augmented training batches. `*_nothing`: accuracy of predicting no tumour at all.
    Training figures are None in epochs that `evaluate_train_every` leaves out, validation ones without such a part.
    """

    epoch: int
    lr: float
    step_loss: float
    train_loss: float | None
    train_accuracy: float | None
    train_nothing: float | None
    train_dice_pooled: float | None
    train_dice_mean_per_patient: float | None
    val_loss: float | None
    val_accuracy: float | None
    val_nothing: float | None
    val_dice_pooled: float | None
    val_dice_mean_per_patient: float | None
    best: bool

    @property
    def line(self) -> str:
        """The figures that were measured as one line, each accuracy beside that of predicting nothing."""
        parts = [f"step loss {self.step_loss:.4f}"]
        for part in ("train", "val"):
            loss, accuracy, nothing, pooled, mean = (getattr(self, f"{part}_{name}") for name in MEASURED)
            if loss is not None:
                parts.append(
                    f"{part}: loss {loss:.4f} accuracy {accuracy:.4f} (nothing {nothing:.4f})"
                    f" Dice pooled {pooled:.4f} per patient {mean:.4f}"
                )
        return "  ".join(parts) + ("  best" if self.best else "")


MEASURED = ("loss", "accuracy", "nothing", "dice_pooled", "dice_mean_per_patient")


def report_epoch(
    epoch: int, lr: float, step_loss: float, results: Mapping[str, Evaluation], *, best: bool
) -> EpochReport:
    """Return the row of an epoch; `results`: the parts that were evaluated."""
    figures: dict[str, float | None] = {f"{part}_{name}": None for part in ("train", "val") for name in MEASURED}
    for part, one in results.items():
        s = one.scores
        measured = (one.loss, s.accuracy, s.nothing_accuracy, s.dice_pooled, s.dice_mean_per_patient)
        figures |= {f"{part}_{name}": value for name, value in zip(MEASURED, measured, strict=True)}
    return EpochReport(epoch=epoch, lr=lr, step_loss=step_loss, best=best, **figures)


def write_metrics(path: Path, rows: Sequence[EpochReport]) -> None:
    """Write metrics.csv; what was not measured is an empty cell."""
    write_csv(path, [f.name for f in fields(EpochReport)], [list(asdict(row).values()) for row in rows])


def read_metrics(path: Path, done: int) -> list[EpochReport]:
    """Return the rows up to the checkpoint's epoch; later ones belong to steps that were lost.

    `float` reads back what `str` wrote to the last digit, which pandas' reader does not promise in every version.
    Raises `OutputError` when the file is gone or is not what `write_metrics` wrote.
    """
    kinds: dict[str, Callable[[str], Any]] = {"epoch": int, "best": lambda text: text == "True"}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= done]
        if len(rows) != done:
            raise ValueError(f"{len(rows)} of {done} are there")
        return [EpochReport(**{name: kinds.get(name, _number)(text) for name, text in row.items()}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"--resume: {path} does not hold the epochs of this run ({error}); remedy: a copy of it, or another --out"
        ) from error


def _number(text: str) -> float | None:
    return None if text in UNMEASURED else float(text)
