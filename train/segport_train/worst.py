"""The slices on which the network did worst, shown with both outlines."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.overlay import draw_outlines
from segport.preprocess import to_display
from segport.reading import read_slice
from segport.windows import PatientWindows
from segport_train.dataset import SliceDataset, same_patient, table_slices
from segport_train.evaluation import Evaluation, SliceScore, predict
from segport_train.hardware import Hardware
from segport_train.model import SegmentationNetwork

SHOWN = 10
OF_A_PATIENT = 3  # else one patient fills the picture


def choose_worst(one: Evaluation) -> list[SliceScore]:
    """Return the ten slices of the lowest Dice among those with tumour in mask or truth.

    Three a patient at most, unless there are too few patients. Where Dice is the same, the slice with more wrong pixels
    comes first.
    """
    marked = sorted((s for s in one.slices if s.counts.dice < 1), key=_goodness)
    chosen: list[SliceScore] = []
    for s in marked:
        if sum(other.patient == s.patient for other in chosen) < OF_A_PATIENT:
            chosen.append(s)
    others = [s for s in marked if s not in chosen]
    return sorted((chosen + others)[:SHOWN], key=_goodness)


def _goodness(s: SliceScore) -> tuple[float, int, int]:
    return s.counts.dice, -s.counts.fp - s.counts.fn, s.row


def draw_slices(
    network: SegmentationNetwork,
    data: SliceDataset,
    contract: ModelContract,
    rows: Sequence[int],
    hardware: Hardware,
) -> list[NDArray[np.uint8]]:
    """Return the FLAIR of slices with the outlines of mask (red) and truth (green), uint8 RGB [2H, 2W, 3] or more."""
    slices = table_slices(data.table)
    windows = PatientWindows(same_patient(data.table), contract)
    drawn = []
    for row, mask in zip(rows, predict(network, data, rows, hardware), strict=True):
        pixels = read_slice(slices[row].path)
        flair = to_display(pixels, windows.window_of(slices[row], pixels))[..., 1:2]
        drawn.append(draw_outlines(np.repeat(flair, 3, axis=2), mask, data.truth(row)))
    return drawn
