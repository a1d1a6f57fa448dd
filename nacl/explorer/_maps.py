"""Label maps to look at: those that come with the package, and a user's own."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nacl._checks import check_integer, expectation
from nacl.data import load_dataset

LARGEST = 96
"""Pixels along a side that are drawn in a frame without waiting."""

MOST_CLASSES = 256
"""As many as a byte tells apart, which is what files of labels have."""


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


def own_labels(labels: ArrayLike, num_classes: int | None = None) -> NDArray[np.integer]:
    """Labels (H, W) as integers, once found to be a map of classes.

    Raises:
        TypeError: no numbers.
        ValueError: not two axes, no pixel, NaN or broken numbers, labels below 0 or not below `num_classes`.
    """
    array = _array("labels", labels)
    if array.ndim != 2 or 0 in array.shape:
        remedy = "Pass one slice, such as labels[0]" if array.ndim > 2 else ""
        raise ValueError(expectation("labels", "of shape (H, W)", tuple(array.shape), remedy=remedy))
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.round(array))
        if not whole.all():
            remedy = "Pass classes, not shares"
            raise ValueError(expectation("labels", "to be whole numbers", array[~whole][0], remedy=remedy))
    low, high, highest = int(array.min()), int(array.max()), (num_classes or MOST_CLASSES) - 1
    if low < 0 or high > highest:
        remedy = "Give ignored pixels a class of their own"
        remedy += ", or raise num_classes" if highest < MOST_CLASSES - 1 else ""
        raise ValueError(expectation("labels", f"in [0, {highest}]", low if low < 0 else high, remedy=remedy))
    return array if array.dtype.kind in "iu" else array.astype(np.int64)


def own_logits(logits: ArrayLike, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """Logits (K, H, W), for labels of that shape if one is given; (1, K, H, W) is taken as one image.

    Returns:
        The logits to four decimals, one more than are shown, to keep pages small.

    Raises:
        TypeError: no numbers.
        ValueError: another shape, fewer than two classes or more than 256, NaN or infinite logits.
    """
    array = _array("logits", logits)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    fits = array.ndim == 3 and 2 <= len(array) <= MOST_CLASSES and 0 not in array.shape
    if not fits or (shape is not None and array.shape[1:] != shape):
        height, width = ("H", "W") if shape is None else shape
        rule = f"of shape (K, {height}, {width}) with K in [2, {MOST_CLASSES}]"
        raise ValueError(expectation("logits", rule, tuple(array.shape)))
    if not np.isfinite(array).all():
        raise ValueError(expectation("logits", "to be finite", array[~np.isfinite(array)][0]))
    return np.round(array.astype(np.float64), 4)


def _array(argument: str, values: ArrayLike) -> NDArray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(expectation(argument, "with rows of one length", "others", str(error))) from error
    if array.dtype.kind not in "biuf":
        raise TypeError(expectation(argument, "to be an array of numbers", array.dtype))
    return array


def shown_part(shape: tuple[int, ...]) -> tuple[tuple[slice, slice], str]:
    """Which rows and columns of a map are shown, and what to say if those are not all."""
    step = -(-max(shape) // LARGEST)
    if step == 1:
        return (slice(None), slice(None)), ""
    height, width = (-(-size // step) for size in shape)
    note = f"Your map of {shape[0]} × {shape[1]} pixels is shown by 1 in {step} of its rows and columns, "
    return (slice(None, None, step),) * 2, note + f"{height} × {width}: windows are {step} times as wide as they seem."


def check_num_classes(num_classes: object) -> None:
    """Raise unless there may be so many classes."""
    check_integer("num_classes", num_classes, low=2)
    if num_classes > MOST_CLASSES:
        raise ValueError(expectation("num_classes", f"of at most {MOST_CLASSES}", num_classes))


def class_names_of(num_classes: int, class_names: list[str] | None) -> list[str]:
    """Names for all classes, their numbers where there are none.

    Raises:
        ValueError: another number of names.
    """
    names = [f"class {k}" for k in range(num_classes)] if class_names is None else list(map(str, class_names))
    if len(names) != num_classes:
        raise ValueError(expectation("class_names", f"one for each of {num_classes} classes", len(names)))
    return names
