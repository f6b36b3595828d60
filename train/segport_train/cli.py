"""The command seg-train."""

import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segport import __version__
from segport.command import run_command
from segport.errors import UsageError
from segport.settings import DEVICES
from segport_train.settings import (
    ARCHITECTURES,
    BATCH_NORMS,
    LOSSES,
    OPTIMIZERS,
    PRECISIONS,
    PROBLEMS,
    SPLITS,
    TrainSettings,
)

if TYPE_CHECKING:
    from segport_train.start import Prepared

MISSING = "seg-train needs the train extra ({name} is missing); remedy: pip install 'segport[train]'"
INIT = "none, default (the embedded model), imagenet (downloads), or a file of weights: checkpoint, .onnx, .pth."
FOLDER = click.Path(path_type=Path, file_okay=False)


class Fold(click.ParamType):  # type: ignore[type-arg]  # generic in newer stubs alone
    """K/N as a pair of numbers."""

    name = "fold"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return (K, N)."""
        if isinstance(value, tuple):
            return value
        number, _, folds = str(value).partition("/")
        if not (number.isdecimal() and folds.isdecimal()):
            self.fail(f"{value}: expected K/N, as in 1/5", param, ctx)
        return int(number), int(folds)


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.argument("data", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Run folder: checkpoints, metrics.csv, split.csv, report.md.")
@click.option(
    "--architecture",
    type=click.Choice(ARCHITECTURES),
    show_default="deeplabv3, or as that model",
    help="deeplabv3plus has a decoder: finer masks.",
)
@click.option("--size", type=int, show_default="128, or as the model that --init names", help="Pixels a side.")
@click.option("--output-stride", type=click.Choice(["8", "16"]), show_default="8, or as that model")
@click.option("--epochs", default=TrainSettings.epochs)
@click.option("--batch-size", default=TrainSettings.batch_size, help="Slices of a step, over all processes.")
@click.option("--lr", type=float, default=None, show_default="1e-4 for adam, 1e-3 for adamw, 2e-3 for muon")
@click.option("--weight-decay", default=TrainSettings.weight_decay, help="Used by adamw and muon.")
@click.option(
    "--optimizer",
    type=click.Choice(OPTIMIZERS),
    default=TrainSettings.optimizer,
    help="adam: constant rate. adamw, muon: 100 steps of warm-up, then cosine to zero. muon learns in fewer epochs.",
)
@click.option("--loss", type=click.Choice(LOSSES), default=TrainSettings.loss)
@click.option("--split", type=click.Choice(SPLITS), default=TrainSettings.split, help="slice leaks: see the README.")
@click.option("--val", "validation", default=TrainSettings.validation, help="Share of the patients.")
@click.option("--test", default=TrainSettings.test, help="Share of the patients; ignored with --fold or --holdout.")
@click.option("--fold", type=Fold(), metavar="K/N", help="The K-th of N groups of patients is the test part.")
@click.option("--holdout", multiple=True, metavar="SITE", help="With --split site: a site that is the test part.")
@click.option(
    "--site-pattern", default=TrainSettings.site_pattern, help="Its first group in a patient's name: the site."
)
@click.option(
    "--sites", type=click.Path(path_type=Path), help="CSV with columns patient,site; goes before the pattern."
)
@click.option("--split-file", type=click.Path(path_type=Path), help="CSV with columns patient,part (train, val, test).")
@click.option("--tumour-only", is_flag=True, help="Train and score on slices with tumour alone.")
@click.option("--augment/--no-augment", default=TrainSettings.augment)
@click.option(
    "--flair-only",
    default=TrainSettings.flair_only,
    help="Chance that --augment puts FLAIR into all channels of a slice.",
)
@click.option("--masks", type=FOLDER, help="Folder that mirrors DATA and holds the masks.")
@click.option("--patient-pattern", help="Regular expression whose first group in the path names the patient.")
@click.option("--problems", type=click.Choice(PROBLEMS), default=TrainSettings.problems, help="What unusable files do.")
@click.option("--seed", default=TrainSettings.seed)
@click.option("--init", default=TrainSettings.init, help=INIT)
@click.option(
    "--batch-norm",
    type=click.Choice(BATCH_NORMS),
    default=TrainSettings.batch_norm,
    help="frozen keeps the statistics of --init: for few slices.",
)
@click.option("--average-init", is_flag=True, help="At the end, average the weights with those of --init.")
@click.option("--device", type=click.Choice(DEVICES), default=TrainSettings.device)
@click.option("--precision", type=click.Choice(PRECISIONS), default=TrainSettings.precision)
@click.option("--workers", default=TrainSettings.workers, help="Threads that prepare batches; they change no number.")
@click.option("--cache", type=FOLDER, show_default="OUT/cache", help="Folder of prepared slices; runs may share one.")
@click.option("--evaluate-train-every", default=TrainSettings.evaluate_train_every, help="Epochs; the last is always.")
@click.option("--save-every", default=TrainSettings.save_every, help="Minutes between checkpoints in an epoch.")
@click.option("--tensorboard", is_flag=True, help="Also write metrics.csv's figures as event files, to events/.")
@click.option("--resume", is_flag=True, help="Go on after the last checkpoint in --out, exactly.")
@click.version_option(__version__, prog_name="seg-train")
def command(**options: Any) -> int:
    """Train a DeepLabV3-ResNet50 on DATA: patient/slice.tif with patient/slice_mask.tif beside it."""
    if options["output_stride"] is not None:
        options["output_stride"] = int(options["output_stride"])
    try:
        from segport_train.failures import describe_last
        from segport_train.init import follow_model
        from segport_train.loop import train
        from segport_train.start import open_run
    except ModuleNotFoundError as error:
        raise UsageError(MISSING.format(name=error.name)) from error

    settings = TrainSettings(**follow_model(options))
    try:
        with open_run(settings) as prepared:
            if not prepared.processes.first:
                deque(train(settings, prepared), 0)  # the first process speaks for all
                return 0
            _describe(settings, prepared)
            started = time.monotonic()
            for report in train(settings, prepared):
                _say(f"epoch {report.epoch}/{settings.epochs}  {report.line}  {time.monotonic() - started:.0f} s")
    except KeyboardInterrupt:
        _say(f"interrupted; {describe_last(settings)}")
        return 130
    click.echo((settings.out / "report.md").read_text(encoding="utf-8"))
    _say(f"next: seg-export {settings.out / 'best.safetensors'} --out model.onnx")
    return 0


def _describe(settings: TrainSettings, prepared: "Prepared") -> None:
    if settings.split == "slice" and settings.split_file is None:
        _say("warning: neighbouring slices are cuts of the same brain; a slice split leaks and flatters every score")
    for note in prepared.notes:
        _say(f"note: {note}")
    for problem in prepared.problems:
        _say(f"left out: {problem.path}: {problem.reason}")
    counts = prepared.table.groupby("part").agg(patients=("patient", "nunique"), slices=("path", "size"))
    described = ", ".join(f"{part} {row.patients} patients {row.slices} slices" for part, row in counts.iterrows())
    _say(f"{described}; {prepared.hardware.device}, {prepared.hardware.precision}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 2 usage or data, 3 cannot go on, 130 interrupted."""
    return run_command(command, arguments, name="seg-train", interrupted="interrupted")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
