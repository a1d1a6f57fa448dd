"""A case as it comes, of any model and in memory, and the same once everything about it was found in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nacl._checks import expectation

SUM_TOLERANCE = 1e-3  # float16 rounds a probability by 5e-4 of itself at most, and so their sum
FORCED_TOLERANCE = 0.05
FLOOR = 1e-12  # as in nacl.metrics: of a probability that underflowed


@dataclass(frozen=True)
class ReportCase:
    """One case: what a model said, and what is true.

    Args:
        name: shown on the page; unique.
        probs: probabilities, or logits, (C, ...) in 2D or 3D; or the foreground's alone, of the label's shape.
        label: (...), integers in [0, C) or the report's `ignore_index`; a float array of whole numbers will do.
        spacing: size of a voxel along each axis of `label`, in mm; None where it is not known.
        image: (...), for the pictures.
        patient: whom intervals draw and halves keep together; None: each case is a patient.
        from_logits: whether `probs` are logits; None finds out from their range and sums.

    Example:
        >>> ReportCase("a", [[[0.8, 0.1]], [[0.2, 0.9]]], [[0, 1]]).name
        'a'
    """

    name: str
    probs: ArrayLike
    label: ArrayLike
    spacing: Sequence[float] | None = None
    image: ArrayLike | None = None
    patient: str | None = None
    from_logits: bool | None = None


@runtime_checkable
class Loadable(Protocol):
    """What gives its case when asked: a pair of files."""

    name: str

    def load(self) -> ReportCase:
        """Read it."""


@dataclass(frozen=True)
class CheckedCase:
    """A case in order.

    Attributes:
        scores: probabilities or logits (1, C, ...) in float32 or float64.
        target: int64 (1, ...).
        from_logits: which of the two `scores` are.
    """

    name: str
    patient: str
    scores: Tensor
    target: Tensor
    from_logits: bool
    spacing: tuple[float, ...] | None
    image: NDArray | None

    @property
    def num_classes(self) -> int:
        """C."""
        return self.scores.shape[1]

    @property
    def probs(self) -> Tensor:
        """Probabilities (1, C, ...)."""
        return self.scores.softmax(dim=1) if self.from_logits else self.scores

    @property
    def logits(self) -> Tensor:
        """Logits (1, C, ...): log p, which is a logit but for a constant at each pixel, where probabilities came."""
        return self.scores if self.from_logits else self.scores.clamp_min(FLOOR).log()


def name_of(item: object, position: int) -> str:
    """The name of what the caller gave, for an error about it."""
    if isinstance(item, tuple | list) and item:
        return str(item[0])
    return str(getattr(item, "name", f"case {position}"))


def checked_case(item: object, *, num_classes: int | None, ignore_index: int) -> CheckedCase:
    """The case of a `ReportCase`, of a tuple (name, probs, label[, spacing[, image]]), or of a pair of files.

    Raises:
        ValueError: shapes that do not fit, NaN, labels out of range or not whole, another number of classes, scores
            that are neither probabilities nor logits of classes that exclude each other.
        TypeError: something else than a case; dtypes that do not fit.
    """
    case = item.load() if isinstance(item, Loadable) else item
    if isinstance(case, tuple | list) and 3 <= len(case) <= 5:
        case = ReportCase(*case)
    if not isinstance(case, ReportCase):
        rule = "of ReportCase, or of tuples (name, probs, label, spacing, image)"
        raise TypeError(expectation("cases", rule, type(case).__name__))
    label = whole_labels(_array(case.label))
    scores, from_logits = class_scores(_array(case.probs), label.shape, case.from_logits)
    if num_classes not in (None, len(scores)):
        remedy = "A report is about one model"
        raise ValueError(expectation("probs", f"of {num_classes} classes", len(scores), "as in the first case", remedy))
    _check_range(label, len(scores), ignore_index)
    image = None if case.image is None else _array(case.image)
    if image is not None and image.shape != label.shape:
        raise ValueError(expectation("image", f"of the label's shape {label.shape}", image.shape))
    spacing = None if case.spacing is None else tuple(float(size) for size in case.spacing)
    if spacing is not None and (len(spacing) != label.ndim or not all(0 < size < np.inf for size in spacing)):
        raise ValueError(expectation("spacing", f"of {label.ndim} positive numbers, one an axis", spacing))
    tensor = torch.from_numpy(np.ascontiguousarray(scores))[None]
    target = torch.from_numpy(np.ascontiguousarray(label))[None]
    patient = str(case.name if case.patient is None else case.patient)
    return CheckedCase(str(case.name), patient, tensor, target, from_logits, spacing, image)


def whole_labels(label: NDArray) -> NDArray[np.int64]:
    """A label map in int64, once found to be 2D or 3D and of whole numbers, whatever their dtype."""
    if label.dtype.kind not in "buif":
        raise TypeError(expectation("label", "of numbers", label.dtype))
    if label.ndim not in (2, 3) or not label.size:
        raise ValueError(expectation("label", "of shape (H, W) or (D, H, W), not empty", label.shape))
    whole = np.nan_to_num(label, posinf=0, neginf=0).astype(np.int64) if label.dtype.kind == "f" else label
    if whole is not label and not (whole == label).all():
        got = label[whole != label][0]
        remedy = "Give a label map, not an image or probabilities; resample labels by the nearest voxel"
        raise ValueError(expectation("label", "of whole numbers", got, remedy=remedy))
    return whole.astype(np.int64)


def class_scores(scores: NDArray, shape: tuple[int, ...], from_logits: bool | None) -> tuple[NDArray, bool]:
    """Scores (C, ...) in float32 or float64, of two classes at least, and whether they are logits."""
    if scores.dtype.kind != "f":
        remedy = "A label map has no confidence: save the softmax, or the logits"
        raise TypeError(expectation("probs", "of a floating dtype", scores.dtype, remedy=remedy))
    scores = scores.astype(np.float64 if scores.dtype.itemsize == 8 else np.float32, copy=False)
    if scores.shape == shape:
        scores = scores[None]
    if scores.shape[1:] != shape:
        rule = f"of shape (C, {', '.join(map(str, shape))})"
        raise ValueError(expectation("probs", rule, scores.shape, f"label {shape}"))
    low, high = float(scores.min()), float(scores.max())
    if not (-np.inf < low and high < np.inf):  # so that NaN fails
        raise ValueError(expectation("probs", "of finite values", f"[{low}, {high}]"))
    if len(scores) == 1:
        return _with_background(scores, from_logits, low, high)
    if from_logits or (from_logits is None and (low < 0 or high > 1 + SUM_TOLERANCE)):
        return scores, True
    if low < 0 or high > 1 + SUM_TOLERANCE:
        remedy = "Take --from-probs (from_logits=False) away"
        raise ValueError(expectation("probs", "in [0, 1]", f"[{low:.4g}, {high:.4g}]", remedy=remedy))
    return _normalised(scores, FORCED_TOLERANCE if from_logits is False else SUM_TOLERANCE), False


def _normalised(probs: NDArray, tolerance: float) -> NDArray:
    total = probs.sum(axis=0, dtype=np.float64)
    off = np.abs(total - 1)
    if off.max() > tolerance:
        got = f"a sum of {total.flat[off.argmax()]:.4g} at a pixel"
        remedy = (
            "Sigmoid outputs, whose classes may overlap, are reported one class at a time: save its probability "
            "alone beside its binary label. If these are logits, say --from-logits (from_logits=True)"
        )
        raise ValueError(expectation("probs", f"that sum to 1 within {tolerance:g} over the classes", got, "", remedy))
    if off.max() <= SUM_TOLERANCE:
        return np.minimum(probs, 1)
    return (probs / total).astype(probs.dtype)


def _with_background(scores: NDArray, from_logits: bool | None, low: float, high: float) -> tuple[NDArray, bool]:
    """One channel is the foreground: background first, then that."""
    inside = low >= 0 and high <= 1 + SUM_TOLERANCE
    if from_logits is None and (scores == np.round(scores)).all():
        remedy = "A label map has no confidence: save the probability of the foreground"
        raise ValueError(expectation("probs", "of fractions", "whole numbers only", "one channel", remedy))
    if from_logits or (from_logits is None and not inside):
        return np.concatenate([np.zeros_like(scores), scores]), True
    if not inside:
        raise ValueError(expectation("probs", "in [0, 1]", f"[{low:.4g}, {high:.4g}]"))
    scores = np.minimum(scores, 1)
    return np.concatenate([1 - scores, scores]), False


def _check_range(label: NDArray, num_classes: int, ignore_index: int) -> None:
    outside = ((label < 0) | (label >= num_classes)) & (label != ignore_index)
    if outside.any():
        rule = f"in [0, {num_classes}) or ignore_index={ignore_index}"
        got = int(label[outside][0])
        remedy = f"If {got} means 'not labelled', say --ignore-index {got} (ignore_index={got})"
        raise ValueError(expectation("label", rule, got, f"probs of {num_classes} classes", remedy))
    if (label == ignore_index).all():
        raise ValueError(expectation("label", "with a pixel that counts", f"{ignore_index} everywhere"))


def _array(values: ArrayLike) -> NDArray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
