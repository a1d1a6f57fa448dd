"""Networks by name: the paper's U-Net, and segmentation-models-pytorch's `Unet`."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from nacl._checks import check_choice, check_integer, expectation


class UNet(nn.Module):
    """The paper's U-Net: five levels of two 3 x 3 convolutions with ReLU, no normalisation, no dropout.

    The bottom level is pooled by 4, the others by 2, so height and width must be multiples of 32; the way up repeats
    pixels (nearest) and concatenates the way down. Parameter count at 32 filters, 1 channel, 4 classes: 7,846,180.

    Args:
        in_channels: channels of the image.
        num_classes: channels of the logits.
        filters: channels at the top level; level i has `filters * 2**i`.

    Source: the network of the authors' research code (32 filters), read as facts.
    """

    stride = 32

    def __init__(self, in_channels: int, num_classes: int, *, filters: int = 32) -> None:
        super().__init__()
        check_integer("filters", filters, low=1)
        widths = [filters * 2**level for level in range(5)]
        self.pools = [1, 2, 2, 2, 4]
        self.down = nn.ModuleList(_double_conv(a, b) for a, b in pairwise([in_channels, *widths]))
        self.up = nn.ModuleList(_double_conv(narrow + wide, narrow) for narrow, wide in pairwise(widths))
        self.head = nn.Conv2d(filters, num_classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of images (N, in_channels, H, W)."""
        _check_size(image, self.stride)
        skips = []
        for pool, block in zip(self.pools, self.down, strict=True):
            image = block(nn.functional.max_pool2d(image, pool) if pool > 1 else image)
            skips.append(image)
        features = skips.pop()
        for pool, block in zip(self.pools[:0:-1], reversed(self.up), strict=True):
            features = nn.functional.interpolate(features, scale_factor=pool, mode="nearest")
            features = block(torch.cat([features, skips.pop()], dim=1))
        return self.head(features)


def _double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def _check_size(image: Tensor, stride: int) -> None:
    if image.shape[-1] % stride or image.shape[-2] % stride:
        remedy = f"Resize or pad to multiples of {stride}"
        raise ValueError(
            expectation("image", f"with height and width multiples of {stride}", tuple(image.shape), remedy=remedy)
        )


def _smp_unet(in_channels: int, num_classes: int, *, filters: int) -> nn.Module:
    check_integer("filters", filters, low=1)
    import segmentation_models_pytorch as smp  # slow to import, and in the extra `train`

    return smp.Unet(
        encoder_name="resnet18",
        encoder_weights=None,
        decoder_channels=[filters * 2**level for level in reversed(range(5))],
        in_channels=in_channels,
        classes=num_classes,
    )


MODELS = {"unet": UNet, "smp.Unet": _smp_unet}
"""Network builders by name, each `(in_channels, num_classes, *, filters)`. "smp.Unet" has a ResNet-18 encoder with
batch normalisation and random weights; `filters` sets the width of its decoder."""


def build_model(name: str, in_channels: int, num_classes: int, *, filters: int = 32) -> nn.Module:
    """A network of `MODELS`, with random weights from torch's global generator.

    Args:
        name: a key of `MODELS`.
        in_channels: channels of the image.
        num_classes: channels of the logits.
        filters: width at full resolution.

    Raises:
        ValueError: unknown `name` (the nearest is suggested).

    Example:
        >>> build_model("unet", 1, 4, filters=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 4, 32, 32])
    """
    check_choice("model", name, MODELS)
    return MODELS[name](in_channels, num_classes, filters=filters)
