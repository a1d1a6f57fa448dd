"""The family of calibration losses: how confident each lets a pixel with a certain label become, and why."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy.special import lambertw
from torch import Tensor

from nacl._checks import check_choice, check_flag, check_integer, check_number, expectation
from nacl.theory.gradient import check_penalty, penalty_slope
from nacl.theory.minimum import checked_shares, nacl_minimum


def confidence_ceiling(loss: str, num_classes: int, **parameters: object) -> float:
    """The confidence softmax(l)_y at the minimum of a loss, for one pixel whose label y is certain.

    With K = num_classes, and c = penalty_weight / K where the authors average a penalty over the classes:

    - "ce": 1, in the limit of infinite logits only. So is "focal" (gamma=3.0): -(1 - p)^gamma log p falls to 0 at 1.
    - "label_smoothing" (smoothing=0.1): 1 - smoothing + smoothing / K.
    - "svls" (tau): (1 + tau_y) / 2, tau the shares among the neighbours; inside an object none.
    - "ecp" (penalty_weight=0.1), CE - c H(s): the other classes share the rest equally, and the logit of the label
      exceeds theirs by m with c m = 1 + (K - 1) exp(-m), that is m = 1 / c + W((K - 1) exp(-1 / c) / c), W Lambert's.
    - "mbls" (margin=10.0, penalty_weight=0.1, penalty="l1", delta=1.0), CE + c sum_k P(max(0, d_k - margin)) with
      d_k = max_j l_j - l_k: the other logits share one distance d, which makes 1 / (1 + (K - 1) exp(-d)). With "l1"
      that is max(1 / (1 + (K - 1) exp(-margin)), 1 - (K - 1) c): d = margin unless the second is the larger, which is
      when cross-entropy is steeper at the margin than all K - 1 hinges together. With "l2" and "huber" d solves
      c P'(d - margin) = 1 / (exp(d) + K - 1), and always exceeds the margin.
    - "nacl" (tau, penalty="l1", penalty_weight=0.1, delta=1.0): max(1 - c, softmax(tau)_y) with "l1"; by
      `nacl_minimum` with "l2" and "huber", where it depends on all of tau.
    - "nacl" with softmax=True, CE + c sum_k P(s_k - tau_k): p = tau_y + sum_(k != y) min(tau_k, t) at the t beyond
      which c p (P'(p - tau_y) + P'(t)) exceeds 1, or 1 if it never does. With "l1" it is
      min(1, max(tau_y, 1 / (2 c))): there is no ceiling up to c = 1/2, nor inside an object with any penalty or weight,
      since s = tau is a corner there. (Trials that report one, such as .99995, report where an optimiser stopped.)
      Where some other tau_k is 0, even a ceiling below 1 is only approached, that logit going to -infinity.

    A ceiling of 1 is none: the infimum is approached as logits go to infinity. ("ecp" always has one, but below about
    c = 0.026 it rounds to 1.) A ceiling belongs to the objective that is being minimised: while penalty_weight is
    annealed to 0 each epoch has its own, and the last minimises cross-entropy, which has none.

    Args:
        loss: one of the above.
        num_classes: K, at least 2.
        **parameters: of the loss, by name. `tau` is the window's class shares, K numbers that sum to 1, **that of the
            label first**; by default the label's is 1, as inside an object.

    Raises:
        ValueError: unknown `loss` or parameter, or a value out of range.
        TypeError: a parameter of a wrong type.

    Example:
        >>> confidence_ceiling("nacl", 4), confidence_ceiling("label_smoothing", 4, smoothing=0.1)
        (0.975, 0.925)
        >>> round(confidence_ceiling("nacl", 4, penalty="l2", tau=(0.6, 0.4, 0, 0)), 4)
        0.8955
    """
    check_choice("loss", loss, CEILINGS)
    check_integer("num_classes", num_classes, low=2)
    ceiling = CEILINGS[loss]
    known = list(inspect.signature(ceiling).parameters)[1:]
    for name in parameters:
        check_choice("parameter", name, known)
    return ceiling(num_classes, **parameters)


def _none(num_classes: int) -> float:
    return 1.0


def _focal(num_classes: int, *, gamma: float = 3.0) -> float:
    check_number("gamma", gamma, low=0)
    return 1.0


def _label_smoothing(num_classes: int, *, smoothing: float = 0.1) -> float:
    check_number("smoothing", smoothing, low=0, high=1)
    return 1 - smoothing + smoothing / num_classes


def _svls(num_classes: int, *, tau: Sequence[float] | None = None) -> float:
    return (1 + _shares(tau, num_classes)[0].item()) / 2


def _ecp(num_classes: int, *, penalty_weight: float = 0.1) -> float:
    check_number("penalty_weight", penalty_weight, low=0)
    if penalty_weight == 0:
        return 1.0
    inverse = num_classes / penalty_weight
    excess = lambertw((num_classes - 1) * math.exp(-inverse) * inverse if inverse < math.inf else 0.0).real
    return _confidence(inverse + float(excess), num_classes)


def _mbls(
    num_classes: int, *, margin: float = 10.0, penalty_weight: float = 0.1, penalty: str = "l1", delta: float = 1.0
) -> float:
    check_number("margin", margin, low=0)
    check_penalty(penalty, penalty_weight, delta)
    c = penalty_weight / num_classes
    if penalty == "l1" or c == 0:
        return max(_confidence(margin, num_classes), 1 - (num_classes - 1) * c)

    def slope(excess: float) -> float:
        others = math.exp(-margin - excess)
        return c * _slope(penalty, delta, excess) - others / (1 + (num_classes - 1) * others)

    wide = 1.0
    while slope(wide) < 0:
        wide *= 2
    return _confidence(margin + _root(slope, 0, wide), num_classes)


def _nacl(
    num_classes: int,
    *,
    tau: Sequence[float] | None = None,
    penalty: str = "l1",
    penalty_weight: float = 0.1,
    delta: float = 1.0,
    softmax: bool = False,
) -> float:
    check_penalty(penalty, penalty_weight, delta)
    check_flag("softmax", softmax)
    shares = _shares(tau, num_classes)
    c = penalty_weight / num_classes
    if softmax:
        return _nacl_on_softmax(shares, c, penalty, delta)
    if penalty == "l1":
        return max(1 - c, shares.softmax(dim=0)[0].item())
    certain = torch.eye(1, num_classes, dtype=torch.float64)
    options = {"penalty": penalty, "penalty_weight": penalty_weight, "delta": delta}
    return nacl_minimum(certain, shares.unsqueeze(0), **options)[0, 0].item()


def _nacl_on_softmax(tau: Tensor, c: float, penalty: str, delta: float) -> float:
    """p of the label, by how much t the others stay below their shares.

    Given p > tau_y, the penalty of the others is smallest at s_k = max(0, tau_k - t), and grows with p at the rate
    c P'(t). So the loss has the slope c (P'(p - tau_y) + P'(t)) - 1 / p in p, which rises; below tau_y it falls.
    """

    def p(t: float) -> float:
        return 1 - (tau[1:] - t).clamp(min=0).sum().item()

    def slope(t: float) -> float:
        return c * p(t) * _slope(penalty, delta, p(t) - tau[0].item(), t) - 1

    return p(_root(slope, 0, tau[1:].max().item()))


CEILINGS: dict[str, Callable[..., float]] = {
    "ce": _none,
    "label_smoothing": _label_smoothing,
    "focal": _focal,
    "ecp": _ecp,
    "mbls": _mbls,
    "svls": _svls,
    "nacl": _nacl,
}


def _slope(penalty: str, delta: float, *distances: float) -> float:
    """The sum of P' over some distances."""
    return penalty_slope(torch.tensor(distances, dtype=torch.float64), penalty, delta=delta).sum().item()


