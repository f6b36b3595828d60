"""The one place that touches ONNX Runtime's options: provider, threads, and what really runs afterwards."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from segport.errors import DeviceError, ModelError
from segport.settings import Device

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
FATAL = 4  # ONNX Runtime's log severity; its own errors come to us as exceptions


@dataclass(frozen=True)
class Session:
    """A loaded graph. `provider`: what ONNX Runtime says it runs on; `note`: why, when that was not a plain choice."""

    runner: Any
    provider: str
    threads: int
    note: str = ""

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 [N, size, size], for prepared slices, uint8 [N, size, size, 3]."""
        (logits,) = self.runner.run(["logits"], {"pixels": batch})
        return np.asarray(logits[:, 0], np.float32)


def open_session(path: Path, *, device: Device, threads: int | None = None, allow_fallback: bool = False) -> Session:
    """Load the model file on `device` and ask the session what it runs on.

    Whether CUDA works is found by loading, never from `get_available_providers()`: the GPU wheel lists CUDA on
    machines without a GPU. With `device="cuda"` and no usable CUDA, raises `DeviceError` unless `allow_fallback`.
    Raises `ModelError` when ONNX Runtime refuses the graph.
    """
    threads = threads or usable_cores()
    if device == "cpu":
        return Session(_load(path, CPU, threads), CPU, threads)
    reason = _cuda_missing()
    if not reason:
        try:
            runner = _load(path, CUDA, threads)
        except ModelError as error:
            reason = _first_line(error)
        else:
            provider = runner.get_providers()[0]
            if provider == CUDA:
                return Session(runner, CUDA, threads)
            reason = f"the session came up on {provider}"
    if device == "cuda" and not allow_fallback:
        raise DeviceError(
            f"--device cuda: CUDA is not usable here ({reason});"
            " remedy: pip install 'segport[cuda]' and an NVIDIA driver, or --device cpu, or --allow-fallback"
        )
    return Session(_load(path, CPU, threads), CPU, threads, note=f"CUDA is not usable ({reason}); runs on the CPU")


def usable_cores() -> int:
    """Return how many cores this process may use (affinity and container limits count, not the machine's size)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime") or isinstance(error, RuntimeError | ValueError):
            raise ModelError(f"{path}: ONNX Runtime refuses the model on {provider}: {_first_line(error)}") from error
        raise


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
