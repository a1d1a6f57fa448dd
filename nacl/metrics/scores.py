"""Proper scores: on average, a forecast can only lower them by being nearer to the truth."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nacl._checks import check_integer
from nacl._windows import indicators
from nacl.metrics._forecast import Forecast
from nacl.metrics._metric import Metric, Sums
from nacl.metrics.bins import CalibrationBins, bins_over
from nacl.metrics.regions import mask_of

FLOOR = 1e-12  # a probability that underflowed costs 27.6 nats, not infinitely many


class NegativeLogLikelihood(Metric):
    """Mean of -log p_y over pixels, in nats, over any number of batches.

    Args:
        region: the pixels that count, see `region_mask`.
        aggregation: "pooled": all pixels of all updates; "cases": the mean over updates, each of them a case.
        num_classes: C; needed only where a state must exist before the first update (`reduce`, torchmetrics).
        from_logits: updates bring logits. Probabilities below 1e-12 count as 1e-12; logits need no such floor.
        ignore_index: label of the pixels that never count.

    Example:
        >>> score = NegativeLogLikelihood()
        >>> score.update(torch.full((1, 2, 4, 4), 0.5), torch.zeros(1, 4, 4, dtype=torch.long))
        >>> score.name, round(score.compute(), 4)
        ('nll_all', 0.6931)
    """

    def __init__(
        self,
        *,
        region: str = "all",
        aggregation: str = "pooled",
        num_classes: int | None = None,
        from_logits: bool = False,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(
            region=region,
            aggregation=aggregation,
            num_classes=num_classes,
            from_logits=from_logits,
            ignore_index=ignore_index,
        )

    @property
    def name(self) -> str:
        """Such as "nll_all"."""
        return f"nll_{self.region}"

    def pixel_sums(self, probs: Tensor, target: Tensor) -> Sums:
        """The sum of -log p_y, and the number of pixels."""
        forecast = Forecast.checked(probs, target, self.ignore_index, from_logits=self.from_logits)
        total = torch.zeros((), dtype=torch.float64, device=forecast.scores.device)
        pixels = torch.zeros_like(total, dtype=torch.int64)
        for costs, part in forecast.cost_of_label(FLOOR, mask_of(forecast, self.region)):
            total += (costs if part is None else costs.masked_fill_(~part, 0)).sum(dtype=torch.float64)
            pixels += costs.numel() if part is None else part.sum()
        return {"nll": total, "pixels": pixels}

    def value(self, sums: Sums) -> float:
        """Their ratio."""
        return (sums["nll"] / sums["pixels"]).item()


@dataclass(frozen=True)
class BrierParts:
    """What a Brier score is made of: score = reliability - resolution + uncertainty + within_bins.

    Attributes:
        score: mean over pixels of sum_k (p_k - y_k)^2, in [0, 2].
        reliability: sum over classes and bins of n_b / n (mean p_b - share_b)^2; 0 is calibrated.
        resolution: sum of n_b / n (share_b - share)^2; the more, the better the bins tell pixels apart.
        uncertainty: sum over classes of share (1 - share): what the data set gives, whatever the forecast.
        within_bins: what the bins do not see: the variance of p within a bin, less twice its covariance with y.
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


