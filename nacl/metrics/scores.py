"""Proper scores: a forecast can only lower them by being nearer to the truth."""

import torch
from torch import Tensor

from nacl._checks import check_probs, checked_forecast, expectation

FLOOR = 1e-12  # a probability that underflowed costs 27.6 nats, not infinitely many


def negative_log_likelihood(probs: Tensor, target: Tensor, *, ignore_index: int = -100) -> float:
    """Mean of -log p_y over the valid pixels, in nats; NaN if there is none.

    Args:
        probs: softmax output (N, C, H, W); values below 1e-12 count as 1e-12.
        target: labels (N, H, W), integers in [0, C) or `ignore_index`.
        ignore_index: label of the pixels that never count.

    Raises:
        ValueError: shapes that do not fit, labels or probabilities out of range, NaN.
        TypeError: dtypes that do not fit.

    Example:
        >>> probs = torch.full((1, 2, 4, 4), 0.5)
        >>> round(negative_log_likelihood(probs, torch.zeros(1, 4, 4, dtype=torch.long)), 4)
        0.6931
    """
    probs, target = checked_forecast(probs, target, ignore_index)
    valid = target != ignore_index
    of_label = probs.gather(1, torch.where(valid, target, 0).unsqueeze(1))[:, 0]
    return -of_label[valid].double().clamp_min(FLOOR).log().mean().item()


def posterior_divergence(probs: Tensor, posterior: Tensor) -> float:
    """Mean over pixels of KL(posterior || probs), in nats: what the forecast is short of the truth.

    Needs data whose posterior is known, such as the phantom.

    Args:
        probs: softmax output (N, C, H, W); values below 1e-12 count as 1e-12.
        posterior: true class probabilities, same shape.

    Raises:
        ValueError: shapes that differ, probabilities out of range, NaN.

    Example:
        >>> posterior = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1)
        >>> round(posterior_divergence(torch.full((1, 2, 1, 1), 0.5), posterior), 4)
        0.1927
    """
    if probs.shape != posterior.shape:
        raise ValueError(
            expectation("probs", f"of the shape of `posterior`, {tuple(posterior.shape)}", tuple(probs.shape))
        )
    check_probs(probs)
    probs, posterior = probs.cpu().double().clamp_min(FLOOR), posterior.cpu().double()
    divergence = torch.xlogy(posterior, posterior) - posterior * probs.log()
    return divergence.sum(dim=1).mean().item()
