"""Losses on logits: binary cross-entropy, alone or with soft Dice."""

from collections.abc import Callable

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from segport_train.settings import Loss

AUXILIARY_WEIGHT = 0.4  # of the layer-3 head, as in PSPNet (Zhao et al. 2017)


def segmentation_loss(
    logits: torch.Tensor,
    masks: torch.Tensor,
    kind: Loss,
    total: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the mean loss of float logits [N, 1, S, S] against masks of 0 and 1, [N, S, S].

    "bce": binary cross-entropy over all pixels. "bce-dice": plus 1 - (2 sum(p m) + 1) / (sum p + sum m + 1), with
    the sums over the whole batch (Milletari et al. 2016, with linear denominators and smoothing 1). `total` adds them
    up over the processes that share a batch.
    """
    scores, truth = logits[:, 0].float(), masks.float()
    loss = binary_cross_entropy_with_logits(scores, truth)
    if kind == "bce-dice":
        probability = torch.sigmoid(scores)
        both = torch.stack([(probability * truth).sum(), probability.sum() + truth.sum()])
        shared, either = total(both) if total else both
        loss = loss + 1 - (2 * shared + 1) / (either + 1)
    return loss
