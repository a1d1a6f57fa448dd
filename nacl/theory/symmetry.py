"""Which priors survive a renumbering of the classes, and a smallest map that shows it for each that does not."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nacl._checks import check_choice, check_integer, expectation
from nacl.priors import BORDERS, IMAGE_PRIORS, PRIORS, neighbour_prior

EQUIVARIANT_PRIORS = ("mean", "gaussian", *IMAGE_PRIORS)


class Counterexample(NamedTuple):
    """A row of labels and an order of renumbering that a prior does not survive."""

    labels: tuple[int, ...]
    order: tuple[int, ...]


COUNTEREXAMPLES = {
    "max": Counterexample((0, 1), (1, 0)),
    "min": Counterexample((0, 1), (1, 0)),
    "median": Counterexample((0, 1, 2), (1, 0, 2)),
    "mode": Counterexample((0, 1), (1, 0)),
}
"""By prior. The median needs three classes: of two it is the more frequent one, unless there is a tie."""


def is_equivariant(prior: str, *, border: str = "inside") -> bool:
    """Whether tau of renumbered labels is always the renumbered tau.

    A prior whose weights do not depend on the labels reads them only in [y_j = k], so that a renumbering moves tau's
    classes and nothing else: "mean", "gaussian" and those that look at the image. "max", "min" and "median" take class
    numbers for quantities. "mode" does not where the most frequent label of the window is unique, but gives a tie to
    the smallest number. `COUNTEREXAMPLES` holds a smallest map for each of the four.

    With `border="background"` no prior is equivariant: what lies beyond the image is class 0, whatever that is called.

    Args:
        prior: one of `nacl.priors.PRIORS`.
        border: as in `nacl.priors.neighbour_prior`.

    Raises:
        ValueError: unknown `prior` or `border`.

    Example:
        >>> is_equivariant("mean"), is_equivariant("median"), is_equivariant("mean", border="background")
        (True, False, False)
    """
    check_choice("prior", prior, PRIORS)
    check_choice("border", border, BORDERS)
    return prior in EQUIVARIANT_PRIORS and border != "background"


def relabelling_gap(
    prior: str | Callable[..., Tensor],
    target: Tensor,
    order: Sequence[int],
    num_classes: int,
    *,
    ignore_index: int = -100,
    **options: object,
) -> float:
    """max over pixels and classes of abs(tau_order(k)(order(y)) - tau_k(y)): 0 where the prior survives on this map.

    Args:
        prior: a name for `nacl.priors.neighbour_prior`, then taken in float64, or a function with its signature.
        target: labels (N, ...), integers in [0, num_classes) or `ignore_index`.
        order: the new number of each class, a permutation of 0 .. num_classes - 1.
        num_classes: K, at least 2.
        ignore_index: label of the pixels that have none; they keep it.
        **options: passed on to the prior.

    Returns:
        The largest difference over valid pixels; 0 if there is none.

    Raises:
        ValueError: `order` no permutation; also as `nacl.priors.neighbour_prior`.

    Example:
        >>> target = torch.tensor([[[0, 1]]])
        >>> relabelling_gap("mean", target, (1, 0), 2), relabelling_gap("max", target, (1, 0), 2)
        (0.0, 1.0)
    """
    check_integer("num_classes", num_classes, low=2)
    if sorted(order) != list(range(num_classes)):
        rule = f"to be a permutation of 0 .. {num_classes - 1}"
        raise ValueError(expectation("order", rule, tuple(order), f"num_classes={num_classes}"))
    if isinstance(prior, str):
        options = {"prior": prior, "dtype": torch.float64, **options}
    function = neighbour_prior if isinstance(prior, str) else prior
    ignored = target == ignore_index
    new = torch.as_tensor(order, device=target.device)
    renamed = torch.where(ignored, ignore_index, new[torch.where(ignored, 0, target).long()])
    old, moved = (function(labels, num_classes, ignore_index=ignore_index, **options) for labels in (target, renamed))
    gap = torch.where(ignored.unsqueeze(1), 0, moved[:, new] - old).abs()
    return gap.max().item() if gap.numel() else 0.0
