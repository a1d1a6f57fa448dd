"""How a volume is prepared: resampled, cropped, its intensities scaled."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nacl._checks import check_choice, check_integer, check_number, expectation

if TYPE_CHECKING:
    from nacl.data.benchmarks.raw import Volume

INTENSITIES = ("minmax", "percentiles", "window")
MOST_PIXELS = 4096  # a side; a slice of more is a wrong spacing in a header, or no section of a body
SLAB_VOXELS = 2**21  # 8 MiB in float32: a slab with what torch makes of it stays far below the volume itself


@dataclass(frozen=True)
class Prepared:
    """A volume as networks take it.

    Attributes:
        image: (M, D, S, S) float32 in [0, 1].
        label: (D, S, S) uint8.
        spacing: size of a voxel along D, H, W.
        lost: share of the labelled voxels (class 1 and above) that the crop cut off, in [0, 1].
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    lost: float


@dataclass(frozen=True)
class Recipe:
    """From the voxels of a file to those that a network takes: resample in plane, crop or pad, scale intensities.

    Slices are neither made nor left out, and the spacing between them is kept. The three steps, in this order:

    1. In plane to `spacing`: an axis of n pixels of s mm becomes round(n s / `spacing`) pixels that fill the same
       length, so that the new spacing, n s over that number, is `spacing` up to rounding. Images by a triangle filter
       as wide as the coarser of the two grids (bilinear with antialiasing); labels by the nearest pixel, since then the
       volumes of classes are kept on average. (By the largest share of the same filter, a disc 10 pixels wide would
       lose 7% of its area when halved.)
    2. Centre crop or pad to `size` x `size`. Where an odd number of pixels goes or comes, the one more is at the end.
       Images are padded with the least value of the channel that the crop left, labels with 0.
    3. Intensities of each channel to [0, 1], from the voxels that the crop left and without those that pad:

       - "minmax": least value to 0, largest to 1.
       - "percentiles": the `low` and `high` percentiles to 0 and 1, what is beyond them clipped. Where all corners of
         a channel's file are exactly 0, as around a skull-stripped brain, zeros are background and are not counted.
         Where the two percentiles are equal, as "minmax".
       - "window": `low` and `high` to 0 and 1 in the file's unit, as in Hounsfield units; beyond them clipped.

       A channel of one value becomes 0 ("window" keeps its place in the window).

    Args:
        spacing: of pixels in plane, in mm; None keeps it.
        size: height and width in pixels; None pads to a square and crops nothing.
        intensity: "minmax", "percentiles" or "window".
        low, high: percentiles in [0, 100], or the ends of the window; "minmax" takes no notice of them.

    Raises:
        ValueError, TypeError: a value out of its range.

    Example:
        >>> Recipe(spacing=1.25, size=192, intensity="window", low=-150, high=250).size
        192
    """

    spacing: float | None = None
    size: int | None = None
    intensity: str = "minmax"
    low: float = 0.0
    high: float = 100.0

    def __post_init__(self) -> None:
        if self.spacing is not None:
            check_number("spacing", self.spacing, low=0, open_low=True)
        if self.size is not None:
            check_integer("size", self.size, low=1)
            if self.size > MOST_PIXELS:
                raise ValueError(expectation("size", f"of at most {MOST_PIXELS}", self.size))
        check_choice("intensity", self.intensity, INTENSITIES)
        ends = {"low": 0, "high": 100} if self.intensity == "percentiles" else {}
        check_number("low", self.low, **ends)
        check_number("high", self.high, **ends)
        if not self.low < self.high:
            raise ValueError(expectation("low", "below `high`", f"{self.low} and {self.high}"))

    def apply(self, volume: "Volume") -> Prepared:
        """The volume prepared; it is gone through a few slices at a time, so that little more than the result is held.

        Args:
            volume: image (M, D, H, W) finite, label (D, H, W) uint8, spacing along D, H, W.

        Raises:
            ValueError: `spacing` for a volume whose own is not in mm; a volume without voxels, or of more than 4096
                pixels a side once it is resampled.
        """
        if self.spacing is not None and volume.unit != "mm":
            rule = "to be None for volumes whose own spacing is not known in mm"
            raise ValueError(expectation("spacing", rule, self.spacing, f"unit {volume.unit!r}"))
        if not volume.image.size:
            raise ValueError(expectation("volume", "with voxels", f"an image of shape {volume.image.shape}"))
        shape, (through, *in_plane) = volume.label.shape[1:], volume.spacing
        grid = tuple(self._pixels(n, s) for n, s in zip(shape, in_plane, strict=True))
        size = self.size or max(grid)
        (from_rows, rows), (from_columns, columns) = (_overlap(n, size) for n in grid)
        image = np.zeros((len(volume.image), len(volume.label), size, size), np.float32)
        label = np.zeros((len(volume.label), size, size), np.uint8)
        labelled = 0
        for slab in _slabs(volume.label.shape):
            pixels = _resampled(torch.from_numpy(volume.image[:, slab].astype(np.float32)), grid)
            image[:, slab, rows, columns] = pixels[..., from_rows, from_columns]
            classes = _resampled_labels(torch.from_numpy(volume.label[slab].astype(np.uint8)), grid)
            label[slab, rows, columns] = classes[:, from_rows, from_columns]
            labelled += int(classes.count_nonzero())
        for channel, stored in zip(image, volume.image, strict=True):
            real = channel[:, rows, columns]
            low, high = self._ends(real, zeros_count=bool(stored[np.ix_(*[[0, -1]] * 3)].any()))
            _scale(real, low, high)
            _pad(channel, rows, columns, real.min())
        spacing = (through, *(s * n / new for n, s, new in zip(shape, in_plane, grid, strict=True)))
        kept = int(np.count_nonzero(label))
        return Prepared(image, label, spacing, 1 - kept / labelled if labelled else 0.0)

    def _pixels(self, count: int, spacing: float) -> int:
        pixels = count if self.spacing is None else count * spacing / self.spacing
        if not pixels <= MOST_PIXELS:
            context = f"{count} pixels with a spacing of {spacing:g}"
            context += "" if self.spacing is None else f" mm, at {self.spacing:g} mm"
            remedy = "Look for a wrong spacing in the file's header"
            raise ValueError(
                expectation("volume", f"of at most {MOST_PIXELS} pixels a side", f"{pixels:.0f}", context, remedy)
            )
        return max(1, round(pixels))

    def _ends(self, values: NDArray[np.float32], zeros_count: bool) -> tuple[float, float]:
        """The values that become 0 and 1."""
        if self.intensity == "window":
            return self.low, self.high
        if self.intensity == "percentiles":
            counted = values.flatten() if zeros_count else values[values != 0]
            if counted.size:
                low, high = np.percentile(counted, (self.low, self.high), overwrite_input=True)
                if not _is_flat(low, high):
                    return low, high
        return values.min(), values.max()


