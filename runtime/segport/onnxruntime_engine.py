"""The one place that touches ONNX Runtime's options: provider, threads, and what really runs afterwards."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from segport import cuda
from segport.cuda import CUDA, Diagnosis
from segport.errors import DeviceError, ModelError
from segport.session import Port, Session
from segport.settings import Device
from segport.streams import capture

CPU = "CPUExecutionProvider"
# ONNX Runtime's own exceptions share no base but Exception; RuntimeError and ValueError come from its bindings.
_ORT_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(ort_errors).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
)
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
# HEURISTIC: the default tries every kernel of every convolution before the first result.
# TF32 off: it is on by default and moves logits (onnxruntime#19288).
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
FATAL = 4  # ONNX Runtime's log severity; its own errors come to us as exceptions


@dataclass(frozen=True)
class OrtRunner:
    """A `session.Runner` over ONNX Runtime's `InferenceSession`; `fixed`: slices a call where the graph takes any."""

    graph: Any
    fixed: int | None = None

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
        return size if isinstance(size, int) else self.fixed

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 [N, 1, size, size], for prepared slices, uint8 [N, size, size, 3]."""
        try:
            (logits,) = self.graph.run(["logits"], {"pixels": batch})
        except _ORT_ERRORS as error:
            raise ModelError(_first_line(error)) from error
        return np.asarray(logits, np.float32)


def open_device(
    path: Path, *, device: Device, threads: int, allow_fallback: bool, batch: int | None, lanes: int = 1
) -> Session:
    """Load the model file on `device` and ask the session what it runs on.

    On CUDA every call holds `batch` slices, so that cuDNN chooses its kernels once. Whether CUDA works is found by
    loading. With `device="cuda"` and no usable CUDA, raises `DeviceError` unless `allow_fallback`. Raises `ModelError`
    when ONNX Runtime refuses the graph.
    """
    if device == "cpu":
        return _open_cpu(path, threads, lanes)
    trouble = cuda.absent(ort.get_available_providers())
    if trouble is None:
        found = _try_cuda(path, threads)
        if not isinstance(found, Diagnosis):
            return Session(OrtRunner(found, batch), CUDA, threads, facts=_facts(found))
        trouble = found
    if device == "cuda" and not allow_fallback:
        raise DeviceError(
            f"--device cuda: CUDA is not usable here: {trouble.reason} ({cuda.surroundings()});"
            f" remedy: {trouble.remedy}; or --device cpu, or --allow-fallback"
        )
    return replace(_open_cpu(path, threads, lanes), note=f"CUDA is not usable: {trouble.reason}")


def _open_cpu(path: Path, threads: int, lanes: int) -> Session:
    # a session's pool is shared by its calls: every call brings its own thread, and the pool is what is left
    return Session(OrtRunner(_load(path, CPU, max(1, threads - lanes + 1))), CPU, threads, lanes=lanes)


def _try_cuda(path: Path, threads: int) -> Any | Diagnosis:
    """Return the graph on CUDA, or why CUDA is not usable; ONNX Runtime says that on stderr more than in its error."""
    try:
        with capture() as said:
            graph = _load(path, CUDA, threads)
    except ModelError as error:
        if "Load model from" in str(error):  # it was not CUDA: the file is refused before a provider is made
            raise
        return cuda.diagnose("\n".join([*said, str(error)]))
    provider = graph.get_providers()[0]
    return graph if provider == CUDA else Diagnosis(f"the session came up on {provider}", cuda.INSTALL)


def _facts(graph: Any) -> dict[str, Any]:
    """Return what a session on CUDA says of its options; None where it says nothing."""
    options = graph.get_provider_options().get(CUDA, {})
    tf32 = {"0": False, "1": True}.get(options.get("use_tf32"))
    return {"tf32": tf32, "cudnn_conv_algo_search": options.get("cudnn_conv_algo_search")}


def _load(path: Path, provider: str, threads: int) -> Any:
    choice = (CUDA, CUDA_OPTIONS) if provider == CUDA else provider
    try:
        if provider == CUDA:
            ort.preload_dlls()  # finds NVIDIA's libraries where pip puts them
        return ort.InferenceSession(str(path), _options(provider, threads), providers=[choice], enable_fallback=False)
    except _ORT_ERRORS as error:
        raise ModelError(f"{path}: ONNX Runtime refuses the model on {provider}: {_first_line(error)}") from error


def _options(provider: str, threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if provider == CUDA:
        # With CUDA alone in the list, or a broken CUDA silently becomes a CPU session (onnxruntime#23372).
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _port(port: Any) -> Port:
    return port.name, _DTYPES.get(port.type, port.type), list(port.shape[1:])


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
