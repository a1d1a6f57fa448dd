"""Random changes of slices and of 3D patches, with their labels, on the device that holds them."""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from nacl._checks import check_number, expectation, is_scanned
from nacl.data.patches import BEYOND
from nacl.data.slices import sent

ROUNDING = 1e-5  # by which images may leave [0, 1], as probabilities may in the metrics


@dataclass(frozen=True)
class Augmentation:
    """Slices or 3D patches flipped, turned, scaled and with other intensities, each by its own draw.

    With u uniform on [-1, 1], drawn anew for each slice and range, and (the last three) for each channel:

    - both axes of the slice are reversed, each with probability `flip`;
    - the slice is turned about its centre by `rotation` u degrees and enlarged by (1 + `scale`)^u; what comes in from
      beyond its edge is its mirror image;
    - x becomes x^a, a = (1 + `gamma`)^u; then m + b (x - m), with m the channel's mean and b = (1 + `contrast`)^u; then
      c x, c = (1 + `brightness`)^u; then it is cut to [0, 1].

    Images are interpolated, labels take the nearest pixel's, and both move alike. A range of 0 leaves its part as it
    is, to the bit. The defaults go about half as far as nnU-Net, since here every slice is changed in every way, and
    there only one in three to seven in each.

    All slices of a 3D patch are changed alike, and none is mixed with its neighbours, which in thick slices lie further
    off than the interpolation could bridge. Their order is reversed with probability `flip` too: no label depends on
    whether a stack was stored from its top or its bottom, and (as flips in the plane do) it leaves all distances. What
    of a patch lies beyond its volume, where labels are `nacl.data.patches.BEYOND`, counts in no mean and ends as 0.

    Attributes:
        flip: probability, in [0, 1].
        rotation: largest angle, in degrees.
        scale, gamma, contrast, brightness: how far beyond 1 the factor or exponent goes, at least 0.

    Raises:
        ValueError, TypeError: a range that is out of its own.

    Example:
        >>> augment = Augmentation(rotation=0, scale=0, gamma=0, contrast=0, brightness=0, flip=1)
        >>> images, labels = torch.tensor([[[[0.0, 0.5, 1.0]]]]), torch.tensor([[[0, 1, 2]]])
        >>> augment(images, labels, torch.Generator().manual_seed(0))
        (tensor([[[[1.0000, 0.5000, 0.0000]]]]), tensor([[[2, 1, 0]]]))

    References:
        Isensee et al., nnU-Net, Nature Methods 18, 2021: rotation to 30 degrees (in 3D), scale in [0.7, 1.4], gamma in
        [0.7, 1.5], contrast and brightness in [0.75, 1.25].
    """

    flip: float = 0.5
    rotation: float = 15.0
    scale: float = 0.2
    gamma: float = 0.2
    contrast: float = 0.12
    brightness: float = 0.12

    def __post_init__(self) -> None:
        limits = {"flip": 1, "rotation": 180}
        for field in fields(self):
            check_number(field.name, getattr(self, field.name), low=0, high=limits.get(field.name, math.inf))

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Changed images and labels, of the same shapes, dtypes and device.

        How many numbers are drawn depends on the shape of `images` alone: with a generator on the CPU a slice is
        changed in the same way on every device.

        Args:
            images: (B, M, H, W), or patches (B, M, D, H, W); floating, in [0, 1].
            labels: (B, H, W) or (B, D, H, W), integer.
            generator: of the draws, on the CPU or another device.

        Raises:
            ValueError: shapes or devices that do not fit; on the CPU, images beyond [0, 1].
            TypeError: images that are not floating, or labels that are not integers.
        """
        _check(images, labels)
        batch, channels = images.shape[:2]
        flips = images.ndim - 2
        drawn = torch.rand(batch, flips + 2 + 3 * channels, generator=generator, device=generator.device)
        drawn = sent(drawn, images.device)
        if self.flip:
            images, labels = flipped(images, labels, drawn[:, :flips] < self.flip)
        spread = 2 * drawn[:, flips:] - 1
        if self.rotation or self.scale:
            angle = math.radians(self.rotation) * spread[:, 0]
            images, labels = turned(images, labels, angle, (1 + self.scale) ** spread[:, 1])
        inside = (labels.long() != BEYOND).unsqueeze(1) if images.ndim == 5 else None
        if self.gamma or self.contrast or self.brightness:
            tones = spread[:, 2:].view(batch, 3, channels, *[1] * flips).unbind(dim=1)
            ranges = (self.gamma, self.contrast, self.brightness)
            images = toned(images, *((1 + most) ** u for most, u in zip(ranges, tones, strict=True)), inside)
        return (images if inside is None else torch.where(inside, images, 0)), labels


def flipped(images: Tensor, labels: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
    """Each slice or patch with its rows, its columns and (in 3D) its slices reversed where `reverse` (B, 2 or 3) says
    so.
    """
    for axis, chosen in zip((-2, -1, -3)[: images.ndim - 2], reverse.unbind(dim=1), strict=True):
        images = torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), images.flip(axis), images)
        labels = torch.where(chosen.view(-1, *[1] * (labels.ndim - 1)), labels.flip(axis), labels)
    return images, labels


def turned(images: Tensor, labels: Tensor, angle: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Each slice, or each slice of a patch, turned about its centre by `angle` (B,) radians, anticlockwise as it is
    shown, and enlarged.

    A pixel at (x, y) from the centre comes from R(angle) (x, y) / factor; `affine_grid` counts x in half widths and y
    in half heights.
    """
    dtype = torch.promote_types(images.dtype, torch.float32)
    height, width = images.shape[-2:]
    cos, sin, zero = angle.cos() / factor, angle.sin() / factor, torch.zeros_like(angle)
    rows = ((cos, -sin * (height / width), zero), (sin * (width / height), cos, zero))
    matrix = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1).to(dtype)
    grid = F.affine_grid(matrix, [len(images), 1, height, width], align_corners=False)

    def sampled(values: Tensor, mode: str) -> Tensor:
        planes = values.reshape(len(values), -1, height, width).to(dtype)  # a patch's slices as channels: none is mixed
        moved = F.grid_sample(planes, grid, mode, padding_mode="reflection", align_corners=False)
        return moved.view(values.shape).to(values.dtype)

    return sampled(images, "bilinear"), sampled(labels, "nearest")


