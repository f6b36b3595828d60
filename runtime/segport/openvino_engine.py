"""The one place that touches OpenVINO: its import, its options, and what really runs afterwards."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segport.errors import ModelError, UsageError
from segport.session import Port, Session

# OpenVINO's exceptions reach Python as RuntimeError; the others are what its bindings make of C++'s own.
_ERRORS = (RuntimeError, ValueError, IndexError, MemoryError)
_DTYPES = {"u8": "uint8", "f32": "float32"}
_PLACES = ("Exception from ", "Check '", "FrontEnd API failed")
_REPORTS = "openvino_telemetry"


@dataclass(frozen=True)
class OpenVinoRunner:
    """A `session.Runner` over OpenVINO's `CompiledModel`."""

    graph: Any

    @property
    def inputs(self) -> list[Port]:
        """What the graph takes."""
        return [_port(i) for i in self.graph.inputs]

    @property
    def outputs(self) -> list[Port]:
        """What the graph gives."""
        return [_port(o) for o in self.graph.outputs]

    @property
    def batch(self) -> int | None:
        """How many slices every call must hold; None for any number."""
        size = self.graph.input(0).partial_shape[0]
        return size.get_length() if size.is_static else None

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 [N, 1, size, size], for prepared slices, uint8 [N, size, size, 3]."""
        try:
            # A request of its own: the one that a plain call keeps is "busy" for a second thread. It costs no time.
            logits = self.graph.infer_new_request({"pixels": batch})["logits"]
        except _ERRORS as error:
            raise ModelError(_reason(error)) from error
        return np.asarray(logits, np.float32)


def open_cpu(path: Path, threads: int) -> Session:
    """Load the model file on the CPU and ask OpenVINO on how many threads it runs: no more than there are cores.

    Raises `UsageError` when the package openvino is missing and `ModelError` when OpenVINO refuses the graph.
    """
    openvino = _import_openvino()
    try:
        core = openvino.Core()
        # The batch stays dynamic. Embedded model, 2 threads: 17 ms a slice dynamic or fixed to 8 where all batches
        # are full; for batches of 8, 8 and 3 the fixed graph takes 1.2 times as long, its last batch filled up.
        graph = core.compile_model(core.read_model(path), "CPU", _options(threads))
        devices, used = graph.get_property("EXECUTION_DEVICES"), graph.get_property("INFERENCE_NUM_THREADS")
    except _ERRORS as error:
        raise ModelError(f"{path}: OpenVINO refuses the model: {_reason(error)}") from error
    return Session(OpenVinoRunner(graph), f"OpenVINO {', '.join(devices)}", used)


def _options(threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,  # one batch at a time, every thread on it; two streams of one thread took 1.2 times as long
        # On two cores free threads are 11% faster beside one busy process, and lose 4% at most where it is quiet.
        "ENABLE_CPU_PINNING": False,
        # On CPUs with bf16 instructions OpenVINO's own choice is bf16 for what is not int8, which moves logits.
        "INFERENCE_PRECISION_HINT": "f32",
        "CACHE_DIR": "",  # no compiled graph is left on the disk
    }


def _import_openvino() -> Any:
    """Import OpenVINO without its usage reports.

    `import openvino` alone posts an event to Google Analytics and leaves an id in the user's home folder, unless the
    user has opted out (openvino/tools/ovc/__init__.py of 2026.4.1). Without the package openvino_telemetry it takes
    a stub of its own that does nothing, so that package is hidden while the import runs.
    """
    hidden = sys.modules.get(_REPORTS)
    sys.modules[_REPORTS] = None  # type: ignore[assignment]  # makes its import an ImportError
    try:
        import openvino
    except ImportError as error:
        raise UsageError(
            f"--engine openvino: OpenVINO cannot be imported ({error});"
            " remedy: pip install 'segport[openvino]', or --engine onnxruntime"
        ) from error
    finally:
        del sys.modules[_REPORTS]
        if hidden is not None:
            sys.modules[_REPORTS] = hidden
    return openvino


def _port(port: Any) -> Port:
    kind = port.element_type.get_type_name()
    sizes = list(port.partial_shape)[1:]
    return port.any_name, _DTYPES.get(kind, kind), [s.get_length() if s.is_static else str(s) for s in sizes]


def _reason(error: Exception) -> str:
    """Return the last paragraph of OpenVINO's message as one line, without the places the error came through."""
    lines = str(error).strip().split("\n\n")[-1].splitlines()
    return " ".join(line for line in lines if not line.startswith(_PLACES)) or type(error).__name__
