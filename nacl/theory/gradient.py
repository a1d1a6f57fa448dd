"""NACL's gradient in closed form, for every penalty, on the logits and behind the softmax."""

from typing import NamedTuple

import torch
from torch import Tensor

from nacl._checks import check_flag, check_not_nan, check_number, prepared_logits
from nacl._penalties import penalty_called
from nacl.priors import neighbour_prior, one_hot


def check_penalty(penalty: str, penalty_weight: float, delta: float) -> None:
    """Raise unless the penalty is known, its weight not negative, and `delta` positive."""
    penalty_called(penalty, delta)
    check_number("penalty_weight", penalty_weight, low=0)


def penalty_slope(distance: Tensor, penalty: str, *, delta: float = 1.0) -> Tensor:
    """P'(d): sign(d) for "l1", 2 d for "l2", d clipped to [-delta, delta] for "huber".

    P(d) = abs(d), d^2, or the Huber penalty, d^2 / 2 up to abs(d) = delta and delta (abs(d) - delta / 2) beyond. At
    d = 0, where abs has every slope in [-1, 1], "l1" gives 0, as autograd does.

    Args:
        distance: d = l - tau, of any shape.
        penalty: "l1", "l2" or "huber".
        delta: where the Huber penalty turns from a parabola into a line, positive.

    Raises:
        ValueError: unknown `penalty`, `delta` not positive.

    Example:
        >>> penalty_slope(torch.tensor([-2.0, 0.5]), "huber")
        tensor([-1.0000,  0.5000])
    """
    return penalty_called(penalty, delta).slope(distance)


class NACLGradient(NamedTuple):
    """The two parts of NACL's gradient in the logits, each (N, C, ...); see `nacl_gradient`."""

    label: Tensor
    constraint: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.label + self.constraint


def nacl_gradient(
    logits: Tensor,
    target: Tensor,
    *,
    prior: str = "mean",
    kernel_size: int | tuple[int, ...] = 3,
    sigma: float = 1.0,
    penalty: str = "l1",
    penalty_weight: float = 0.1,
    delta: float = 1.0,
    softmax: bool = False,
    border: str = "inside",
    image: Tensor | None = None,
    ignore_index: int = -100,
) -> NACLGradient:
    """Gradient of NACL (reduction "sum") in the logits, in its two parts: s - y, and c P'(l - tau).

    c = penalty_weight / C, since the loss averages the penalty over the classes. With `softmax` the penalty acts on s,
    and its part is pulled back through the softmax: with u = c P'(s - tau) it is s_k (u_k - sum_j s_j u_j), which is 0
    at a corner of the simplex. So the penalty on the logits holds a confident pixel, and that on s lets it go.

    Unlike SVLS, whose two halves both shrink as s nears its goal, "l1" pulls with the same force c however far the
    logit is, "l2" with a force that grows, and "huber" with one that grows up to c delta.

    Args:
        logits: (N, C, ...).
        target: (N, ...), integers in [0, C) or `ignore_index`.
        prior, kernel_size, sigma, border, image: of tau, as in `nacl.priors.neighbour_prior`.
        penalty: "l1", "l2" or "huber"; see `penalty_slope`.
        penalty_weight: lambda in the authors' convention, not negative.
        delta: of the Huber penalty, positive.
        softmax: the penalty acts on softmax(l) instead of l.
        ignore_index: label of pixels without gradient, which are nobody's neighbours.

    Returns:
        `label` and `constraint`, each (N, C, ...), 0 at ignored pixels.

    Raises:
        ValueError, TypeError: as `nacl.losses.nacl_loss`.

    Example:
        >>> parts = nacl_gradient(torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 0, 1]]]))
        >>> parts.label[0, 1], parts.constraint[0, 1]
        (tensor([[ 0.5000,  0.5000, -0.5000]]), tensor([[ 0.0000, -0.0500, -0.0500]]))
    """
    logits, target = prepared_logits(logits, target, ignore_index)
    check_not_nan(logits, "logits")
    check_penalty(penalty, penalty_weight, delta)
    check_flag("softmax", softmax)
    num_classes = logits.shape[1]
    window = {"prior": prior, "kernel_size": kernel_size, "sigma": sigma, "border": border, "image": image}
    tau = neighbour_prior(target, num_classes, **window, ignore_index=ignore_index, dtype=logits.dtype)
    y = one_hot(target, num_classes, ignore_index=ignore_index, dtype=logits.dtype)
    s = logits.softmax(dim=1)
    pull = penalty_slope((s if softmax else logits) - tau, penalty, delta=delta) * (penalty_weight / num_classes)
    if softmax:
        pull = s * (pull - (s * pull).sum(dim=1, keepdim=True))
    valid = (target != ignore_index).unsqueeze(1)
    return NACLGradient(*(torch.where(valid, part, 0) for part in (s - y, pull)))
