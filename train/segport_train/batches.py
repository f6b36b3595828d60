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


def batches(data: SliceDataset, epoch: int, rows: list[NDArray[np.int64]], workers: int) -> Iterator[Batch]:
    """Yield (pixels uint8 [N, S, S, 3], masks uint8 [N, S, S]) for each list of rows, augmented as `data` does.

    `workers` threads prepare batches ahead of the training thread (OpenCV and NumPy release the interpreter's lock);
    0 prepares each in the thread that asks. An item depends on (seed, epoch, row) alone, so workers change no number.
    """

    def load(part: NDArray[np.int64]) -> Batch:
        items = [data[epoch, int(row)] for row in part]
        return torch.stack([pixels for pixels, _ in items]), torch.stack([masks for _, masks in items])

    if workers == 0:
        yield from map(load, rows)
        return
    with ThreadPoolExecutor(workers, "batch") as pool:
        yield from ordered_map(pool, load, rows, workers * AHEAD)


def divide(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Divide an epoch's rows into batches; a short tail is left out where there is a whole batch (normalisation)."""
    whole = len(rows) // size
    return np.split(rows[: whole * size], whole) if whole else [rows]
