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
    takes matrices alone. `dtype`: that of the matrix products; bfloat16 is enough where it is fast. `together`: filters
    of one shape take their step in one go, for CUDA, where starting kernels takes more time than computing.
    """

    def __init__(
        self, network: nn.Module, lr: float, weight_decay: float, dtype: torch.dtype, *, together: bool = False
    ) -> None:
        parameters = list(network.parameters())
        filters: list[nn.Parameter] = [p for p in parameters if _is_filter_bank(p)]
        others: dict[str, Any] = {"params": [p for p in parameters if not _is_filter_bank(p)], "weight_decay": 0.0}
        # Not fused: gradient scaling would leave the choice of skipping a step to the kernel, and filters have none.
        super().__init__([dict[str, Any](params=filters), others], lr, weight_decay=weight_decay, fused=False)
        self.dtype, self.together = dtype, together

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step; the filters' gradients are None afterwards. Raises `TypeError` on a closure."""
        if closure is not None:
            raise TypeError("Muon.step takes no closure")
        groups: dict[object, list[nn.Parameter]] = {}
        for weight in self.param_groups[0]["params"]:
            if weight.grad is not None:
                groups.setdefault(weight.shape if self.together else weight, []).append(weight)
        for weights in groups.values():
            self._step_filters(weights)
        super().step()

    def _step_filters(self, weights: list[nn.Parameter]) -> None:
        """Take a step with filters of one shape."""
        group = self.param_groups[0]
        for weight in weights:
            if not self.state[weight]:  # AdamW's __setstate__ looks for "step" in every parameter's state
                self.state[weight].update(step=torch.tensor(0.0), momentum=torch.zeros_like(weight))
            self.state[weight]["step"] += 1
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        updates = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's
        batch = torch.stack(updates) if len(updates) > 1 else updates[0][None]  # of a single one, no copy
        for weight, update in zip(weights, orthogonalise_filters(batch, self.dtype), strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])
            weight.grad = None


def orthogonalise_filters(updates: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return [N, out, in, height, width] with each matrix [out, in * height * width] made orthogonal, at AdamW's size.

    Taps that no filter has an update for (an atrous tap that reads nothing but padding) stay zero. On the CPU they
    cost nothing; on CUDA they are computed with, since to ask for them would wait for the device.
    """
    taps = updates.flatten(3)
    used = taps.abs().amax((1, 2)) > 0  # [N, height * width]
    longer_side = (used.sum(1) * taps.shape[2]).clamp_min(taps.shape[1])
    scale = RMS_OF_ADAMW * longer_side.sqrt()[:, None, None]
    if taps.is_cuda or bool(used.all()):  # copying the used taps out and back is a tenth of Muon's time on the CPU
        return (scale * orthogonalise(taps.flatten(2), dtype).to(taps.dtype)).view_as(updates)
    kept = used.any(0)
    orthogonal = scale * orthogonalise(taps[..., kept].flatten(2), dtype).to(taps.dtype)
    result = torch.zeros_like(taps)
    result[..., kept] = orthogonal.view(*taps.shape[:3], -1)
    return result.view_as(updates)


def orthogonalise(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the nearly orthogonal matrices next to `matrices` [N, rows, columns], U V^T of each U S V^T, in `dtype`.

    By Newton-Schulz iterations, matrix products alone; see `POLYNOMIALS` for how near. Zero stays zero.
    """
    several = len(matrices) > 1  # on the CPU products of two matrices are faster than batches of one
    multiply_add: Callable[..., torch.Tensor] = torch.baddbmm if several else torch.addmm
    x = matrices if several else matrices[0]
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    norms = torch.linalg.matrix_norm(x, keepdim=True)
    x = (x / (norms * 1.01).clamp_min(torch.finfo(torch.float32).tiny)).to(dtype)
    for a, b, c in POLYNOMIALS:
        gram = x @ x.mT
        x = multiply_add(x, multiply_add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x if wide else x.mT
    return x if several else x[None]


def _is_filter_bank(parameter: nn.Parameter) -> bool:
    return parameter.ndim == 4 and parameter.shape[0] > 1  # a head with one class is a vector: it has no directions
