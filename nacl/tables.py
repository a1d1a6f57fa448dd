"""From a table of results, one row a case, to the table of a page: means with intervals, and what is no difference."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nacl._checks import check_choice, expectation
from nacl.ranks import holm
from nacl.statistics import mean_interval, paired_difference, sign_flip_test

NOT_SIGNIFICANT, NOT_COMPARED = "°", "†"


def scores_of(table: pd.DataFrame, metric: str) -> dict[str, NDArray[np.float64]]:
    """The scores of each method, (seeds, patients): means over a patient's cases, in one order for all methods.

    Args:
        table: columns `method`, `seed`, `patient` and `metric`, one row a case, as `results_table` gives it.
        metric: a column of numbers.

    Returns:
        Methods in their order of appearance. NaN where a method has no score of a patient.

    Raises:
        ValueError: a column that is missing; a case that a method has twice for a seed.

    Example:
        >>> rows = [("ce", 0, "a", 0.8), ("ce", 0, "a", 0.6), ("ce", 0, "b", 0.9)]
        >>> scores_of(pd.DataFrame(rows, columns=["method", "seed", "patient", "dice"]), "dice")
        {'ce': array([[0.7, 0.9]])}
    """
    for column in ("method", "seed", "patient", metric):
        check_choice("metric" if column == metric else "table column", column, table.columns)
    keys = ["method", "seed", "patient"]
    if "case" in table and (twice := table[table.duplicated([*keys, "case"])])["case"].any():
        got = ", ".join(map(str, twice.iloc[0][[*keys, "case"]]))
        remedy = "Keep the runs that differ in method and seed alone"
        raise ValueError(expectation("table", "with one row a method, seed and case", f"two of {got}", remedy=remedy))
    patients = table["patient"].drop_duplicates()
    means = table.groupby(keys, sort=False)[metric].mean().unstack("patient").reindex(columns=patients)
    return {method: means.loc[method].sort_index().to_numpy(float) for method in table["method"].drop_duplicates()}


def compare(table: pd.DataFrame, metrics: Sequence[str], *, baseline: str = "ce", level: float = 0.95) -> pd.DataFrame:
    """Each method's mean with its interval, and its difference from the baseline with interval and p value.

    Differences are paired by patient. Their intervals know of seeds (`paired_difference`); p is the sign-flip test over
    patients, corrected by Holm for the methods that one metric compares with the baseline. A difference is
    `significant` where the corrected p is at most 1 - level and the interval leaves 0 out.

    Args:
        table: as in `scores_of`.
        metrics: columns of it.
        baseline: the method that the others are compared with.
        level: confidence of the intervals.

    Returns:
        One row a metric and method: `metric`, `method`, `baseline`, `mean`, `low`, `high`, `patients`, `seeds`,
        `difference`, `difference_low`, `difference_high`, `p_value`, `significant`. The baseline's own differences are
        NaN, and so is all that fewer than two patients would have to tell.

    Raises:
        ValueError: a column or a baseline that the table does not have, and as in `scores_of`.

    Example:
        >>> rows = [(m, 0, p, p + gain) for m, gain in (("ce", 0), ("nacl", 1)) for p in range(8)]
        >>> table = compare(pd.DataFrame(rows, columns=["method", "seed", "patient", "score"]), ["score"])
        >>> table[["method", "mean", "difference", "p_value", "significant"]]
          method  mean  difference   p_value  significant
        0     ce   3.5         NaN       NaN        False
        1   nacl   4.5         1.0  0.007812         True
    """
    rows = [row for metric in metrics for row in _compared(scores_of(table, metric), metric, baseline, level)]
    return pd.DataFrame(rows)


def with_confidence(table: pd.DataFrame, bins: Mapping[str, pd.DataFrame], *, region: str = "all") -> pd.DataFrame:
    """The table with a column `confidence`: how sure the network of a row is of its answers, on average over a region.

    Args:
        table: columns `identity`, `case` and `post_hoc`, as `results_table` gives them.
        bins: by the identity of a run, its bins, as in `nacl.results.Result`.
        region: a region of the bins.

    Returns:
        A new table; NaN where a case has no pixel of the region.

    Example:
        >>> row = {"case": "a", "post_hoc": "none"}
        >>> bins = pd.DataFrame([{**row, "region": "all", "count": 4, "confidence_sum": 3.0}])
        >>> with_confidence(pd.DataFrame([{"identity": "1f", **row}]), {"1f": bins})["confidence"].item()
        0.75
    """
    keys = ["identity", "case", "post_hoc"]
    rows = pd.concat([of_run[of_run["region"] == region].assign(identity=name) for name, of_run in bins.items()])
    sums = rows.groupby(keys)[["confidence_sum", "count"]].sum()
    confidence = (sums["confidence_sum"] / sums["count"].where(sums["count"] > 0)).rename("confidence")
    return table.drop(columns="confidence", errors="ignore").join(confidence, on=keys)


def ablation_points(table: pd.DataFrame, field: str, metrics: Sequence[str], *, level: float = 0.95) -> pd.DataFrame:
    """The points of an ablation's curves: for each metric, method and value of a field the mean with its interval.

    The interval is that of `mean_interval`: it speaks of patients, and knows of seeds where there are several.

    Args:
        table: as in `scores_of`, with the column `field`; rows where it is empty are left out.
        field: what was varied, such as "penalty_weight"; a column of numbers or names.
        metrics: columns of numbers.
        level: confidence of the intervals.

    Returns:
        One row a metric, method and value, in their order of appearance: `metric`, `method`, `field`, `mean`, `low`,
        `high`, `patients`, `seeds`, and with `lowest` and `highest` the range of the means of single seeds.

    Raises:
        ValueError: a column that is missing, and as in `scores_of`.

    Example:
        >>> rows = [("nacl", 0, p, w, p + w) for w in (0.1, 0.3) for p in range(4)]
        >>> table = pd.DataFrame(rows, columns=["method", "seed", "patient", "penalty_weight", "score"])
        >>> ablation_points(table, "penalty_weight", ["score"])[["method", "penalty_weight", "mean", "patients"]]
          method  penalty_weight  mean  patients
        0   nacl             0.1   1.6         4
        1   nacl             0.3   1.8         4
    """
    check_choice("field", field, table.columns)
    rows = []
    for metric in metrics:
        for (method, value), of_point in table.groupby(["method", field], sort=False):
            (scores,) = scores_of(of_point, metric).values()
            known = scores[:, ~np.isnan(scores).any(axis=0)]
            of_seeds = known.mean(axis=1) if known.size else np.full(len(scores), np.nan)
            row = {"metric": metric, "method": method, field: value, **_means(scores, level)}
            rows.append({**row, "lowest": of_seeds.min(), "highest": of_seeds.max()})
    return pd.DataFrame(rows)


def typeset(comparison: pd.DataFrame, *, digits: int = 3) -> pd.DataFrame:
    """The table of a page: a row a method, a column a metric, cells such as "0.852 [0.831, 0.872]".

    A degree sign follows what does not differ significantly from the baseline, a dagger what could not be compared with
    it: fewer than two patients have both scores. What has no mark differs significantly, or is the baseline itself. A
    dash stands where there is no score.

    Args:
        comparison: what `compare` gave.
        digits: behind the point.

    Example:
        >>> rows = [(m, 0, p, p + gain) for m, gain in (("ce", 0), ("nacl", 0.1)) for p in range(4)]
        >>> table = pd.DataFrame(rows, columns=["method", "seed", "patient", "score"])
        >>> typeset(compare(table, ["score"]), digits=1)
                           score
        method
        ce        1.5 [-0.6, 3.6]
        nacl    1.6 [-0.5, 3.7] °
    """
    cells = [_cell(row, digits) for row in comparison.itertuples()]
    wide = comparison.assign(cell=cells).pivot(index="method", columns="metric", values="cell")
    wide = wide.loc[comparison["method"].drop_duplicates(), comparison["metric"].drop_duplicates()]
    return wide.rename_axis(columns=None)


def _cell(row: NamedTuple, digits: int) -> str:
    if np.isnan(row.mean):
        return "-"
    numbers = f"{row.mean:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"
    if row.significant or row.method == row.baseline:
        return numbers
    return f"{numbers} {NOT_COMPARED if np.isnan(row.difference) else NOT_SIGNIFICANT}"


def _compared(
    scores: dict[str, NDArray[np.float64]], metric: str, baseline: str, level: float
) -> list[dict[str, object]]:
    check_choice("baseline", baseline, scores)
    rows = []
    for method, own in scores.items():
        row = {"metric": metric, "method": method, "baseline": baseline} | _means(own, level)
        if method != baseline:
            row |= _differences(own, scores[baseline], level)
        rows.append(row)
    compared = [row for row in rows if "p_value" in row]
    for row, p_value in zip(compared, holm([row["p_value"] for row in compared]) if compared else (), strict=True):
        row["p_value"] = p_value
        row["significant"] = bool(p_value <= 1 - level and not row["difference_low"] <= 0 <= row["difference_high"])
    nothing = dict.fromkeys(("difference", "difference_low", "difference_high", "p_value"), np.nan)
    return [{**row, **nothing, "significant": False} if "p_value" not in row else row for row in rows]


def _means(scores: NDArray[np.float64], level: float) -> dict[str, float]:
    known = int((~np.isnan(scores)).all(axis=0).sum())
    if known < 2:
        lone = float(np.nanmean(scores)) if known else np.nan
        return {"mean": lone, "low": np.nan, "high": np.nan, "patients": known, "seeds": len(scores)}
    found = mean_interval(scores, level=level)
    return {name: getattr(found, name) for name in ("mean", "low", "high", "patients", "seeds")}


def _differences(a: NDArray[np.float64], b: NDArray[np.float64], level: float) -> dict[str, float]:
    both = ~(np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0))
    if both.sum() < 2:
        return {}
    found = paired_difference(a, b, level=level)
    by_patient = a[:, both].mean(axis=0) - b[:, both].mean(axis=0)
    return {
        "difference": found.mean,
        "difference_low": found.low,
        "difference_high": found.high,
        "p_value": sign_flip_test(by_patient),
    }
