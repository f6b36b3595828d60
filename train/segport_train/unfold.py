"""Give folded convolutions their normalisation back, so that the network can be trained on."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from segport_train.model import SegmentationNetwork
from segport_train.recover import Folded

LAST = ("net.classifier.4", "net.decoder.refine.3")  # gives the logits; no normalisation behind it


class _Statistics:
    """Counts, sums and sums of squares of each channel that a normalisation reads, in float64."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.norm, self.count = norm, 0
        self.sum = self.squares = torch.zeros(norm.num_features, dtype=torch.float64)
        self.hook = norm.register_forward_pre_hook(self._add)

    def _add(self, _: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        y = arguments[0].double().transpose(0, 1).flatten(1)
        self.count += y.shape[1]
        self.sum = self.sum + y.sum(1)
        self.squares = self.squares + (y * y).sum(1)

    def write(self) -> None:
        """Make them the running statistics, with weight and bias that keep what the normalisation computes."""
        norm = self.norm
        self.hook.remove()
        mean = self.sum / self.count
        variance = (self.squares / self.count - mean * mean).clamp(min=0)
        factor = norm.weight.double() / (1 + norm.eps) ** 0.5  # now: mean 0, variance 1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(factor * (norm.running_var.double() + norm.eps).sqrt())
        norm.bias.copy_(norm.bias.double() + factor * norm.running_mean.double())


@torch.no_grad()
def unfold(network: SegmentationNetwork, folded: Mapping[str, Folded], batches: Iterable[torch.Tensor]) -> None:
    """Put folded convolutions into the network, in place, each with a normalisation that changes nothing.

    `batches`: slices to train on, uint8 [N, size, size, 3]. The mean m and the variance v of each channel behind a
    convolution are measured on them; its normalisation subtracts m, divides by sqrt(v), and multiplies and adds the
    same again, and the folded bias. In evaluation mode the logits are those of the folded network; in training mode
    they are as near to it as a batch's statistics are to m and v. Kernels get the norm of the random ones they
    replace, which normalisation undoes: an optimizer's step then changes all of them alike.
    """
    modules = dict(network.named_modules())
    found = []
    for name, norm in _followers(network):
        if name not in folded:
            continue
        conv, one = modules[name], folded[name]
        assert isinstance(conv, nn.Conv2d)
        weight = torch.from_numpy(one.weight)
        norms = [w.flatten(1).norm(dim=1) for w in (weight, conv.weight)]
        scale = torch.where(norms[0] > 0, norms[1].mean() / norms[0], 1.0)
        conv.weight.copy_(weight * scale.view(-1, 1, 1, 1))
        norm.reset_running_stats()
        norm.weight.copy_((1 + norm.eps) ** 0.5 / scale)
        norm.bias.copy_(torch.from_numpy(one.bias))
        found.append(_Statistics(norm))
    for name in LAST:
        if name in folded:
            last = modules[name]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            last.weight.copy_(torch.from_numpy(folded[name].weight))
            last.bias.copy_(torch.from_numpy(folded[name].bias))
    training = network.training
    network.eval()
    for pixels in batches:
        network(pixels)
    network.train(training)
    for statistics in found:
        statistics.write()


def _followers(network: SegmentationNetwork) -> Iterator[tuple[str, nn.BatchNorm2d]]:
    """Yield the name of each convolution with the normalisation behind it: the modules are listed in that order."""
    name = ""
    for candidate, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            name = candidate
        elif isinstance(module, nn.BatchNorm2d):
            yield name, module
