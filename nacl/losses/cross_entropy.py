"""Cross-entropy and its kin that look at one pixel: label smoothing, focal loss, entropy penalty."""

import math

import torch
from torch import Tensor

from nacl._checks import check_number
from nacl.losses._module import Loss
from nacl.losses._pixelwise import Pixels, pixel_loss


def cross_entropy_loss(logits: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """Cross-entropy: -log softmax(l)_y.

    As `torch.nn.functional.cross_entropy`, but in float32 or better, and 0 instead of NaN where no pixel is valid.

    Args:
        logits: (N, C, H, W) or (N, C, D, H, W), any floating dtype.
        target: (N, H, W) or (N, D, H, W), integers in [0, C) or `ignore_index`.
        ignore_index: label of pixels that give no loss and no gradient.
        reduction: "none" gives (N, ...) with 0 at ignored pixels; "sum" adds; "mean" divides by the number of
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

    def formula(pixels: Pixels):
        return -pixels.label_log_prob, lambda: pixels.minus_label(pixels.probs)

    return pixel_loss(formula, logits, target, ignore_index=ignore_index, reduction=reduction, kernel=dict)


def label_smoothing_loss(
    logits: Tensor, target: Tensor, *, smoothing: float = 0.1, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy against a label of which every class has a share: (1 - smoothing) y + smoothing / C.

    Its minimum is that label, so that no network that has learnt its training set is surer than
    1 - smoothing + smoothing / C, whatever the neighbours are.

    Args:
        logits, target, ignore_index, reduction: as in `cross_entropy_loss`.
        smoothing: alpha in [0, 1]; 0 is cross-entropy.

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError, TypeError: as `cross_entropy_loss`; also `smoothing` out of range.

    Example:
        >>> logits = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
        >>> label_smoothing_loss(logits, torch.zeros(1, 1, 1, dtype=torch.long), smoothing=0.2)
        tensor(0.3486)

    References:
        Szegedy et al., Rethinking the Inception architecture, CVPR 2016.
    """
    check_number("smoothing", smoothing, low=0, high=1)

    def formula(pixels: Pixels):
        share = smoothing / pixels.logits.shape[1]
        value = -share * pixels.log_probs.sum(dim=1)
        if smoothing < 1:  # no term at all otherwise, also where log s is -inf
            value = value - (1 - smoothing) * pixels.label_log_prob
        return value, lambda: pixels.minus_label(pixels.probs - share, 1 - smoothing)

    if smoothing == 0:  # no term at all, also where log s is -inf
        return cross_entropy_loss(logits, target, ignore_index=ignore_index, reduction=reduction)
    return pixel_loss(
        formula,
        logits,
        target,
        ignore_index=ignore_index,
        reduction=reduction,
        kernel=lambda: {"label_share": 1 - smoothing, "uniform_share": smoothing},
    )


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 3.0,
    gamma_unsure: float | None = None,
    threshold: float = 0.2,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy that counts less where the network is right: -(1 - s_y)^gamma log s_y.

    With `gamma_unsure` the exponent depends on the pixel: `gamma_unsure` where s_y < `threshold`, `gamma` elsewhere.
    FLSD-53 is `gamma=3, gamma_unsure=5`. (The step is not differentiated.)

    Args:
        logits, target, ignore_index, reduction: as in `cross_entropy_loss`.
        gamma: exponent, not negative; 0 is cross-entropy.
        gamma_unsure: exponent where s_y is below `threshold`, or None for `gamma` everywhere.
        threshold: in (0, 1].

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError, TypeError: as `cross_entropy_loss`; also exponents or `threshold` out of range.

    Example:
        >>> target = torch.zeros(1, 2, 2, dtype=torch.long)
        >>> focal_loss(torch.zeros(1, 2, 2, 2), target, gamma=2)  # (1/2)^2 log 2
        tensor(0.1733)

    References:
        Lin et al., Focal loss for dense object detection, ICCV 2017. Mukhoti et al., Calibrating deep neural networks
        using focal loss, NeurIPS 2020, for FLSD-53.

    Departures from the authors' code: the default is a mean, not a sum; where every pixel is ignored the loss is 0.
    """
    check_number("gamma", gamma, low=0)
    if gamma_unsure is not None:
        check_number("gamma_unsure", gamma_unsure, low=0)
    check_number("threshold", threshold, low=0, high=1, open_low=True)

    def formula(pixels: Pixels):
        log_p = pixels.label_log_prob
        miss = -torch.expm1(log_p)  # 1 - s_y, to full precision near s_y = 1
        miss = torch.where(miss > 0, miss, 1)  # no exponent below 1 meets a 0; there the loss is 0 by its logarithm
        power = gamma
        if gamma_unsure is not None:
            power = torch.full_like(log_p, gamma).masked_fill(log_p < math.log(threshold), gamma_unsure)
        weight = miss**power

        def gradient() -> Tensor:
            # -s_y log s_y / (1 - s_y), which is 0 at s_y = 0
            ratio = -log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min) / miss
            slope = weight * (1 + power * ratio)
            return slope.unsqueeze(1) * pixels.minus_label(pixels.probs)

        return -weight * log_p, gradient

    return pixel_loss(formula, logits, target, ignore_index=ignore_index, reduction=reduction)


def entropy_penalty_loss(
    logits: Tensor, target: Tensor, *, penalty_weight: float = 0.1, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Explicit confidence penalty (ECP): cross-entropy less a multiple of the prediction's entropy.

    L_i = CE_i - penalty_weight / C * H(s_i),  H(s) = -sum_k s_k log s_k

    `penalty_weight` follows the authors' code, which averages the terms of the entropy over the classes; the paper
    sums them, so that lambda_paper = penalty_weight / C.

    Args:
        logits, target, ignore_index, reduction: as in `cross_entropy_loss`.
        penalty_weight: lambda, not negative; 0 is cross-entropy.

    Returns:
        The loss in float32, or in float64 for float64 logits. It can be negative.

    Raises:
        ValueError, TypeError: as `cross_entropy_loss`; also a negative `penalty_weight`.

    Example:
        >>> target = torch.zeros(1, 2, 2, dtype=torch.long)
        >>> entropy_penalty_loss(torch.zeros(1, 2, 2, 2), target, penalty_weight=1.0)  # log 2 - (log 2) / 2
        tensor(0.3466)

    References:
        Pereyra et al., Regularizing neural networks by penalizing confident output distributions, ICLR workshop 2017.
    """
    check_number("penalty_weight", penalty_weight, low=0)

    def formula(pixels: Pixels):
        weight = penalty_weight / pixels.logits.shape[1]
        probs = pixels.probs
        terms = probs * pixels.log_probs.clamp(min=torch.finfo(probs.dtype).min)  # 0 log 0 = 0
        minus_entropy = terms.sum(dim=1)
        value = weight * minus_entropy - pixels.label_log_prob
        return value, lambda: pixels.minus_label(probs + weight * (terms - probs * minus_entropy.unsqueeze(1)))

    return pixel_loss(formula, logits, target, ignore_index=ignore_index, reduction=reduction)


class CrossEntropyLoss(Loss):
    """`cross_entropy_loss` as a Module, with the same keywords."""

    function = staticmethod(cross_entropy_loss)


class LabelSmoothingLoss(Loss):
    """`label_smoothing_loss` as a Module, with the same keywords."""

    function = staticmethod(label_smoothing_loss)


class FocalLoss(Loss):
    """`focal_loss` as a Module, with the same keywords.

    Example:
        >>> flsd_53 = FocalLoss(gamma=3.0, gamma_unsure=5.0)
    """

    function = staticmethod(focal_loss)


class EntropyPenaltyLoss(Loss):
    """`entropy_penalty_loss` as a Module, with the same keywords."""

    function = staticmethod(entropy_penalty_loss)
