"""Calibration errors from sums in bins of confidence: counts in int64, sums in float64."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nacl._checks import check_choice, check_integer, checked_forecast, expectation
from nacl.priors import mixed_windows, one_hot

REGIONS = ("all", "predicted_foreground", "predicted_border", "true_foreground")
CONVENTIONS = ("standard", "reference")
BORDER_WIDTH = 2  # pixels on either side of the predicted border


def region_mask(probs: Tensor, target: Tensor, region: str = "all", *, ignore_index: int = -100) -> Tensor:
    """The pixels over which a calibration error is taken.

    "all": every valid pixel. "predicted_foreground": the predicted class is not 0. "predicted_border": within
    2 pixels of another predicted class. "true_foreground": the true label is not 0, as in the papers; this chooses
    pixels by the answer, so even the true posterior has an error there.

    Args:
        probs: softmax output (N, C, H, W).
        target: labels (N, H, W), integers in [0, C) or `ignore_index`.
        region: one of `REGIONS`.
        ignore_index: label of pixels that are in no region.

    Returns:
        bool (N, H, W).

    Raises:
        ValueError: unknown `region`.
    """
    check_choice("region", region, REGIONS)
    valid = target.long() != ignore_index
    if region == "true_foreground":
        return valid & (target != 0)
    if region == "all":
        return valid
    predicted = probs.argmax(dim=1)
    if region == "predicted_foreground":
        return valid & (predicted != 0)
    return valid & mixed_windows(predicted, kernel_size=2 * BORDER_WIDTH + 1)


@dataclass(frozen=True)
class CalibrationBins:
    """Sums over the pixels of each bin of confidence, of shape (n_bins,), or (C, n_bins) for the classwise error.

    Bins are of equal width, (a, b], and the first holds 0 too. `total` counts pixels.
    """

    count: Tensor
    confidence_sum: Tensor
    correct_sum: Tensor
    total: int

    @property
    def accuracy(self) -> Tensor:
        """Share of correct pixels in each bin; NaN in an empty bin."""
        return self.correct_sum / self.count

    @property
    def confidence(self) -> Tensor:
        """Mean confidence in each bin; NaN in an empty bin."""
        return self.confidence_sum / self.count

    @property
    def error(self) -> Tensor:
        """sum_b abs(confidence_sum_b - correct_sum_b) / total, for one row of bins or each; NaN for no pixels."""
        gap = (self.confidence_sum - self.correct_sum).abs().sum(dim=-1)
        return gap / self.total if self.total else torch.full_like(gap, torch.nan)


class CalibrationError:
    """Calibration error over any number of batches, in memory of one row of bins.

    `classwise=False`: expected calibration error of the predicted class,
    ECE = sum_b n_b / n abs(accuracy_b - mean confidence_b). `classwise=True`: the same for each class's probability and
    its indicator, then the mean over the classes.

    Args:
        n_bins: number of bins of equal width on [0, 1].
        region: the pixels that count, see `region_mask`.
        classwise: each class's probability instead of the largest one.
        convention: "standard", or "reference": only classes up to the largest label seen count, and probabilities of
            exactly 0 fall out of the first bin, as in the authors' code. Matters for `classwise` only.
        ignore_index: label of the pixels that never count.

    Raises:
        ValueError: unknown `region` or `convention`, `n_bins` below 1.

    Example:
        >>> error = CalibrationError()
        >>> probs = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
        >>> error.update(probs, torch.zeros(1, 8, 8, dtype=torch.long))
        >>> round(error.compute(), 6)
        0.1

    References:
        Guo et al., ICML 2017 (ECE). Kull et al., NeurIPS 2019 (classwise).
    """

    def __init__(
        self,
        *,
        n_bins: int = 15,
        region: str = "all",
        classwise: bool = False,
        convention: str = "standard",
        ignore_index: int = -100,
    ) -> None:
        check_integer("n_bins", n_bins, low=1)
        check_choice("region", region, REGIONS)
        check_choice("convention", convention, CONVENTIONS)
        self.n_bins, self.region, self.classwise = n_bins, region, classwise
        self.convention, self.ignore_index = convention, ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._sums: CalibrationBins | None = None
        self._largest_label = 0

    def update(self, probs: Tensor, target: Tensor) -> None:
        """Add a batch: `probs` (N, C, H, W) in [0, 1], `target` (N, H, W). It is scored on the CPU, in float64.

        Raises:
            ValueError: shapes that do not fit, labels or probabilities out of range, NaN, and, for `classwise`, a
                changed number of classes.
            TypeError: dtypes that do not fit.
        """
        probs, target = checked_forecast(probs, target, self.ignore_index)
        where = region_mask(probs, target, self.region, ignore_index=self.ignore_index)
        if self.classwise:
            correct = one_hot(target, probs.shape[1], ignore_index=self.ignore_index, dtype=torch.bool).movedim(1, 0)[
                :, where
            ]
            confidence = probs.movedim(1, 0)[:, where]
        else:
            top, predicted = probs.max(dim=1)
            confidence, correct = top[where][None], (predicted == target)[where][None]
        sums = _bin_sums(confidence, correct, self.n_bins, drop_zeros=self.convention == "reference")
        if self._sums is not None:
            if self._sums.count.shape != sums.count.shape:
                raise ValueError(expectation("probs", f"with {len(self._sums.count)} classes", probs.shape[1]))
            pairs = ((getattr(self._sums, name), getattr(sums, name)) for name in sums.__dataclass_fields__)
            sums = CalibrationBins(*(a + b for a, b in pairs))
        self._sums = sums
        if where.any():
            self._largest_label = max(self._largest_label, int(target[where].max()))

    @property
    def bins(self) -> CalibrationBins:
        """The sums so far: of shape (n_bins,), or (C, n_bins) for `classwise`."""
        if self._sums is None:
            raise RuntimeError("Expected `update` before `compute` or `bins`, got no data. Call update(probs, target).")
        if self.classwise:
            return self._sums
        s = self._sums
        return CalibrationBins(s.count[0], s.confidence_sum[0], s.correct_sum[0], s.total)

    def compute(self) -> float:
        """The error in [0, 1]; NaN if no pixel was in the region."""
        errors = self.bins.error
        if self.classwise and self.convention == "reference":
            errors = errors[: self._largest_label + 1]
        return errors.mean().item()


def expected_calibration_error(
    probs: Tensor, target: Tensor, *, n_bins: int = 15, region: str = "all", ignore_index: int = -100
) -> float:
    """Expected calibration error of the predicted class: `CalibrationError` on one batch.

    Args:
        probs: softmax output (N, C, H, W).
        target: labels (N, H, W), integers in [0, C) or `ignore_index`.
        n_bins: number of bins of equal width, (a, b].
        region: "all", "predicted_foreground", "predicted_border", or "true_foreground" (that of the papers).
        ignore_index: label of the pixels that never count.

    Returns:
        The error in [0, 1]; NaN if no pixel is in the region.

    Raises:
        ValueError: shapes that do not fit, values out of range, unknown `region`.
        TypeError: dtypes that do not fit.

    Example:
        >>> probs = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        >>> round(expected_calibration_error(probs, torch.zeros(1, 4, 4, dtype=torch.long)), 6)
        0.2
    """
    metric = CalibrationError(n_bins=n_bins, region=region, ignore_index=ignore_index)
    metric.update(probs, target)
    return metric.compute()


def classwise_calibration_error(
    probs: Tensor,
    target: Tensor,
    *,
    n_bins: int = 15,
    region: str = "all",
    convention: str = "standard",
    ignore_index: int = -100,
) -> float:
    """Calibration error of each class's probability, then the mean over classes: `CalibrationError` on one batch.

    Arguments, result and errors as in `expected_calibration_error`; `convention="reference"` averages over the
    classes 0 to the largest label in the region, as the authors' code does, instead of over all C.

    Example:
        >>> probs = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        >>> round(classwise_calibration_error(probs, torch.zeros(1, 4, 4, dtype=torch.long)), 6)
        0.2
    """
    metric = CalibrationError(
        n_bins=n_bins, region=region, classwise=True, convention=convention, ignore_index=ignore_index
    )
    metric.update(probs, target)
    return metric.compute()


def _bin_sums(confidence: Tensor, correct: Tensor, n_bins: int, *, drop_zeros: bool) -> CalibrationBins:
    """Sums per row and bin of `confidence` and `correct`, both (rows, pixels)."""
    rows, total = confidence.shape
    # not torch.linspace, whose inner edges are off by one rounding
    inner_edges = torch.arange(1, n_bins, dtype=torch.float64, device=confidence.device) / n_bins
    index = torch.bucketize(confidence.contiguous(), inner_edges.to(confidence.dtype))
    index += torch.arange(rows, device=index.device)[:, None] * n_bins
    counted = (confidence > 0).double() if drop_zeros else None
    correct = correct.double() if counted is None else correct * counted

    def sums(weights: Tensor | None) -> Tensor:
        weights = None if weights is None else weights.flatten()
        return torch.bincount(index.flatten(), weights, minlength=rows * n_bins).view(rows, n_bins)

    # bincount of nothing is int64 even with weights
    return CalibrationBins(sums(counted).long(), sums(confidence.double()).double(), sums(correct).double(), total)
