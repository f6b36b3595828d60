"""The one place that touches ONNX Runtime's options: provider, threads, and what really runs afterwards."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from segport.errors import DeviceError, ModelError
from segport.session import Port, Session
from segport.settings import Device

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# ONNX Runtime's own exceptions share no base but Exception; RuntimeError and ValueError come from its bindings.
_ORT_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(ort_errors).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
)
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
FATAL = 4  # ONNX Runtime's log severity; its own errors come to us as exceptions


@dataclass(frozen=True)
class OrtRunner:
    """A `session.Runner` over ONNX Runtime's `InferenceSession`."""

    graph: Any

    @property
    def inputs(self) -> list[Port]:
        """What the graph takes."""
        return [_port(i) for i in self.graph.get_inputs()]

    @property
    def outputs(self) -> list[Port]:
        """What the graph gives."""
        return [_port(o) for o in self.graph.get_outputs()]

    @property
    def batch(self) -> int | None:
        """How many slices every call must hold; None for any number."""
        size = self.graph.get_inputs()[0].shape[0]
        return size if isinstance(size, int) else None

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 [N, 1, size, size], for prepared slices, uint8 [N, size, size, 3]."""
        try:
            (logits,) = self.graph.run(["logits"], {"pixels": batch})
        except _ORT_ERRORS as error:
            raise ModelError(_first_line(error)) from error
        return np.asarray(logits, np.float32)


def open_device(path: Path, *, device: Device, threads: int, allow_fallback: bool) -> Session:
    """Load the model file on `device` and ask the session what it runs on.

    Whether CUDA works is found by loading, never from `get_available_providers()`: the GPU wheel lists CUDA on
    machines without a GPU. With `device="cuda"` and no usable CUDA, raises `DeviceError` unless `allow_fallback`.
    Raises `ModelError` when ONNX Runtime refuses the graph.
    """
    if device == "cpu":
        return Session(OrtRunner(_load(path, CPU, threads)), CPU, threads)
    reason = _cuda_missing()
    if not reason:
        try:
            graph = _load(path, CUDA, threads)
        except ModelError as error:
            reason = _first_line(error)
        else:
            provider = graph.get_providers()[0]
            if provider == CUDA:
                return Session(OrtRunner(graph), CUDA, threads)
            reason = f"the session came up on {provider}"
    if device == "cuda" and not allow_fallback:
        raise DeviceError(
            f"--device cuda: CUDA is not usable here ({reason});"
            " remedy: pip install 'segport[cuda]' and an NVIDIA driver, or --device cpu, or --allow-fallback"
        )
    note = f"CUDA is not usable ({reason}); runs on the CPU"
    return Session(OrtRunner(_load(path, CPU, threads)), CPU, threads, note)


def _cuda_missing() -> str:
    """Return why loading on CUDA need not be tried, or an empty text."""
    if CUDA not in ort.get_available_providers():
        return "the installed onnxruntime has no CUDA provider"
    if os.name == "posix" and not Path("/dev/nvidiactl").exists() and not Path("/dev/dxg").exists():
        return "no NVIDIA device is present"
    return ""


def _load(path: Path, provider: str, threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    choices: list[Any] = [provider]
    if provider == CUDA:
        # Alone in the list and without fallback, or a broken CUDA silently becomes a CPU session (onnxruntime#23372).
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # HEURISTIC: a new batch shape (the last, partial batch) must not start a search for kernels.
        # TF32 off: it is on by default and moves logits (onnxruntime#19288).
        choices = [(CUDA, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"})]
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    try:
        return ort.InferenceSession(str(path), options, providers=choices, enable_fallback=False)
    except _ORT_ERRORS as error:
        raise ModelError(f"{path}: ONNX Runtime refuses the model on {provider}: {_first_line(error)}") from error


def _port(port: Any) -> Port:
    return port.name, _DTYPES.get(port.type, port.type), list(port.shape[1:])


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
