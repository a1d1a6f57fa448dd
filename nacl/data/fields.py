"""Smooth Gaussian random fields of mean 0 and variance 1 at every point: on a grid of pixels, or at places in mm.

White noise w of variance 1, filtered by weights g, has the variance sum_i g_i^2 at each point; divided by the root of
it, the field f = sum_i g_i w_i / sqrt(sum_i g_i^2) is standard normal at every point, at borders too, so that Phi(f) is
uniform on [0, 1]. With Gaussian weights of a length l of some pixels, two points at a distance d have the correlation
exp(-d^2 / (4 l^2)); with l below a pixel it is a bit less.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nacl._checks import check_number


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], lengths: tuple[float, ...]) -> NDArray[np.float64]:
    """A field on a grid, periodic, so that no pixel is special: along each axis the last is a neighbour of the first.

    Args:
        rng: source of the noise, one number a pixel.
        shape: of the grid.
        lengths: for each axis, the length over which the field is smooth, in pixels; 0 for independent slices.

    Example:
        >>> field = smooth_field(np.random.default_rng(0), (2, 64, 64), (0, 4, 4))
        >>> bool(np.abs(np.diff(field, axis=2)).mean() < 0.3 < np.abs(np.diff(field, axis=0)).mean())
        True
    """
    noise = rng.standard_normal(shape)
    return gaussian_filter(noise, lengths, mode="wrap") / _root_of_variance(tuple(shape), tuple(lengths))


@functools.lru_cache(maxsize=64)
def _root_of_variance(shape: tuple[int, ...], lengths: tuple[float, ...]) -> float:
    """The root of the sum of the squared weights, from the answer of the same filter to an impulse."""
    impulse = np.zeros([size if length else 1 for size, length in zip(shape, lengths, strict=True)])
    impulse.flat[0] = 1
    return np.sqrt((gaussian_filter(impulse, lengths, mode="wrap") ** 2).sum())


def smooth_field_at(
    rng: np.random.Generator, places: Sequence[NDArray], length: float, *, reach: float
) -> NDArray[np.float64]:
    """A field at the points of a grid of any spacing: the same generator gives the same field, however it is sampled.

    The noise lies on a lattice of spacing `length` that does not depend on `places`; `smooth_field`, on the other hand,
    draws other noise for another grid.

    Args:
        rng: source of the noise, one number a node of the lattice.
        places: for each axis, the coordinates of the grid's points along it.
        length: over which the field is smooth, in the unit of the places.
        reach: the lattice spans [-reach, reach] along each axis, and all places must lie within.

    Returns:
        The field, of shape (len(places[0]), len(places[1]), ...).

    Raises:
        ValueError: a place out of reach, or a length of 0.
    """
    check_number("length", length, low=0, open_low=True)
    for place in places:
        check_number("places", float(np.abs(place).max()), low=0, high=reach)
    # Four lengths beyond the last place a node's weight is below 1e-3.
    count = int(np.ceil(reach / length)) + 4
    nodes = length * np.arange(-count, count + 1)
    field = rng.standard_normal((len(nodes),) * len(places))
    for place in places:
        weights = np.exp(-0.5 * ((np.asarray(place)[:, None] - nodes) / length) ** 2)
        weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
        # The first axis is summed away and its points come last, so that after all axes the order is that of `places`.
        field = np.tensordot(field, weights, axes=(0, 1))
    return field
