"""Several methods or tests at once: Friedman's ranks, who cannot be told apart, and Holm's adjusted p values."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, f, rankdata, studentized_range

from nacl._checks import check_flag, check_integer, check_number, expectation
from nacl._scores import check_level, real_numbers

FEW_BLOCKS = 10  # Demsar 2006, section 3.2.2: the chi-square needs more blocks than this


class FriedmanRanks(NamedTuple):
    """Mean ranks of k methods on `blocks` patients or data sets, 1 the best; see `friedman_ranks`."""

    ranks: NDArray[np.float64]
    chi_square: float
    chi_square_p: float
    f_statistic: float
    p_value: float
    blocks: int

    @property
    def few_blocks(self) -> bool:
        """Whether the blocks are so few (10 or fewer) that `chi_square_p` is only rough; prefer `p_value`."""
        return self.blocks <= FEW_BLOCKS

    def __str__(self) -> str:
        ranks = ", ".join(f"{rank:.2f}" for rank in self.ranks)
        warning = ": few" if self.few_blocks else ""
        return f"mean ranks {ranks} (Iman-Davenport p = {self.p_value:.3g}, {self.blocks} blocks{warning})"


def friedman_ranks(scores: ArrayLike, *, larger_is_better: bool = True) -> FriedmanRanks:
    """Mean ranks of the methods over blocks, and whether any method differs from another.

    In each block the methods are ranked 1 to k, ties sharing their mean rank. With mean ranks R_j,
    chi_square = (k - 1) N^2 sum_j (R_j - (k + 1) / 2)^2 / sum_ij (r_ij - (k + 1) / 2)^2, which without ties is
    Friedman's 12 N / (k (k + 1)) sum_j (R_j - (k + 1) / 2)^2. `p_value` is Iman and Davenport's: from
    F = (N - 1) chi_square / (N (k - 1) - chi_square) with k - 1 and (k - 1)(N - 1) degrees of freedom, since the
    chi-square itself rejects too seldom.

    Args:
        scores: (methods, blocks): a method's score on each patient (mean over seeds) or data set; 3 methods or more.
            A block with NaN for any method is left out.
        larger_is_better: True gives rank 1 to the largest score.

    Returns:
        `FriedmanRanks`; where all methods tie in all blocks, statistics of 0 and p values of 1.

    Raises:
        ValueError: a wrong shape, fewer than 3 methods or 2 whole blocks.
        TypeError: a wrong type.

    Example:
        >>> print(friedman_ranks([[0.9, 0.8, 0.7, 0.9], [0.8, 0.7, 0.6, 0.7], [0.7, 0.6, 0.5, 0.8]]))
        mean ranks 1.00, 2.25, 2.75 (Iman-Davenport p = 0.00659, 4 blocks: few)

    References:
        Friedman, JASA 1937. Iman and Davenport, Commun. Stat. 1980. Demsar, JMLR 2006.
    """
    check_flag("larger_is_better", larger_is_better)
    scores = _whole_blocks(scores)
    methods, blocks = scores.shape
    ranks = rankdata(-scores if larger_is_better else scores, axis=0)
    spread = float(((ranks - (methods + 1) / 2) ** 2).sum())
    mean_ranks = ranks.mean(axis=1)
    between = blocks * float(((mean_ranks - (methods + 1) / 2) ** 2).sum())
    freedom = (methods - 1, (methods - 1) * (blocks - 1))
    share = between / spread if spread else 0.0  # Kendall's W: 1 where all blocks agree
    chi_square = freedom[0] * blocks * share
    agreed = share >= 1 - 1e-12
    f_statistic = np.inf if agreed else (blocks - 1) * share / (1 - share)
    return FriedmanRanks(
        mean_ranks,
        chi_square,
        float(chi2.sf(chi_square, freedom[0])),
        f_statistic,
        float(f.sf(f_statistic, *freedom)),
        blocks,
    )


def nemenyi_critical_difference(methods: int, blocks: int, *, level: float = 0.95) -> float:
    """By how much two mean ranks must differ to call any two of all the methods different.

    CD = q sqrt(k (k + 1) / (6 N)), with q the studentised range's quantile for k groups and infinite degrees of
    freedom, over sqrt(2).

    Args:
        methods: k, 2 or more.
        blocks: N, 2 or more.
        level: confidence in (0, 1).

    Returns:
        The critical difference, in ranks.

    Raises:
        ValueError: a number out of range.
        TypeError: a wrong type.

    Example:
        >>> round(nemenyi_critical_difference(5, 30), 3)
        1.114

    References:
        Nemenyi 1963, thesis, Princeton. Demsar, JMLR 2006, table 5 (q).
    """
    check_integer("methods", methods, low=2)
    check_integer("blocks", blocks, low=2)
    check_level(level)
    q = float(studentized_range.ppf(level, methods, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def cliques(ranks: Sequence[float] | NDArray, critical_difference: float) -> list[tuple[int, ...]]:
    """The largest groups of methods whose mean ranks all differ by less than the critical difference.

    Args:
        ranks: (methods,), as in `FriedmanRanks.ranks`.
        critical_difference: as of `nemenyi_critical_difference`, above 0.

    Returns:
        Groups of two or more methods, as indices into `ranks` from the best rank to the worst; no group lies within
        another. A method that differs from all others is in none.

    Raises:
        ValueError: a wrong shape, NaN, a critical difference not above 0.
        TypeError: a wrong type.

    Example:
        >>> cliques([3.2, 1.0, 2.1, 4.9], 1.15)
        [(1, 2), (2, 0)]
    """
    check_number("critical_difference", critical_difference, low=0, open_low=True)
    ranks = real_numbers("ranks", ranks)
    if ranks.ndim != 1 or not np.isfinite(ranks).all():
        raise ValueError(expectation("ranks", "of shape (methods,) and finite", ranks.tolist()))
    order = np.argsort(ranks, kind="stable")
    ends = [int(np.sum(ranks < ranks[first] + critical_difference)) for first in order]
    groups, reached = [], 0
    for start, end in enumerate(ends):
        if end > reached and end - start > 1:
            groups.append(tuple(order[start:end].tolist()))
        reached = max(reached, end)
    return groups


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p values adjusted for their number by Holm's steps: the chance of any false finding stays below the level.

    With the m of them in rising order, the i-th becomes the maximum over j <= i of min(1, (m - j + 1) p_j).

    Args:
        p_values: (m,), each in [0, 1], without NaN: a test that was not done belongs in no family.

    Returns:
        (m,) float64, in the order given.

    Raises:
        ValueError: NaN, a value outside [0, 1], a wrong shape.
        TypeError: values that are not real numbers.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]

    References:
        Holm, Scandinavian Journal of Statistics 1979.
    """
    p = real_numbers("p_values", p_values)
    if p.ndim != 1:
        raise ValueError(expectation("p_values", "of shape (m,)", p.shape))
    outside = ~((p >= 0) & (p <= 1))  # written so that NaN is outside
    if outside.any():
        place = f"number {int(outside.argmax())} of {p.size}"
        remedy = "Leave out the tests that could not be done"
        raise ValueError(expectation("p_values", "values in [0, 1]", p[outside][0], place, remedy))
    order = np.argsort(p, kind="stable")
    steps = np.minimum(p[order] * np.arange(p.size, 0, -1), 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def _whole_blocks(scores: ArrayLike) -> NDArray[np.float64]:
    scores = real_numbers("scores", scores)
    if scores.ndim != 2 or scores.shape[0] < 3:
        remedy = "For two methods use sign_flip_test"
        raise ValueError(
            expectation("scores", "of shape (methods, blocks), 3 methods or more", scores.shape, "", remedy)
        )
    whole = scores[:, ~np.isnan(scores).any(axis=0)]
    if whole.shape[1] < 2:
        context = f"{scores.shape[1]} blocks, {scores.shape[1] - whole.shape[1]} with NaN"
        raise ValueError(expectation("scores", "with at least 2 whole blocks", whole.shape[1], context))
    return whole
