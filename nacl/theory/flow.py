"""Gradient flow on cross-entropy, gradient descent in steps without length: how sure training makes a network."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.special import softmax, wrightomega
from torch import Tensor

from nacl._checks import check_integer, expectation


def fitted_gap(time: Tensor, num_classes: int) -> Tensor:
    """By how much the logit of a certain label leads after gradient flow on its own logits, from equal ones.

    With K = num_classes the lead d follows d' = K / (exp(d) + K - 1), so that exp(d) + (K - 1) d = K t + 1: with
    u = exp(d) / (K - 1), u + log u = (K t + 1) / (K - 1) - log(K - 1), which Wright's omega function solves. The
    confidence 1 / (1 + (K - 1) exp(-d)) goes to 1 like 1 - (K - 1) / (K t). `fitting_time` is the inverse.

    Args:
        time: t, of any shape, not negative: step length times number of steps.
        num_classes: K, at least 2.

    Returns:
        d in float64, of the shape of `time`.

    Raises:
        ValueError: a negative or infinite `time`; fewer than 2 classes.

    Example:
        >>> fitted_gap(torch.tensor([0.0, 1.0, 100.0]), 2)
        tensor([0.0000, 0.7921, 5.2767], dtype=torch.float64)
    """
    check_integer("num_classes", num_classes, low=2)
    time = _checked("time", time)
    others = num_classes - 1
    return torch.as_tensor(wrightomega((num_classes * time.numpy() + 1) / others - math.log(others))).mul(others).log()


def fitting_time(gap: Tensor, num_classes: int) -> Tensor:
    """How long gradient flow on the logits of a pixel takes until its label leads by `gap`: `fitted_gap`'s inverse.

    t = (exp(d) - 1 + (K - 1) d) / K.

    Args:
        gap: d, of any shape, not negative.
        num_classes: K, at least 2.

    Returns:
        t in float64, of the shape of `gap`.

    Raises:
        ValueError: a negative or infinite `gap`; fewer than 2 classes.

    Example:
        >>> fitting_time(fitted_gap(torch.tensor([1.0, 100.0]), 4), 4)
        tensor([  1.0000, 100.0000], dtype=torch.float64)
    """
    check_integer("num_classes", num_classes, low=2)
    gap = _checked("gap", gap)
    return (gap.expm1() + (num_classes - 1) * gap) / num_classes


def gradient_flow(features: Tensor, labels: Tensor, times: Sequence[float] | Tensor, num_classes: int) -> Tensor:
    """Train a network that is linear in its weights, from 0, by gradient flow on its mean cross-entropy.

    The logits of pixel i are W^T x_i, and W' = (1/n) sum_i x_i (y_i - softmax(W^T x_i)). W stays a sum of the pixels'
    features, W = X^T A, and what is integrated is A' = (Y - softmax(X X^T A)) / n: exact for any number of features,
    by SciPy's Runge-Kutta method of order 5, to a relative 1e-6.

    Args:
        features: X (n, M), finite; an identity matrix gives each pixel logits of its own, in n times the time.
        labels: (n,), integers in [0, num_classes).
        times: when to look, increasing, not negative.
        num_classes: K, at least 2.

    Returns:
        W at each of the times, (T, M, K), float64.

    Raises:
        ValueError: a shape or a value out of range.

    Example:
        >>> weights = gradient_flow(torch.ones(1, 1), torch.tensor([0]), [1.0, 100.0], 2)
        >>> (weights[..., 0] - weights[..., 1]).flatten()
        tensor([0.7921, 5.2767], dtype=torch.float64)
    """
    check_integer("num_classes", num_classes, low=2)
    times = _checked("times", torch.as_tensor(times, dtype=torch.float64))
    if times.ndim != 1 or not len(times) or (times.diff() <= 0).any():
        raise ValueError(expectation("times", "to be increasing", times.tolist()))
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        context = f"labels {tuple(labels.shape)}"
        raise ValueError(expectation("features", "of shape (n, M), one row a label", tuple(features.shape), context))
    if not features.isfinite().all():
        raise ValueError(expectation("features", "to be finite", "NaN or an infinite value"))
    low, high = (x.item() for x in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(expectation("labels", f"in [0, {num_classes})", low if low < 0 else high))
    x, y = features.double().numpy(), np.eye(num_classes)[labels.numpy()]
    gram, n = x @ x.T, len(x)

    def pull(_: float, a: np.ndarray) -> np.ndarray:
        return ((y - softmax(gram @ a.reshape(n, -1), axis=1)) / n).ravel()

    flow = solve_ivp(pull, (0, times[-1].item()), np.zeros(y.size), t_eval=times.numpy(), rtol=1e-6, atol=1e-9)
    return torch.as_tensor(x.T @ flow.y.T.reshape(len(times), n, -1))


def _checked(argument: str, values: Tensor) -> Tensor:
    """The values in float64, once found to be finite and not negative."""
    values = values.double()
    if not ((values >= 0) & (values < math.inf)).all():
        raise ValueError(expectation(argument, "to be finite and not negative", values.tolist()))
    return values
