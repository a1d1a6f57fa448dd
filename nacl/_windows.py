"""Sums over the window round each pixel, in any number of dimensions and up to every border."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nacl._checks import Labels, is_scanned, is_traced

BORDERS = ("inside", "replicate", "background", "zero")
IGNORED, OUT_OF_RANGE = -1, -2


def narrow_labels(labels: Labels, num_classes: int) -> Tensor:
    """The labels in the smallest integers, -1 where ignored, -2 where out of range on a device that is not scanned.

    What follows is the faster for it, on every device.
    """
    narrow = labels.target.to(narrow_dtype(num_classes))
    if not is_scanned(labels.target):
        outside = (labels.target < 0) | (labels.target >= num_classes)
        narrow = torch.where(outside, OUT_OF_RANGE, narrow)
    return narrow if labels.ignored is None else torch.where(labels.ignored, IGNORED, narrow)


def pad_labels(narrow: Tensor, num_classes: int, window: tuple[int, ...], border: str) -> Tensor:
    """Narrow labels in a frame of half a window, where -1 counts nowhere, and C and -2 are of no class."""
    return pad(narrow, window, {"inside": IGNORED, "replicate": None, "background": 0, "zero": num_classes}[border])


def narrow_dtype(num_classes: int) -> torch.dtype:
    """The smallest integers that hold every class, -1, and one number more."""
    return next(t for t in (torch.int8, torch.int16, torch.int32) if num_classes <= torch.iinfo(t).max)


def pad(values: Tensor, window: tuple[int, ...], frame: float | None) -> Tensor:
    """`values` (..., *spatial) in a frame of half a window, of the value `frame`, or of the nearest value for None."""
    radii = [size // 2 for size in window]
    if frame is not None:
        return F.pad(values, [width for radius in reversed(radii) for width in (radius, radius)], value=frame)
    for axis, radius in zip(range(-len(window), 0), radii, strict=True):
        size = values.shape[axis]
        nearest = torch.arange(-radius, size + radius, device=values.device).clamp(0, size - 1)
        values = values.index_select(axis, nearest)
    return values


def indicators(labels: Tensor, num_classes: int) -> Tensor:
    """One-hot bytes (N, C, ...) of narrow labels (N, ...); all 0 for what is no class."""
    axes = [1] * (labels.ndim - 1)
    classes = torch.arange(num_classes, dtype=labels.dtype, device=labels.device).view(-1, *axes)
    if is_traced(labels):  # compiled, a comparison of floats is vectorised, and one of integers is not
        return (labels.unsqueeze(1).float() == classes.float()).to(torch.uint8)
    # compared in place: a comparison that gives booleans is not vectorised on a CPU, and takes ten times as long
    return labels.unsqueeze(1).repeat(1, num_classes, *axes).eq_(classes).to(torch.uint8)


def box_sum(values: Tensor, window: tuple[int, ...]) -> Tensor:
    """Sums over the window of `values` (..., *padded), axis by axis, each in about log2(size) additions.

    Integers must be wide enough for the result. Sums of whole numbers in bytes: the fastest way to count a window on
    a CPU, where it takes a quarter of the memory of float32.
    """
    for axis, size in zip(range(-len(window), 0), window, strict=True):
        length = values.shape[axis] - size + 1
        total, done, span = None, 0, 1
        while True:  # `values` holds sums of `span` neighbours; `total` those of the first `done`
            if size & span:
                part = values.narrow(axis, done, length)
                total = part if total is None else total + part
                done += span
            if done == size:
                break
            pairs = values.shape[axis] - span
            values = values.narrow(axis, 0, pairs) + values.narrow(axis, span, pairs)
            span *= 2
        values = total
    return values


def ring_sum(values: Tensor, window: tuple[int, ...], sigma: float, dtype: torch.dtype) -> Tensor:
    """Gaussian sums over the window without its centre, the nearest neighbours weighing 1.

    Axis by axis: with g(j) the Gaussian, sum_(i, j) g(i) g(j) x_ij less the centre is (row less centre) + the other
    rows, g(j) of each whole row. All relative to g(1), so that a small sigma neither underflows nor cancels.
    """
    near = math.exp(-0.5 / sigma / sigma)
    values = values.to(dtype)
    ring = None
    for axis, size in zip(range(-len(window), 0), window, strict=True):
        radius = size // 2
        if radius == 0:
            continue
        length = values.shape[axis] - 2 * radius
        whole = values if ring is None else torch.add(values, ring, alpha=near)
        others = None
        for j in range(1, radius + 1):
            pair = whole.narrow(axis, radius - j, length) + whole.narrow(axis, radius + j, length)
            weight = math.exp(-(j * j - 1) / 2 / sigma / sigma)
            others = pair if others is None else torch.add(others, pair, alpha=weight)
        ring = others if ring is None else ring.narrow(axis, radius, length) + others
        values = values.narrow(axis, radius, length)
    return torch.zeros_like(values) if ring is None else ring


def ring_weights(window: tuple[int, ...], sigma: float, device: torch.device) -> Tensor:
    """The weights of `ring_sum`, (prod(window),) in float32, made on the device itself."""
    square = torch.zeros((), device=device)
    for size in window:
        square = square.unsqueeze(-1) + (torch.arange(size, device=device) - size // 2) ** 2
    weights = torch.exp(-(square - 1) / 2 / sigma / sigma)
    return torch.where(square > 0, weights, 0).flatten()
