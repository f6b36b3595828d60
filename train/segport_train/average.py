"""Average a network with the one that its training began with: between two ends lie weights that generalise better.

Izmailov et al. 2018 (arXiv:1803.05407) average along one training whose rate rises again, Wortsman et al. 2022
(arXiv:2109.01903) a network and what was trained on from it.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from segport_train.hardware import Hardware
from segport_train.model import SegmentationNetwork


@torch.no_grad()
def average_weights(network: SegmentationNetwork, start: Mapping[str, torch.Tensor]) -> None:
    """Replace each of the network's weights, in place, by the mean of it and that of the same name in `start`."""
    for name, own in network.state_dict().items():
        if own.is_floating_point():
            own.copy_((own.double() + start[name].to(own.device).double()) / 2)


@torch.no_grad()
def measure_statistics(network: SegmentationNetwork, batches: Iterable[torch.Tensor], hardware: Hardware) -> None:
    """Measure what batch normalisation knows of its maps anew, in place: averaged weights make other maps.

    `batches`: augmented slices to train on, uint8 [N, size, size, 3]; the statistics are means over them. Dropout is
    off, as in the network's use. Leaves it in evaluation mode.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    with hardware.autocast():
        for pixels in batches:
            network(pixels.to(hardware.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
