"""Overlap and surface distance of label volumes, class by class, on SciPy's exact distance transform."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from nacl._checks import check_choice, check_integer, expectation

CONVENTIONS = ("standard", "reference")


def dice_score(
    prediction: ArrayLike, target: ArrayLike, num_classes: int, *, convention: str = "standard"
) -> NDArray[np.float64]:
    """Dice score of each foreground class: twice the size of the overlap over the sum of the sizes.

    Args:
        prediction: predicted labels, any shape, for one case (a volume, not a batch).
        target: true labels, same shape.
        num_classes: C, background included.
        convention: for a class absent from `target`, "standard" gives NaN if nothing was predicted either (the case
            says nothing about that class) and 0 if something was; "reference", as the papers, gives 1 either way.

    Returns:
        (C - 1,) in [0, 1] or NaN, for the classes 1 to C - 1.

    Raises:
        ValueError: shapes that differ, labels out of range, unknown `convention`.
        TypeError: labels that are not integers.

    Example:
        >>> dice_score([[0, 1, 1, 2]], [[0, 1, 2, 2]], 3)
        array([0.66666667, 0.66666667])
    """
    prediction, target = _checked(prediction, target, num_classes, convention)
    scores = np.full(num_classes - 1, np.nan)
    for k in range(1, num_classes):
        a, b = prediction == k, target == k
        size = np.count_nonzero(a) + np.count_nonzero(b)
        if convention == "reference" and not b.any():
            scores[k - 1] = 1.0
        elif size:
            scores[k - 1] = 2 * np.count_nonzero(a & b) / size
    return scores


def hausdorff_distance_95(
    prediction: ArrayLike,
    target: ArrayLike,
    num_classes: int,
    *,
    spacing: Sequence[float] | None = None,
    convention: str = "standard",
) -> NDArray[np.float64]:
    """95th percentile of the surface distances of each foreground class, both directions pooled (as medpy).

    The surface is the voxels of a mask with a face neighbour outside it.

    Args:
        prediction: predicted labels (D, H, W) or (H, W), for one case.
        target: true labels, same shape.
        num_classes: C, background included.
        spacing: size of a voxel along each axis, in the unit of the result; by default 1, so that the result is in
            voxels.
        convention: "standard" gives NaN for a class that neither has, and the diagonal of the volume, its largest
            possible distance, for a class that only one has; "reference" takes no spacing and gives 0 for a class
            absent from `target`, whatever was predicted, as the papers do.

    Returns:
        (C - 1,), for the classes 1 to C - 1.

    Raises:
        ValueError: shapes that differ, labels out of range, a spacing with a wrong number of entries or not positive,
            unknown `convention`.
        TypeError: labels that are not integers.

    Example:
        >>> hausdorff_distance_95([[0, 1, 0, 0]], [[0, 0, 0, 1]], 2, spacing=(1.0, 1.5))
        array([3.])
    """
    prediction, target = _checked(prediction, target, num_classes, convention)
    spacing = (1.0,) * target.ndim if spacing is None or convention == "reference" else tuple(spacing)
    _check_spacing(spacing, target.ndim)
    diagonal = float(np.linalg.norm((np.array(target.shape) - 1) * spacing))
    distances = np.full(num_classes - 1, np.nan)
    for k in range(1, num_classes):
        a, b = prediction == k, target == k
        if convention == "reference" and not b.any():
            distances[k - 1] = 0.0
        elif a.any() and b.any():
            distances[k - 1] = np.percentile(_surface_distances(a, b, spacing), 95)
        elif a.any() or b.any():
            distances[k - 1] = diagonal
    return distances


def _check_spacing(spacing: Sequence[float], ndim: int) -> None:
    """Raise unless `spacing` has `ndim` positive entries."""
    if len(spacing) != ndim or not all(0 < size < np.inf for size in spacing):
        raise ValueError(expectation("spacing", f"with {ndim} positive entries, one an axis", spacing))


def _surface_distances(a: NDArray, b: NDArray, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distances from each surface voxel of `a` to the surface of `b`, and back."""
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]
    a, b = (mask[box] ^ ndimage.binary_erosion(mask[box]) for mask in (a, b))
    to_a, to_b = (ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in (a, b))
    return np.concatenate([to_b[a], to_a[b]])


def _checked(prediction: ArrayLike, target: ArrayLike, num_classes: int, convention: str) -> tuple[NDArray, NDArray]:
    check_choice("convention", convention, CONVENTIONS)
    check_integer("num_classes", num_classes, low=2)
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape:
        raise ValueError(expectation("prediction", f"of the shape of `target`, {target.shape}", prediction.shape))
    for name, labels in (("prediction", prediction), ("target", target)):
        if labels.dtype.kind not in "ui":
            raise TypeError(expectation(name, "of an integer dtype", labels.dtype))
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            got = f"[{labels.min()}, {labels.max()}]"
            raise ValueError(expectation(name, f"labels in [0, {num_classes})", got, f"num_classes={num_classes}"))
    return prediction, target
