"""Labels of a neighbourhood -> tau, the share of each class in it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nacl._checks import check_choice, check_integer, check_kernel_size, check_labels, check_number

PRIORS = ("mean", "gaussian")
BORDERS = ("inside", "replicate", "background", "zero")


def neighbour_window(
    kernel_size: int, sigma: float, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Tensor:
    """Gaussian weights of the neighbours in a window, the centre left out: 0 there, and the others sum to 1.

    w_ij proportional to exp(-(i^2 + j^2) / (2 sigma^2)), for (i, j) != (0, 0).

    Args:
        kernel_size: width of the window in pixels, odd; at 1 there are no neighbours, and the result is 0.
        sigma: standard deviation in pixels, positive.
        dtype: of the result.
        device: of the result, and where it is computed.

    Returns:
        (kernel_size, kernel_size).

    Raises:
        ValueError: even `kernel_size`, `sigma` not positive.

    Example:
        >>> neighbour_window(3, 1.0)[1]
        tensor([0.1556, 0.0000, 0.1556], dtype=torch.float64)
    """
    check_kernel_size(kernel_size)
    check_number("sigma", sigma, low=0, open_low=True)
    if kernel_size == 1:
        return torch.zeros(1, 1, dtype=dtype, device=device)
    square = (torch.arange(kernel_size, dtype=dtype, device=device) - kernel_size // 2) ** 2
    square = square[:, None] + square
    # relative to the nearest neighbours, and sigma twice instead of squared: nothing underflows or overflows to NaN
    exponent = torch.where(square > 0, -(square - 1) / 2 / sigma / sigma, -torch.inf)
    return exponent.flatten().softmax(dim=0).view(kernel_size, kernel_size)


def neighbour_shares(
    target: Tensor,
    num_classes: int,
    window: Tensor,
    *,
    border: str = "inside",
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Share of each class among the labels that a window sees, by the window's weights.

    shares_k(i) = sum_j w_j [y_(i+j) = k] / sum_j w_j [pixel i + j counts]

    Ignored pixels never count. What counts beyond the image is the choice of `border`: nothing ("inside": the shares
    sum to 1), the nearest pixel of the image ("replicate", as in the reference code of SVLS), class 0 ("background",
    as in the reference code of NACL), or a pixel of no class ("zero", as in MONAI: the shares sum to less than 1).

    Args:
        target: labels (N, H, W), integers in [0, num_classes) or `ignore_index`.
        num_classes: C.
        window: weights (k, k) on the device of `target`, k odd, not negative; its dtype is that of the result.
        border: "inside", "replicate", "background" or "zero".
        ignore_index: label of the pixels that have none.

    Returns:
        shares (N, C, H, W), all 0 where no pixel of the window counts, and `seen` (N, 1, H, W), False there.

    Raises:
        ValueError: `target` of a wrong shape or (on the CPU) with labels out of range; unknown `border`.
        TypeError: `target` not of an integer dtype.
    """
    check_choice("border", border, BORDERS)
    target = check_labels(target, num_classes, ignore_index)
    ignored, of_no_class = -1, num_classes
    outside = {"inside": ignored, "replicate": None, "background": 0, "zero": of_no_class}[border]
    labels = torch.where(target == ignore_index, ignored, target)
    labels = _pad(labels, window.shape[-1] // 2, outside)
    seen_as = labels.unsqueeze(1) == torch.arange(num_classes, device=target.device).view(1, -1, 1, 1)
    weight = _window_sum(seen_as.to(window.dtype), window)
    total = _window_sum((labels != ignored).unsqueeze(1).to(window.dtype), window)
    seen = total > 0
    return torch.where(seen, weight / total, 0), seen


def _window_sum(values: Tensor, window: Tensor) -> Tensor:
    """Weighted sum of the window round each pixel; `values` (N, C, H + k - 1, W + k - 1) have their frame.

    Shifted and added: a convolution would round the weights under autocast, and to TF32 on a GPU.
    """
    size = window.shape[-1]
    height, width = values.shape[-2] - size + 1, values.shape[-1] - size + 1
    total = torch.zeros_like(values[..., :height, :width])
    for i in range(size):
        for j in range(size):
            total.addcmul_(values[..., i : i + height, j : j + width], window[i, j])
    return total


def _pad(labels: Tensor, width: int, value: int | None) -> Tensor:
    """`labels` (N, H, W) with a frame of `value`, or of the nearest label for None."""
    if value is not None:
        return F.pad(labels, [width] * 4, value=value)
    rows, columns = (
        torch.arange(-width, size + width, device=labels.device).clamp(0, size - 1) for size in labels.shape[1:]
    )
    return labels[:, rows[:, None], columns]


def svls_prior(
    target: Tensor,
    num_classes: int,
    *,
    kernel_size: int = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The tau inside SVLS: Gaussian share of each class among the *neighbours*, the centre left out.

    tau_i = sum_(j in W(i), j != i) w_j y_j,  w as in `neighbour_window`

    Where a pixel has no neighbour that counts, tau_i is its own label. Arguments, shapes and errors as in
    `neighbour_prior`, whose "gaussian" prior is (y + tau) / 2 with this tau.

    Example:
        >>> target = torch.tensor([[[0, 0, 1]]])
        >>> svls_prior(target, 2)[0, 1, 0]
        tensor([0.0000, 0.5000, 0.0000])
    """
    window = neighbour_window(kernel_size, sigma, dtype=dtype, device=target.device)
    tau, seen = neighbour_shares(target, num_classes, window, border=border, ignore_index=ignore_index)
    return torch.where(seen, tau, one_hot(target, num_classes, ignore_index=ignore_index, dtype=dtype))


def one_hot(
    target: Tensor, num_classes: int, *, ignore_index: int = -100, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Labels (N, H, W) as indicators (N, C, H, W); ignored pixels are 0 in every class."""
    labels = check_labels(target, num_classes, ignore_index).unsqueeze(1)
    classes = torch.arange(num_classes, device=target.device).view(1, -1, 1, 1)
    return ((labels == classes) & (labels != ignore_index)).to(dtype)


def neighbour_prior(
    target: Tensor,
    num_classes: int,
    *,
    prior: str = "mean",
    kernel_size: int = 3,
    sigma: float = 1.0,
    border: str = "inside",
    ignore_index: int = -100,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The class shares tau of each pixel's neighbourhood, which NACL constrains the logits to.

    "mean": tau_k(i) = share of label k among the labels of the window, the centre included.
    "gaussian": tau(i) = (y_i + svls_prior_i) / 2, the label of SVLS.

    Args:
        target: labels (N, H, W), integers in [0, num_classes) or `ignore_index`.
        num_classes: C, at least 2.
        prior: "mean" or "gaussian".
        kernel_size: width of the window in pixels, odd. At 1, tau is the one-hot label.
        sigma: standard deviation in pixels of the "gaussian" prior; the "mean" prior does not use it.
        border: what counts beyond the image, see `neighbour_shares`.
        ignore_index: label of the pixels that have none; they are no neighbours, and their own tau is undefined.
        dtype: of the result.

    Returns:
        tau (N, C, H, W) in [0, 1]; it sums to 1 over the classes unless `border` is "zero".

    Raises:
        ValueError: unknown `prior` or `border`, even `kernel_size`, `sigma` not positive, wrong shape, or (on the
            CPU) labels out of range.
        TypeError: `target` not of an integer dtype.

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
    check_integer("num_classes", num_classes, low=2)
    check_kernel_size(kernel_size)
    if prior == "gaussian":
        tau = svls_prior(
            target,
            num_classes,
            kernel_size=kernel_size,
            sigma=sigma,
            border=border,
            ignore_index=ignore_index,
            dtype=dtype,
        )
        return (one_hot(target, num_classes, ignore_index=ignore_index, dtype=dtype) + tau) / 2
    window = torch.ones(kernel_size, kernel_size, dtype=dtype, device=target.device)
    return neighbour_shares(target, num_classes, window, border=border, ignore_index=ignore_index)[0]


def mixed_windows(target: Tensor, *, kernel_size: int = 3, ignore_index: int = -100) -> Tensor:
    """The pixels whose window holds more than one label: a band of (kernel_size - 1) / 2 on both sides of a border.

    Only there does SVLS change a label; elsewhere tau = y.

    Args:
        target: labels (N, H, W), not negative, or `ignore_index`.
        kernel_size: width of the window in pixels, odd.
        ignore_index: label of pixels that are nobody's neighbours, and are never in the band.

    Returns:
        bool (N, H, W).

    Example:
        >>> mixed_windows(torch.tensor([[[0, 0, 0, 1, 1]]]))
        tensor([[[False, False,  True,  True, False]]])
    """
    check_kernel_size(kernel_size)
    valid = target.long() != ignore_index
    labels = target.float()
    high, minus_low = (
        F.max_pool2d(torch.where(valid, x, -torch.inf), kernel_size, stride=1, padding=kernel_size // 2)
        for x in (labels, -labels)
    )
    return valid & (high != -minus_low)
