"""The Python API: a model goes in once, slices go in, masks come out."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.cuda import CUDA
from segport.errors import ModelError, UsageError
from segport.modelfile import read_contract
from segport.preprocess import Pixels, Window, prepare, restore, sigmoid, stack, to_mask
from segport.session import Session, open_session
from segport.settings import Device, Engine, RunSettings

DEFAULT_MODEL = "lgg-deeplabv3plus-int8.onnx"
BATCH_SIZE = 8  # one call at a time has its threads wait for each other less often than with 4 (4 %, first model)


def default_model() -> Path:
    """Return the path of the embedded model; raises `ModelError` when the package holds none."""
    with as_file(files("segport") / "models" / DEFAULT_MODEL) as path:
        if not path.exists():
            raise ModelError(f"the embedded model {DEFAULT_MODEL} is missing; reinstall segport or pass --model")
        return Path(path)


class Segmenter:
    """A loaded model. Opening reads the contract first, so a file that is not ours never reaches an engine.

    `batch_size`: slices of every call on CUDA, where shapes are fixed. `lanes`: how many calls from threads of yours
    share the CPU's `threads`; with one call at a time more are slower. Raises `ModelError` (no contract, newer
    schema, graph and contract disagree), `DeviceError`, and `UsageError` for arguments out of bounds and for an engine
    that is not installed or does not run on `device`.
    """

    def __init__(
        self,
        model: Path | str | None = None,
        *,
        engine: Engine = RunSettings.engine,
        device: Device = "auto",
        threads: int | None = None,
        allow_fallback: bool = False,
        batch_size: int = BATCH_SIZE,
        lanes: int = 1,
    ) -> None:
        RunSettings(engine=engine, device=device, threads=threads, batch_size=batch_size)  # refuses as the command does
        self.model = Path(model) if model is not None else default_model()
        self.contract: ModelContract = read_contract(self.model)
        self.session: Session = open_session(
            self.model,
            engine=engine,
            device=device,
            threads=threads,
            allow_fallback=allow_fallback,
            batch=batch_size,
            lanes=lanes,
        )
        self._check_graph()
        if self.session.provider == CUDA and self.contract.export and self.contract.export.precision == "int8":
            note = "this model is int8, made for CPUs; on CUDA an export with --precision fp16 is the one to use"
            self.session = replace(self.session, note=note)

    def predict(
        self,
        slices: Sequence[Pixels],
        *,
        threshold: float | None = None,
        window: Window | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> list[NDArray[np.uint8]]:
        """Return one mask a slice, uint8 [H, W] of 0 and 255 at the slice's own size.

        `slices`: [H, W], [H, W, 1] or RGB [H, W, 3]; uint8 as stored, other dtypes with `window`.
        `threshold`: probability from which a pixel is tumour; the contract's by default. `batch_size`: slices a call
        of the network, unless `session.batch` fixes it. Raises `SliceError`, `UsageError` for a bare array or
        arguments out of bounds, and `ModelError` when inference fails.
        """
        RunSettings(threshold=threshold)  # refuses what is no probability
        limit = self.contract.output.threshold if threshold is None else threshold
        return [to_mask(logits, limit) for logits in self._restored(slices, window, batch_size)]

    def probabilities(
        self, slices: Sequence[Pixels], *, window: Window | None = None, batch_size: int = BATCH_SIZE
    ) -> list[NDArray[np.float32]]:
        """Return one probability map a slice, float32 [H, W] in 0..1; arguments as for `predict`."""
        return [sigmoid(logits) for logits in self._restored(slices, window, batch_size)]

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 [N, size, size], for prepared slices, uint8 [N, size, size, 3]."""
        return self.session.run(batch)

    def _restored(self, slices: Sequence[Pixels], window: Window | None, batch_size: int) -> list[NDArray[np.float32]]:
        if isinstance(slices, np.ndarray):
            raise UsageError("expected a list of slices, got one array; remedy: predict([pixels])")
        RunSettings(batch_size=batch_size)
        results: list[NDArray[np.float32]] = []
        size = self.session.batch or batch_size
        for start in range(0, len(slices), size):
            part = slices[start : start + size]
            logits = self.logits(stack([prepare(p, self.contract, window) for p in part]))
            results += [restore(one, (p.shape[0], p.shape[1])) for one, p in zip(logits, part, strict=True)]
        return results

    def _check_graph(self) -> None:
        """Refuse a graph whose input or output is not what the contract says."""
        size = self.contract.input.size
        inputs, outputs = self.session.runner.inputs, self.session.runner.outputs
        expected_in = [("pixels", "uint8", [size, size, 3])]
        expected_out = [("logits", "float32", [1, size, size])]
        if inputs != expected_in or outputs != expected_out:
            raise ModelError(
                f"{self.model}: graph and contract disagree: found {inputs} -> {outputs},"
                f" expected {expected_in} -> {expected_out}; export the model again"
            )
