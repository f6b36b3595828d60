"""A loaded graph as the rest of segport sees it, whichever engine computes it."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segport.errors import ModelError
from segport.settings import Device, Engine, RunSettings, check_engine
from segport.streams import capture

MOST_LANES = 8
Port = tuple[str, str, list[int | str]]
"""An input or output of a graph: name, dtype as NumPy names it, shape without the batch."""


class Runner(Protocol):
    """A graph in an engine's hands; where the engine fails, `ModelError` carries its reason."""

    @property
    def inputs(self) -> list[Port]:
        """What the graph takes."""

    @property
    def outputs(self) -> list[Port]:
        """What the graph gives."""

    @property
    def batch(self) -> int | None:
        """How many slices every call must hold; None for any number."""

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 [N, 1, size, size], for prepared slices, uint8 [N, size, size, 3]."""


@dataclass(frozen=True)
class Session:
    """A loaded graph.

    `provider`: what the engine says it runs on; `note`: why, when that was not a plain choice. `asked`: the device that
    was asked for. `facts`: what the provider says of its options, as {"tf32": False}. `lanes`: how many
    calls of `run` at a time it takes to use all `threads`.
    """

    runner: Runner
    provider: str
    threads: int
    note: str = ""
    asked: Device = RunSettings.device
    facts: dict[str, Any] = field(default_factory=dict)
    lanes: int = 1

    @property
    def batch(self) -> int | None:
        """How many slices every call holds; None for any number."""
        return self.runner.batch

    def describe(self) -> str:
        """Return one line for people, as "CPUExecutionProvider, 2 threads (CUDA is not usable: ...)"."""
        parts = [self.provider, f"{self.threads} thread" + "s" * (self.threads != 1)]
        if self.batch is not None:
            parts.append(f"batches of {self.batch}")
        return ", ".join(parts) + (f" ({self.note})" if self.note else "")

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 [N, size, size], for prepared slices, uint8 [N, size, size, 3].

        Where the graph takes a fixed number of slices, calls are filled up with empty ones. Raises `ModelError` when
        the engine fails (out of memory, say) or a logit is not finite: NaN would pass for "no tumour".
        """
        size = self.batch or max(len(batch), 1)
        try:
            calls = [self.runner.run(_filled(batch[i : i + size], size)) for i in range(0, max(len(batch), 1), size)]
        except ModelError as error:
            raise ModelError(
                f"inference of {len(batch)} slices failed on {self.provider}: {error};"
                " remedy: a smaller --batch-size, or --device cpu"
            ) from error
        found = np.concatenate(calls)[: len(batch), 0]
        if not np.isfinite(found).all():
            raise ModelError(
                f"the model gave logits that are not finite on {self.provider}; no mask of them is written"
            )
        return found


def open_session(
    path: Path,
    *,
    engine: Engine = RunSettings.engine,
    device: Device,
    threads: int | None = None,
    allow_fallback: bool = False,
    batch: int | None = None,
    lanes: int = 1,
) -> Session:
    """Load the model file with `engine` on `device`; only that engine's library is imported.

    `batch`: slices of every call on CUDA; on the CPU a call takes any number, unless the graph itself fixes it.
    `lanes`: among how many calls at a time ONNX Runtime's threads are divided on the CPU.
    Raises `UsageError` when the engine is not installed or does not run on `device`, `ModelError` when it refuses
    the graph, and `DeviceError` for `device="cuda"` without a usable CUDA unless `allow_fallback`.
    """
    check_engine(engine, device)
    threads = threads or usable_cores()
    if engine == "openvino":
        from segport import openvino_engine

        return replace(openvino_engine.open_cpu(path, threads), asked=device)
    with capture():  # on many a machine the import alone warns of "GPU device discovery" (onnxruntime#26763)
        from segport import onnxruntime_engine

    opened = onnxruntime_engine.open_device(
        path, device=device, threads=threads, allow_fallback=allow_fallback, batch=batch, lanes=lanes
    )
    return replace(opened, asked=device)


def _filled(batch: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    missing = size - len(batch)
    return np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else batch


def divide_threads(threads: int) -> int:
    """Return how many lanes a run over folders gets: the most that divide its threads, up to 8.

    Calls beside each other wait for nothing, where the threads of one call wait for each other after every layer, and
    so for whatever else has a core at the moment: reading and writing. Embedded model, 2 cores, 2,000 slices of LGG:
    see the README. 8, since every lane takes memory of its own.
    """
    return max(lanes for lanes in range(1, MOST_LANES + 1) if threads % lanes == 0)


def usable_cores() -> int:
    """Return how many cores this process may use (its affinity, not the machine's size; CPU quotas are not seen)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
