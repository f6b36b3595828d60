"""What a checkpoint says of itself: the contract before training, the settings file, versions."""

import hashlib
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from segport import __version__
from segport.contract import Input, ModelContract, Origin, TrainingRange
from segport.preprocess import to_display
from segport.reading import read_slice
from segport.sources import same_patient
from segport.windows import PatientWindows
from segport_train.dataset import table_slices
from segport_train.hardware import Hardware
from segport_train.init import Init
from segport_train.settings import TrainSettings


def versions() -> dict[str, str]:
    """Return the versions of what computes numbers."""
    named = {n: version(n) for n in ("torch", "torchvision", "numpy")}
    return {"segport": __version__, "python": platform.python_version(), **named}


def first_contract(settings: TrainSettings, ranges: TrainingRange, init: Init) -> ModelContract:
    """Return the contract of a run before its first step; grey levels are the training patients' medians.

    Normalisation is that of the weights it starts from.
    """
    low, _, high, _ = np.mean(ranges.intensity, axis=0)
    levels = (round(float(low)), max(round(float(high)), round(float(low)) + 1))
    return ModelContract(
        input=init.adapt(Input(settings.size, levels=(float(levels[0]), float(levels[1])))),
        training_range=ranges,
        origin=Origin(output_stride=settings.output_stride),
    )


def training_range(table: pd.DataFrame, settings: TrainSettings) -> TrainingRange:
    """Return sizes, channel counts and grey levels of the training slices.

    Levels: per channel the median over patients of percentiles 1, 50, 99 and 100 of every fourth pixel.
    """
    default = ModelContract(input=Input(settings.size))
    levels = []
    for _, rows in table.groupby("patient"):
        slices = table_slices(rows)
        windows = PatientWindows(same_patient(slices), default)
        shown = []
        for item in slices:
            pixels = read_slice(item.path)
            shown.append(to_display(pixels, windows.window_of(item, pixels)).reshape(-1, 3)[::4])
        levels.append(np.percentile(np.concatenate(shown), (1, 50, 99, 100), axis=0).T)
    medians = np.median(levels, axis=0).round(1)
    sizes = table[["height", "width"]].drop_duplicates().sort_values(["height", "width"])
    return TrainingRange(
        sizes=tuple((int(h), int(w)) for h, w in sizes.itertuples(index=False)),
        channel_counts=tuple(sorted(int(c) for c in table.channels.unique())),
        intensity=tuple(tuple(float(v) for v in row) for row in medians),
    )


def record_settings(settings: TrainSettings, hardware: Hardware, data: dict[str, Any], order: str) -> dict[str, Any]:
    """Return everything that decides a number, as settings.json holds it; of `order`, the slices' names, a hash."""
    plain = {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
    return {
        "settings": plain | {"lr": settings.start_lr},
        "precision": hardware.precision,
        "device": str(hardware.device),
        "threads": torch.get_num_threads(),
        "data": data,
        "order": hashlib.sha256(order.encode("utf-8", "surrogateescape")).hexdigest(),
        "versions": versions(),
    }
