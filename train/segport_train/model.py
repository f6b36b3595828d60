"""DeepLabV3-ResNet50 that takes uint8 pixels: torchvision's parts, normalisation inside."""

import hashlib
from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPPConv, DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCNHead

from segport.contract import ModelContract

# Chen et al. 2017 (arXiv:1706.05587): the rates double when the output stride halves.
ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}


class AtrousConv2d(nn.Conv2d):
    """A 3x3 convolution, padded by its rate, that in training computes only the taps that reach the map.

    Where the rate is the map's side or more, eight of nine taps read nothing but padding: at 128 pixels those of two
    atrous branches of three, an eighth of a step. Values and gradients are those of `nn.Conv2d`. In evaluation mode it
    is one, so that an exported graph is the plain architecture's.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if not self.training or self.dilation[0] < max(features.shape[2:]):
            return super().forward(features)
        return functional.conv2d(features, self.weight[..., 1:2, 1:2], self.bias)


class SegmentationNetwork(nn.Module):
    """Pixels uint8 [N, size, size, 3] in RGB order to logits float32 [N, 1, size, size].

    In training mode with `auxiliary=True`, returns (logits, auxiliary logits), the latter from layer 3.
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(self, contract: ModelContract, *, output_stride: int, auxiliary: bool) -> None:
        super().__init__()
        mean, std = torch.tensor(contract.input.mean), torch.tensor(contract.input.std)
        self.register_buffer("factor", (contract.input.scale / std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", (-mean / std).view(1, 3, 1, 1), persistent=False)
        self.centred = any(contract.input.mean)
        dilate = [False, output_stride == 8, True]
        backbone = resnet50(weights=None, replace_stride_with_dilation=dilate)
        features = {"layer4": "out", "layer3": "aux"} if auxiliary else {"layer4": "out"}
        self.net = DeepLabV3(
            IntermediateLayerGetter(backbone, features),
            DeepLabHead(2048, 1, ATROUS_RATES[output_stride]),
            FCNHead(1024, 1) if auxiliary else None,
        )
        for branch in self.net.classifier.modules():
            if isinstance(branch, ASPPConv):
                rate, planes = branch[0].dilation, (branch[0].in_channels, branch[0].out_channels)
                conv = AtrousConv2d(*planes, 3, padding=rate, dilation=rate, bias=False, device="meta")
                conv.weight = branch[0].weight  # so that a seed draws the weights of the plain architecture
                branch[0] = conv

    def forward(self, pixels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = pixels.permute(0, 3, 1, 2).to(self.factor.dtype) * self.factor
        if self.centred:
            x = x + self.offset
        result = self.net(x)
        if self.training and "aux" in result:
            return result["out"], result["aux"]
        return cast(torch.Tensor, result["out"])


def weights_sha256(state: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of the tensors in name order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
