"""Tables of scores, (seeds, patients), found to be in order."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nacl._checks import check_number, expectation


def real_numbers(argument: str, values: ArrayLike) -> NDArray[np.float64]:
    """`values` in float64, once found to be real numbers. (NaN is one.)"""
    values = np.asarray(values)
    if not (np.issubdtype(values.dtype, np.integer) or np.issubdtype(values.dtype, np.floating)):
        raise TypeError(expectation(argument, "to be real numbers", f"dtype {values.dtype}"))
    return values.astype(np.float64)


def whole_patients(scores: dict[str, ArrayLike], *, least: int) -> list[NDArray[np.float64]]:
    """The tables (seeds, patients), less the patients for whom any number of any table is NaN."""
    tables = {argument: _table(argument, values) for argument, values in scores.items()}
    patients = {argument: table.shape[1] for argument, table in tables.items()}
    (first, wanted), *others = patients.items()
    for argument, got in others:
        if got != wanted:
            raise ValueError(expectation(argument, f"with as many patients as `{first}`, {wanted}", got))
    whole = ~np.any([np.isnan(table).any(axis=0) for table in tables.values()], axis=0)
    if whole.sum() < least:
        rule = f"with {least} or more patients whose scores are all there"
        context = f"{wanted} patients, {wanted - whole.sum()} with NaN"
        raise ValueError(expectation("` and `".join(tables), rule, whole.sum(), context))
    return [table[:, whole] for table in tables.values()]


def check_level(level: object) -> None:
    """Raise unless `level` is a number in (0, 1)."""
    check_number("level", level)
    if not 0 < level < 1:
        raise ValueError(expectation("level", "in (0, 1)", level))


def _table(argument: str, scores: ArrayLike) -> NDArray[np.float64]:
    scores = real_numbers(argument, scores)
    if scores.ndim not in (1, 2) or scores.size == 0:
        raise ValueError(expectation(argument, "of shape (seeds, patients) or (patients,)", scores.shape))
    infinite = scores[np.isinf(scores)]
    if infinite.size:
        remedy = "Give a finite score where a metric has none, or NaN to leave the patient out"
        raise ValueError(expectation(argument, "without infinite values", infinite[0], remedy=remedy))
    return np.atleast_2d(scores)
