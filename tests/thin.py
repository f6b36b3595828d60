"""seg-train with networks of an eighth of the width, in this process or in a child: `python tests/thin.py TRAININGS`.

TRAININGS: JSON, pairs of hooks and arguments. Hooks, parts of one word: "still" takes dropout out, "alone" leaves the
sums over processes out, "halt" interrupts in epoch 2; in the second process, "full" raises MemoryError in epoch 1 and
"nan" damages gradients.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from helpers import square, write

FACTOR = 8
TINY = (
    "--size 32 --output-stride 16 --epochs 2 --batch-size 4 --optimizer adamw --loss bce-dice --seed 4"
    " --device cpu --precision fp32 --workers 0"
)


class ThinConv(nn.Conv2d):
    """A convolution between an eighth of the channels; three are pixels, one is logits."""

    def __init__(self, inputs: int, outputs: int, *args: Any, **options: Any) -> None:
        super().__init__(_thin(inputs), _thin(outputs), *args, **options)


class ThinBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of an eighth of the channels."""

    def __init__(self, channels: int, *args: Any, **options: Any) -> None:
        super().__init__(_thin(channels), *args, **options)


def _thin(channels: int) -> int:
    return channels // FACTOR if channels > 3 else channels


@contextmanager
def thin_networks() -> Iterator[None]:
    """Build every network thin, 0.7 million weights instead of 42, and compute on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny tensors: two threads wait for each other, ten times as long on a busy machine
    try:
        with mock.patch.object(nn, "Conv2d", ThinConv), mock.patch.object(nn, "BatchNorm2d", ThinBatchNorm):
            yield
    finally:
        torch.set_num_threads(threads)


def write_patients(folder: Path, patients: int = 4, per_patient: int = 4) -> Path:
    """Write slices of 32 pixels, half of them with a square that is tumour; return the folder."""
    for p in range(patients):
        for n in range(1, per_patient + 1):
            low = 6 + (3 * n + p) % 5
            write(folder / f"p{p}/p{p}_{n}.png", square(32, low=low, high=low + 16, value=50 * n + p))
            write(folder / f"p{p}/p{p}_{n}_mask.png", square(32, low=low, high=low + 16 * (n % 2))[..., 1])
    return folder


def train(data: Path, out: Path, *more: object) -> int:
    """Train a thin network in this process; return the exit code."""
    from segport_train.cli import main

    with thin_networks():
        return main(arguments(data, out, *more))


def arguments(data: Path, out: Path, *more: object) -> list[str]:
    """Return the arguments of a tiny training."""
    return [str(data), "--out", str(out), *TINY.split(), *map(str, more)]


def command(*trainings: tuple[str, list[str]], through: tuple[str, ...] = ()) -> list[str]:
    """Return the command line of a child that trains one after another, each with its hooks.

    `through`: the module and options that start this file, as torchrun's.
    """
    return [sys.executable, *through, __file__, json.dumps(trainings)]


def results(run: Path) -> tuple[str, ...]:
    """Return hashes of both checkpoints' weights and of the optimizer, and metrics.csv."""
    from segport_train.checkpoint import load_checkpoint
    from segport_train.model import weights_sha256

    best, last = (load_checkpoint(run / f"{name}.safetensors") for name in ("best", "last"))
    hashes = [weights_sha256(tensors) for tensors in (best.weights, last.weights, last.optimizer)]
    return *hashes, (run / "metrics.csv").read_text()


@contextmanager
def hooked(hooks: str) -> Iterator[None]:
    """Change what a training does; see the module."""
    from segport_train.distribution import Processes
    from segport_train.trainer import Trainer

    second, real = os.environ.get("RANK") == "1", Trainer.step

    def step(trainer: Trainer, batch: Any, epoch: int, number: int, steps: int) -> torch.Tensor:
        if "halt" in hooks and (epoch, number) == (2, 1):
            raise KeyboardInterrupt
        if "full" in hooks and second and (epoch, number) == (1, 1):
            raise MemoryError
        if "nan" in hooks and second and number:
            for parameter in trainer.network.parameters():
                parameter.register_hook(lambda gradient: gradient * float("nan"))
        return real(trainer, batch, epoch, number, steps)

    with ExitStack() as stack:
        stack.enter_context(thin_networks())
        stack.enter_context(mock.patch.object(Trainer, "step", step))
        if "still" in hooks:
            stack.enter_context(mock.patch.object(nn.Dropout, "forward", lambda _, x: x))
        if "alone" in hooks:
            stack.enter_context(mock.patch.object(Processes, "sum", lambda _, own: own))
        yield


def refuse_writing(event: str, args: tuple[Any, ...]) -> None:
    """Let no file below a folder named "run..." be written, renamed or made: a hook of Python's audit."""
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if (writes or event in ("os.rename", "os.mkdir", "os.remove")) and "/run" in str(args[0]):
        raise PermissionError(f"the second process wrote: {event} {args[0]}")


def main() -> int:
    import torch.distributed as dist

    from segport_train import cli

    if os.environ.get("RANK") == "1":
        sys.addaudithook(refuse_writing)
    real, code = dist.init_process_group, 0
    for number, (hooks, words) in enumerate(json.loads(sys.argv[1])):

        def init(backend: str, timeout: timedelta, prefix: str = str(number)) -> None:
            host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = dist.PrefixStore(prefix, dist.TCPStore(host, port))  # several groups of one torchrun: keys of each
            rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            real(backend, store=store, rank=rank, world_size=size, timeout=timeout)

        with hooked(hooks), mock.patch.object(dist, "init_process_group", init):
            try:
                code = cli.main(words)
            except SystemExit as end:
                code = int(end.code or 0)
        print(f"rank {os.environ.get('RANK', '0')} {Path(words[2]).name} {code}", flush=True)
        if dist.is_initialized():
            dist.destroy_process_group()
    return code


if __name__ == "__main__":
    sys.exit(main())
