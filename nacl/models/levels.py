"""Kernels and strides of a network's levels, from the patch and the spacing, as nnU-Net plans them."""

from collections.abc import Sequence
from typing import NamedTuple

from nacl._checks import check_integer, check_number, expectation

SMALLEST = 4
"""The fewest pixels along an axis of the lowest level, as in nnU-Net."""
THICK = 2
"""An axis is thick where its spacing is at least so many times the finest one, as in nnU-Net."""


class Levels(NamedTuple):
    """One kernel a level, and one stride that leads into it (into the first: 1 along each axis)."""

    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]


def plan_levels(patch: Sequence[int], spacing: Sequence[float], *, smallest: int = SMALLEST) -> Levels:
    """Levels for a patch: each halves the axes that are about as fine as the finest, until nothing can be halved.

    An axis can be halved while it is even and at least `smallest` pixels remain. Of those axes one is thick, and keeps
    its size, while its spacing is at least twice the finest. Kernels have 3 pixels along an axis from the level on at
    which its spacing is less than twice the finest, 1 before (3 at the lowest level; 1 where one pixel is left). The
    rule is nnU-Net's, with one difference: nnU-Net pads an odd axis to halve it, here it stays as it is, since the
    patch is the user's. An axis that is alone is halved only while 3 times `smallest` pixels are there.

    Args:
        patch: pixels along each axis, such as (D, H, W).
        spacing: distance of pixels along each axis, in any unit.
        smallest: fewest pixels at the lowest level.

    Returns:
        Kernels and strides, one of each a level.

    Raises:
        ValueError: numbers out of range, not as many spacings as axes.
        TypeError: something that is not a number.

    Example:
        >>> plan_levels((8, 96, 96), (10.0, 1.5, 1.5)).strides
        ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2))

    References:
        Isensee et al., nnU-Net, Nature Methods 18 (2021), the section on network topology of the supplement.
    """
    check_grid(patch, spacing)
    sizes, distances = list(patch), list(spacing)
    kernel = [1] * len(sizes)
    kernels, strides = [], [(1,) * len(sizes)]
    while stride := _next_stride(sizes, distances, smallest):
        kernel = [3 if k == 3 or d < THICK * min(distances) else 1 for k, d in zip(kernel, distances, strict=True)]
        kernels.append(_within(kernel, sizes))
        strides.append(stride)
        sizes = [size // step for size, step in zip(sizes, stride, strict=True)]
        distances = [distance * step for distance, step in zip(distances, stride, strict=True)]
    kernels.append(_within([3] * len(sizes), sizes))
    return Levels(tuple(kernels), tuple(strides))


def _next_stride(sizes: Sequence[int], distances: Sequence[float], smallest: int) -> tuple[int, ...] | None:
    able = [axis for axis, size in enumerate(sizes) if size >= 2 * smallest and size % 2 == 0]
    finest = min((distances[axis] for axis in able), default=0)
    halved = [axis for axis in able if distances[axis] < THICK * finest]
    if not halved or (len(halved) == 1 and sizes[halved[0]] < 3 * smallest):
        return None
    return tuple(2 if axis in halved else 1 for axis in range(len(sizes)))


def _within(kernel: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """A kernel that is no wider than an axis of one pixel: the rest of it would only ever see padding."""
    return tuple(1 if size == 1 else width for width, size in zip(kernel, sizes, strict=True))


def check_grid(patch: Sequence[int], spacing: Sequence[float]) -> None:
    """Raise unless `patch` and `spacing` are numbers for each of 2 or 3 axes."""
    for name, values in (("patch", patch), ("spacing", spacing)):
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) not in (2, 3):
            raise ValueError(expectation(name, "of 2 or 3 numbers, (H, W) or (D, H, W)", repr(values)))
    for size in patch:
        check_integer("patch", size, low=1)
    for distance in spacing:
        check_number("spacing", distance, low=0, open_low=True)
    if len(patch) != len(spacing):
        context, remedy = f"patch={tuple(patch)}", "Give a number for each axis of the patch"
        raise ValueError(expectation("spacing", f"of {len(patch)} numbers", tuple(spacing), context, remedy))


def check_multiples(patch: Sequence[int], multiples: Sequence[int], model: str, *, least: int = 1) -> None:
    """Raise unless each axis of `patch` is a multiple of its number, and at least `least` pixels long."""
    near = tuple(max(m, -(-least // m) * m, round(p / m) * m) for p, m in zip(patch, multiples, strict=True))
    if near != tuple(patch):
        rule = f"with axes that are multiples of {_by(multiples)}"
        rule += f" and at least {least} long" if least > 1 else ""
        raise ValueError(expectation("patch", rule, _by(patch), f"model={model!r}", f"Use {_by(near)}"))


def _by(values: Sequence[int]) -> str:
    return " x ".join(map(str, values))
