"""What PyTorch and the machine raise when a training cannot go on, in words: what is short, and the remedy."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from segport.errors import DeviceError, OutputError, SegportError
from segport_train.settings import TrainSettings

HOST_MEMORY = ("DefaultCPUAllocator", "can't allocate memory")  # torch's allocator raises a plain RuntimeError
# what CUDA and its libraries raise where torch's allocator has not come to raise its own error
GPU_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # and so does gloo


@contextmanager
def explain_failures(settings: TrainSettings) -> Iterator[None]:
    """Turn memory and disk space that are not there, and processes that have ended, into errors with the remedy."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(f"the GPU's memory is full ({_first_line(error)}); {_remedy(settings)}") from error
    except OutputError as error:
        if not is_full(error):
            raise
        raise OutputError(f"{error}; remedy: free space, then {describe_last(settings)}") from error
    except MemoryError as error:
        raise SegportError(f"the machine's memory is full ({_first_line(error)}); {_remedy(settings)}") from error
    except RuntimeError as error:
        text = str(error)
        if any(sign in text for sign in GPU_MEMORY):
            raise DeviceError(f"the GPU's memory is full ({_first_line(error)}); {_remedy(settings)}") from error
        if any(sign in text for sign in HOST_MEMORY):
            raise SegportError(f"the machine's memory is full ({_first_line(error)}); {_remedy(settings)}") from error
        if isinstance(error, torch.distributed.DistError) or any(sign in text for sign in LOST):
            raise SegportError(
                "another process of this run has ended, and said why if it could; remedy: mend that,"
                f" then {describe_last(settings)}"
            ) from error
        raise


def is_full(error: OutputError) -> bool:
    """Return whether a file could not be written because the disk, or the user's share of it, is full."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def describe_last(settings: TrainSettings) -> str:
    """Return how to go on: from the last checkpoint, or from the start where there is none yet."""
    last = settings.out / "last.safetensors"
    return f"--resume goes on from {last}" if last.exists() else "start again; there is no checkpoint yet"


def _remedy(settings: TrainSettings) -> str:
    return (
        f"remedy: end what else needs it, then {describe_last(settings)};"
        f" or another --out with a smaller --batch-size (now {settings.batch_size}) or --size (now {settings.size})"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["out of memory"])[0]
