"""The numbers of a report: of each case, over patients with intervals, and over all pixels."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from nacl.metrics import (
    REGIONS,
    CalibrationBins,
    brier_score,
    calibration_bins,
    dice_score,
    hausdorff_distance_95,
    negative_log_likelihood,
)
from nacl.reporting.cases import CheckedCase
from nacl.statistics import mean_interval

BAND_RESAMPLES = 1000


class Estimate(NamedTuple):
    """A mean over patients with its 95% interval, whose ends are NaN for fewer than two."""

    mean: float
    low: float
    high: float
    patients: int

    @property
    def has_interval(self) -> bool:
        """Whether there were patients enough for one."""
        return self.patients > 1


class CaseScores(NamedTuple):
    """What is kept of a case: a row of numbers, its bins by region, each class's bins, and pixels by class."""

    row: dict[str, object]
    bins: dict[str, CalibrationBins]
    class_bins: CalibrationBins
    labelled: np.ndarray
    predicted: np.ndarray


def score_case(case: CheckedCase, *, n_bins: int, ignore_index: int) -> CaseScores:
    """The numbers of a case, by `nacl.metrics`.

    The row: `case`, `patient`, `pixels`; for each region `ece_`, `over_` and `under_` (its parts), `mce_`, `cece_`
    (classwise), `confidence_`, `accuracy_`, `gap_` (the former less the latter) and `share_` (of the pixels); `nll`,
    `brier`; `dice`, `hd95` (means over the foreground classes that the case or its prediction has), `dice_1`, ...
    """
    scores, target = case.scores, case.target
    options = {"from_logits": case.from_logits, "ignore_index": ignore_index}
    bins = calibration_bins(scores, target, n_bins=n_bins, **options)
    class_bins = calibration_bins(scores, target, n_bins=n_bins, classwise=True, **options)
    pixels = int(bins["all"].total)
    row = {"case": case.name, "patient": case.patient, "pixels": pixels}
    for region in REGIONS:
        row |= _region_numbers(region, bins[region], class_bins[region], pixels)
    row["nll"] = negative_log_likelihood(scores, target, **options)
    row["brier"] = brier_score(scores, target, **options)
    valid = (target != ignore_index)[0]
    predicted = torch.where(valid, scores.argmax(dim=1)[0], 0).numpy()
    label = torch.where(valid, target[0], 0).numpy()
    dice = dice_score(predicted, label, case.num_classes)
    hd95 = hausdorff_distance_95(predicted, label, case.num_classes, spacing=case.spacing)
    row |= {"dice": nan_mean(dice), "hd95": nan_mean(hd95), "unit": "voxels" if case.spacing is None else "mm"}
    row |= {f"dice_{k}": value for k, value in enumerate(dice, start=1)}
    row |= {f"hd95_{k}": value for k, value in enumerate(hd95, start=1)}
    row["scores"] = "logits" if case.from_logits else "probabilities"
    counted = (np.bincount(x[valid.numpy()], minlength=case.num_classes) for x in (label, predicted))
    return CaseScores(row, bins, class_bins["all"], *counted)


def _region_numbers(region: str, bins: CalibrationBins, class_bins: CalibrationBins, pixels: int) -> dict[str, float]:
    total = bins.total
    confidence, accuracy = (float(x.sum() / total) for x in (bins.confidence_sum, bins.correct_sum))
    return {
        f"ece_{region}": bins.expected.item(),
        f"over_{region}": bins.overconfidence.item(),
        f"under_{region}": bins.underconfidence.item(),
        f"mce_{region}": bins.maximum.item(),
        f"cece_{region}": class_bins.expected.mean().item(),
        f"confidence_{region}": confidence,
        f"accuracy_{region}": accuracy,
        f"gap_{region}": confidence - accuracy,
        f"share_{region}": float(total) / pixels,
    }


