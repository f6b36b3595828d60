"""Loss and scores of a network on a part of the data, at the slices' own size, through the runtime's pixel maths."""

from collections import defaultdict
from dataclasses import dataclass
from typing import cast

import torch

from segport.preprocess import restore, to_mask
from segport.scoring import Counts, Scores, count_pixels, score_patients
from segport_train.dataset import SliceDataset
from segport_train.hardware import Hardware
from segport_train.losses import segmentation_loss
from segport_train.model import SegmentationNetwork
from segport_train.settings import Loss

PROBABILITY = 0.5  # accuracy and Dice are reported at this probability, the published method's own


@dataclass(frozen=True)
class Evaluation:
    """Mean loss per slice at the network's size, scores at native size, and pixel counts of each patient."""

    loss: float
    scores: Scores
    patients: dict[str, Counts]


def evaluate(
    network: SegmentationNetwork, data: SliceDataset, hardware: Hardware, loss: Loss, batch_size: int
) -> Evaluation:
    """Run the network in evaluation mode over every slice of `data`, unaugmented; leaves it in training mode off."""
    network.eval()
    total = 0.0
    patients: dict[str, Counts] = defaultdict(Counts)
    for start in range(0, len(data), batch_size):
        stop = min(start + batch_size, len(data))
        pixels = torch.from_numpy(data.pixels[start:stop]).to(hardware.device)
        masks = torch.from_numpy(data.masks[start:stop]).to(hardware.device)
        with torch.inference_mode(), hardware.autocast():
            logits = cast(torch.Tensor, network(pixels)).float()
            total += float(segmentation_loss(logits, masks, loss)) * (stop - start)
        for row, one in zip(range(start, stop), logits[:, 0].cpu().numpy(), strict=True):
            truth = data.truth(row)
            mask = to_mask(restore(one, (truth.shape[0], truth.shape[1])), PROBABILITY)
            patients[str(data.table.patient[row])] += count_pixels(mask, truth)
    return Evaluation(total / len(data), score_patients(patients, len(data)), dict(patients))
