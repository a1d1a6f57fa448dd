"""SVLS taken apart: its weights, its hidden constraint, its minimum."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nacl._checks import check_kernel_size, check_not_nan, check_number, prepared_logits
from nacl.priors import mixed_windows, one_hot, svls_prior


class SVLSWeights(NamedTuple):
    """What the window of SVLS gives to a pixel itself and to its neighbours; see `svls_weights`."""

    centre: float
    neighbours: Tensor


def svls_weights(kernel_size: int, sigma: float) -> SVLSWeights:
    """The weights with which SVLS mixes the labels of a window, built as its authors build them.

    The Gaussian's centre g_c is replaced by 1 - g_c, which is the sum of the others; all is divided by 1 - g_c, then
    by the new sum, 2. So the centre weighs 1/2 and the neighbours 1/2 together, for every `kernel_size` and `sigma`.

    Args:
        kernel_size: width of the window in pixels, odd, at least 3.
        sigma: standard deviation in pixels, positive.

    Returns:
        `centre`, and `neighbours` (kernel_size, kernel_size) with 0 in the middle, float64.

    Raises:
        ValueError: even `kernel_size`, or 1 (a window with no neighbours); `sigma` not positive.

    Example:
        >>> weights = svls_weights(5, 0.7)
        >>> round(weights.centre, 12), round(weights.neighbours.sum().item(), 12)
        (0.5, 0.5)
    """
    check_kernel_size(kernel_size)
    if kernel_size == 1:
        raise ValueError("Expected `kernel_size` of at least 3, got 1. A window of one pixel has no neighbours.")
    check_number("sigma", sigma, low=0, open_low=True)
    middle = kernel_size // 2
    square = (torch.arange(kernel_size, dtype=torch.float64) - middle) ** 2
    square = square[:, None] + square
    # g in units of its nearest neighbour, since the steps do not depend on its scale; 1 - g_c is the sum of the others,
    # and not a difference, in which a small sigma would lose all digits
    weights = torch.exp(-(square - 1) / 2 / sigma / sigma)
    others = weights[square > 0].sum()
    weights[middle, middle] = others
    weights = weights / others
    weights = weights / weights.sum()
    centre = weights[middle, middle].item()
    weights[middle, middle] = 0
    return SVLSWeights(centre, weights)


class SVLSSplit(NamedTuple):
    """The parts of SVLS, each (N, H, W); see `svls_split`."""

    cross_entropy: Tensor
    constraint: Tensor
    entropy: Tensor

    @property
    def loss(self) -> Tensor:
        """1/2 (cross_entropy + constraint + entropy), which is SVLS."""
        return (self.cross_entropy + self.constraint + self.entropy) / 2


def svls_split(
    logits: Tensor,
    target: Tensor,
    *,
    kernel_size: int = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
) -> SVLSSplit:
    """SVLS taken apart: 1/2 [ CE(y, s) + KL(tau || s) + H(tau) ], each part pixel by pixel.

    `entropy` H(tau) does not depend on the logits, so the loss is cross-entropy plus the penalty KL(tau || s) of the
    constraint s = tau, at a balance of 1 : 1 that no parameter moves. (With `border="zero"` tau is no distribution at
    the edge, and `constraint` can be negative there.)

    Args:
        logits: (N, C, H, W).
        target: (N, H, W), integers in [0, C) or `ignore_index`.
        kernel_size, sigma, border, ignore_index: as in `nacl.losses.svls_loss`.

    Returns:
        `cross_entropy`, `constraint` and `entropy`, each (N, H, W), in nats, 0 at ignored pixels.

    Raises:
        ValueError, TypeError: as `nacl.losses.svls_loss`.

    Example:
        >>> target = torch.tensor([[[0, 0, 1]]])
        >>> split = svls_split(torch.zeros(1, 2, 1, 3), target)
        >>> split.entropy[0, 0, 1], split.loss.mean()
        (tensor(0.6931), tensor(0.6931))
    """
    logits, target = prepared_logits(logits, target, ignore_index)
    check_not_nan(logits, "logits")
    log_probs = F.log_softmax(logits, dim=1)
    options = {"kernel_size": kernel_size, "sigma": sigma, "border": border, "ignore_index": ignore_index}
    tau = svls_prior(target, logits.shape[1], **options, dtype=logits.dtype)
    y = one_hot(target, logits.shape[1], ignore_index=ignore_index, dtype=logits.dtype)
    entropy = torch.special.entr(tau).sum(dim=1)
    cross_entropy, to_tau = (-torch.where(p > 0, p * log_probs, 0).sum(dim=1) for p in (y, tau))
    parts = (cross_entropy, to_tau - entropy, entropy)
    valid = target != ignore_index
    return SVLSSplit(*(torch.where(valid, part, 0) for part in parts))


class SVLSGradient(NamedTuple):
    """The two halves of SVLS's gradient in the logits, each (N, C, H, W); see `svls_gradient`."""

    label: Tensor
    constraint: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, s - (y + tau) / 2 where tau sums to 1."""
        return self.label + self.constraint


def svls_gradient(
    logits: Tensor,
    target: Tensor,
    *,
    kernel_size: int = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
) -> SVLSGradient:
    """Gradient of SVLS (reduction "sum") in the logits, in its two halves: (s - y) / 2 and (s - tau) / 2.

    The first pulls the prediction to the label, the second to the neighbours, with the same weight 1/2 always. (With
    `border="zero"` tau sums to less than 1 at the edge, and the second is (s sum(tau) - tau) / 2.)
    Arguments and errors as in `svls_split`; both halves are (N, C, H, W), and 0 at ignored pixels.

    Example:
        >>> target = torch.tensor([[[0, 0, 1]]])
        >>> halves = svls_gradient(torch.zeros(1, 2, 1, 3), target)
        >>> halves.label[0, 1], halves.constraint[0, 1]
        (tensor([[ 0.2500,  0.2500, -0.2500]]), tensor([[0.2500, 0.0000, 0.2500]]))
    """
    logits, target = prepared_logits(logits, target, ignore_index)
    check_not_nan(logits, "logits")
    probs = logits.softmax(dim=1)
    options = {"kernel_size": kernel_size, "sigma": sigma, "border": border, "ignore_index": ignore_index}
    tau = svls_prior(target, logits.shape[1], **options, dtype=logits.dtype)
    y = one_hot(target, logits.shape[1], ignore_index=ignore_index, dtype=logits.dtype)
    valid = (target != ignore_index).unsqueeze(1)
    return SVLSGradient(
        *(torch.where(valid, (probs * goal.sum(dim=1, keepdim=True) - goal) / 2, 0) for goal in (y, tau))
    )


def svls_minimum(
    target: Tensor,
    num_classes: int,
    *,
    price: float = 1.0,
    kernel_size: int = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
) -> Tensor:
    """The prediction that CE(y, s) + price * KL(tau || s) asks for: s* = (y + price * tau) / (1 + price).

    At `price` 1 it is the label of SVLS, whose loss is smallest there.

    Args:
        target: labels (N, H, W), integers in [0, num_classes) or `ignore_index`.
        num_classes: C.
        price: lambda, the weight of the constraint, not negative.
        kernel_size, sigma, border, ignore_index: as in `nacl.losses.svls_loss`.

    Returns:
        (N, C, H, W) float64, sums to 1 at valid pixels (with `border="zero"` too, where tau does not).

    Raises:
        ValueError, TypeError: as `nacl.priors.svls_prior`; also a negative `price`.

    Example:
        >>> svls_minimum(torch.tensor([[[0, 0, 1]]]), 2, price=3.0)[0, 1]
        tensor([[0.0000, 0.3750, 0.2500]], dtype=torch.float64)
    """
    check_number("price", price, low=0)
    options = {"ignore_index": ignore_index, "dtype": torch.float64}
    tau = svls_prior(target, num_classes, kernel_size=kernel_size, sigma=sigma, border=border, **options)
    weight = one_hot(target, num_classes, **options) + price * tau
    return weight / weight.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)


def svls_softening(
    target: Tensor,
    num_classes: int,
    *,
    kernel_size: int = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
) -> Tensor:
    """What SVLS takes from each pixel's own label: 1 - y~_y = (1 - tau_y) / 2.

    Arguments and errors as in `svls_minimum`.

    Returns:
        (N, H, W) float64 in [0, 1/2]; 0 where all neighbours agree, and at ignored pixels.

    Example:
        >>> svls_softening(torch.tensor([[[0, 0, 1]]]), 2)
        tensor([[[0.0000, 0.2500, 0.5000]]], dtype=torch.float64)
    """
    options = {"ignore_index": ignore_index, "dtype": torch.float64}
    tau = svls_prior(target, num_classes, kernel_size=kernel_size, sigma=sigma, border=border, **options)
    y = one_hot(target, num_classes, **options)
    return (y * (1 - tau)).sum(dim=1) / 2


def svls_band_share(target: Tensor, *, kernel_size: int | tuple[int, ...] = 3, ignore_index: int = -100) -> float:
    """The share of the valid pixels at which SVLS changes the label at all: those whose window is mixed.

    Elsewhere tau = y, the label of SVLS is one-hot, and the loss is cross-entropy. (In the band a weight can round to
    0: that of a diagonal neighbour at sigma = 0.02, for instance.)

    Args:
        target: labels (N, ...), not negative, or `ignore_index`.
        kernel_size, ignore_index: as in `nacl.priors.mixed_windows`.

    Returns:
        A share in [0, 1], over all pixels of the batch together; NaN where none is valid.

    Raises:
        ValueError: as `nacl.priors.mixed_windows`.

    Example:
        >>> svls_band_share(torch.tensor([[[0, 0, 0, 1, 1]]]))
        0.4
    """
    band = mixed_windows(target, kernel_size=kernel_size, ignore_index=ignore_index)
    return band[target.long() != ignore_index].double().mean().item()


def svls_price(
    gradient: Tensor,
    logits: Tensor,
    target: Tensor,
    *,
    kernel_size: int = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
) -> float:
    """The price lambda of the constraint s = tau that a loss pays, read off its gradient.

    Least squares: gradient = a (s - y) + b (s - tau), lambda = b / a. It is 1 for SVLS and 0 for cross-entropy.

    Args:
        gradient: of the loss in the logits, (N, C, H, W).
        logits: where it was taken, (N, C, H, W).
        target: (N, H, W).
        kernel_size, sigma, border, ignore_index: of tau, as in `nacl.losses.svls_loss`.

    Raises:
        ValueError, TypeError: as `svls_gradient`.

    Example:
        >>> logits = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
        >>> target = torch.arange(64).view(1, 8, 8) % 3
        >>> loss = F.cross_entropy(logits, target)
        >>> abs(svls_price(*torch.autograd.grad(loss, logits), logits, target)) < 1e-9
        True
    """
    options = {"kernel_size": kernel_size, "sigma": sigma, "border": border, "ignore_index": ignore_index}
    halves = svls_gradient(logits.detach(), target, **options)
    directions = torch.stack([half.flatten() for half in halves], dim=1)
    a, b = torch.linalg.lstsq(directions, gradient.flatten().to(directions.dtype)).solution.tolist()
    return b / a
