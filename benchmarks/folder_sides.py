"""What `folder.py` compares: each side loads its model once and then does a whole folder.

The loops are what people write by hand: read, resize, compute, resize back, write; no checks, no tables, no resume.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import import_quietly
from numpy.typing import NDArray

from segport.modelfile import read_contract
from segport.settings import Engine

Work = Callable[[Path], float]
"""Does the case's folder, with masks into the folder given, which is new; returns seconds."""
Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""From prepared slices, uint8 [N, size, size, 3], to logits, float32 [N, 1, size, size]."""


@dataclass(frozen=True)
class Case:
    """What is compared on. `stock`: the model OpenVINO gets; `checkpoint`: what PyTorch gets."""

    slices: Path
    folder: Path
    model: Path
    stock: Path
    checkpoint: Path | None
    batch: int
    threads: int

    def paths(self) -> list[Path]:
        """Return the slices."""
        return sorted(p for p in self.slices.rglob("*") if p.is_file())


def bare_session(case: Case, *, batch: int | None) -> Work:
    """Prepare all batches beforehand; the work is `session.run` alone, with seg-infer's options."""
    from segport.preprocess import prepare, stack
    from segport.reading import read_slice
    from segport.segmenter import Segmenter

    segmenter = Segmenter(case.model, device="cpu", threads=case.threads)
    prepared = [prepare(read_slice(path), segmenter.contract) for path in case.paths()]
    size = batch or case.batch
    batches = [stack(prepared[i : i + size]) for i in range(0, len(prepared), size)]
    run = segmenter.session.runner.run

    def work(_: Path) -> float:
        start = time.perf_counter()
        for prepared_slices in batches:
            run(prepared_slices)
        return time.perf_counter() - start

    return work


def seg_infer(case: Case, *, engine: Engine) -> Work:
    """All that the command does after the model is loaded: listing, ledger, masks, tables."""
    from segport.plan import plan_run
    from segport.run import run
    from segport.segmenter import Segmenter
    from segport.session import divide_threads
    from segport.settings import RunSettings

    lanes = divide_threads(case.threads)
    segmenter = Segmenter(case.model, engine=engine, device="cpu", threads=case.threads, lanes=lanes)
    settings = RunSettings(model=case.model, engine=engine, batch_size=case.batch, threads=case.threads)

    def work(out: Path) -> float:
        start = time.perf_counter()
        result = run(plan_run([case.slices], out, settings), settings, segmenter)
        if result.exit_code:
            raise RuntimeError(f"seg-infer failed: {result.problems[:1]}")
        return time.perf_counter() - start

    return work


def onnxruntime_loop(case: Case, *, batch: int | None) -> Work:
    """Loop plainly over ONNX Runtime with its own defaults but for the threads."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = case.threads
    session = ort.InferenceSession(str(case.model), options, providers=["CPUExecutionProvider"])
    return _loop(case, case.model, batch, lambda pixels: session.run(["logits"], {"pixels": pixels})[0])


def openvino_loop(case: Case, *, batch: int | None) -> Work:
    """Loop plainly over OpenVINO with its own defaults but for the threads."""
    core = import_quietly("openvino").Core()
    graph = core.compile_model(case.stock, "CPU", {"INFERENCE_NUM_THREADS": case.threads})
    return _loop(case, case.stock, batch, lambda pixels: graph({"pixels": pixels})["logits"])


def pytorch_loader(case: Case) -> Work:
    """Eager PyTorch, fp32, fed by a DataLoader with one worker; masks are written by the main process."""
    import torch
    from torch.utils.data import DataLoader

    from segport_train.checkpoint import load_network

    if case.checkpoint is None:
        raise FileNotFoundError("no --checkpoint")
    torch.set_num_threads(case.threads)
    network, contract = load_network(case.checkpoint)
    network.eval()
    loader: Any = DataLoader(Pictures(case.paths(), contract.input.size), batch_size=case.batch, num_workers=1)

    def work(out: Path) -> float:
        out.mkdir()
        start, number = time.perf_counter(), 0
        with torch.inference_mode():
            for batch, shapes in loader:
                for logits, shape in zip(network(batch).numpy(), shapes.tolist(), strict=True):
                    _write(out, number, logits[0], shape)
                    number += 1
        return time.perf_counter() - start

    return work


class Pictures:
    """A dataset as a DataLoader takes it: (uint8 [size, size, 3], [height, width])."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self._paths, self._size = paths, size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        pixels, shape = _read(self._paths[index], self._size)
        return pixels, np.array(shape)


SIDES: dict[str, Callable[[Case], Work]] = {
    "bare session": partial(bare_session, batch=None),
    "bare session, batches of 8": partial(bare_session, batch=8),
    "seg-infer": partial(seg_infer, engine="onnxruntime"),
    "seg-infer --engine openvino": partial(seg_infer, engine="openvino"),
    "ONNX Runtime loop, one by one": partial(onnxruntime_loop, batch=1),
    "ONNX Runtime loop, batches": partial(onnxruntime_loop, batch=None),
    "OpenVINO int8 loop, one by one": partial(openvino_loop, batch=1),
    "OpenVINO int8 loop, batches": partial(openvino_loop, batch=None),
    "PyTorch eager, DataLoader": pytorch_loader,
}


def _loop(case: Case, model: Path, batch: int | None, compute: Compute) -> Work:
    size, paths, together = read_contract(model).input.size, case.paths(), batch or case.batch

    def work(out: Path) -> float:
        out.mkdir()
        start = time.perf_counter()
        for number, part in _parts(paths, together):
            pixels, shapes = zip(*(_read(path, size) for path in part), strict=True)
            for i, logits in enumerate(compute(np.stack(pixels))):
                _write(out, number + i, logits[0], shapes[i])
        return time.perf_counter() - start

    return work


def _parts(paths: Sequence[Path], size: int) -> Iterator[tuple[int, Sequence[Path]]]:
    for start in range(0, len(paths), size):
        yield start, paths[start : start + size]


def _read(path: Path, size: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), np.uint8), pixels.shape[:2]


def _write(out: Path, number: int, logits: NDArray[np.float32], shape: Sequence[int]) -> None:
    restored = cv2.resize(logits, (shape[1], shape[0]))
    cv2.imwrite(str(out / f"{number}_mask.png"), np.where(restored >= 0, 255, 0).astype(np.uint8))
