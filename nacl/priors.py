"""Labels of a neighbourhood -> tau, the share of each class in it."""

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nacl._checks import (
    Labels,
    check_choice,
    check_integer,
    check_kernel_size,
    check_labels,
    check_number,
    expectation,
    is_scanned,
)
from nacl._windows import BORDERS, IGNORED, box_sum, indicators, narrow_labels, pad, pad_labels, ring_sum

IMAGE_PRIORS = ("bilateral", "gradient", "image_proportions_l1", "image_proportions_l2")
PRIORS = ("mean", "gaussian", "max", "min", "median", "mode", *IMAGE_PRIORS)


class Evidence(NamedTuple):
    """What a window holds: the weight of each class, and the weight of all that counts in it where that is not the sum.

    (N, C, ...) and (N, 1, ...).
    """

    weight: Tensor
    total: Tensor | None = None


class Neighbourhood(NamedTuple):
    """How tau is taken from labels, in two steps: windows to evidence, then pixel by pixel evidence to tau.

    The first step looks at neighbours, and can be taken slab by slab from padded labels; the second does not.
    """

    prior: str  # one of PRIORS, or "neighbours" for the tau inside SVLS
    num_classes: int
    window: tuple[int, ...]
    sigma: float = 1.0
    border: str = "inside"

    def padded(self, narrow: Tensor, image: Tensor | None = None) -> tuple[Tensor, ...]:
        """Narrow labels, and where the prior looks at it the image, in a frame that serves the windows of the edge."""
        target = pad_labels(narrow, self.num_classes, self.window, self.border)
        if self.prior not in IMAGE_PRIORS:
            return (target,)
        image = torch.where((narrow == IGNORED).unsqueeze(1), 0, image)  # NaN there must not reach a neighbour
        return target, pad(image, self.window, None if self.border == "replicate" else 0.0)

    def evidence(self, target: Tensor, image: Tensor | None = None, *, dtype: torch.dtype) -> Evidence:
        """The window sums of what `padded` returned, or of a slab of it; counts in integers, weights in `dtype`."""
        if self.prior in IMAGE_PRIORS:
            return self._image_evidence(target, image.to(dtype))
        weight = self._sum(indicators(target, self.num_classes), dtype)
        if self.border == "zero":  # what lies beyond counts, and is of no class
            return Evidence(weight, self._sum((target != IGNORED).unsqueeze(1).to(torch.uint8), dtype))
        return Evidence(weight)

    def evidence_like(self, target: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Tensors of the shapes and dtypes of the evidence, of undefined content."""
        dtype = self._sum_dtype(dtype)
        classes = (self.num_classes, 1) if self.border == "zero" or self.prior in IMAGE_PRIORS else (self.num_classes,)
        return [target.new_empty((len(target), n, *target.shape[1:]), dtype=dtype) for n in classes]

    def _sum_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Counts are summed in the smallest integers that hold them, weights in `dtype`."""
        if self.prior in ("gaussian", "neighbours", *IMAGE_PRIORS):
            return dtype
        return next(
            t
            for t in (torch.uint8, torch.int16, torch.int32, torch.int64)
            if math.prod(self.window) <= torch.iinfo(t).max
        )

    def _sum(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        if self.prior in ("gaussian", "neighbours"):
            return ring_sum(values, self.window, self.sigma, dtype)
        return box_sum(values.to(self._sum_dtype(dtype)), self.window)

    def tau(self, evidence: Evidence, narrow: Tensor, dtype: torch.dtype) -> Tensor:
        """The class shares (N, C, ...) that evidence and narrow labels give; all 0 where nothing counts."""
        weight, total = evidence
        if total is None:
            total = weight.sum(dim=1, keepdim=True, dtype=weight.dtype)
        if self.prior in ("gaussian", "neighbours"):
            if not is_scanned(total) or (total.numel() and total.min() == 0):  # a pixel with no neighbour is its own
                empty = (total == 0).to(dtype)
                weight = weight + indicators(narrow, self.num_classes).to(dtype) * empty
                total = total + empty
            tau = weight / total
            return tau if self.prior == "neighbours" else (indicators(narrow, self.num_classes).to(dtype) + tau) / 2
        if self.prior in ("max", "min", "median", "mode"):
            return self._elected(weight).to(dtype)
        return weight.to(dtype) / total.clamp(min=1).to(dtype)

    def _elected(self, count: Tensor) -> Tensor:
        """One-hot in the one class that speaks for the window: the largest, smallest, middle or most frequent label."""
        count = count.to(torch.int32)
        classes = torch.arange(self.num_classes, dtype=torch.int32, device=count.device)
        classes = classes.view(-1, *[1] * (count.ndim - 2))
        if self.prior == "median":  # the lower one of an even number, as torch.median
            up_to = count.cumsum(dim=1, dtype=torch.int32)
            total = up_to.narrow(1, self.num_classes - 1, 1)
            return (2 * up_to >= total) & (2 * (up_to - count) < total)
        if self.prior == "mode":  # the smallest of several, as torch.mode
            rank = count * self.num_classes - classes
        else:
            rank = count.clamp(max=1) * (classes + 1 if self.prior == "max" else self.num_classes - classes)
        highest = rank.amax(dim=1, keepdim=True)
        return (rank == highest) & (highest > 0)

    def _image_evidence(self, target: Tensor, image: Tensor) -> Evidence:
        """Each neighbour weighs by how its grey value differs: for "bilateral" and "gradient" the more, the more so."""
        radii = [size // 2 for size in self.window]
        spatial = [length - 2 * radius for length, radius in zip(target.shape[1:], radii, strict=True)]

        def shifted(values: Tensor, offset: tuple[int, ...]) -> Tensor:
            for axis, start, length in zip(range(-len(spatial), 0), offset, spatial, strict=True):
                values = values.narrow(axis, start, length)
            return values

        centre = shifted(image, radii)
        of_class = indicators(target, self.num_classes)
        weight, total = 0, 0
        for offset in itertools.product(*map(range, self.window)):
            difference = shifted(image, offset) - centre
            if self.prior == "image_proportions_l2":
                nearness = torch.exp(-difference.square().mean(dim=1, keepdim=True))
            else:
                distance = difference.abs().mean(dim=1, keepdim=True)
                nearness = torch.exp(-distance) if self.prior == "image_proportions_l1" else distance
            if self.prior == "bilateral":
                square = sum((at - radius) ** 2 for at, radius in zip(offset, radii, strict=True))
                nearness = nearness * math.exp(-square / 2 / self.sigma / self.sigma)
            weight = weight + nearness * shifted(of_class, offset)
            total = total + nearness * (shifted(target, offset) != IGNORED).unsqueeze(1)
        if self.prior.startswith("image_proportions"):
            return Evidence(weight, total)
        scale = math.prod(self.window)  # the authors take the mean over the window of weights that do not sum to 1
        if self.prior == "bilateral":
            scale *= math.prod(
                sum(math.exp(-((j - r) ** 2) / 2 / self.sigma / self.sigma) for j in range(2 * r + 1)) for r in radii
            )
        return Evidence(weight, torch.full_like(total, scale))


def neighbourhood(
    num_classes: int, axes: int, *, prior: str, kernel_size: int | tuple[int, ...], sigma: float, border: str
) -> Neighbourhood:
    """A `Neighbourhood` of checked parameters."""
    check_choice("prior", prior, (*PRIORS, "neighbours"))
    check_choice("border", border, BORDERS)
    check_integer("num_classes", num_classes, low=2)
    check_number("sigma", sigma, low=0, open_low=True)
    return Neighbourhood(prior, num_classes, check_kernel_size(kernel_size, axes), sigma, border)


def checked_image(image: Tensor | None, target: Tensor, prior: str) -> Tensor | None:
    """The image as (N, M, ...), once found to fit; None where the prior does not look at it."""
    if prior not in IMAGE_PRIORS:
        return None
    if image is None:
        raise ValueError(expectation("image", f"for prior={prior!r}", None, remedy="Pass image=the network's input"))
    if not isinstance(image, Tensor) or not image.is_floating_point():
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(expectation("image", "to be a floating torch.Tensor", got))
    image = image.unsqueeze(1) if image.ndim == target.ndim else image
    if image.ndim != target.ndim + 1 or (image.shape[0], *image.shape[2:]) != tuple(target.shape):
        rule = "of shape (N, ...) or (N, channels, ...)"
        raise ValueError(expectation("image", rule, tuple(image.shape), f"target {tuple(target.shape)}"))
    return image


def neighbour_prior(
    target: Tensor,
    num_classes: int,
    *,
    prior: str = "mean",
    kernel_size: int | tuple[int, ...] = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
    image: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The class shares tau of each pixel's neighbourhood, which NACL constrains the logits to.

    tau_k(i) = sum_(j in W(i)) w_ij [y_j = k] / sum_(j in W(i)) w_ij

    - "mean": w = 1, the centre included.
    - "gaussian": (y_i + svls_prior_i) / 2, the label of SVLS.
    - "max", "min", "median", "mode": one-hot in the largest, smallest, middle (the lower of two) or most frequent (the
      smallest of several) label of the window. They read class numbers as quantities: renumber the classes, and tau
      is another (`nacl.theory.is_equivariant`).
    - "image_proportions_l1", "image_proportions_l2": w_ij = exp(-abs(x_i - x_j)) or exp(-(x_i - x_j)^2), x the image.
    - "gradient", "bilateral": w_ij = abs(x_i - x_j), or that times a Gaussian of the distance; divided by the size of
      the window instead of their sum, as the authors do. So tau does not sum to 1, it is 0 in a flat image, and a
      neighbour counts the more the *less* it resembles the pixel. For the record of their ablation, not for use.

    Ignored pixels never count. What counts beyond the image is the choice of `border`: nothing ("inside": the shares
    sum to 1), the nearest pixel of the image ("replicate", as in the reference code of SVLS), class 0 ("background",
    as in the reference code of NACL), or a pixel of no class ("zero", as in MONAI: the shares sum to less than 1).

    Args:
        target: labels (N, H, W) or (N, D, H, W), integers in [0, num_classes) or `ignore_index`.
        num_classes: C, at least 2.
        prior: one of the above.
        kernel_size: width of the window in pixels, odd, for all axes or one an axis. At 1, tau is the one-hot label.
        sigma: standard deviation in pixels of "gaussian" and "bilateral"; the others do not use it.
        border: what counts beyond the image.
        ignore_index: label of the pixels that have none; they are no neighbours, and their own tau is undefined.
        image: (N, ...) or (N, channels, ...), floating, for the priors that look at it; differences are
            averaged over the channels.
        dtype: of the result.

    Returns:
        tau (N, C, ...), not negative; it sums to 1 over the classes unless `border` is "zero" or `prior` is
        "gradient" or "bilateral".

    Raises:
        ValueError: unknown `prior` or `border`, even `kernel_size`, `sigma` not positive, wrong shape, no image for a
            prior that needs one, or (on the CPU) labels out of range.
        TypeError: `target` not of an integer dtype, `image` not of a floating one.

    Example:
        >>> edge = torch.tensor([[[0, 0, 1], [0, 0, 1], [0, 0, 1]]])
        >>> neighbour_prior(edge, 2)[0, 1, 1]
        tensor([0.0000, 0.3333, 0.5000])

    References:
        Murugesan et al., Medical Image Analysis 101 (2025) 103501. Islam and Glocker, IPMI 2021, for "gaussian".

    Departures from the authors' code: labels beyond the image do not count by default (there, they are background);
    the "gaussian" window follows its definition for every `kernel_size` (there, only for 3).
    """
    check_choice("prior", prior, PRIORS)
    labels = check_labels(target, num_classes, ignore_index)
    options = {"prior": prior, "kernel_size": kernel_size, "sigma": sigma, "border": border}
    around = neighbourhood(num_classes, target.ndim - 1, **options)
    return whole_tau(around, labels, checked_image(image, target, prior), dtype)


def whole_tau(around: Neighbourhood, labels: Labels, image: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Both steps of a `Neighbourhood` at once, for the whole batch."""
    if not dtype.is_floating_point:
        raise TypeError(expectation("dtype", "to be floating", dtype))
    wide = torch.float64 if dtype == torch.float64 else torch.float32  # sums in less lose digits, or overflow
    narrow = narrow_labels(labels, around.num_classes)
    return around.tau(around.evidence(*around.padded(narrow, image), dtype=wide), narrow, wide).to(dtype)


def svls_prior(
    target: Tensor,
    num_classes: int,
    *,
    kernel_size: int | tuple[int, ...] = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The tau inside SVLS: Gaussian share of each class among the *neighbours*, the centre left out.

    tau_i = sum_(j in W(i), j != i) w_j y_j / sum_(j in W(i), j != i) w_j,  w_j = exp(-distance^2 / (2 sigma^2))

    Where a pixel has no neighbour that counts, tau_i is its own label. Arguments, shapes and errors as in
    `neighbour_prior`, whose "gaussian" prior is (y + tau) / 2 with this tau.

    Example:
        >>> target = torch.tensor([[[0, 0, 1]]])
        >>> svls_prior(target, 2)[0, 1, 0]
        tensor([0.0000, 0.5000, 0.0000])
    """
    labels = check_labels(target, num_classes, ignore_index)
    options = {"kernel_size": kernel_size, "sigma": sigma, "border": border}
    around = neighbourhood(num_classes, target.ndim - 1, prior="neighbours", **options)
    return whole_tau(around, labels, None, dtype)


def one_hot(
    target: Tensor, num_classes: int, *, ignore_index: int = -100, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Labels (N, ...) as indicators (N, C, ...); ignored pixels are 0 in every class."""
    labels = check_labels(target, num_classes, ignore_index)
    return indicators(narrow_labels(labels, num_classes), num_classes).to(dtype)


def mixed_shares(tau: Tensor) -> Tensor:
    """1 where tau (N, C, ...) has a share for more than one class, 0 elsewhere, (N, 1, ...)."""
    return (tau.sign().sum(dim=1, keepdim=True) - 1).clamp(0, 1)


def mixed_windows(target: Tensor, *, kernel_size: int | tuple[int, ...] = 3, ignore_index: int = -100) -> Tensor:
    """The pixels whose window holds more than one label: a band of (kernel_size - 1) / 2 on both sides of a border.

    Only there does SVLS change a label; elsewhere tau = y.

    Args:
        target: labels (N, H, W) or (N, D, H, W), not negative, or `ignore_index`.
        kernel_size: width of the window in pixels, odd, for all axes or one an axis.
        ignore_index: label of pixels that are nobody's neighbours, and are never in the band.

    Returns:
        bool (N, ...).

    Example:
        >>> mixed_windows(torch.tensor([[[0, 0, 0, 1, 1]]]))
        tensor([[[False, False,  True,  True, False]]])
    """
    if not isinstance(target, Tensor) or target.is_floating_point():
        got = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(expectation("target", "to be an integer torch.Tensor", got))
    if target.ndim not in (3, 4):
        raise ValueError(expectation("target", "of shape (N, H, W) or (N, D, H, W)", tuple(target.shape)))
    window = check_kernel_size(kernel_size, target.ndim - 1)
    pool = F.max_pool2d if target.ndim == 3 else F.max_pool3d
    valid = target.long() != ignore_index
    labels = target.float()
    high, minus_low = (
        pool(torch.where(valid, x, -torch.inf), window, stride=1, padding=tuple(size // 2 for size in window))
        for x in (labels, -labels)
    )
    return valid & (high != -minus_low)
