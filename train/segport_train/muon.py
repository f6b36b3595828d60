"""Muon: steps of equal size in every direction of a filter bank, AdamW for whatever is no filter bank."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

MOMENTUM = 0.95
# Muon's update, times this and the root of the matrix's longer side, is as large as AdamW's (Liu et al. 2025,
# "Muon is scalable for LLM training"), so that one learning rate serves both.
RMS_OF_ADAMW = 0.2
# An odd polynomial a x + b x^3 + c x^5 for each iteration, the first four of Amsel et al. 2025 ("The Polar Express",
# arXiv 2505.16932): singular values from a hundredth of the norm up come within 0.44 to 1.56 (measured).
POLYNOMIALS = (
    (8.28721, -23.5959, 17.3004),
    (4.10706, -2.94785, 0.544843),
    (3.94869, -2.90890, 0.551819),
    (3.31842, -2.48849, 0.510049),
)


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024) for the weights of convolutions; AdamW without decay for all other parameters.

    A convolution's weight [out, in, height, width] is one matrix of `out` rows. PyTorch's own `torch.optim.Muon`
    takes matrices alone. `dtype`: that of the matrix products; bfloat16 is enough where it is fast.
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float, dtype: torch.dtype) -> None:
        parameters = list(network.parameters())
        filters: list[nn.Parameter] = [p for p in parameters if _is_filter_bank(p)]
        others: dict[str, Any] = {"params": [p for p in parameters if not _is_filter_bank(p)], "weight_decay": 0.0}
        # Not fused: gradient scaling would leave the choice of skipping a step to the kernel, and filters have none.
        super().__init__([dict[str, Any](params=filters), others], lr, weight_decay=weight_decay, fused=False)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step; the filters' gradients are None afterwards. Raises `TypeError` on a closure."""
        if closure is not None:
            raise TypeError("Muon.step takes no closure")
        group = self.param_groups[0]
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:  # AdamW's __setstate__ looks for "step" in every parameter's state
                state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(weight))
            state["step"] += 1
            momentum = state["momentum"]
            momentum.lerp_(weight.grad, 1 - MOMENTUM)
            update = orthogonalise_filters(weight.grad.lerp(momentum, MOMENTUM), self.dtype)  # Nesterov's
            weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])
            weight.grad = None
        super().step()


def orthogonalise_filters(update: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return [out, in, height, width] with its matrix [out, in * height * width] made orthogonal, at AdamW's size.

    Taps that no filter has an update for (an atrous tap that reads nothing but padding) stay zero and cost nothing.
    """
    taps = update.flatten(2)
    used = taps.abs().amax((0, 1)) > 0 if taps.shape[2] > 1 else torch.ones(1, dtype=torch.bool)
    every = bool(used.all())  # copying the used taps out and back is a tenth of Muon's time
    matrix = (taps if every else taps[:, :, used]).flatten(1)
    scale: float = RMS_OF_ADAMW * max(matrix.shape) ** 0.5
    orthogonal = (scale * orthogonalise(matrix, dtype)).to(taps.dtype).view(*taps.shape[:2], -1)
    if every:
        return orthogonal.view_as(update)
    result = torch.zeros_like(taps)
    result[:, :, used] = orthogonal
    return result.view_as(update)


def orthogonalise(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the nearly orthogonal matrix next to `matrix` [rows, columns]: U V^T of its U S V^T, in `dtype`.

    By Newton-Schulz iterations, matrix products alone; see `POLYNOMIALS` for how near. Zero stays zero.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = (x / (x.norm() * 1.01).clamp_min(torch.finfo(torch.float32).tiny)).to(dtype)
    for a, b, c in POLYNOMIALS:
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


def _is_filter_bank(parameter: nn.Parameter) -> bool:
    return parameter.ndim == 4 and parameter.shape[0] > 1  # a head with one class is a vector: it has no directions