class Summary:
    """The numbers of all cases so far, in memory of a row and some bins a case.

    Attributes:
        bins: by region, the bins of each patient.
        class_bins: of each patient, with a row for each class.
        labelled, predicted: pixels by class, over all cases.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []
        self.bins: dict[str, dict[str, CalibrationBins]] = {region: {} for region in REGIONS}
        self.class_bins: dict[str, CalibrationBins] = {}
        self.labelled = self.predicted = 0

    def add(self, scores: CaseScores) -> None:
        """Count a case in."""
        self.rows.append(scores.row)
        patient = scores.row["patient"]
        for region, bins in scores.bins.items():
            _add(self.bins[region], patient, bins)
        _add(self.class_bins, patient, scores.class_bins)
        self.labelled, self.predicted = self.labelled + scores.labelled, self.predicted + scores.predicted

    @property
    def table(self) -> pd.DataFrame:
        """One row a case."""
        return pd.DataFrame(self.rows)

    @property
    def patients(self) -> int:
        """Number of them."""
        return len(self.class_bins)

    @property
    def unit(self) -> str:
        """What intervals draw: "case" where each is a patient of its own, else "patient"."""
        return "case" if self.patients == len(self.rows) else "patient"

    @property
    def pixels(self) -> int:
        """Number of valid ones."""
        return sum(row["pixels"] for row in self.rows)

    def estimate(self, column: str, *, low: float = -np.inf, high: float = np.inf) -> Estimate:
        """The mean over patients of their cases' mean, with an interval cut to the metric's range, [low, high]."""
        by_patient = self.table.groupby("patient", sort=False)[column].mean()
        return estimate(by_patient.to_numpy(), low=low, high=high)

    def pooled(self, region: str) -> CalibrationBins:
        """The bins of a region over all pixels of all cases."""
        return _sum(self.bins[region].values())

    def pooled_classes(self) -> CalibrationBins:
        """Each class's bins over all pixels of all cases."""
        return _sum(self.class_bins.values())

    def excess_at_border(self) -> float:
        """The part of the excess of confidence over accuracy, all pixels summed, that lies at the predicted border."""
        border, everywhere = (
            (bins.confidence_sum - bins.correct_sum).sum().item()
            for bins in (self.pooled("predicted_border"), self.pooled("all"))
        )
        return border / everywhere if everywhere > 0 else np.nan

    def share(self, region: str) -> float:
        """The share of all pixels that a region has."""
        return self.pooled(region).total.item() / self.pixels

    def pixel_mean(self, column: str) -> float:
        """The mean over all pixels of what a column is the mean of in each case."""
        table = self.table
        return float(np.average(table[column], weights=table["pixels"]))


def estimate(values: np.ndarray, *, low: float = -np.inf, high: float = np.inf) -> Estimate:
    """Mean and interval of one number a patient, NaN left out."""
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return Estimate(float(values[0]) if len(values) else np.nan, np.nan, np.nan, len(values))
    found = mean_interval(values)
    return Estimate(found.mean, max(low, found.low), min(high, found.high), len(values))


def reliability(bins: Sequence[CalibrationBins], *, row: int | None = None, seed: int = 0) -> pd.DataFrame:
    """The bins that are not empty: `confidence`, `accuracy`, `share` of the pixels, and a band `low` to `high`.

    The band holds 95 of 100 accuracies of patients drawn anew; NaN for fewer than two patients.

    Args:
        bins: of each patient.
        row: of a class, where bins have a row for each.
        seed: of the draws.
    """
    pick = (lambda x: x) if row is None else (lambda x: x[row])
    count = np.array([pick(b.count).numpy() for b in bins], dtype=np.float64)
    correct = np.array([pick(b.correct_sum).numpy() for b in bins])
    confidence = np.array([pick(b.confidence_sum).numpy() for b in bins])
    total = count.sum(axis=0)
    there = total > 0
    low = high = np.full(len(total), np.nan)
    if len(bins) > 1:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(bins), np.full(len(bins), 1 / len(bins)), size=BAND_RESAMPLES)
        with np.errstate(invalid="ignore"):
            accuracies = (drawn @ correct) / (drawn @ count)
        accuracies[:, ~there] = 0
        low, high = np.nanquantile(accuracies, [0.025, 0.975], axis=0)
    with np.errstate(invalid="ignore"):
        columns = {"confidence": confidence.sum(axis=0) / total, "accuracy": correct.sum(axis=0) / total}
    return pd.DataFrame({**columns, "share": total / max(1, total.sum()), "low": low, "high": high})[there]


def nan_mean(values: np.ndarray) -> float:
    """Mean of what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _add(found: dict[str, CalibrationBins], patient: str, bins: CalibrationBins) -> None:
    found[patient] = found[patient] + bins if patient in found else bins


def _sum(parts: Iterable[CalibrationBins]) -> CalibrationBins:
    first, *others = parts
    for other in others:
        first = first + other
    return first
