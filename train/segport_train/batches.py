"""Batches of an epoch: which slices, in which order, and their preparation off the training thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from segport.stages import ordered_map
from segport_train.dataset import SliceDataset

AHEAD = 3  # batches a thread: the next one is ready when a step ends, and memory stays small

Batch = tuple[torch.Tensor, torch.Tensor]


def epoch_order(table: pd.DataFrame, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the rows of one epoch, from (seed, epoch) alone: all tumour slices and as many others, shuffled.

    Others are drawn anew each epoch.
    """
    tumour = table.tumour_pixels.to_numpy() > 0
    with_tumour, others = np.flatnonzero(tumour), np.flatnonzero(~tumour)
    rng = np.random.default_rng([seed, epoch])
    drawn = rng.choice(others, min(len(with_tumour), len(others)), replace=False)
    return rng.permutation(np.concatenate([with_tumour, drawn]))


def batches(
    data: SliceDataset, epoch: int, rows: list[NDArray[np.int64]], workers: int, *, pinned: bool = False
) -> Iterator[Batch]:
    """Yield (pixels uint8 [N, S, S, 3], masks uint8 [N, S, S]) for each list of rows, augmented as `data` does.

    `workers` threads prepare batches ahead of the training thread (OpenCV and NumPy release the interpreter's lock);
    0 prepares each in the thread that asks. An item depends on (seed, epoch, row) alone, so workers change no number.
    `pinned`: in page-locked memory, from which copies to CUDA go on beside the computation.
    """

    def load(part: NDArray[np.int64]) -> Batch:
        items = [data[epoch, int(row)] for row in part]
        pixels, masks = (torch.stack(tensors) for tensors in zip(*items, strict=True))
        return (pixels.pin_memory(), masks.pin_memory()) if pinned else (pixels, masks)

    if workers == 0:
        yield from map(load, rows)
        return
    pool = ThreadPoolExecutor(workers, "batch")
    try:
        yield from ordered_map(pool, load, rows, workers * AHEAD)
    finally:  # also where the epoch ends early: what is under way ends, what waits is not begun
        pool.shutdown(cancel_futures=True)


def divide(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Divide an epoch's rows into batches; a short tail is left out where there is a whole batch (normalisation)."""
    whole = len(rows) // size
    return np.split(rows[: whole * size], whole) if whole else [rows]
