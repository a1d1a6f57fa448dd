"""Training losses: one function each, then a thin Module with the same keywords."""

import inspect
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacl._checks import REDUCTIONS, check_choice, check_flag, check_not_nan, check_number, prepared_logits
from nacl.priors import neighbour_prior

PENALTIES = ("l1", "l2")


def cross_entropy_loss(logits: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """Cross-entropy: -log softmax(l)_y.

    As `torch.nn.functional.cross_entropy`, but in float32 or better, and 0 instead of NaN where no pixel is valid.

    Args:
        logits: (N, C, H, W), any floating dtype.
        target: (N, H, W), integers in [0, C) or `ignore_index`.
        ignore_index: label of pixels that give no loss and no gradient.
        reduction: "none" gives (N, H, W) with 0 at ignored pixels; "sum" adds; "mean" divides by the number of
            valid pixels.

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError: shapes that do not fit, labels out of range, NaN (the last two are looked for on the CPU only).
        TypeError: dtypes that do not fit.

    Example:
        >>> cross_entropy_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
        tensor(1.3863)
    """
    logits, target = _checked(logits, target, ignore_index, reduction)
    pixel_loss = _cross_entropy_map(logits, target, ignore_index)
    return _reduce(pixel_loss, target, ignore_index, reduction)


def svls_loss(
    logits: Tensor,
    target: Tensor,
    *,
    kernel_size: int = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Spatially varying label smoothing: cross-entropy against (y + tau) / 2.

    L_i = -sum_k y~_ik log softmax(l_i)_k,  y~ = (y + tau) / 2, tau the Gaussian class shares of the neighbours.
    `nacl.theory.svls_split` shows the constraint that hides in it.

    Args:
        logits: (N, C, H, W), any floating dtype.
        target: (N, H, W), integers in [0, C) or `ignore_index`.
        kernel_size: width of the window in pixels, odd; 1 is cross-entropy.
        sigma: standard deviation of the window in pixels, positive.
        border: what counts beyond the image, see `nacl.priors.neighbour_shares`.
        ignore_index: label of pixels that give no loss, no gradient, and are nobody's neighbours.
        reduction: as in `cross_entropy_loss`.

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError: as `cross_entropy_loss`; also even `kernel_size`, `sigma` not positive, unknown `border`.
        TypeError: dtypes that do not fit.

    Example:
        >>> svls_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
        tensor(1.3863)

    References:
        Islam and Glocker, Spatially varying label smoothing, IPMI 2021.

    Departures from the authors' code: the weights follow their definition for every `kernel_size` (there, only for
    3); the default border counts pixels of the image only (there, "replicate"); pixels can be ignored.
    """
    logits, target = _checked(logits, target, ignore_index, reduction)
    label = neighbour_prior(
        target,
        logits.shape[1],
        prior="gaussian",
        kernel_size=kernel_size,
        sigma=sigma,
        border=border,
        ignore_index=ignore_index,
        dtype=logits.dtype,
    )
    # A weight of 0 is no term at all, also where the log-probability is -inf.
    terms = torch.where(label > 0, label * F.log_softmax(logits, dim=1), 0)
    return _reduce(-terms.sum(dim=1), target, ignore_index, reduction)


def nacl_loss(
    logits: Tensor,
    target: Tensor,
    *,
    prior: str = "mean",
    kernel_size: int = 3,
    sigma: float = 1.0,
    penalty: str = "l1",
    penalty_weight: float = 0.1,
    border: str = "inside",
    softmax: bool = False,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Neighbour-aware calibration: cross-entropy, and logits drawn to the class shares of their neighbourhood.

    L_i = CE_i + penalty_weight * 1/C sum_k P(tau_ik - l_ik),  P(d) = abs(d) ("l1") or d^2 ("l2").
    Unlike SVLS it has its constraint in the open, with a weight of its own.

    `penalty_weight` follows the authors' code, which averages over the classes; the paper sums over them, so that
    lambda_paper = penalty_weight / C.

    Args:
        logits: (N, C, H, W), any floating dtype.
        target: (N, H, W), integers in [0, C) or `ignore_index`.
        prior: "mean" or "gaussian", see `nacl.priors.neighbour_prior`.
        kernel_size: width of the window in pixels, odd; at 1, tau is the one-hot label.
        sigma: standard deviation in pixels of the "gaussian" prior.
        penalty: "l1" or "l2".
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        border: what counts beyond the image, see `nacl.priors.neighbour_shares`.
        softmax: constrain softmax(l) instead of l.
        ignore_index: label of pixels that give no loss, no gradient, and are nobody's neighbours.
        reduction: as in `cross_entropy_loss`.

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError: as `cross_entropy_loss`; also unknown `prior`, `penalty` or `border`, even `kernel_size`, `sigma`
            not positive, negative `penalty_weight`.
        TypeError: dtypes that do not fit.

    Example:
        >>> target = torch.zeros(1, 2, 2, dtype=torch.long)
        >>> nacl_loss(torch.zeros(1, 4, 2, 2), target, penalty_weight=0.1) - cross_entropy_loss(
        ...     torch.zeros(1, 4, 2, 2), target)
        tensor(0.0250)

    References:
        Murugesan et al., Neighbor-aware calibration of segmentation networks with penalty-based constraints, Medical
        Image Analysis 101 (2025) 103501.

    Departures from the authors' code: labels beyond the image do not count by default (there, they are background;
    `border="background"`); pixels can be ignored.
    """
    logits, target = _checked(logits, target, ignore_index, reduction)
    check_choice("penalty", penalty, PENALTIES)
    check_number("penalty_weight", penalty_weight, low=0)
    check_flag("softmax", softmax)
    tau = neighbour_prior(
        target,
        logits.shape[1],
        prior=prior,
        kernel_size=kernel_size,
        sigma=sigma,
        border=border,
        ignore_index=ignore_index,
        dtype=logits.dtype,
    )
    distance = tau - (logits.softmax(dim=1) if softmax else logits)
    distance = distance.abs() if penalty == "l1" else distance.square()
    pixel_loss = _cross_entropy_map(logits, target, ignore_index) + penalty_weight * distance.mean(dim=1)
    return _reduce(pixel_loss, target, ignore_index, reduction)


def _checked(logits: Tensor, target: Tensor, ignore_index: int, reduction: str) -> tuple[Tensor, Tensor]:
    """Logits in float32 or float64 and labels in int64, once they and the reduction were found to be in order."""
    check_choice("reduction", reduction, REDUCTIONS)
    return prepared_logits(logits, target, ignore_index)


def _cross_entropy_map(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    return F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")


def _reduce(pixel_loss: Tensor, target: Tensor, ignore_index: int, reduction: str) -> Tensor:
    valid = target != ignore_index
    pixel_loss = torch.where(valid, pixel_loss, 0)
    if reduction == "none":
        check_not_nan(pixel_loss, "logits")
        return pixel_loss
    loss = pixel_loss.sum()
    if reduction == "mean":
        loss = loss / valid.sum().clamp(min=1)
    check_not_nan(loss, "logits")
    return loss


class _Loss(nn.Module):
    """Keeps the keywords of `function` and calls it."""

    function: Callable[..., Tensor]

    def __init_subclass__(cls) -> None:
        parameters = inspect.signature(cls.function).parameters.values()
        cls.__signature__ = inspect.Signature([p for p in parameters if p.kind is p.KEYWORD_ONLY])

    def __init__(self, **options: object) -> None:
        super().__init__()
        known = loss_options(self.function)
        for name in options:
            check_choice("keyword", name, known)
        self.options = {**known, **options}
        # A call on the smallest input refuses a bad keyword where it is written, not at the first step.
        self(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return type(self).function(logits, target, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


def loss_options(function: Callable[..., Tensor]) -> dict[str, object]:
    """The keywords of a loss function and their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


class CrossEntropyLoss(_Loss):
    """`cross_entropy_loss` as a Module, with the same keywords."""

    function = staticmethod(cross_entropy_loss)


class SVLSLoss(_Loss):
    """`svls_loss` as a Module, with the same keywords.

    Example:
        >>> SVLSLoss(kernel_size=5, sigma=1.5)
        SVLSLoss(kernel_size=5, sigma=1.5, border='inside', ignore_index=-100, reduction='mean')
    """

    function = staticmethod(svls_loss)


class NACLLoss(_Loss):
    """`nacl_loss` as a Module, with the same keywords.

    Example:
        >>> loss = NACLLoss(penalty_weight=0.1)
        >>> logits = torch.zeros(2, 4, 8, 8, requires_grad=True)
        >>> loss(logits, torch.zeros(2, 8, 8, dtype=torch.long)).backward()
    """

    function = staticmethod(nacl_loss)


LOSSES: dict[str, type[nn.Module]] = {"ce": CrossEntropyLoss, "svls": SVLSLoss, "nacl": NACLLoss}
"""Loss Modules by name."""


def build_loss(name: str, **options: object) -> nn.Module:
    """The Module of `LOSSES` called `name`.

    Raises:
        ValueError: unknown `name` or keyword (the nearest is suggested), or a value that the loss refuses.

    Example:
        >>> build_loss("nacl", penalty_weight=0.3).options["penalty_weight"]
        0.3
    """
    check_choice("loss", name, LOSSES)
    return LOSSES[name](**options)
