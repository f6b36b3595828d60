"""What a checkpoint says of itself: the contract before training, the settings file, versions."""

import hashlib
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from segport import __version__
from segport.contract import Input, ModelContract, Origin, TrainingRange
from segport_train.hardware import Hardware
from segport_train.init import NAMED, Init
from segport_train.settings import TrainSettings


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of segport, Python and `packages`, by their names."""
    return {"segport": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


def first_contract(settings: TrainSettings, ranges: TrainingRange, init: Init) -> ModelContract:
    """Return the contract of a run before its first step; grey levels are the training patients' medians.

    Normalisation is that of the weights it starts from.
    """
    low, _, high, _ = np.mean(ranges.intensity, axis=0)
    levels = (round(float(low)), max(round(float(high)), round(float(low)) + 1))
    return ModelContract(
        input=init.adapt(Input(settings.size, levels=(float(levels[0]), float(levels[1])))),
        training_range=ranges,
        origin=Origin(architecture=f"{settings.architecture}_resnet50", output_stride=settings.output_stride),
    )


def record_settings(
    settings: TrainSettings, hardware: Hardware, data: dict[str, Any], order: str, processes: int, start: dict[str, str]
) -> dict[str, Any]:
    """Return everything that decides a number, as settings.json holds it; of `order`, the slices' names, a hash.

    `processes`: how many there are. `start`: what a contract says of the weights that the run starts from.
    """
    plain = {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
    if settings.init not in NAMED:
        plain["init"] = str(Path(settings.init).resolve())
    return {
        "settings": plain | {"lr": settings.start_lr},
        "precision": hardware.precision,
        "device": str(hardware.device),
        "threads": torch.get_num_threads(),
        "data": data,
        "order": hashlib.sha256(order.encode("utf-8", "surrogateescape")).hexdigest(),
        "versions": versions("torch", "torchvision", "numpy")
        | {"opencv": cv2.__version__},  # its wheel has several names
        "processes": processes,  # each takes batch statistics of its own share on the CPU
        "start": start,
    }
