"""The full topology at an eighth of its width: exports in seconds, with masks that can be compared."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from segport.contract import Input, ModelContract, Origin
from segport.golden import golden_masks, golden_slices
from segport.preprocess import prepare, stack
from segport_export.trace import trace
from segport_train.losses import segmentation_loss
from segport_train.model import PLAIN, PLUS, SegmentationNetwork

FACTOR = 8
STEPS = {PLAIN: 40, PLUS: 60}  # masks on a finer grid take longer to learn, and int8 rounds unsure ones most


@cache
def narrow_network(
    size: int = 64, output_stride: int = 8, architecture: str = PLAIN
) -> tuple[SegmentationNetwork, ModelContract]:
    """Return a network that has learnt the shipped slices by heart (Dice 0.84 at 64 pixels), and its contract."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # what it has learnt depends on how sums are divided, and margins of tests on that
    origin = Origin(architecture=architecture, output_stride=output_stride, weights_sha256="narrow")
    contract = ModelContract(Input(size), origin=origin)
    network = SegmentationNetwork(contract, output_stride=output_stride, auxiliary=False)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                inputs, outputs = (max(c // FACTOR, 1) if c > 3 else c for c in (child.in_channels, child.out_channels))
                options = {k: getattr(child, k) for k in ("stride", "padding", "dilation")}
                replacement = nn.Conv2d(inputs, outputs, child.kernel_size, bias=child.bias is not None, **options)
                nn.init.kaiming_normal_(replacement.weight)
                setattr(parent, name, replacement)
            elif isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.BatchNorm2d(child.num_features // FACTOR, momentum=None))
    pixels = torch.from_numpy(stack([prepare(s, contract) for s in golden_slices()]))
    masks = [cv2.resize(m, (size, size), interpolation=cv2.INTER_AREA) for m in golden_masks()]
    truth = torch.from_numpy(np.stack(masks) > 0).float()
    network.train()
    with torch.no_grad():
        network(pixels)  # running statistics of these slices; they stay as they are
    network.eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(STEPS[architecture]):
        optimizer.zero_grad()
        segmentation_loss(network(pixels), truth, "bce-dice").backward()
        optimizer.step()
    with torch.no_grad():
        last = network.net.decoder.refine[-1] if architecture == PLUS else network.net.classifier[-1]
        factor = 4 / network(pixels).std()  # a trained network's spread; masks stay as they are
        last.weight *= factor
        last.bias *= factor
    torch.set_num_threads(threads)
    return network, contract


def traced(folder: Path, opset: int = 17, *, size: int = 64, output_stride: int = 8, architecture: str = PLAIN) -> Path:
    """Return the file of a narrow network's graph as the exporter leaves it."""
    network, contract = narrow_network(size, output_stride, architecture)
    trace(network, contract.input.size, output_stride, opset, folder / "traced.onnx")
    return folder / "traced.onnx"


def pixels(size: int = 64, count: int = 3) -> np.ndarray:
    """Return noise, uint8 [count, size, size, 3]: every tap matters at every position."""
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)