def _shares(tau: Sequence[float] | None, num_classes: int) -> Tensor:
    """`tau` as (num_classes,), one-hot in the first for None."""
    if tau is None:
        return torch.eye(1, num_classes, dtype=torch.float64)[0]
    if len(tau) != num_classes:
        raise ValueError(expectation("tau", f"to hold {num_classes} shares", len(tau), f"num_classes={num_classes}"))
    return checked_shares(torch.as_tensor(tau, dtype=torch.float64).unsqueeze(0), "tau")[0]


def _confidence(distance: float, num_classes: int) -> float:
    """Of a logit that exceeds all others by `distance`."""
    return 1 / (1 + (num_classes - 1) * math.exp(-distance))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function turns positive, to the last digit; `high` if it never does."""
    if rising(high) <= 0:
        return high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return high


class FamilyRow(NamedTuple):
    """One loss, seen as cross-entropy under a constraint; see `family_table`."""

    name: str
    constraint: str
    enforcement: str
    ceiling: str
    source: str


def family_table() -> tuple[FamilyRow, ...]:
    """Each loss as cross-entropy under a constraint on the logits, with its ceiling as a formula.

    d_k = max_j l_j - l_k; K classes, y the certain label; lambda averages over the classes, as in the authors' code.
    `confidence_ceiling` computes what the column of ceilings says.

    Example:
        >>> [row.name for row in family_table()]
        ['CE', 'LS', 'FL', 'ECP', 'MbLS', 'SVLS', 'NACL', 'CRaC']
    """
    return (
        FamilyRow("CE", "none", "nothing to enforce", "none", "maximum likelihood"),
        FamilyRow(
            "LS",
            "d_k = 0: all logits equal",
            "linear penalty alpha/K sum_k d_k (where l_y is the largest)",
            "1 - alpha + alpha/K",
            "Szegedy et al., CVPR 2016",
        ),
        FamilyRow(
            "FL",
            "H(s) = log K, that is d_k = 0",
            "it bounds the Lagrangian CE - gamma H(s) from above (gamma >= 1)",
            "none",
            "Lin et al., ICCV 2017; bound: Mukhoti et al., NeurIPS 2020",
        ),
        FamilyRow(
            "ECP",
            "H(s) = log K, that is d_k = 0",
            "Lagrangian CE - lambda/K H(s), multiplier fixed",
            "1 / (1 + (K-1) exp(-d)), lambda/K d = 1 + (K-1) exp(-d)",
            "Pereyra et al., ICLR workshop 2017",
        ),
        FamilyRow(
            "MbLS",
            "d_k <= margin",
            "penalty on the excess, L1 or L2",
            "max(1 / (1 + (K-1) exp(-margin)), 1 - (K-1) lambda/K) for L1",
            "Liu et al., CVPR 2022",
        ),
        FamilyRow(
            "SVLS",
            "s = tau, tau the neighbours'",
            "hidden penalty KL(tau || s), balance fixed at 1 : 1",
            "(1 + tau_y) / 2; none inside an object",
            "Islam and Glocker, IPMI 2021",
        ),
        FamilyRow(
            "NACL",
            "l = tau, tau the window's",
            "penalty on the distance, L1, L2 or Huber",
            "max(1 - lambda/K, softmax(tau)_y) for L1",
            "Murugesan et al., Medical Image Analysis 2025",
        ),
        FamilyRow(
            "CRaC",
            "l = margin tau inside objects, l = tau on borders",
            "augmented Lagrangian, a multiplier for each class and region",
            "moves with the multipliers; inside, that of d_k = margin where the constraint holds",
            "Murugesan et al., arXiv 2403.12364",
        ),
    )
