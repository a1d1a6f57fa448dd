"""CRaC: a multiplier for each class inside objects and another on their borders, learned on the validation cases."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nacl._checks import (
    check_choice,
    check_integer,
    check_kernel_size,
    check_logits,
    check_logits_and_target,
    check_not_nan,
    check_number,
    expectation,
    is_scanned,
)
from nacl.losses._pixelwise import Pixels, pixel_loss
from nacl.losses.neighbour import classes_and_axes
from nacl.priors import mixed_shares, neighbourhood, whole_tau


def _phr(h: Tensor, m: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    w = rho * h
    return h * torch.add(m, w, alpha=0.5), m + w


def _p2(h: Tensor, m: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    w = rho * h
    return h * (m + w * (m + w / 6)), m + w * (2 * m + w / 2)


def _p3(h: Tensor, m: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    w = m * rho * h
    return h * (m + w), m + 2 * w


LAGRANGIANS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {"phr": _phr, "p2": _p2, "p3": _p3}
"""P(h, multiplier, rho) and its derivative in h, for distances h, which are never negative."""


def crac_loss(
    logits: Tensor,
    target: Tensor,
    *,
    multipliers: Tensor | float = 1e-6,
    rho: Tensor | float = 1.0,
    margin: float = 10.0,
    lagrangian: str = "phr",
    kernel_size: int | tuple[int, ...] = 3,
    border: str = "inside",
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy, and logits drawn to margin * tau inside objects and to tau on their borders.

    L_i = CE_i + 1/C sum_k P(h_ik, multiplier_rk, rho_rk),  h_ik = abs(l_ik - g_r tau_ik)

    r is the region of pixel i: inside (its window holds one class, g = margin) or border (more than one, g = 1).
    P(h, m, rho) is m h + rho h^2 / 2 ("phr"), m h + m rho h^2 + rho^2 h^3 / 6 ("p2") or m h + m rho h^2 ("p3").

    Args:
        logits, target, ignore_index, reduction: as in `cross_entropy_loss`.
        multipliers: (2, C), inside and border, not negative; or one number for all. `CRaCLoss` learns them.
        rho: (2, C) or one number, not negative.
        margin: the logit of a class that fills its window, positive.
        lagrangian: "phr", "p2" or "p3".
        kernel_size, border: of tau, the "mean" prior of `nacl.priors.neighbour_prior`.

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError, TypeError: as `nacl_loss`; also multipliers of a wrong shape or (on the CPU) below 0.

    Example:
        >>> target = torch.zeros(1, 1, 1, dtype=torch.long)
        >>> crac_loss(torch.zeros(1, 2, 1, 1), target, multipliers=0.1, rho=1e-9)  # log 2 + 0.1 * 10 / 2
        tensor(1.1931)

    References:
        Murugesan et al., Class and region-adaptive constraints for network calibration, MICCAI 2024 (arXiv
        2403.12364). The penalties: Birgin et al., Computational Optimization and Applications 31 (2005).

    Departures from the authors' code: their test for a border pixel, sum_j (mean - y_j) != 0, is zero by algebra (but
    for rounding), so that all pixels count as inside; here, a window with two classes is a border. They average over
    2 C columns, half of which are 0, we over C.
    """
    check_number("margin", margin, low=0, open_low=True)
    check_choice("lagrangian", lagrangian, LAGRANGIANS)
    check_logits(logits)
    classes, axes = classes_and_axes(logits)
    around = neighbourhood(classes, axes, prior="mean", kernel_size=kernel_size, sigma=1.0, border=border)
    multipliers, rho = (
        _per_region(name, x, classes, axes, logits) for name, x in (("multipliers", multipliers), ("rho", rho))
    )
    penalise = LAGRANGIANS[lagrangian]

    def formula(pixels: Pixels):
        mixed = mixed_shares(pixels.tau)
        m, strength = (_of_region(x, mixed) for x in (multipliers, rho))
        difference = pixels.logits - _goal(pixels.tau, mixed, margin)
        distance = difference.abs()
        value, slope = penalise(distance, m, strength)
        value = value.sum(dim=1) / classes - pixels.label_log_prob

        def gradient() -> Tensor:
            return pixels.minus_label(torch.addcmul(pixels.probs, slope, difference.sign(), value=1 / classes))

        return value, gradient

    return pixel_loss(formula, logits, target, ignore_index=ignore_index, reduction=reduction, neighbourhood=around)


def _goal(tau: Tensor, mixed: Tensor, margin: float) -> Tensor:
    return tau * (margin + (1 - margin) * mixed)


def _of_region(values: tuple[Tensor, Tensor], mixed: Tensor) -> Tensor:
    """The (1, C, ...) value of each pixel's region."""
    inside, border = (x.to(mixed.dtype) for x in values)
    return torch.addcmul(inside, border - inside, mixed)


