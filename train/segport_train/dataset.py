"""Prepared slices and masks for training: every item is a function of (seed, epoch, slice), never of a worker."""

from pathlib import PurePath

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.preprocess import prepare, prepare_mask
from segport.reading import read_slice, read_truth
from segport.sources import Slice, same_patient
from segport.windows import PatientWindows
from segport_train.augment import augment


class SliceDataset:
    """Slices of a table, prepared once and held in memory (65 kB a slice at 128 pixels).

    `pixels`: uint8 [N, size, size, 3] RGB. `masks`: uint8 [N, size, size] of 0 and 1. An item is asked for as
    (epoch, row) and yields the pair as tensors, changed at random if `augmented`.
    """

    def __init__(self, table: pd.DataFrame, contract: ModelContract, *, seed: int, augmented: bool) -> None:
        self.table = table.reset_index(drop=True)
        self.seed, self.augmented = seed, augmented
        size, rows = contract.input.size, len(self.table)
        self.pixels = np.zeros((rows, size, size, 3), np.uint8)
        self.masks = np.zeros((rows, size, size), np.uint8)
        self._truth: list[NDArray[np.uint8]] = []
        windows = PatientWindows(same_patient(table_slices(self.table)), contract)
        for i, item in enumerate(table_slices(self.table)):
            pixels = read_slice(item.path)
            truth = read_truth(item, pixels.shape)
            self.pixels[i] = prepare(pixels, contract, windows.window_of(item, pixels))
            self.masks[i] = prepare_mask(truth, contract)
            self._truth.append(np.packbits(truth))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, row = key
        pixels, mask = self.pixels[row], self.masks[row]
        if self.augmented:
            pixels, mask = augment(pixels, mask, np.random.default_rng([self.seed, epoch, row]))
        return torch.from_numpy(pixels), torch.from_numpy(mask)

    def truth(self, row: int) -> NDArray[np.uint8]:
        """Return the mask of a row at the slice's own size, uint8 [H, W] of 0 and 1."""
        height, width = int(self.table.height[row]), int(self.table.width[row])
        return np.unpackbits(self._truth[row], count=height * width).reshape(height, width)


def table_slices(table: pd.DataFrame) -> list[Slice]:
    """Return the table's rows as the runtime's slices."""
    return [
        Slice(path, PurePath(relative), patient, None, mask)
        for path, relative, patient, mask in zip(
            table["path"], table["relative"], table["patient"], table["mask"], strict=True
        )
    ]