def toned(images: Tensor, gamma: Tensor, contrast: Tensor, brightness: Tensor, inside: Tensor | None = None) -> Tensor:
    """Intensities changed as `Augmentation` says, by numbers (B, M, 1, ...); means are of `inside` (B, 1, ...) only."""
    changed = images.clamp(0, 1) ** gamma  # a power of what rounding made negative is NaN
    axes = tuple(range(2, images.ndim))
    mean = changed.mean(dim=axes, keepdim=True)
    if inside is not None:
        mean = (changed * inside).mean(dim=axes, keepdim=True) / inside.to(mean.dtype).mean(dim=axes, keepdim=True)
    return ((mean + contrast * (changed - mean)) * brightness).clamp(0, 1).to(images.dtype)


def _check(images: Tensor, labels: Tensor) -> None:
    if not images.is_floating_point():
        raise TypeError(expectation("images", "of a floating dtype", images.dtype))
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(expectation("labels", "of an integer dtype", labels.dtype))
    if images.ndim not in (4, 5):
        raise ValueError(expectation("images", "of shape (B, M, H, W) or (B, M, D, H, W)", tuple(images.shape)))
    wanted = (len(images), *images.shape[2:])
    if tuple(labels.shape) != wanted:
        raise ValueError(
            expectation("labels", f"of shape {wanted}", tuple(labels.shape), f"images {tuple(images.shape)}")
        )
    if labels.device != images.device:
        raise ValueError(expectation("labels", f"on the device of images, {images.device}", labels.device))
    if is_scanned(images) and images.numel():
        low, high = (bound.item() for bound in images.aminmax())
        if not (-ROUNDING <= low <= high <= 1 + ROUNDING):  # written so that NaN fails
            raise ValueError(expectation("images", "values in [0, 1]", f"[{low:.4g}, {high:.4g}]"))