class BrierScore(Metric):
    """Brier score over any number of batches: the mean over pixels of sum_k (p_k - y_k)^2, in [0, 2].

    Args: as `NegativeLogLikelihood`, and
        n_bins: number of bins of equal width a class, for `parts`.

    Example:
        >>> score = BrierScore()
        >>> score.update(torch.full((1, 2, 4, 4), 0.5), torch.zeros(1, 4, 4, dtype=torch.long))
        >>> score.compute(), score.parts.reliability
        (0.5, 0.5)

    References:
        Brier, 1950. Murphy, J. Appl. Meteorology 1973 (the parts). Stephenson et al., Weather and Forecasting 2008
        (within bins).
    """

    def __init__(
        self,
        *,
        n_bins: int = 15,
        region: str = "all",
        aggregation: str = "pooled",
        num_classes: int | None = None,
        from_logits: bool = False,
        ignore_index: int = -100,
    ) -> None:
        check_integer("n_bins", n_bins, low=1)
        self.n_bins = n_bins
        super().__init__(
            region=region,
            aggregation=aggregation,
            num_classes=num_classes,
            from_logits=from_logits,
            ignore_index=ignore_index,
        )

    @property
    def name(self) -> str:
        """Such as "brier_all"."""
        return f"brier_{self.region}"

    @property
    def parts(self) -> BrierParts:
        """The score taken apart.

        Raises:
            RuntimeError: no update yet, or an aggregation by cases.
        """
        sums = self.pooled_sums("parts")
        bins = CalibrationBins(sums["counts"], sums["confidences"])
        weight = bins.count.double() / bins.total.unsqueeze(-1)
        share = bins.correct_sum.sum(dim=-1, keepdim=True) / bins.total.unsqueeze(-1)
        reliability = (weight * (bins.confidence - bins.accuracy).square().nan_to_num()).sum().item()
        resolution = (weight * (bins.accuracy - share).square().nan_to_num()).sum().item()
        uncertainty = (share * (1 - share)).sum().item()
        score = self.value(sums)
        return BrierParts(score, reliability, resolution, uncertainty, score - reliability + resolution - uncertainty)

    def pixel_sums(self, probs: Tensor, target: Tensor) -> Sums:
        """The sum of squares, and the bins of each class."""
        forecast = Forecast.checked(probs, target, self.ignore_index, from_logits=self.from_logits)
        mask = mask_of(forecast, self.region)
        (bins,) = bins_over(forecast, [mask], self.n_bins, classwise=True)
        squares = torch.zeros((), dtype=torch.float64, device=forecast.scores.device)
        for p, labels, part in forecast.probs(mask):
            distance = (p - indicators(labels, forecast.num_classes)).square_().sum(dim=1)
            squares += (distance if part is None else distance.masked_fill_(~part, 0)).sum(dtype=torch.float64)
        return {"squares": squares, **vars(bins)}

    def value(self, sums: Sums) -> float:
        """Sum of squares over the number of pixels."""
        return (sums["squares"] / sums["counts"][0].sum()).item()


def negative_log_likelihood(
    probs: Tensor, target: Tensor, *, region: str = "all", from_logits: bool = False, ignore_index: int = -100
) -> float:
    """Mean of -log p_y over the pixels of a region, in nats; NaN if there is none.

    Args:
        probs: softmax output (N, C, ...), in 2D or 3D; values below 1e-12 count as 1e-12.
        target: labels (N, ...), integers in [0, C) or `ignore_index`.
        region: the pixels that count, see `region_mask`.
        from_logits: `probs` are logits.
        ignore_index: label of the pixels that never count.

    Raises:
        ValueError: shapes that do not fit, labels or probabilities out of range, NaN.
        TypeError: dtypes that do not fit.

    Example:
        >>> probs = torch.full((1, 2, 4, 4), 0.5)
        >>> round(negative_log_likelihood(probs, torch.zeros(1, 4, 4, dtype=torch.long)), 4)
        0.6931
    """
    score = NegativeLogLikelihood(region=region, from_logits=from_logits, ignore_index=ignore_index)
    score.update(probs, target)
    return score.compute()


def brier_score(
    probs: Tensor, target: Tensor, *, region: str = "all", from_logits: bool = False, ignore_index: int = -100
) -> float:
    """Mean over the pixels of a region of sum_k (p_k - y_k)^2, in [0, 2]; NaN if there is none.

    Arguments and errors as in `negative_log_likelihood`; `BrierScore` takes it apart.

    Example:
        >>> brier_score(torch.full((1, 2, 4, 4), 0.5), torch.zeros(1, 4, 4, dtype=torch.long))
        0.5
    """
    score = BrierScore(region=region, from_logits=from_logits, ignore_index=ignore_index)
    score.update(probs, target)
    return score.compute()
