"""Which axis of an array from a file is what, by the shape of the label beside it."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nacl._checks import expectation

CLEARLY = 0.1  # more of the labelled foreground found: then the other order of axes is the right one


def fitted(values: NDArray, label: NDArray, orders: Sequence[bool], class_axis: int | None) -> NDArray:
    """Scores (C, ...) in the label's shape, or the foreground's alone in that shape.

    Args:
        values: scores as they are stored.
        label: (...).
        orders: whether the axes of space are reversed against the label's: what is possible, the likeliest first.
        class_axis: None for the one that the label's shape leaves over, the first if there are several.

    Raises:
        ValueError: no axis fits, or several but not the first; another order than the likeliest finds clearly more of
            the label.
    """
    axes: Iterable[int] = range(values.ndim)
    if class_axis is not None:
        if not -values.ndim <= class_axis < values.ndim:
            raise ValueError(expectation("class_axis", f"below the number of axes, {values.ndim}", class_axis))
        axes = [class_axis % values.ndim]
    fits = [_fit(values, label.shape, order, axes, may_be_alone=class_axis is None) for order in orders]
    found = [fit for fit in fits if fit is not None]
    if not found:
        remedy = "Resample one to the other's grid, or save a probability for each class"
        rule = f"of the label's shape {label.shape} and an axis of classes"
        raise ValueError(expectation("probs", rule, values.shape, "in the order z, y, x", remedy))
    if len(found) == 2 and _found(found[1], label) > _found(found[0], label) + CLEARLY:
        remedy = f"Say --axis-order {'zyx' if orders[0] else 'xyz'}"
        rule = f"in the order {'x, y, z' if orders[0] else 'z, y, x'}"
        raise ValueError(expectation("probs", rule, "axes that fit the label far better reversed", "", remedy))
    return found[0]


def reordered(values: NDArray, shape: tuple[int, ...], *, reverse: bool | None = None) -> NDArray | None:
    """`values` in that shape, with axes of one pixel more or less, and all of them reversed; None if it can't be.

    `reverse=None` tries both, as they are first.
    """
    wanted = tuple(size for size in shape if size != 1)
    values = values.squeeze()
    for order in (False, True) if reverse is None else (reverse,):
        turned = values.T if order else values
        if turned.shape == wanted:
            return turned.reshape(shape)
    return None


def _fit(
    values: NDArray, shape: tuple[int, ...], reverse: bool, axes: Iterable[int], *, may_be_alone: bool
) -> NDArray | None:
    if may_be_alone:
        alone = reordered(values, shape, reverse=reverse)
        if alone is not None:
            return alone
    parts = [np.moveaxis(values, axis, 0) for axis in axes]
    fits = [axis for axis, part in zip(axes, parts, strict=True) if len(part) and _is_fit(part[0], shape, reverse)]
    if len(fits) > 1 and fits[0] != 0:
        remedy = "Say which with --class-axis"
        raise ValueError(expectation("probs", "with one axis for the classes", values.shape, f"label {shape}", remedy))
    if not fits:
        return None
    return np.stack([reordered(part, shape, reverse=reverse) for part in np.moveaxis(values, fits[0], 0)])


def _is_fit(part: NDArray, shape: tuple[int, ...], reverse: bool) -> bool:
    return reordered(part, shape, reverse=reverse) is not None


def _found(scores: NDArray, label: NDArray) -> float:
    """The share of the labelled foreground that the scores find; 0 where there is none."""
    inside = label > 0
    if not inside.any() or scores.ndim == label.ndim:
        return 0.0
    return float((scores.argmax(axis=0) == label)[inside].mean())