def _per_region(name: str, values: Tensor | float, classes: int, axes: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The values of the two regions, each (1, C, 1, ...), or of one number for all classes."""
    if not isinstance(values, Tensor):
        check_number(name, values, low=0)
        values = torch.full((2, 1), values, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    elif tuple(values.shape) not in {(2, classes), (2, 1)}:
        raise ValueError(expectation(name, f"of shape (2, {classes})", tuple(values.shape)))
    elif is_scanned(values) and not (values >= 0).all():  # written so that NaN fails
        raise ValueError(expectation(name, "of numbers in [0, inf)", values.tolist()))
    values = values.to(logits.device)
    return tuple(x.view(1, -1, *[1] * axes) for x in values)


class CRaCLoss(nn.Module):
    """`crac_loss` with multipliers that an augmented Lagrangian learns.

    In every epoch: train; then call `observe` with the logits of each validation batch; then `update` once. A
    multiplier becomes the mean of P' over the pixels of its region. At every `rho_every`-th update rho grows
    where the mean distance did not fall below 0.9 of what it was at the update before.

    Args:
        num_classes: number of classes, C.
        margin, lagrangian, kernel_size, border, ignore_index, reduction: as in `crac_loss`.
        multiplier_min: the first value of the multipliers, and their least.
        multiplier_max: their largest.
        rho: the first value of rho.
        rho_max: its largest.
        rho_growth: the factor by which it grows.
        rho_every: the number of updates between two looks at it; 0 for never.

    Raises:
        ValueError, TypeError: values that `crac_loss` refuses.

    Example:
        >>> loss = CRaCLoss(num_classes=2)
        >>> logits, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
        >>> loss.observe(logits, target)
        >>> loss.update()
        >>> loss.multipliers[0]  # every logit of class 0 is 10 away from where it should be
        tensor([1.0000e+01, 1.0000e-06])

    Departures from the authors' code: see `crac_loss`; and the mean of P' runs over the pixels of the region, there
    over all pixels, so that a rare region learns slowly.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        margin: float = 10.0,
        lagrangian: str = "phr",
        kernel_size: int | tuple[int, ...] = 3,
        border: str = "inside",
        multiplier_min: float = 1e-6,
        multiplier_max: float = 1e6,
        rho: float = 1.0,
        rho_max: float = 10.0,
        rho_growth: float = 1.2,
        rho_every: int = 10,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, low=2)
        check_number("multiplier_min", multiplier_min, low=0, open_low=True)
        check_number("multiplier_max", multiplier_max, low=multiplier_min)
        check_number("rho", rho, low=0, open_low=True)
        check_number("rho_max", rho_max, low=rho)
        check_number("rho_growth", rho_growth, low=1)
        check_integer("rho_every", rho_every, low=0)
        self.options = {
            "margin": margin,
            "lagrangian": lagrangian,
            "kernel_size": kernel_size,
            "border": border,
            "ignore_index": ignore_index,
            "reduction": reduction,
        }
        axes = len(check_kernel_size(kernel_size)) if isinstance(kernel_size, tuple | list) else 2
        sample = torch.zeros(1, *[1] * axes, dtype=torch.long)
        crac_loss(torch.zeros(1, num_classes, *[1] * axes), sample, **self.options)  # refuses bad keywords here
        self.limits = multiplier_min, multiplier_max
        self.growth = rho_max, rho_growth, rho_every
        self.register_buffer("multipliers", torch.full((2, num_classes), float(multiplier_min)))
        self.register_buffer("rho", torch.full((2, num_classes), float(rho)))
        self.register_buffer("distance", torch.full((2, num_classes), torch.inf))  # its mean at the last update
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._seen: list[Tensor] = []

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        self._check_classes(logits)
        return crac_loss(logits, target, multipliers=self.multipliers, rho=self.rho, **self.options)

    def _check_classes(self, logits: Tensor) -> None:
        classes = self.multipliers.shape[1]
        if isinstance(logits, Tensor) and logits.ndim > 1 and logits.shape[1] != classes:
            raise ValueError(expectation("logits", f"of {classes} classes", logits.shape[1], f"num_classes={classes}"))

    @torch.no_grad()
    def observe(self, logits: Tensor, target: Tensor) -> None:
        """Take note of a validation batch (N, C, ...), (N, ...)."""
        self._check_classes(logits)
        labels = check_logits_and_target(logits, target, self.options["ignore_index"])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        classes, axes = classes_and_axes(logits)
        window = {name: self.options[name] for name in ("kernel_size", "border")}
        around = neighbourhood(classes, axes, prior="mean", sigma=1.0, **window)
        tau = whole_tau(around, labels, None, logits.dtype)
        mixed = mixed_shares(tau)
        distance = (logits - _goal(tau, mixed, self.options["margin"])).abs()
        m, strength = (
            _of_region(_per_region(name, getattr(self, name), classes, axes, logits), mixed)
            for name in ("multipliers", "rho")
        )
        slope = LAGRANGIANS[self.options["lagrangian"]](distance, m, strength)[1]
        valid = torch.ones_like(mixed) if labels.ignored is None else (~labels.ignored).unsqueeze(1).to(mixed.dtype)
        space = [0, *range(2, logits.ndim)]
        sums = [
            torch.where(part > 0, x, 0).sum(dim=space)
            for part in ((1 - mixed) * valid, mixed * valid)
            for x in (slope, distance, part.expand(logits.shape))
        ]
        sums = torch.stack(sums)
        check_not_nan(sums, "logits")
        self._seen.append(sums.view(2, 3, classes).to(self.multipliers))

    @torch.no_grad()
    def update(self) -> None:
        """Set the multipliers from what was observed since the last update."""
        if not self._seen:
            raise RuntimeError("Expected `observe` to be called with validation batches before `update`.")
        slope, distance, count = torch.stack(self._seen).sum(dim=0).unbind(dim=1)
        self._seen.clear()
        there = count > 0
        count = count.clamp(min=1)
        learned = (slope / count).clamp(*self.limits)
        # In place, since CUDA graphs read from where the buffers were when they were recorded.
        self.multipliers.copy_(torch.where(there, learned, self.multipliers))
        self.updates += 1
        rho_max, growth, every = self.growth
        if every:
            due = self.updates % every == 0
            distance = distance / count
            slow = due & there & self.distance.isfinite() & (distance > 0.9 * self.distance)
            self.rho.copy_(torch.where(slow, (growth * self.rho).clamp(max=rho_max), self.rho))
            self.distance.copy_(torch.where(there, distance, self.distance))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
