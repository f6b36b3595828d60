"""Prepared slices and masks for training: every item is a function of (seed, epoch, slice), never of a worker."""

from collections.abc import Callable, Sequence
from pathlib import PurePath

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.errors import UsageError
from segport.preprocess import Window
from segport.reading import read_slice, read_truth
from segport.sources import Slice
from segport.windows import PatientWindows
from segport_train.augment import augment
from segport_train.cache import CachedSlice, SliceCache
from segport_train.table import content, content_hashes


class Rows:
    """One array of each slice, read from the cache's file when it is asked for: `rows[3]`, or `rows[3, 5]` stacked."""

    def __init__(self, row: Callable[[int], NDArray[np.uint8]]) -> None:
        self._row = row

    def __getitem__(self, key: int | Sequence[int]) -> NDArray[np.uint8]:
        return self._row(key).copy() if isinstance(key, int) else np.stack([self._row(i) for i in key])


class SliceDataset:
    """Slices of a table, as the cache holds them; what it lacks is read and prepared first.

    `pixels`: uint8 [N, size, size, 3] RGB. `masks`: uint8 [N, size, size] of 0 and 1. An item is asked for as
    (epoch, row) and yields the pair as tensors, changed at random if `augmented`; `flair_only`: see `augment`. Raises
    `UsageError` where a file is no longer what the table says.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        contract: ModelContract,
        cache: SliceCache | None = None,
        *,
        seed: int,
        augmented: bool,
        flair_only: float = 0.0,
    ) -> None:
        self.table = table.reset_index(drop=True)
        self.seed, self.augmented, self.flair_only = seed, augmented, flair_only
        self._slices = _cached_slices(self.table, contract, cache or SliceCache(None, contract.input.size))
        self.pixels = Rows(lambda row: self._slices[row].pixels)
        self.masks = Rows(lambda row: self._slices[row].mask)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, row = key
        pixels, mask = self.pixels[row], self.masks[row]
        if self.augmented:
            rng = np.random.default_rng([self.seed, epoch, row])
            pixels, mask = augment(pixels, mask, rng, self.flair_only)
        return torch.from_numpy(pixels), torch.from_numpy(mask)

    def truth(self, row: int) -> NDArray[np.uint8]:
        """Return the mask of a row at the slice's own size, uint8 [H, W] of 0 and 1."""
        return self._slices[row].truth


def same_patient(table: pd.DataFrame) -> Callable[[Slice], list[Slice]]:
    """Return what gives all slices of a slice's patient, as seg-infer has them: also those of other parts."""
    patients = dict(zip(table.patient, table.same_patient, strict=True))
    return lambda item: patients[item.patient]


def table_slices(table: pd.DataFrame) -> list[Slice]:
    """Return the table's rows as the runtime's slices."""
    return [
        Slice(path, PurePath(relative), patient, None, mask)
        for path, relative, patient, mask in zip(
            table["path"], table["relative"], table["patient"], table["mask"], strict=True
        )
    ]


def _cached_slices(table: pd.DataFrame, contract: ModelContract, cache: SliceCache) -> list[CachedSlice]:
    """Return the rows' slices; those that are not uint8 are read once more, for their patient's window."""
    slices = table_slices(table)
    windows = PatientWindows(same_patient(table), contract)
    wanted: list[tuple[str, Window | None]] = []
    with cache.filling():
        for item, row in zip(slices, table.to_dict("records"), strict=True):
            window = None
            if cache.find(content(row)) is None:
                pixels = read_slice(item.path)
                truth = read_truth(item, pixels.shape)
                if not content_hashes(pixels, truth).items() <= row.items():
                    raise UsageError(f"{item.path}: has changed since the run began to read; remedy: start it again")
                window = windows.window_of(item, pixels)
                cache.add(content(row), pixels, truth, window)
            wanted.append((content(row), window))
    return [cache[key] for key in wanted]
