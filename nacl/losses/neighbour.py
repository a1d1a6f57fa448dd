"""Losses that look at the labels of a pixel's neighbours: SVLS, and NACL with its constraint in the open."""

import torch
from torch import Tensor

from nacl._checks import check_choice, check_flag, check_number
from nacl._penalties import penalty_called
from nacl._windows import ring_weights
from nacl.losses._module import Loss
from nacl.losses._pixelwise import Pixels, pixel_loss
from nacl.losses.cross_entropy import cross_entropy_loss
from nacl.priors import IMAGE_PRIORS, PRIORS, Neighbourhood, checked_image, mixed_shares, neighbourhood


def svls_loss(
    logits: Tensor,
    target: Tensor,
    *,
    kernel_size: int | tuple[int, ...] = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Spatially varying label smoothing: cross-entropy against (y + tau) / 2.

    L_i = -sum_k y~_ik log softmax(l_i)_k,  y~ = (y + tau) / 2, tau the Gaussian class shares of the neighbours.
    `nacl.theory.svls_split` shows the constraint that hides in it.

    Args:
        logits: (N, C, H, W) or (N, C, D, H, W), any floating dtype.
        target: (N, H, W) or (N, D, H, W), integers in [0, C) or `ignore_index`.
        kernel_size: width of the window in pixels, odd, for all axes or one an axis; 1 is cross-entropy.
        sigma: standard deviation of the window in pixels, positive.
        border: what counts beyond the image, see `nacl.priors.neighbour_prior`.
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
    options = {"kernel_size": kernel_size, "sigma": sigma, "border": border}

    def formula(pixels: Pixels):
        value = -(pixels.label_log_prob + pixels.times_log_probs(pixels.tau)) / 2

        def gradient() -> Tensor:
            probs = pixels.probs
            if border == "zero":  # tau, and with it the label, sums to less than 1
                probs = probs * (1 + pixels.tau.sum(dim=1, keepdim=True)) / 2
            return pixels.minus_label(torch.sub(probs, pixels.tau, alpha=0.5), 0.5)

        return value, gradient

    around = neighbourhood(*classes_and_axes(logits), prior="neighbours", **options)
    return pixel_loss(
        formula,
        logits,
        target,
        ignore_index=ignore_index,
        reduction=reduction,
        neighbourhood=around,
        kernel=lambda: {"label_share": 0.5, "prior_share": 0.5, **_of_kernel(around, logits)},
    )


def nacl_loss(
    logits: Tensor,
    target: Tensor,
    *,
    prior: str = "mean",
    kernel_size: int | tuple[int, ...] = 3,
    sigma: float = 1.0,
    penalty: str = "l1",
    penalty_weight: float = 0.1,
    delta: float = 1.0,
    border: str = "inside",
    softmax: bool = False,
    mixed_only: bool = False,
    ignore_index: int = -100,
    reduction: str = "mean",
    image: Tensor | None = None,
) -> Tensor:
    """Neighbour-aware calibration: cross-entropy, and logits drawn to the class shares of their neighbourhood.

    L_i = CE_i + penalty_weight * 1/C sum_k P(l_ik - tau_ik),  P(d) = abs(d) ("l1"), d^2 ("l2"), or "huber":
    d^2 / 2 up to abs(d) = delta and delta (abs(d) - delta / 2) beyond.
    Unlike SVLS it has its constraint in the open, with a weight of its own.

    `penalty_weight` follows the authors' code, which averages over the classes; the paper sums over them, so that
    lambda_paper = penalty_weight / C.

    Args:
        logits: (N, C, H, W) or (N, C, D, H, W), any floating dtype.
        target: (N, H, W) or (N, D, H, W), integers in [0, C) or `ignore_index`.
        prior: how tau is taken from the labels, see `nacl.priors.neighbour_prior`.
        kernel_size: width of the window in pixels, odd, for all axes or one an axis; at 1, tau is the one-hot label.
        sigma: standard deviation in pixels of the "gaussian" and the "bilateral" prior.
        penalty: "l1", "l2" or "huber".
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        delta: where "huber" turns from square to linear, positive.
        border: what counts beyond the image, see `nacl.priors.neighbour_prior`.
        softmax: constrain softmax(l) instead of l.
        mixed_only: penalise only where tau gives more than one class a share, that is near borders; elsewhere the loss
            is cross-entropy, without a ceiling on confidence. (The priors "max", "min", "median" and "mode" are one
            class everywhere: nothing would be penalised.)
        ignore_index: label of pixels that give no loss, no gradient, and are nobody's neighbours.
        reduction: as in `cross_entropy_loss`.
        image: (N, ...) or (N, channels, ...), for the priors that look at it; the others do not.

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError: as `cross_entropy_loss`; also unknown `prior`, `penalty` or `border`, even `kernel_size`, `sigma`
            or `delta` not positive, negative `penalty_weight`, no `image` for a prior that needs one.
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
    `border="background"`); pixels can be ignored; "huber" and `mixed_only` are ours.
    """
    penalise = penalty_called(penalty, delta)
    check_number("penalty_weight", penalty_weight, low=0)
    check_flag("softmax", softmax)
    check_flag("mixed_only", mixed_only)
    check_choice("prior", prior, PRIORS)
    classes, axes = classes_and_axes(logits)
    around = neighbourhood(classes, axes, prior=prior, kernel_size=kernel_size, sigma=sigma, border=border)
    image = checked_image(image, target, prior)
    weight = penalty_weight / classes

    def formula(pixels: Pixels):
        probs = pixels.probs if softmax else None
        distance = (probs if softmax else pixels.logits) - pixels.tau
        if mixed_only:
            distance = torch.where(mixed_shares(pixels.tau) > 0, distance, 0)
        value = weight * penalise.value(distance).sum(dim=1) - pixels.label_log_prob

        def gradient() -> Tensor:
            slope = penalise.slope(distance)
            if not softmax:
                return pixels.minus_label(torch.add(pixels.probs, slope, alpha=weight))
            pull = probs * (slope - (probs * slope).sum(dim=1, keepdim=True))  # through the softmax
            return pixels.minus_label(torch.add(probs, pull, alpha=weight))

        return value, gradient

    if penalty_weight == 0:  # no term at all, also where a logit is infinite
        return cross_entropy_loss(logits, target, ignore_index=ignore_index, reduction=reduction)
    in_kernel = prior in ("mean", "gaussian") and not softmax and not mixed_only
    penalised = {"penalty": penalty, "penalty_weight": penalty_weight, "delta": delta, "mix_label": prior == "gaussian"}
    return pixel_loss(
        formula,
        logits,
        target,
        ignore_index=ignore_index,
        reduction=reduction,
        neighbourhood=around,
        image=image,
        kernel=(lambda: {**penalised, **_of_kernel(around, logits)}) if in_kernel else None,
    )


def _of_kernel(around: Neighbourhood, logits: Tensor) -> dict[str, object]:
    """The window, as the fused kernel wants it."""
    weights = None if around.prior == "mean" else ring_weights(around.window, around.sigma, logits.device)
    return {"window": around.window, "weights": weights, "border": around.border}


def classes_and_axes(logits: Tensor) -> tuple[int, int]:
    """C and the number of axes of space; of a stand-in where the logits are yet to be refused."""
    fits = isinstance(logits, Tensor) and logits.ndim in (4, 5) and logits.shape[1] >= 2
    return (logits.shape[1], logits.ndim - 2) if fits else (2, 2)


class SVLSLoss(Loss):
    """`svls_loss` as a Module, with the same keywords.

    Example:
        >>> SVLSLoss(kernel_size=5, sigma=1.5)
        SVLSLoss(kernel_size=5, sigma=1.5, border='inside', ignore_index=-100, reduction='mean')
    """

    function = staticmethod(svls_loss)


class NACLLoss(Loss):
    """`nacl_loss` as a Module, with the same keywords; `image` is an argument of the call.

    Example:
        >>> loss = NACLLoss(penalty_weight=0.1)
        >>> logits = torch.zeros(2, 4, 8, 8, requires_grad=True)
        >>> loss(logits, torch.zeros(2, 8, 8, dtype=torch.long)).backward()
    """

    function = staticmethod(nacl_loss)

    @property
    def reads_image(self) -> bool:
        """Whether a call needs `image`."""
        return self.options["prior"] in IMAGE_PRIORS
