"""Label maps to look at: those that come with the package, and a user's own."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nacl._checks import check_integer, expectation
from nacl.data import load_dataset

LARGEST = 96
"""Pixels along a side that are drawn in a frame without waiting."""


def built_in() -> dict[str, dict[str, object]]:
    """Maps by name: `labels` as rows, `num_classes`, `class_names`."""
    phantom = load_dataset("phantom", size=64)
    case = phantom.split("test")[0]
    rows, columns = np.mgrid[:32, :32]
    vessel = np.abs(rows - 16 - 6 * np.sin(columns / 6)) < 0.9
    noise = np.random.default_rng(0).integers(0, 3, (32, 32))
    two = ["background", "object"]
    return {
        "phantom slice": _entry(_cropped(case.label[len(case.label) // 3]), list(phantom.class_names)),
        "straight edge": _entry(columns >= 16, two),
        "corner": _entry((rows >= 16) & (columns >= 16), two),
        "thin vessel": _entry(vessel, ["background", "vessel"]),
        "noise": _entry(noise, ["a", "b", "c"]),
    }


def _cropped(labels: NDArray, margin: int = 6) -> NDArray:
    """The part of a slice where something is, and a frame round it."""
    ranges = [(places.min(), places.max()) for places in np.nonzero(labels)]
    return labels[tuple(slice(max(low - margin, 0), high + margin + 1) for low, high in ranges)]


def _entry(labels: NDArray, class_names: list[str]) -> dict[str, object]:
    return {"labels": labels.astype(int).tolist(), "num_classes": len(class_names), "class_names": class_names}


def own_labels(labels: ArrayLike, num_classes: int | None = None) -> NDArray[np.int64]:
    """Labels (H, W) as integers, once found to be a map of classes.

    Raises:
        TypeError: no numbers.
        ValueError: not two axes, no pixel, NaN or broken numbers, labels below 0 or not below `num_classes`.
    """
    array = _array("labels", labels)
    if array.ndim != 2 or 0 in array.shape:
        remedy = "Pass one slice, such as labels[0]" if array.ndim > 2 else ""
        raise ValueError(expectation("labels", "of shape (H, W)", tuple(array.shape), remedy=remedy))
    whole = np.isfinite(array) & (array == np.round(array))
    if not whole.all():
        raise ValueError(
            expectation("labels", "to be whole numbers", array[~whole][0], remedy="Pass classes, not shares")
        )
    highest = 255 if num_classes is None else num_classes - 1
    outside = (array < 0) | (array > highest)
    if outside.any():
        remedy = "Give ignored pixels a class of their own, or raise num_classes"
        raise ValueError(expectation("labels", f"in [0, {highest}]", int(array[outside][0]), remedy=remedy))
    return array.astype(np.int64)


def own_logits(logits: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Logits (K, H, W) for labels of that shape; (1, K, H, W) is taken as one image.

    Raises:
        TypeError: no numbers.
        ValueError: another shape, fewer than two classes, NaN or infinite logits.
    """
    array = _array("logits", logits)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim != 3 or len(array) < 2 or array.shape[1:] != shape:
        rule = f"of shape (K, {shape[0]}, {shape[1]}) with K of at least 2"
        raise ValueError(expectation("logits", rule, tuple(array.shape)))
    if not np.isfinite(array).all():
        raise ValueError(expectation("logits", "to be finite", array[~np.isfinite(array)][0]))
    return array.astype(np.float64)


def _array(argument: str, values: ArrayLike) -> NDArray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(expectation(argument, "to be an array of numbers", array.dtype))
    return array


def step_for(shape: tuple[int, int]) -> int:
    """Each how many pixels a map of that shape is shown."""
    return -(-max(shape) // LARGEST)


def class_names_of(num_classes: int, class_names: list[str] | None) -> list[str]:
    """Names for all classes, their numbers where there are none.

    Raises:
        ValueError: another number of names.
    """
    check_integer("num_classes", num_classes, low=2)
    names = [f"class {k}" for k in range(num_classes)] if class_names is None else list(map(str, class_names))
    if len(names) != num_classes:
        raise ValueError(expectation("class_names", f"one for each of {num_classes} classes", len(names)))
    return names
