"""What decides a training; defaults stand here and the command reads them. Light to import."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from segport.errors import UsageError
from segport.settings import DEVICES, Device

Architecture = Literal["deeplabv3", "deeplabv3plus"]
Split = Literal["patient", "site", "slice"]
Optimizer = Literal["adam", "adamw", "muon"]
Loss = Literal["bce", "bce-dice"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Problems = Literal["stop", "leave-out"]
BatchNorm = Literal["train", "frozen"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
SPLITS: tuple[Split, ...] = get_args(Split)
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
LOSSES: tuple[Loss, ...] = get_args(Loss)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PROBLEMS: tuple[Problems, ...] = get_args(Problems)
BATCH_NORMS: tuple[BatchNorm, ...] = get_args(BatchNorm)
OUTPUT_STRIDES = (8, 16)
# Settings that are one of these, by their names
CHOICES: dict[str, tuple[object, ...]] = {
    "architecture": ARCHITECTURES,
    "output_stride": OUTPUT_STRIDES,
    "split": SPLITS,
    "optimizer": OPTIMIZERS,
    "loss": LOSSES,
    "problems": PROBLEMS,
    "batch_norm": BATCH_NORMS,
    "device": DEVICES,
    "precision": PRECISIONS,
}
MOST_FLAIR_ONLY = 0.8  # pre alone and post alone are replaced in a tenth of the slices each
SITE_PATTERN = r"^[^_]+_([^_]+)_"  # TCGA_HT_0000_19990101 is of the site HT

# What may differ between a run and its --resume: these decide no number, or what they decide is compared itself
# (the slices' contents, their order and their parts).
FREE_ON_RESUME = frozenset(
    {"resume", "workers", "out", "data", "masks", "split_file", "sites", "cache", "save_every", "tensorboard"}
)
# What stays out of the contract, which travels with the model: paths, and patterns that may spell names.
PRIVATE = frozenset(
    {"data", "out", "masks", "split_file", "sites", "cache", "patient_pattern", "site_pattern", "init"}
    | {"resume", "workers", "save_every", "tensorboard"}
)

# What runs did before a setting was there to be recorded, where that is not today's default.
BEFORE: dict[str, Any] = {"flair_only": 0.1}


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training. Sizes in pixels, `validation` and `test` as shares of the patients.

    `batch_size`: slices of a step, over all processes. `batch_norm`: "frozen" keeps the statistics of `init`.
    `flair_only`: the chance that augmentation puts FLAIR into all channels of a slice.
    `save_every`: minutes between checkpoints within an epoch.
    `lr`: None takes 1e-4 for adam (constant, the published method), 1e-3 for adamw and 2e-3 for muon (both with 100
    steps of warm-up, then cosine to zero). `fold`: (k, n), the k-th of n groups of patients is the test part.
    `holdout`: the sites that are, with `split` "site"; the first group of `site_pattern` in a patient's name is the
    site, or the CSV `sites` names it. `cache`: the folder of prepared slices; None is "cache" in `out`. `init`: "none",
    "default" (the embedded model), "imagenet", or a file of weights. `average_init`: average the weights with those of
    `init` after the last epoch. Raises `UsageError`.
    """

    data: Path
    out: Path
    architecture: Architecture = "deeplabv3"
    size: int = 128
    output_stride: int = 8
    epochs: int = 16
    batch_size: int = 16
    lr: float | None = None
    weight_decay: float = 1e-4
    optimizer: Optimizer = "adam"
    loss: Loss = "bce"
    split: Split = "patient"
    validation: float = 0.125
    test: float = 0.125
    fold: tuple[int, int] | None = None
    holdout: tuple[str, ...] = ()
    site_pattern: str = SITE_PATTERN
    sites: Path | None = None
    split_file: Path | None = None
    tumour_only: bool = False
    augment: bool = True
    flair_only: float = 0.3  # at 0.1 FLAIR alone was 0.07 Dice behind (docs/experiments.md, run 11)
    masks: Path | None = None
    patient_pattern: str | None = None
    problems: Problems = "stop"
    seed: int = 0
    init: str = "none"
    batch_norm: BatchNorm = "train"
    average_init: bool = False
    device: Device = "auto"
    precision: Precision = "auto"
    workers: int = 1
    cache: Path | None = None
    evaluate_train_every: int = 1
    save_every: float = 10.0  # one takes about a second
    tensorboard: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (chosen := getattr(self, name)) not in choices:
                expected = " or ".join(map(str, choices))
                raise UsageError(f"--{name.replace('_', '-')} is {chosen}, expected {expected}")
        checks = [
            (
                self.size >= 32 and self.size % self.output_stride == 0,
                f"--size is {self.size}, expected a multiple of the output stride ({self.output_stride}) from 32",
            ),
            (0 <= self.seed < 2**63, f"--seed is {self.seed}, expected 0 or more, and less than 2^63"),
            (
                0 <= self.flair_only <= MOST_FLAIR_ONLY,
                f"--flair-only is {self.flair_only}, expected a chance from 0 to {MOST_FLAIR_ONLY}",
            ),
            (self.epochs >= 1, f"--epochs is {self.epochs}, expected 1 or more"),
            (self.batch_size >= 2, f"--batch-size is {self.batch_size}, expected 2 or more (batch normalisation)"),
            (self.lr is None or self.lr > 0, f"--lr is {self.lr}, expected a positive number"),
            (self.weight_decay >= 0, f"--weight-decay is {self.weight_decay}, expected 0 or more"),
            (0 <= self.validation < 1, f"--val is {self.validation}, expected a share of at least 0 and below 1"),
            (0 <= self.test < 1, f"--test is {self.test}, expected a share of at least 0 and below 1"),
            (
                self.fold is not None or self.split == "site" or self.validation + self.test < 1,
                "--val and --test together leave nothing to train on",
            ),
            (
                self.fold is None or 1 <= self.fold[0] <= self.fold[1] >= 2,
                f"--fold is {self.fold}, expected K/N with K from 1 to N",
            ),
            (
                self.fold is None or self.split == "patient",
                "--fold goes with --split patient alone",
            ),
            (self.fold is None or self.split_file is None, "--fold and --split-file decide the same; give one"),
            (
                self.split != "site" or self.split_file is None,
                "--split site and --split-file decide the same; give one",
            ),
            ((self.split == "site") == bool(self.holdout), "--split site and --holdout SITE go together"),
            (_has_group(self.site_pattern), f"--site-pattern {self.site_pattern}: expected a pattern with a group"),
            (self.workers >= 0, f"--workers is {self.workers}, expected 0 or more"),
            (self.evaluate_train_every >= 1, "--evaluate-train-every expects 1 or more"),
            (self.save_every >= 0, f"--save-every is {self.save_every}, expected 0 or more minutes"),
            (
                self.batch_norm == "train" or self.init != "none",
                "--batch-norm frozen keeps the statistics of a trained network: it needs --init",
            ),
            (not self.average_init or self.init != "none", "--average-init averages with --init: it needs that"),
        ]
        for fine, problem in checks:
            if not fine:
                raise UsageError(problem)

    @property
    def start_lr(self) -> float:
        """The learning rate at its highest."""
        return self.lr if self.lr is not None else {"adam": 1e-4, "adamw": 1e-3, "muon": 2e-3}[self.optimizer]


def recorded_setting(settings: Mapping[str, Any], name: str) -> Any:
    """Return a setting of a run's settings.json; one that it does not name is younger than the run (see `BEFORE`)."""
    return settings.get(name, BEFORE.get(name, getattr(TrainSettings, name, None)))


def _has_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups > 0
    except re.error:
        return False
