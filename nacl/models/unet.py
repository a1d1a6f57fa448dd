"""The paper's U-Net, and its form for volumes with thick slices."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from nacl._checks import check_integer, expectation
from nacl.models._options import Options
from nacl.models.levels import THICK, Levels, check_multiples

POOLS = (1, 2, 2, 2, 4)
"""By how much each level of the paper's network is smaller than the one above."""
SLICES = Levels(((3, 3),) * len(POOLS), tuple((pool, pool) for pool in POOLS))


class UNet(nn.Module):
    """The paper's U-Net: five levels of two 3 x 3 convolutions with ReLU, no normalisation, no dropout.

    The bottom level is pooled by 4, the others by 2, so height and width must be multiples of 32; the way up repeats
    pixels (nearest) and concatenates the way down. Parameter count at 32 filters, 1 channel, 4 classes: 7,846,180.

    Args:
        in_channels: channels of the image.
        num_classes: channels of the logits.
        filters: channels at the top level; level i has `filters * 2**i`.
        levels: kernels and strides of the five levels; by default the paper's, for slices. `volume_levels` gives those
            of volumes.

    Source: the network of the authors' research code (32 filters), read as facts.
    """

    def __init__(self, in_channels: int, num_classes: int, *, filters: int = 32, levels: Levels = SLICES) -> None:
        super().__init__()
        check_integer("filters", filters, low=1)
        widths = [filters * 2**level for level in range(len(levels.strides))]
        ways = pairwise([in_channels, *widths])
        self.strides = levels.strides
        self.multiples = [prod(steps) for steps in zip(*levels.strides, strict=True)]
        self.down = nn.ModuleList(_double_conv(a, b, k) for (a, b), k in zip(ways, levels.kernels, strict=True))
        self.up = nn.ModuleList(
            _double_conv(a + b, a, k) for (a, b), k in zip(pairwise(widths), levels.kernels, strict=False)
        )
        self.head = _conv(filters, num_classes, (1,) * len(levels.kernels[0]))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of images (N, in_channels, H, W), or (N, C, D, H, W) likewise."""
        _check_size(image, self.multiples)
        pooled = nn.functional.max_pool2d if image.ndim == 4 else nn.functional.max_pool3d
        skips = []
        for stride, block in zip(self.strides, self.down, strict=True):
            image = block(pooled(image, stride) if max(stride) > 1 else image)
            skips.append(image)
        features = skips.pop()
        for stride, block in zip(self.strides[:0:-1], reversed(self.up), strict=True):
            features = nn.functional.interpolate(features, scale_factor=stride, mode="nearest")
            features = block(torch.cat([features, skips.pop()], dim=1))
        return self.head(features)


def _double_conv(in_channels: int, out_channels: int, kernel: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(
        _conv(in_channels, out_channels, kernel),
        nn.ReLU(inplace=True),
        _conv(out_channels, out_channels, kernel),
        nn.ReLU(inplace=True),
    )


def _conv(in_channels: int, out_channels: int, kernel: tuple[int, ...]) -> nn.Module:
    conv = nn.Conv2d if len(kernel) == 2 else nn.Conv3d
    return conv(in_channels, out_channels, kernel, padding=tuple(width // 2 for width in kernel))


def _check_size(image: Tensor, multiples: Sequence[int]) -> None:
    shape, plane = tuple(image.shape), multiples[-1]
    if len(shape) != 2 + len(multiples):
        axes = "(N, C, H, W)" if len(multiples) == 2 else "(N, C, D, H, W)"
        raise ValueError(expectation("image", f"of shape {axes}", shape))
    if shape[-1] % plane or shape[-2] % plane:
        remedy = f"Resize or pad to multiples of {plane}"
        raise ValueError(expectation("image", f"with height and width multiples of {plane}", shape, remedy=remedy))
    if shape[2] % multiples[0]:
        remedy = "Pad the volume, or build the network for patches of its depth"
        raise ValueError(expectation("image", f"with a depth multiple of {multiples[0]}", shape, remedy=remedy))


def volume_levels(depth: int, thickness: float) -> Levels:
    """Levels of the U-Net for patches of `depth` slices, `thickness` times as far apart as pixels in the plane.

    The plane is pooled as in the paper. With each halving of the plane the depth is halved too, once slices are less
    than twice as far apart as pixels, and as long as it is even. Kernels are 3 x 3 in the plane; along the depth they
    have 3 voxels once slices are not thick any more, 1 before and where one slice is left. With `depth` 1 the network
    is the one for slices.

    >>> volume_levels(8, 10 / 1.5).strides
    ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (4, 4, 4))
    """
    kernels, strides = [], []
    for pool in POOLS:
        stride = 1
        for _ in range(pool.bit_length() - 1):  # halvings of the plane
            if thickness < THICK and depth % 2 == 0:
                depth, stride = depth // 2, 2 * stride
            else:
                thickness /= 2
        kernels.append((3 if thickness < THICK and depth > 1 else 1, 3, 3))
        strides.append((stride, pool, pool))
    return Levels(tuple(kernels), tuple(strides))


def build(name: str, options: Options) -> nn.Module:
    """The U-Net for slices, or for patches of volumes."""
    *depth, height, width = options.patch
    plane = prod(POOLS)
    check_multiples((height, width), (plane, plane), name)
    levels = SLICES
    if depth:
        levels = volume_levels(depth[0], options.spacing[0] / min(options.spacing[1:]))
    return UNet(options.in_channels, options.num_classes, filters=options.filters, levels=levels)
