"""Calibration errors from bins of confidence, over any number of batches."""

import torch
from torch import Tensor

from nacl._checks import check_choice, check_flag, check_integer, expectation
from nacl.metrics._forecast import Forecast
from nacl.metrics._metric import Metric, Sums
from nacl.metrics.bins import CalibrationBins, bins_over
from nacl.metrics.regions import mask_of

ERRORS = {
    "expected": "ece",
    "overconfidence": "over",
    "underconfidence": "under",
    "average": "ace",
    "maximum": "mce",
    "rms": "rmsce",
    "debiased": "debiased_rmsce",
}
"""The errors that bins give (see the properties of `CalibrationBins`), and their short names."""

CONVENTIONS = ("standard", "reference")


class CalibrationError(Metric):
    """Calibration error over any number of batches, in memory of C rows of bins.

    `classwise=False`: of the predicted class; the expected error is
    ECE = sum_b n_b / n abs(accuracy_b - mean confidence_b). `classwise=True`: the same for each class's probability and
    its indicator, then the mean over the classes.

    Args:
        n_bins: number of bins of equal width on [0, 1].
        region: the pixels that count, see `region_mask`.
        error: a key of `ERRORS`.
        classwise: each class's probability instead of the largest one.
        convention: "standard"; or "reference", which gives the numbers of the papers' code with its faults: only the
            classes up to the largest label in the region count, class 0 among them even where the region leaves it
            out, and a probability of exactly 0 is in no bin. It matters for `classwise`; the papers' region is
            "true_foreground", and their aggregation "cases". (Their edges, from torch.linspace, are off by one rounding
            in six of 15 bins, which moves a probability of exactly 0.2, 0.4 or 0.6 to the next bin. Ours are not.)
        aggregation: "pooled": all pixels of all updates; "cases": each update is a case, and the result is the mean
            over those that have a pixel in the region.
        num_classes: C; needed only where a state must exist before the first update (`reduce`, torchmetrics).
        from_logits: updates bring logits; their softmax is taken slab by slab, so that no copy of them is made.
        ignore_index: label of the pixels that never count.

    Raises:
        ValueError: unknown `region`, `error`, `convention` or `aggregation`, `n_bins` below 1, an `error` other than
            "expected" in the reference's convention.

    Example:
        >>> error = CalibrationError()
        >>> probs = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
        >>> error.update(probs, torch.zeros(1, 8, 8, dtype=torch.long))
        >>> error.name, round(error.compute(), 6)
        ('ece_all', 0.1)

    References:
        Guo et al., ICML 2017 (ECE, MCE). Kull et al., NeurIPS 2019 (classwise). Neumann et al., NeurIPS workshop 2018
        (ACE). Kumar et al., NeurIPS 2019 (debiased).
    """

    def __init__(
        self,
        *,
        n_bins: int = 15,
        region: str = "all",
        error: str = "expected",
        classwise: bool = False,
        convention: str = "standard",
        aggregation: str = "pooled",
        num_classes: int | None = None,
        from_logits: bool = False,
        ignore_index: int = -100,
    ) -> None:
        check_integer("n_bins", n_bins, low=1)
        check_choice("error", error, ERRORS)
        check_choice("convention", convention, CONVENTIONS)
        check_flag("classwise", classwise)
        if convention == "reference" and error != "expected":
            raise ValueError(expectation("error", "to be 'expected' in the reference's convention", repr(error)))
        self.n_bins, self.error, self.classwise, self.convention = n_bins, error, classwise, convention
        super().__init__(
            region=region,
            aggregation=aggregation,
            num_classes=num_classes,
            from_logits=from_logits,
            ignore_index=ignore_index,
        )

    @property
    def name(self) -> str:
        """Such as "ece_all", or "classwise_mce_predicted_border"."""
        parts = ["classwise"] * self.classwise + ["reference"] * (self.convention == "reference")
        return "_".join([*parts, ERRORS[self.error], self.region])

    @property
    def bins(self) -> CalibrationBins:
        """The sums so far: of shape (n_bins,), or (C, n_bins) for `classwise`.

        Raises:
            RuntimeError: no update yet, or an aggregation by cases, which keeps no bins.
        """
        return CalibrationBins(**self.pooled_sums("bins"))

    def pixel_sums(self, probs: Tensor, target: Tensor) -> Sums:
        """Counts and sums of confidence by bin."""
        forecast = Forecast.checked(probs, target, self.ignore_index, from_logits=self.from_logits)
        mask = mask_of(forecast, self.region)
        (bins,) = bins_over(forecast, [mask], self.n_bins, classwise=self.classwise)
        return vars(bins)

    def value(self, sums: Sums) -> float:
        """The error that bins stand for."""
        bins = CalibrationBins(**sums)
        if self.convention == "standard":
            return getattr(bins, self.error).mean().item()
        return reference_error(bins).item()


def reference_error(bins: CalibrationBins) -> Tensor:
    """The expected error as in the papers' code: classwise, over the classes up to the largest label present."""
    if bins.counts.ndim == 2:
        return bins.reference
    present = bins.counts[:, 1].sum(dim=-1) > 0
    classes = torch.arange(1, len(present) + 1, device=present.device)
    return bins.reference[: int((present * classes).max().clamp_min(1))].mean()


def expected_calibration_error(
    probs: Tensor,
    target: Tensor,
    *,
    n_bins: int = 15,
    region: str = "all",
    from_logits: bool = False,
    ignore_index: int = -100,
) -> float:
    """Expected calibration error of the predicted class: `CalibrationError` on one batch.

    Args:
        probs: softmax output (N, C, ...), in 2D or 3D.
        target: labels (N, ...), integers in [0, C) or `ignore_index`.
        n_bins: number of bins of equal width, (a, b].
        region: "all", "predicted_foreground", "predicted_border", or "true_foreground" (that of the papers).
        from_logits: `probs` are logits.
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
    metric = CalibrationError(n_bins=n_bins, region=region, from_logits=from_logits, ignore_index=ignore_index)
    metric.update(probs, target)
    return metric.compute()


def classwise_calibration_error(
    probs: Tensor,
    target: Tensor,
    *,
    n_bins: int = 15,
    region: str = "all",
    convention: str = "standard",
    from_logits: bool = False,
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
        n_bins=n_bins,
        region=region,
        classwise=True,
        convention=convention,
        from_logits=from_logits,
        ignore_index=ignore_index,
    )
    metric.update(probs, target)
    return metric.compute()
