"""How far a forecast is from the truth, where the true probability of every class at every pixel is known."""

import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from nacl._checks import check_logits, check_probs, expectation
from nacl.metrics._forecast import top_score
from nacl.metrics.scores import FLOOR


def posterior_divergence(probs: Tensor, posterior: Tensor, *, where: Tensor | None = None) -> float:
    """Mean over pixels of KL(posterior || probs), in nats: the forecast's excess risk, by log score, over the truth's.

    Needs data whose posterior is known, such as the phantom.

    Args:
        probs: softmax output (N, C, ...), in 2D or 3D; values below 1e-12 count as 1e-12.
        posterior: true class probabilities, same shape.
        where: bool (N, ...), the pixels that count; by default all. `region_mask` makes one.

    Returns:
        0 for the truth, else positive; NaN for no pixel.

    Raises:
        ValueError: shapes that differ, probabilities out of range, NaN.

    Example:
        >>> posterior = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1)
        >>> round(posterior_divergence(torch.full((1, 2, 1, 1), 0.5), posterior), 4)
        0.1927
    """
    where = _checked(probs, posterior, where)
    p, q = probs.double().clamp_min(FLOOR), posterior.double()
    divergence = torch.xlogy(q, q) - q * p.log()
    return divergence.sum(dim=1)[where].mean().item()


def posterior_error(probs: Tensor, posterior: Tensor, *, where: Tensor | None = None) -> float:
    """Mean over pixels of abs(p - q): what the forecast says of its predicted class, against that class's truth.

    Calibration pixel by pixel, with no bins and no labels drawn: no averaging over pixels hides an error here, so every
    error of the same pixels that sets means of p against means of q, by whatever bins, is at most this one. (A binned
    error of drawn labels adds chance to that.)

    Arguments and errors as in `posterior_divergence`.

    Returns:
        A number in [0, 1]; NaN for no pixel.

    Example:
        >>> posterior = torch.tensor([[0.9, 0.7], [0.1, 0.3]]).view(1, 2, 1, 2)
        >>> round(posterior_error(torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).expand(1, 2, 1, 2), posterior), 4)
        0.1
    """
    where = _checked(probs, posterior, where)
    p, q = _of_predicted_class(probs, posterior, where)
    return (p - q).abs().mean().item()


def true_calibration_error(probs: Tensor, posterior: Tensor, *, where: Tensor | None = None) -> float:
    """E abs(E[q | p] - p): how far the confidence p is from the mean truth of the pixels that share it.

    This is what an expected calibration error estimates from drawn labels and bins. Here the truth q of the predicted
    class is known, and its mean given p is taken to rise with p (isotonic regression): no bins, no labels. It can be 0
    for a forecast that is not the truth: one that says 0.8 where the truth is 0.9 as often as where it is 0.7.

    Arguments and errors as in `posterior_divergence`.

    Returns:
        A number in [0, 1], at most `posterior_error`; NaN for no pixel.

    Example:
        >>> posterior = torch.tensor([[0.9, 0.7], [0.1, 0.3]]).view(1, 2, 1, 2)
        >>> probs = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
        >>> round(true_calibration_error(probs, posterior), 6)
        0.0
    """
    where = _checked(probs, posterior, where)
    p, q = _of_predicted_class(probs, posterior, where)
    if not len(p):
        return torch.nan
    confidence, group, size = torch.unique(p, return_inverse=True, return_counts=True)
    mean = torch.zeros_like(confidence).index_add_(0, group, q) / size
    given = isotonic_regression(mean.cpu().numpy(), weights=size.cpu().double().numpy()).x
    return float((abs(given - confidence.cpu().numpy()) * size.cpu().numpy()).sum() / len(p))


def _checked(probs: Tensor, posterior: Tensor, where: Tensor | None) -> Tensor:
    check_logits(probs, "probs")
    if not isinstance(posterior, Tensor) or probs.shape != posterior.shape:
        got = tuple(posterior.shape) if isinstance(posterior, Tensor) else type(posterior).__name__
        raise ValueError(expectation("posterior", f"of the shape of `probs`, {tuple(probs.shape)}", got))
    check_probs(probs)
    check_probs(posterior, "posterior")
    shape = (probs.shape[0], *probs.shape[2:])
    if where is None:
        return torch.ones(shape, dtype=torch.bool, device=probs.device)
    if not isinstance(where, Tensor):
        raise TypeError(expectation("where", "to be a torch.Tensor", type(where).__name__))
    if where.dtype != torch.bool or tuple(where.shape) != shape:
        raise ValueError(expectation("where", f"bool, of shape {shape}", f"{where.dtype} {tuple(where.shape)}"))
    return where


def _of_predicted_class(probs: Tensor, posterior: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence and truth of the predicted class, float64, at the pixels that count."""
    probs = probs.detach().flatten(2)
    confidence, predicted = top_score(probs if probs.dtype == torch.float64 else probs.float())
    truth = posterior.detach().flatten(2).gather(1, predicted.long().unsqueeze(1)).squeeze(1)
    inside = where.flatten(1)
    return confidence[inside].double(), truth[inside].double()
