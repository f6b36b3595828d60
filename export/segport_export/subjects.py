"""The slices the gate compares on: real ones with their truth, the shipped synthetic ones, and hostile ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.errors import SliceError
from segport.golden import NAMES, golden_masks, golden_slices
from segport.preprocess import to_display
from segport.reading import read_truth
from segport_export.rundata import RunData

HOSTILE_SIDE = 64  # pixels; any will do: prepare resizes them to the network's size


@dataclass(frozen=True)
class ParitySlice:
    """A slice to compare on: uint8 RGB [H, W, 3] at its own size, and its true mask (0/1 [H, W]) if there is one.

    `shipped`: synthetic; what it holds proves nothing about real slices where there are some. `hostile`: no anatomy;
    its logits are compared, but it says nothing about foreground and Dice.
    """

    name: str
    display: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None = None
    patient: str = ""
    shipped: bool = False
    hostile: bool = False


def parity_slices(run: RunData, folder: Path | None, contract: ModelContract) -> list[ParitySlice]:
    """Return the slices of `folder`, or of the run that were not trained on, then the shipped and the hostile ones.

    The synthetic masks count as truth only where there are no other slices: a Dice pooled over both says nothing.
    """
    found = run.parity(folder)
    slices = []
    for item, display in zip(found, run.read_displays(found, folder, contract), strict=True):
        try:
            truth = read_truth(item, display.shape) if item.mask else None
        except SliceError as error:
            raise SliceError(f"{item.path}: {error}") from error
        slices.append(ParitySlice(item.relative.as_posix(), display, truth, item.patient))
    shipped = zip(NAMES, golden_slices(), golden_masks(), strict=True)
    slices += [
        ParitySlice(name, to_display(p), None if found else mask, name, shipped=True) for name, p, mask in shipped
    ]
    return slices + hostile_slices()


def hostile_slices() -> list[ParitySlice]:
    """Return slices that no scanner makes: constant (black, grey, white), saturated (a shipped slice), and noise."""
    shape = (HOSTILE_SIDE, HOSTILE_SIDE, 3)
    constant = [(f"constant {value}", np.full(shape, value, np.uint8)) for value in (0, 128, 255)]
    brightest = to_display(golden_slices(NAMES[:1])[0]).astype(np.uint16) * 4
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    hostile = [*constant, ("saturated", np.minimum(brightest, 255).astype(np.uint8)), ("noise", noise)]
    return [ParitySlice(name, pixels, hostile=True) for name, pixels in hostile]
