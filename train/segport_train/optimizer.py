"""The optimizer and its learning rate, a function of the step alone: nothing to save for a resume."""

import math

import torch
from torch import nn

from segport_train.hardware import Hardware
from segport_train.muon import Muon
from segport_train.settings import TrainSettings

WARM_UP = 100  # steps of rising learning rate for adamw and muon: batch statistics settle before large steps


def make_optimizer(network: nn.Module, settings: TrainSettings, hardware: Hardware) -> torch.optim.Optimizer:
    """Return Adam, AdamW or Muon over all parameters of the network; Adam's are fused: one kernel for a tensor."""
    if settings.optimizer == "muon":
        dtype = torch.bfloat16 if hardware.precision == "bf16" else torch.float32
        together = hardware.device.type == "cuda"
        return Muon(network, settings.start_lr, settings.weight_decay, dtype, together=together)
    if settings.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), settings.start_lr, fused=True)
    return torch.optim.AdamW(network.parameters(), settings.start_lr, weight_decay=settings.weight_decay, fused=True)


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Return the rate of a step: constant for adam; for adamw and muon a linear warm-up, then cosine to zero.

    The warm-up takes 100 steps, or a tenth of a shorter training.
    """
    if settings.optimizer == "adam":
        return settings.start_lr
    warm_up = min(WARM_UP, max(1, total // 10))
    if step < warm_up:
        return settings.start_lr * (step + 1) / warm_up
    return settings.start_lr * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))
