"""Evaluations whose answer is known: of masks made by hand, rows of 10 pixels, and of a network that is a threshold."""

from typing import cast

import numpy as np
import torch
from torch import nn

from segport.scoring import compare_masks
from segport_train.evaluation import Evaluation, SliceScore
from segport_train.hardware import Hardware
from segport_train.model import SegmentationNetwork

PIXELS = 10
CPU = Hardware(torch.device("cpu"), "fp32")


class FlairNetwork(nn.Module):
    """A logit from FLAIR alone: tumour is what is brighter than 100."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels[..., 1].float().unsqueeze(1) / 20 - 5


FLAIR = cast(SegmentationNetwork, FlairNetwork())


def row(tumour: int, *, start: int = 0, pixels: int = PIXELS) -> np.ndarray:
    """Return a mask, uint8 [1, pixels], with `tumour` pixels from `start` on."""
    mask = np.zeros((1, pixels), np.uint8)
    mask[0, start : start + tumour] = 1
    return mask


def scored(*slices: tuple[str, np.ndarray, np.ndarray], first: int = 0, site: str = "") -> Evaluation:
    """Return the evaluation of slices given as (patient, mask, truth)."""
    return Evaluation(
        tuple(
            SliceScore(n, f"{patient}/{patient}_{n}.png", patient, site, compare_masks(mask, truth))
            for n, (patient, mask, truth) in enumerate(slices, first)
        )
    )
