"""DeepLabV3-ResNet50, plain or with a decoder, that takes uint8 pixels: torchvision's parts, normalisation inside."""

import hashlib
from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPP, ASPPConv, DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCNHead

from segport.contract import ModelContract
from segport.errors import ModelError

PLAIN, PLUS = "deeplabv3_resnet50", "deeplabv3plus_resnet50"
LOW_STRIDE = 4  # pixels a cell of layer 1's maps, whatever the output stride
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


class Decoder(nn.Module):
    """The pyramid's maps [N, 256, h, w] and layer 1's [N, 256, H, W] to logits [N, 1, H, W].

    DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611): layer 1's maps are reduced to 48 channels and joined to the
    pyramid's, enlarged; one 3x3 convolution of 256 channels, where the paper has two, reads both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(256, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU())
        self.refine = nn.Sequential(
            nn.Conv2d(256 + 48, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU(), nn.Conv2d(256, 1, 1)
        )

    def forward(self, pyramid: torch.Tensor, layer1: torch.Tensor) -> torch.Tensor:
        fine = self.reduce(layer1)
        enlarged = functional.interpolate(pyramid, size=fine.shape[2:], mode="bilinear", align_corners=False)
        return cast(torch.Tensor, self.refine(torch.cat([enlarged, fine], 1)))


class DeepLabV3Plus(DeepLabV3):  # type: ignore[misc]  # torchvision has no types
    """torchvision's `DeepLabV3` whose classifier ends with the pyramid, and a `Decoder` behind it.

    The backbone also returns layer 1, as "low".
    """

    def __init__(self, backbone: nn.Module, rates: tuple[int, ...], aux_classifier: nn.Module | None) -> None:
        super().__init__(backbone, nn.Sequential(ASPP(2048, rates)), aux_classifier)
        self.decoder = Decoder()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(x)
        maps = {"out": self.decoder(self.classifier(features["out"]), features["low"])}
        if self.aux_classifier is not None:
            maps["aux"] = self.aux_classifier(features["aux"])
        size = x.shape[2:]
        return {k: functional.interpolate(m, size=size, mode="bilinear", align_corners=False) for k, m in maps.items()}


class SegmentationNetwork(nn.Module):
    """Pixels uint8 [N, size, size, 3] in RGB order to logits float32 [N, 1, size, size].

    In training mode with `auxiliary=True`, returns (logits, auxiliary logits), the latter from layer 3.
    Raises `ModelError` for an architecture that this version does not know.
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(self, contract: ModelContract, *, output_stride: int, auxiliary: bool) -> None:
        super().__init__()
        mean, std = torch.tensor(contract.input.mean), torch.tensor(contract.input.std)
        self.register_buffer("factor", (contract.input.scale / std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", (-mean / std).view(1, 3, 1, 1), persistent=False)
        self.centred = any(contract.input.mean)
        self.architecture = contract.origin.architecture
        if self.architecture not in (PLAIN, PLUS):
            raise ModelError(
                f"its architecture is {self.architecture}, this version knows {PLAIN} and {PLUS};"
                " remedy: a newer segport"
            )
        dilate = [False, output_stride == 8, True]
        backbone = resnet50(weights=None, replace_stride_with_dilation=dilate)
        features = {"layer4": "out", "layer3": "aux"} if auxiliary else {"layer4": "out"}
        rates = ATROUS_RATES[output_stride]
        if self.architecture == PLUS:
            getter = IntermediateLayerGetter(backbone, {"layer1": "low"} | features)
            self.net: DeepLabV3 = DeepLabV3Plus(getter, rates, FCNHead(1024, 1) if auxiliary else None)
        else:
            getter, head = IntermediateLayerGetter(backbone, features), DeepLabHead(2048, 1, rates)
            self.net = DeepLabV3(getter, head, FCNHead(1024, 1) if auxiliary else None)
        for branch in self.net.classifier.modules():
            if isinstance(branch, ASPPConv):
                rate, planes = branch[0].dilation, (branch[0].in_channels, branch[0].out_channels)
                conv = AtrousConv2d(*planes, 3, padding=rate, dilation=rate, bias=False, device="meta")
                conv.weight = branch[0].weight  # so that a seed draws the weights of the plain architecture
                branch[0] = conv

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels, uint8 [N, size, size, 3] in RGB order, as float [N, 3, size, size].

        By the contract's numbers: (scale * pixel - mean) / std.
        """
        x = pixels.permute(0, 3, 1, 2).to(self.factor.dtype) * self.factor
        return x + self.offset if self.centred else x

    def forward(self, pixels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        result = self.net(self.normalise(pixels))
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
