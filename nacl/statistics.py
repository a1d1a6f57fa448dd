"""Is one method better than another, on these patients and over these seeds? Intervals, tests and margins.

Scores are (seeds, patients) in float64, one number for each trained network and patient; a patient with several cases
is averaged first. Every network scores every patient, so seeds and patients are *crossed*: a seed's luck is shared by
all patients, and no number of patients averages it away. NaN leaves a patient out of everything, so give a *failure* a
score: were it NaN, the worst patients would vanish.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from nacl._checks import check_choice, check_flag, check_integer, check_number
from nacl._scores import check_level, whole_patients

ALTERNATIVES = ("two-sided", "greater", "less")
ROUNDING = 1e-12  # two sums of the same numbers count as tied within this share of the sum of their sizes
LARGEST_SKEWNESS = 0.35  # of a mean of 10 with one outlier: beyond it an end ran 9 standard errors off, for no coverage
BLOCK = 4096  # resamples drawn at once, so that memory does not grow with their number


class Interval(NamedTuple):
    """A mean and its interval of confidence; `seeds=1` says that it speaks of one trained network only."""

    mean: float
    low: float
    high: float
    level: float
    patients: int
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.level:.4g}, {_sample(self)})"


class NonInferiority(NamedTuple):
    """Whether a method loses less than `margin`; see `non_inferiority`. `difference` and `bound` are of a - b."""

    difference: float
    bound: float
    margin: float
    larger_is_better: bool
    level: float
    p_value: float
    shown: bool
    patients: int
    seeds: int

    def __str__(self) -> str:
        verdict = "non-inferior" if self.shown else "non-inferiority not shown"
        side, limit = (">", -self.margin) if self.larger_is_better else ("<", self.margin)
        wanted = f"bound {self.bound:.4f}, wanted {side} {limit:.4g}"
        return f"{verdict}: {self.difference:.4f}, {wanted} ({self.level:.4g}, p = {self.p_value:.3g}, {_sample(self)})"


def mean_interval(scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """Interval for the mean score over all patients and all seeds that might have been drawn.

    mean -/+ sqrt(t_P^2 V_P + t_S^2 V_S), then Hall's correction for skewed patients, up to a limit. With the mean
    squares of the two-way layout of S seeds and P patients, M_S, M_P and M_E (interaction), the variance of the mean
    has the parts V_P = max(M_P, M_E) / SP and V_S = max(M_S - M_E, 0) / SP, each with the t quantile of its own P - 1
    or S - 1 degrees of freedom. Nothing is drawn at random.

    Why not the bootstrap's percentiles: with 3 seeds whose luck dominates, crossed resampling (`bootstrap_means`)
    covers in about 87 of 100 cases where 95 are promised, and resampling seeds anew within each patient in about 70.

    Simulated coverage of the 0.95 interval (10, 20 or 40 patients; 1, 3, 5 or 10 seeds, whose part is 0 to 25 times
    the patients') is 0.92 to 0.975 for normal, gamma, exponential and log-normal (sigma 0.5) scores of patients. It
    falls short for 2 seeds whose luck dominates (0.91), and, where the seeds' part is small, for log-normal scores of
    sigma 1 (0.885 for 10 patients, 0.925 for 40) and heavy tails (t with 3 degrees of freedom: 0.925). Skewed luck of
    seeds cannot be seen in so few: where it is exponential and dominates, coverage is 0.92.

    With one seed it cannot know of seeds: it then covers the expected score of that one network.

    Args:
        scores: (seeds, patients), or (patients,) for one seed: one method's scores, or differences of two methods.
            NaN says nothing: that patient is left out for all seeds.
        level: confidence in (0, 1).

    Returns:
        `Interval`, in the units of the scores; of width 0 where all scores are equal.

    Raises:
        ValueError: a wrong shape, infinite scores, fewer than 2 patients left, `level` out of range.
        TypeError: scores that are not real numbers.

    Example:
        >>> print(mean_interval([[0.80, 0.84, 0.88, 0.84], [0.82, 0.85, 0.90, 0.87]]))
        0.8500 [0.7150, 0.9850] (0.95, 4 patients, 2 seeds)

    References:
        Owen, Annals of Applied Statistics 2007 (crossed data). Burdick and Graybill 1992, Confidence Intervals on
        Variance Components (own quantile for each part). Hall, J. R. Statist. Soc. B 1992 (skewness).
    """
    (scores,) = whole_patients({"scores": scores}, least=2)
    return _interval(_estimate([scores]), level)


def paired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Interval:
    """Interval for the mean of a - b over patients and seeds, as in `mean_interval`.

    Patients are paired. Seeds are paired by index where both methods have as many (valid too if equal indices share
    nothing); otherwise each method's seeds are a part of the variance of their own, and the interval is a little wide
    (it covers 0.97 to 0.98 where the seeds' luck dominates).

    Args:
        a: scores of one method, (seeds, patients) or (patients,). NaN in either method leaves the patient out.
        b: scores of the other on the same patients, in the same order.
        level: confidence in (0, 1).

    Returns:
        `Interval`; `seeds` is the smaller number of seeds.

    Raises:
        ValueError: different patients, and as in `mean_interval`.
        TypeError: scores that are not real numbers.

    Example:
        >>> print(paired_difference([0.90, 0.80, 0.86, 0.84], [0.88, 0.79, 0.83, 0.82]))
        0.0200 [0.0070, 0.0330] (0.95, 4 patients, 1 seed: these networks only)
    """
    return _interval(_difference(a, b), level)


def non_inferiority(
    a: ArrayLike, b: ArrayLike, *, margin: float, larger_is_better: bool = True, level: float = 0.95
) -> NonInferiority:
    """Whether method a loses less than `margin` against b: the one-sided bound of a - b stays inside the margin.

    Shown if the lower bound of a - b is above -margin (for `larger_is_better=False`: the upper bound below margin).
    The bound is an end of the `paired_difference` interval of level 2 `level` - 1, so it knows of seeds, and the p
    value of "a loses `margin` or more" is the smallest 1 - level at which non-inferiority would still be shown.
    State the margin before you look at the scores.

    Args:
        a: scores of the method on trial, (seeds, patients) or (patients,).
        b: scores of the reference on the same patients.
        margin: the largest loss that does not matter, above 0, in the units of the scores.
        larger_is_better: True as for Dice, False as for a calibration error.
        level: confidence of the one-sided bound, in (0, 1).

    Returns:
        `NonInferiority`; `shown` is the verdict.

    Raises:
        ValueError: `margin` not above 0, and as in `paired_difference`.
        TypeError: a wrong type.

    Example:
        >>> print(non_inferiority([0.90, 0.80, 0.86, 0.84], [0.90, 0.81, 0.86, 0.83], margin=0.02))
        non-inferior: 0.0000, bound -0.0096, wanted > -0.02 (0.95, p = 0.00814, 4 patients, 1 seed: these networks only)

    References:
        Piaggio et al., JAMA 2012 (CONSORT for non-inferiority).
    """
    check_number("margin", margin, low=0, open_low=True)
    check_flag("larger_is_better", larger_is_better)
    check_level(level)
    gain = _difference(a, b) if larger_is_better else _difference(b, a)
    sign = 1 if larger_is_better else -1
    bound = gain.low(1 - level)
    return NonInferiority(
        difference=sign * gain.mean,
        bound=sign * bound,
        margin=margin,
        larger_is_better=larger_is_better,
        level=level,
        p_value=gain.p_value(-margin),
        shown=bound > -margin,
        patients=gain.patients,
        seeds=gain.seeds,
    )


def sign_flip_test(
    differences: ArrayLike, *, alternative: str = "two-sided", resamples: int = 2**16, seed: int = 0
) -> float:
    """p value of "no difference": how often randomly flipped signs of the patients' differences give a sum as large.

    Differences are averaged over seeds first, and a patient's sign is flipped as a whole. It supposes no distribution,
    only symmetry about 0 under the null. It speaks of *these* trained networks: where seeds differ, another training
    may turn the result, and `paired_difference` is the one that knows.

    Args:
        differences: (seeds, patients) or (patients,), one method minus another. NaN leaves the patient out.
        alternative: "two-sided", "greater" (the mean is above 0) or "less".
        resamples: sign patterns. Where there are no more than this many, all 2^P are counted and p is exact;
            otherwise p = (b + 1) / (resamples + 1), with b of them as large as what was seen.
        seed: of the random patterns.

    Returns:
        p in (0, 1]; with P patients an exact p is at least 2^-P, two-sided 2^(1-P).

    Raises:
        ValueError: unknown `alternative`, `resamples` below 1, no patient left, and as in `mean_interval`.
        TypeError: a wrong type.

    Example:
        >>> sign_flip_test([0.02, 0.01, 0.03, 0.02, 0.04])
        0.0625

    References:
        Fisher 1935, The Design of Experiments. Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 2010 (b + 1).
    """
    check_choice("alternative", alternative, ALTERNATIVES)
    check_integer("resamples", resamples, low=1)
    check_integer("seed", seed, low=0)
    (scores,) = whole_patients({"differences": differences}, least=1)
    by_patient = scores.mean(axis=0)
    by_patient = -by_patient if alternative == "less" else by_patient
    seen, tie = by_patient.sum(), ROUNDING * np.abs(by_patient).sum()

    def as_large(sums: NDArray) -> int:
        return int(np.count_nonzero((np.abs(sums) >= abs(seen) - tie) if two_sided else (sums >= seen - tie)))

    two_sided = alternative == "two-sided"
    if 2**by_patient.size <= resamples:
        return as_large(_all_sign_sums(by_patient)) / 2**by_patient.size
    rng = np.random.default_rng(seed)
    signs = (1 - 2.0 * rng.integers(0, 2, (size, by_patient.size), dtype=np.int8) for size in _blocks(resamples))
    return (sum(as_large(block @ by_patient) for block in signs) + 1) / (resamples + 1)


def bootstrap_means(scores: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> NDArray[np.float64]:
    """Means of crossed ("pigeonhole") resamples: patients and seeds are both drawn with replacement, independently.

    For a picture of how the mean varies. Its percentiles are too narrow for few seeds; `mean_interval` is not.

    Args:
        scores: as in `mean_interval`.
        resamples: number of means.
        seed: of the draws.

    Returns:
        (resamples,) float64.

    Raises:
        ValueError: `resamples` below 1, and as in `mean_interval`.
        TypeError: a wrong type.

    Example:
        >>> bootstrap_means([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]], resamples=1000).std().round(1)
        np.float64(0.6)

    References:
        Owen, Annals of Applied Statistics 2007.
    """
    check_integer("resamples", resamples, low=1)
    check_integer("seed", seed, low=0)
    (scores,) = whole_patients({"scores": scores}, least=2)
    rng = np.random.default_rng(seed)
    draws = ((_counts(rng, size, scores.shape[0]), _counts(rng, size, scores.shape[1])) for size in _blocks(resamples))
    sums = [np.einsum("rp,rp->r", by_seed @ scores, by_patient) for by_seed, by_patient in draws]
    return np.concatenate(sums) / scores.size


class _Estimate(NamedTuple):
    """A mean, the parts of its variance with their degrees of freedom, and the skewness of its distribution."""

    mean: float
    parts: tuple[tuple[float, int], ...]
    skewness: float
    patients: int
    seeds: int

    @property
    def standard_error(self) -> float:
        return math.sqrt(sum(variance for variance, _ in self.parts))

    def low(self, tail: float) -> float:
        """The end below which the truth lies with a chance of `tail`."""
        return self._end(self._half_width(tail))

    def high(self, tail: float) -> float:
        """The end above which the truth lies with a chance of `tail`."""
        return self._end(-self._half_width(tail))

    def p_value(self, null: float) -> float:
        """The `tail` at which `low` is `null`: the p value of "the truth is `null` or less"."""
        if self.standard_error == 0:
            return float(self.mean <= null)
        t, g = (self.mean - null) / self.standard_error, self.skewness
        straight = t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6  # Hall's transformation: its tails are t's
        bounds = [float(stdtr(freedom, -abs(straight))) for variance, freedom in self.parts if variance > 0]
        tail, wanted = min(bounds), abs(straight) * self.standard_error
        if tail < max(bounds):
            tail = brentq(lambda p: self._half_width(p) - wanted, tail, max(bounds), xtol=1e-9 * tail + 1e-300)
        return tail if straight > 0 else 1 - tail

    def _half_width(self, tail: float) -> float:
        """Negative where `tail` is above 1/2."""
        squares = (variance * stdtrit(freedom, tail) ** 2 for variance, freedom in self.parts)
        return math.copysign(math.sqrt(sum(squares)), 0.5 - tail)

    def _end(self, half_width: float) -> float:
        """mean - half_width after the inverse of Hall's transformation, written without a division by the skewness."""
        if self.standard_error == 0:
            return self.mean
        x = half_width / self.standard_error - self.skewness / 6
        root = math.copysign(abs(1 + self.skewness * x) ** (1 / 3), 1 + self.skewness * x)
        return self.mean - self.standard_error * 3 * x / (root**2 + root + 1)


def _estimate(sides: Sequence[NDArray]) -> _Estimate:
    """The mean of one table of scores (seeds, patients), or of the first less the second where there are two."""
    by_patient = sides[0].mean(axis=0) - sum(side.mean(axis=0) for side in sides[1:])
    patients, mean = by_patient.size, float(by_patient.mean())
    seed_parts = [_seed_variances(side) for side in sides]
    among_patients = max(by_patient.var(ddof=1) / patients, sum(interaction for _, interaction in seed_parts))
    parts = [(float(among_patients), patients - 1)]
    parts += [(own, len(side) - 1) for (own, _), side in zip(seed_parts, sides, strict=True) if len(side) > 1]
    variance = sum(part for part, _ in parts)
    third = float(((by_patient - mean) ** 3).mean()) / patients**2
    skewness = third / variance**1.5 if variance > 0 else 0.0
    skewness = min(max(skewness, -LARGEST_SKEWNESS), LARGEST_SKEWNESS)
    return _Estimate(mean, tuple(parts), skewness, patients, min(len(side) for side in sides))


def _seed_variances(scores: NDArray) -> tuple[float, float]:
    """What the seeds alone, and seeds with patients (the interaction), add to the variance of the mean."""
    seeds, patients = scores.shape
    if seeds == 1:
        return 0.0, 0.0
    by_seed = scores.mean(axis=1)
    residual = scores - by_seed[:, None] - scores.mean(axis=0) + scores.mean()
    interaction = float((residual**2).sum()) / ((seeds - 1) * (patients - 1) * scores.size)
    return max(float(by_seed.var(ddof=1)) / seeds - interaction, 0.0), interaction


def _difference(a: ArrayLike, b: ArrayLike) -> _Estimate:
    a, b = whole_patients({"a": a, "b": b}, least=2)
    return _estimate([a - b] if len(a) == len(b) else [a, b])


def _interval(estimate: _Estimate, level: float) -> Interval:
    check_level(level)
    tail = (1 - level) / 2
    ends = estimate.low(tail), estimate.high(tail)
    return Interval(estimate.mean, *ends, level, estimate.patients, estimate.seeds)


def _sample(result: Interval | NonInferiority) -> str:
    seeds = "1 seed: these networks only" if result.seeds == 1 else f"{result.seeds} seeds"
    return f"{result.patients} patients, {seeds}"


def _all_sign_sums(values: NDArray) -> NDArray:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _counts(rng: np.random.Generator, resamples: int, members: int) -> NDArray:
    """How often each member is drawn, (resamples, members), as float64 for the matrix product."""
    drawn = rng.integers(0, members, (resamples, members)) + members * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * members).reshape(resamples, members).astype(float)


def _blocks(resamples: int) -> list[int]:
    full, rest = divmod(resamples, BLOCK)
    return [BLOCK] * full + [rest] * (rest > 0)
