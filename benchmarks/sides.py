"""What `compute.py` and `frontier.py` compare: how each side gets its model file, loads it and computes a batch.

Libraries are imported where they are used: a side's process holds what that side needs.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from common import import_quietly
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.modelfile import read_contract
from segport.preprocess import prepare
from segport.reading import read_slice
from segport.session import open_session
from segport.settings import Engine
from segport.sources import list_slices

Step = Callable[[NDArray[np.uint8]], object]
"""Computes one batch of prepared slices, uint8 [N, size, size, 3]."""

FP32, STOCK, REWRITTEN, NNCF = "fp32.onnx", "int8-stock.onnx", "int8.onnx", "int8-nncf.xml"
CHECKPOINT = ""  # in place of a file's name
CALIBRATION_SLICES = 128  # as many as seg-export takes


@dataclass(frozen=True)
class Side:
    """A row of the table. `file`: its name in the folder of models; `load`: from path and threads to a step."""

    name: str
    file: str
    load: Callable[[Path, int], Step]

    def path(self, models: Path, checkpoint: Path) -> Path:
        """Return the file this side loads."""
        return models / self.file if self.file else checkpoint


def pytorch(path: Path, threads: int, *, fast: bool) -> Step:
    """Load the eager module; `fast`: bf16 under autocast, weights in channels_last (its inputs always are)."""
    import torch

    from segport_train.checkpoint import load_network

    torch.set_num_threads(threads)
    network, _ = load_network(path)
    if fast:
        network.to(memory_format=torch.channels_last)

    def step(batch: NDArray[np.uint8]) -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if fast else nullcontext():
            return network(torch.from_numpy(batch))

    return step


def segport_engine(path: Path, threads: int, *, engine: Engine) -> Step:
    """Load the file as `seg-infer --engine` does."""
    return open_session(path, engine=engine, device="cpu", threads=threads).run


def openvino(path: Path, threads: int, *, precision: str | None) -> Step:
    """Load the file in OpenVINO itself, with its own defaults but for threads and, where given, the precision."""
    core = import_quietly("openvino").Core()
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    hint = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    graph = core.compile_model(core.read_model(path), "CPU", options | hint)
    return lambda batch: graph({"pixels": batch})["logits"]


SIDES = (
    Side("PyTorch eager fp32", CHECKPOINT, partial(pytorch, fast=False)),
    Side("PyTorch bf16 channels_last", CHECKPOINT, partial(pytorch, fast=True)),
    Side("ONNX Runtime fp32", FP32, partial(segport_engine, engine="onnxruntime")),
    Side("ONNX Runtime int8 stock", STOCK, partial(segport_engine, engine="onnxruntime")),
    Side("ONNX Runtime int8 rewritten", REWRITTEN, partial(segport_engine, engine="onnxruntime")),
    Side("OpenVINO fp32", FP32, partial(openvino, precision="f32")),
    Side("OpenVINO bf16", FP32, partial(openvino, precision="bf16")),
    Side("OpenVINO int8 stock", STOCK, partial(openvino, precision=None)),
    Side("OpenVINO int8 by NNCF", NNCF, partial(openvino, precision=None)),
    Side("--engine openvino int8 rewritten", REWRITTEN, partial(segport_engine, engine="openvino")),
)
PAIRS = (
    ("ONNX Runtime int8 rewritten", "ONNX Runtime int8 stock"),
    ("ONNX Runtime int8 rewritten", "OpenVINO int8 stock"),
    ("--engine openvino int8 rewritten", "OpenVINO int8 stock"),
)
"""Names of sides whose ratio is of interest."""


def make_model(name: str, models: Path, checkpoint: Path, slices: Path) -> None:
    """Write one file into `models`: an export with its gate (minutes), or NNCF's quantisation of the fp32 file.

    Raises `ModuleNotFoundError` where nncf is not installed.
    """
    if name == NNCF:
        _quantize_with_nncf(models, slices)
        return
    from segport_export.export import export_model
    from segport_export.settings import ExportSettings

    precision = "fp32" if name == FP32 else "int8"
    settings = ExportSettings(checkpoint, models / name, precision=precision, rewrite=name == REWRITTEN)
    export_model(settings, lambda text: print(text, file=sys.stderr))


def prepared_slices(folder: Path, contract: ModelContract, count: int) -> NDArray[np.uint8]:
    """Return `count` slices of a folder, evenly spaced, as uint8 [count, size, size, 3]; they must be uint8."""
    found = list_slices(folder).slices
    chosen = np.linspace(0, len(found) - 1, count).round().astype(int)
    return np.stack([prepare(read_slice(found[i].path), contract) for i in chosen])


def _quantize_with_nncf(models: Path, slices: Path) -> None:
    nncf, ov = import_quietly("nncf"), import_quietly("openvino")
    calibration = prepared_slices(slices, read_contract(models / FP32), CALIBRATION_SLICES)
    data = nncf.Dataset(list(calibration[:, np.newaxis]))
    model = nncf.quantize(ov.Core().read_model(models / FP32), data, subset_size=CALIBRATION_SLICES)
    ov.save_model(model, models / NNCF)