def _overlap(count: int, size: int) -> tuple[slice, slice]:
    """Which of `count` pixels are kept, and where among `size` they come to lie, centre on centre."""
    kept = min(count, size)
    first, place = (count - kept) // 2, (size - kept) // 2
    return slice(first, first + kept), slice(place, place + kept)


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    slices = max(1, SLAB_VOXELS // math.prod(shape[1:]))
    return (slice(first, min(first + slices, shape[0])) for first in range(0, shape[0], slices))


def _resampled(pixels: Tensor, grid: tuple[int, ...]) -> Tensor:
    """(A, B, H, W) float32 on another grid of the same extent."""
    if tuple(pixels.shape[-2:]) == grid:
        return pixels
    return F.interpolate(pixels, grid, mode="bilinear", align_corners=False, antialias=True)


def _resampled_labels(label: Tensor, grid: tuple[int, ...]) -> Tensor:
    """(D, H, W) uint8 on another grid of the same extent."""
    return F.interpolate(label[None], grid, mode="nearest-exact")[0]


def _is_flat(low: float, high: float) -> bool:
    """Whether two values differ by no more than resampling of a constant in float32 makes them differ."""
    return float(high) - float(low) <= 8 * float(np.finfo(np.float32).eps) * max(abs(float(low)), abs(float(high)))


def _scale(values: NDArray[np.float32], low: float, high: float) -> None:
    """Clip `values` to [low, high] and bring them to [0, 1], in place."""
    if float(high) - float(low) > float(np.finfo(np.float32).max):
        remedy = "Look for a broken file, or rescale it"
        raise ValueError(expectation("image", "of a range that float32 can hold", f"[{low}, {high}]", remedy=remedy))
    if _is_flat(low, high):
        values[...] = 0
        return
    low, high = np.float32(low), np.float32(high)
    np.clip(values, low, high, out=values)
    values -= low
    values /= high - low


def _pad(channel: NDArray[np.float32], rows: slice, columns: slice, value: float) -> None:
    """Write `value` around (D, rows, columns) of a (D, S, S) channel, in place."""
    for part in (slice(0, rows.start), slice(rows.stop, None)):
        channel[:, part] = value
    for part in (slice(0, columns.start), slice(columns.stop, None)):
        channel[:, :, part] = value
