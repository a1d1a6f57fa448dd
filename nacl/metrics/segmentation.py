"""Overlap and surface distance of label volumes, class by class: Dice, HD95 and the average surface distance.

A function takes the labels of one case and gives one result a foreground class. Whoever wants several distances of a
case calls `surface_distances` once, which is all of the work, and asks its result.

``convention="reference"`` gives the numbers of the papers' evaluation (`CalibSegmentEvaluator` of the authors'
repository, Bala93/MarginLoss, in the version that takes HD95) with its faults:

- a class absent from the target scores Dice 1 and HD95 0, whatever was predicted;
- a class that the prediction lacks scores HD95 0, the best of all distances (and Dice 0);
- distances are in voxels, whatever the spacing;
- Dice is rounded to four digits, class by class, before it is averaged.

Their older scripts differ more, and are not reproduced: those take the full Hausdorff distance, average over the
background too, and give Dice 1 and distance 0 wherever the voxel counts of the two masks have no binary digit in
common (``np.sum(a) & np.sum(b)``), such as 4 and 3, however well or badly the masks fit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from nacl._checks import check_choice, check_integer, expectation

CONVENTIONS = ("standard", "reference")
HD95_DIRECTIONS = ("pooled", "larger")
AVERAGE_DIRECTIONS = ("pooled", "mean", "from_prediction")


def dice_score(
    prediction: ArrayLike, target: ArrayLike, num_classes: int, *, convention: str = "standard"
) -> NDArray[np.float64]:
    """Dice score of each foreground class: twice the size of the overlap over the sum of the sizes.

    Args:
        prediction: predicted labels, any shape, for one case (a volume, not a batch).
        target: true labels, same shape.
        num_classes: number of classes, C, background included.
        convention: "standard" gives, for a class absent from `target`, NaN if nothing was predicted either (the case
            says nothing about that class) and 0 if something was; "reference" gives 1 either way, and rounds to four
            digits, as the papers' code does.

    Returns:
        (C - 1,) in [0, 1] or NaN, for the classes 1 to C - 1.

    Raises:
        ValueError: shapes that differ, labels out of range, unknown `convention`.
        TypeError: labels that are not integers.

    Example:
        >>> dice_score([[0, 1, 1, 2]], [[0, 1, 2, 2]], 3)
        array([0.66666667, 0.66666667])

    References:
        Dice, Ecology 26(3), 1945.
    """
    prediction, target = _checked(prediction, target, num_classes, convention)
    scores = np.full(num_classes - 1, np.nan)
    for k in range(1, num_classes):
        a, b = prediction == k, target == k
        of_target = np.count_nonzero(b)
        size = np.count_nonzero(a) + of_target
        if convention == "reference" and not of_target:
            scores[k - 1] = 1.0
        elif size:
            scores[k - 1] = 2 * np.count_nonzero(a & b) / size
    return scores.round(4) if convention == "reference" else scores


class SurfaceDistances(NamedTuple):
    """The distances between the surfaces of a class in a prediction and in its target, see `surface_distances`."""

    from_prediction: NDArray[np.float64]
    """From each surface voxel of the prediction to the nearest one of the target, (n,)."""

    from_target: NDArray[np.float64]
    """From each surface voxel of the target to the nearest one of the prediction, (m,)."""

    def hausdorff_95(self, directions: str = "pooled") -> float:
        """Their 95th percentile, see `hausdorff_distance_95`."""
        check_choice("directions", directions, HD95_DIRECTIONS)
        if directions == "pooled":
            return float(np.percentile(np.concatenate(self), 95))
        return float(max(np.percentile(distances, 95) for distances in self))

    def average(self, directions: str = "pooled") -> float:
        """Their average, see `average_surface_distance`."""
        check_choice("directions", directions, AVERAGE_DIRECTIONS)
        if directions == "pooled":
            return float(np.concatenate(self).mean())
        if directions == "mean":
            return float((self.from_prediction.mean() + self.from_target.mean()) / 2)
        return float(self.from_prediction.mean())


def surface_distances(
    prediction: ArrayLike,
    target: ArrayLike,
    num_classes: int,
    *,
    spacing: Sequence[float] | None = None,
    convention: str = "standard",
) -> list[SurfaceDistances]:
    """The distances between the surfaces of each foreground class, in both directions.

    The surface is the voxels of a mask with a face neighbour outside it; outside the volume is outside the mask. Of
    each surface voxel it is the Euclidean distance to the nearest surface voxel of the other mask, between centres.

    Args:
        prediction: predicted labels (D, H, W) or (H, W), for one case.
        target: true labels, same shape.
        num_classes: number of classes, C, background included.
        spacing: size of a voxel along each axis, in the unit of the result; by default 1, so that the result is in
            voxels.
        convention: "standard" gives, in each direction, one NaN for a class that neither has, and for a class that
            only one has one distance: the diagonal of the volume, its largest possible; "reference" takes no spacing
            and gives one 0 for a class that either lacks, as the papers' code does.

    Returns:
        C - 1 pairs of distances, for the classes 1 to C - 1.

    Raises:
        ValueError: shapes that differ or are neither 2D nor 3D, labels out of range, a spacing with a wrong number of
            entries or not positive, unknown `convention`.
        TypeError: labels that are not integers, a spacing that is no numbers.

    Example:
        >>> found = surface_distances([[0, 1, 0, 0]], [[0, 0, 1, 1]], 2, spacing=(1.0, 1.5))
        >>> found[0].from_prediction, found[0].from_target
        (array([1.5]), array([1.5, 3. ]))
        >>> [each.hausdorff_95("larger") for each in found], [each.average() for each in found]
        ([2.925], [2.0])
    """
    prediction, target = _checked(prediction, target, num_classes, convention)
    if target.ndim not in (2, 3):
        remedy = "Call it once a case"
        raise ValueError(expectation("target", "of shape (H, W) or (D, H, W)", target.shape, remedy=remedy))
    voxel = _checked_spacing(spacing, target.ndim)
    if convention == "reference":
        voxel, neither, only_one = np.ones(target.ndim), 0.0, 0.0
    else:
        neither, only_one = np.nan, float(np.linalg.norm((np.array(target.shape) - 1) * voxel))
    found = []
    boxes = (ndimage.find_objects(labels, num_classes - 1) for labels in (prediction, target))
    for k, (box_a, box_b) in enumerate(zip(*boxes, strict=True), start=1):
        if box_a and box_b:
            box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(box_a, box_b, strict=True))
            a, b = _surface(prediction[box] == k), _surface(target[box] == k)
            found.append(SurfaceDistances(_distances(a, b, voxel), _distances(b, a, voxel)))
        else:
            distance = np.array([only_one if box_a or box_b else neither])
            found.append(SurfaceDistances(distance, distance))
    return found


def hausdorff_distance_95(
    prediction: ArrayLike,
    target: ArrayLike,
    num_classes: int,
    *,
    spacing: Sequence[float] | None = None,
    directions: str = "pooled",
    convention: str = "standard",
) -> NDArray[np.float64]:
    """95th percentile of the surface distances of each foreground class.

    Two definitions are in use, and they can differ much: a stray island takes a larger share of the prediction's own
    surface than of both surfaces together. See `surface_distances` for the surfaces.

    Args:
        prediction: predicted labels (D, H, W) or (H, W), for one case.
        target: true labels, same shape.
        num_classes: number of classes, C, background included.
        spacing: size of a voxel along each axis, in the unit of the result; by default 1, so that the result is in
            voxels.
        directions: "pooled" is the percentile of the distances of both directions together (medpy, and so the
            papers); "larger" is the larger of the two directions' percentiles (MONAI, Metrics Reloaded).
        convention: "standard" gives NaN for a class that neither has, and the diagonal of the volume, its largest
            possible distance, for a class that only one has; "reference" takes no spacing and gives 0 for a class
            that either lacks, as the papers' code does.

    Returns:
        (C - 1,), for the classes 1 to C - 1.

    Raises:
        ValueError: as `surface_distances`; unknown `directions`, or other than "pooled" in the reference's convention.
        TypeError: labels that are not integers, a spacing that is no numbers.

    Example:
        >>> hausdorff_distance_95([[0, 1, 0, 0]], [[0, 0, 0, 1]], 2, spacing=(1.0, 1.5))
        array([3.])

    References:
        Huttenlocher et al., IEEE TPAMI 15(9), 1993 (the distance of which it is the percentile). Maier-Hein et al.,
        Nature Methods 21, 2024 (Metrics Reloaded).
    """
    if convention == "reference" and directions != "pooled":
        raise ValueError(expectation("directions", "to be 'pooled' in the reference's convention", repr(directions)))
    found = surface_distances(prediction, target, num_classes, spacing=spacing, convention=convention)
    return np.array([distances.hausdorff_95(directions) for distances in found])


def average_surface_distance(
    prediction: ArrayLike,
    target: ArrayLike,
    num_classes: int,
    *,
    spacing: Sequence[float] | None = None,
    directions: str = "pooled",
) -> NDArray[np.float64]:
    """Average of the surface distances of each foreground class.

    A class that neither has gives NaN, one that only one has the diagonal of the volume, as with
    `hausdorff_distance_95`. An earlier version of the papers' evaluation took this in place of HD95: for it ask
    `surface_distances` with ``convention="reference"`` for ``average("from_prediction")``.

    Args:
        prediction: predicted labels (D, H, W) or (H, W), for one case.
        target: true labels, same shape.
        num_classes: number of classes, C, background included.
        spacing: size of a voxel along each axis, in the unit of the result; by default 1, so that the result is in
            voxels.
        directions: "pooled" is the average of the distances of both directions together, so that the larger surface
            weighs more (ASSD; MONAI with `symmetric`); "mean" is the mean of the two directions' averages (MASD;
            `assd` of medpy); "from_prediction" is the average from the prediction's surface alone, which does not
            see what the prediction lacks (`asd` of medpy, MONAI's default).

    Returns:
        (C - 1,), for the classes 1 to C - 1.

    Raises:
        ValueError: as `surface_distances`; unknown `directions`.
        TypeError: labels that are not integers, a spacing that is no numbers.

    Example:
        >>> average_surface_distance([[0, 1, 0, 0]], [[0, 0, 1, 1]], 2, spacing=(1.0, 1.5))
        array([2.])
        >>> average_surface_distance([[0, 1, 0, 0]], [[0, 0, 1, 1]], 2, spacing=(1.0, 1.5), directions="mean")
        array([1.875])

    References:
        Heimann et al., IEEE TMI 28(8), 2009 (ASSD). Maier-Hein et al., Nature Methods 21, 2024 (ASSD and MASD).
    """
    found = surface_distances(prediction, target, num_classes, spacing=spacing)
    return np.array([distances.average(directions) for distances in found])


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of `mask` with a face neighbour outside it; outside the array is outside the mask."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        kept, neighbour = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        kept[1:] &= neighbour[:-1]
        kept[:-1] &= neighbour[1:]
        kept[0] = kept[-1] = False
    return mask & ~inner


def _distances(surface: NDArray[np.bool_], other: NDArray[np.bool_], voxel: NDArray) -> NDArray[np.float64]:
    """From each voxel of `surface` to the nearest of `other`; only where the two do not coincide is there a search."""
    apart = ~other[surface]
    distances = np.zeros(apart.size)
    if apart.any():
        # Few searches are made in a tree: cells cut at their middle are as good as the default's, cut at the median,
        # and cost less to build.
        tree = KDTree(np.argwhere(other) * voxel, leafsize=32, balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(np.argwhere(surface & ~other) * voxel)[0]
    return distances


def _checked_spacing(spacing: Sequence[float] | None, ndim: int) -> NDArray[np.float64]:
    """The size of a voxel along each axis, once found to be `ndim` positive numbers."""
    voxel = np.ones(ndim) if spacing is None else np.asarray(spacing)
    if voxel.dtype.kind not in "uif":
        raise TypeError(expectation("spacing", "of numbers", repr(spacing)))
    if voxel.shape != (ndim,) or not ((voxel > 0) & (voxel < np.inf)).all():
        raise ValueError(expectation("spacing", f"with {ndim} positive entries, one an axis", spacing))
    return voxel.astype(np.float64)


def _checked(prediction: ArrayLike, target: ArrayLike, num_classes: int, convention: str) -> tuple[NDArray, NDArray]:
    """The labels as arrays, once found in order."""
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
