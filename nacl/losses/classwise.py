"""Losses of an image and a class, to be added to one of pixels: soft Dice, and the hard-binned calibration error."""

import torch
from torch import Tensor

from nacl._checks import REDUCTIONS, check_choice, check_flag, check_integer, check_logits_and_target, check_number
from nacl.losses._classwise import Sums, accumulator, class_sums, per_class
from nacl.losses._module import Loss


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    include_background: bool = False,
    batch: bool = False,
    smooth: float = 1e-5,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Soft Dice loss of each image and class.

    1 - (2 sum_i s_ik y_ik + smooth) / (sum_i s_ik + sum_i y_ik + smooth), over the valid pixels i

    Unlike a mean over pixels it gives a small object the weight of a large one. A class that is not there has loss 0
    only if its probabilities add up to much less than `smooth`, and nearly 1 otherwise.

    Args:
        logits: (N, C, H, W) or (N, C, D, H, W), any floating dtype.
        target: (N, H, W) or (N, D, H, W), integers in [0, C) or `ignore_index`.
        include_background: whether class 0 counts.
        batch: take the sums over the whole batch (nnU-Net's choice for 2D) instead of image by image.
        smooth: positive, in pixels.
        ignore_index: label of pixels that count nowhere.
        reduction: "none" gives (N, C), or (1, C) with `batch`, less the background; or "mean", or "sum".

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError, TypeError: as `cross_entropy_loss`; also `smooth` not positive.

    Example:
        >>> target = torch.tensor([[[0, 0, 1, 1]]])
        >>> dice_loss(torch.zeros(1, 2, 1, 4), target)  # 1 - 2 * (2 * 0.5) / (4 * 0.5 + 2)
        tensor(0.5000)

    References:
        Milletari et al., V-Net, 3DV 2016. Isensee et al., nnU-Net, Nature Methods 18 (2021), for the defaults.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_flag("batch", batch)
    check_number("smooth", smooth, low=0, open_low=True)
    labels = check_logits_and_target(logits, target, ignore_index)

    def measure(probs: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        dtype = accumulator(probs)
        return torch.stack([x.flatten(2).sum(dim=2, dtype=dtype) for x in (probs, probs * label, label)], dim=2)

    def slope(probs: Tensor, label: Tensor, grad: Tensor) -> Tensor:
        of_probs, of_overlap = (grad[:, :, m].view(*grad.shape[:2], *[1] * (probs.ndim - 2)) for m in (0, 1))
        return of_probs + of_overlap * label

    sums = class_sums(Sums(measure, slope), logits, labels, ignore_index)
    if batch:
        sums = sums.sum(dim=0, keepdim=True)
    probs, overlap, label = sums.unbind(dim=2)
    loss = 1 - (2 * overlap + smooth) / (probs + label + smooth)
    return per_class(loss, include_background, reduction).to(_returned(logits))


def l1_ace_loss(
    logits: Tensor,
    target: Tensor,
    *,
    n_bins: int = 20,
    include_background: bool = True,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Average calibration error of each image and class over hard bins, as an auxiliary loss.

    mean over the occupied bins b of abs(sum_(i in b) (s_ik - y_ik)) / n_b

    Bins (a, b] of equal width, of which the first holds 0 too, hold the probabilities of one class; which bin a pixel
    is in is not differentiated.
    It says nothing of *where* the network is wrong: add it to a loss that does.

    Args:
        logits, target, ignore_index: as in `dice_loss`.
        n_bins: number of bins.
        include_background: whether class 0 counts.
        reduction: "none" gives (N, C) less the background; or "mean", or "sum".

    Returns:
        The loss in float32, or in float64 for float64 logits; 0 where no pixel is valid.

    Raises:
        ValueError, TypeError: as `cross_entropy_loss`; also `n_bins` below 1.

    Example:
        >>> target = torch.tensor([[[0, 1, 1, 1]]])
        >>> l1_ace_loss(torch.zeros(1, 2, 1, 4), target)  # 1/2 everywhere, and right 1/4 and 3/4 of the time
        tensor(0.2500)

    References:
        Barfoot et al., Average calibration losses for reliable uncertainty in medical image segmentation,
        arXiv 2506.03942.

    Departures from the authors' code: only occupied bins are averaged, and a class that is absent from an image
    counts like any other.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_integer("n_bins", n_bins, low=1)
    labels = check_logits_and_target(logits, target, ignore_index)

    def bins(probs: Tensor) -> Tensor:
        place = (probs.detach() * n_bins).ceil_().sub_(1).clamp(0, n_bins - 1)
        return place.nan_to_num().flatten(2).long()  # NaN is told by the sums, not by an index that does not exist

    def measure(probs: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        dtype, index = accumulator(probs), bins(probs)
        empty = probs.new_zeros((*probs.shape[:2], n_bins), dtype=dtype)
        error, counted = (probs - label).flatten(2).to(dtype), valid.flatten(2).to(dtype).expand(index.shape)
        return torch.stack([empty.scatter_add(2, index, x) for x in (error, counted)], dim=3).flatten(2)

    def slope(probs: Tensor, label: Tensor, grad: Tensor) -> Tensor:
        return grad.unflatten(2, (n_bins, 2))[..., 0].gather(2, bins(probs)).view(probs.shape)

    sums = class_sums(Sums(measure, slope), logits, labels, ignore_index)
    error, count = sums.unflatten(2, (n_bins, 2)).unbind(dim=3)
    occupied = (count > 0).sum(dim=2).clamp(min=1)
    loss = (error.abs() / count.clamp(min=1)).sum(dim=2) / occupied
    return per_class(loss, include_background, reduction).to(_returned(logits))


def _returned(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


class DiceLoss(Loss):
    """`dice_loss` as a Module, with the same keywords."""

    function = staticmethod(dice_loss)


class L1ACELoss(Loss):
    """`l1_ace_loss` as a Module, with the same keywords."""

    function = staticmethod(l1_ace_loss)
