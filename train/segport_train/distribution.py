"""Several processes that train one network: who this one is, what it shares with the others, how all of them end."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segport.errors import DeviceError, SegportError, UsageError
from segport_train.settings import TrainSettings

# While the first process writes, the others wait; that one has ended is torchrun's to notice, no clock's.
PATIENCE = timedelta(days=1)
SPEAKING = 1.0  # seconds for the first to say why: torchrun ends all processes when one has ended

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and which of them this is; the first alone writes files and speaks."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's rows: every `count`-th."""
        return rows[self.rank :: self.count]

    def check_shares(self, slices: int, settings: TrainSettings) -> None:
        """End with a `UsageError` unless a step's slices divide evenly, two or more each for batch normalisation."""
        least = 1 if settings.batch_norm == "frozen" else 2
        if slices < least:
            raise UsageError(
                f"{slices} slice is too few to train on: batch normalisation needs two; remedy: more slices with"
                " tumour, or --init with --batch-norm frozen"
            )
        if slices < self.count * least or slices % self.count:
            self.end(
                UsageError(
                    f"a step of {slices} slices (--batch-size {settings.batch_size}) over {self.count} processes:"
                    f" expected as many for each, {least} or more; remedy: another --batch-size or --nproc-per-node"
                )
            )

    def spread(self, network: nn.Module) -> nn.Module:
        """Return the network as it is called in a step: its gradients are means over the processes."""
        if self.count == 1:
            return network
        return DistributedDataParallel(network)

    def normalise_together(self, network: nn.Module) -> None:
        """Make batch normalisation take the statistics of all processes' slices.

        PyTorch can do so on CUDA alone; on the CPU each process takes those of its own slices.
        """
        if self.count > 1 and next(network.parameters()).is_cuda:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # torch's stub

    def sum(self, own: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes, with the gradient that makes a mean of gradients that of the sum."""
        if self.count == 1:
            return own
        total = own.detach().clone()
        dist.all_reduce(total)
        return total + self.count * (own - own.detach())

    def align(self, network: nn.Module) -> None:
        """Give all processes the first one's buffers: on the CPU each has statistics of its own slices."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def gather(self, own: T) -> list[T]:
        """Return what each process brings, in order of their ranks."""
        if self.count == 1:
            return [own]
        found: list[T | None] = [None] * self.count
        dist.all_gather_object(found, own)
        return cast(list[T], found)

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            dist.barrier()

    def agree(self, work: Callable[[], T]) -> T:
        """Return `work()`, done by the first process before the others; where it fails in one, it ends in all.

        The first process raises the error, the others end without a word and with its exit code.
        """
        if self.count == 1:
            return work()
        result, error = _attempt(work) if self.first else (None, None)
        failure = self._first_failure(error)
        if failure is None:
            result, error = (result, None) if self.first else _attempt(work)
            failure = self._first_failure(error)
        if failure is not None:
            self.end(failure)
        assert result is not None
        return result

    def end(self, failure: SegportError) -> NoReturn:
        """End for a reason that all processes know: the first one raises it, the others end without a word."""
        if self.first:
            raise failure
        time.sleep(SPEAKING)
        raise SystemExit(failure.exit_code)

    def _first_failure(self, error: SegportError | None) -> SegportError | None:
        return next((one for one in self.gather(error) if one is not None), None)


ALONE = Processes()


@contextmanager
def join_processes(settings: TrainSettings) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did: gloo on the CPU, nccl on CUDA with a GPU for each.

    Raises `DeviceError` when this machine has fewer GPUs than processes.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    if cuda:
        number, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= found:
            raise DeviceError(
                f"process {number + 1} of this machine finds {found} GPUs, expected one for each process;"
                f" remedy: --nproc-per-node {found}, or --device cpu"
            )
        torch.cuda.set_device(number)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    yield Processes(dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()  # not after an error: the others may never come


def _attempt(work: Callable[[], T]) -> tuple[T | None, SegportError | None]:
    try:
        return work(), None
    except SegportError as error:
        return None, error
