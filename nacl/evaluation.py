"""The metrics of a trained network, case by case, as it is and after temperature scaling."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nacl.data import Case
from nacl.data.case import check_regions
from nacl.data.slices import BUDGET, count_slices
from nacl.metrics import (
    REGIONS,
    CalibrationBins,
    adaptive_calibration_error,
    brier_score,
    calibration_bins,
    dice_score,
    negative_log_likelihood,
    posterior_divergence,
    posterior_error,
    reference_error,
    surface_distances,
    true_calibration_error,
)
from nacl.metrics.table import bins_table
from nacl.scaling import TemperatureScaling
from nacl.theory import without_bias
from nacl.training.device import placed, resolve_device
from nacl.training.prediction import case_logits

POST_HOC = ("none", "temperature", "unbiased")
"""What is done to the logits after training; see `post_hoc_logits`."""

SUMMARY = ("dice", "hd95", "ece_all", "ece_predicted_border", "ece_reference", "cece_reference", "nll", "brier")
"""The columns that a short table shows: overlap, distance, honest and reference calibration, and proper scores."""


Patch = tuple[int, int, int]


class _Forecasts:
    """(logits, labels) of each case, predicted anew whenever they are iterated."""

    def __init__(self, model: nn.Module, cases: Sequence[Case], device: str, patch: Patch | None) -> None:
        self.model, self.cases, self.device, self.patch = model, cases, device, patch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return map(self._of, self.cases)

    def _of(self, case: Case) -> tuple[Tensor, Tensor]:
        return _forecast(self.model, case, self.device, self.patch)


def fitted_temperature(
    model: nn.Module,
    valid: Sequence[Case],
    *,
    device: str = "auto",
    patch: Patch | None = None,
    budget: int = BUDGET,
) -> float:
    """The temperature that suits the validation cases best, by their likelihood.

    Args:
        model: maps images (N, M, H, W) to logits (N, C, H, W).
        valid: the cases.
        device: one of `nacl.training.DEVICES`.
        patch: the size of the windows of a 3D network, see `nacl.training.predict`.
        budget: bytes that the logits of all cases may take in memory; beyond it each pass of the fit predicts them
            anew, to the same result.
    """
    forecasts = _Forecasts(model, valid, device, patch)
    a_slice = sum(tensor[0].nbytes for tensor in next(iter(forecasts), ()))
    in_memory = count_slices(valid) * a_slice <= budget
    return TemperatureScaling().fit(list(forecasts) if in_memory else forecasts).temperature.item()


def post_hoc_logits(
    logits: Tensor, *, temperature: float | None = None, penalty_weight: float | None = None
) -> dict[str, Tensor]:
    """Logits as they are ("none"), divided by a temperature, and with NACL's bias undone ("unbiased"), as far as known.

    Args:
        logits: (N, C, ...).
        temperature: what divides them.
        penalty_weight: of the NACL whose bias is known, see `Run.biased_by` and `nacl.theory.without_bias`.
    """
    found = {"none": logits}
    if temperature is not None:
        found["temperature"] = logits / temperature
    if penalty_weight is not None:
        found["unbiased"] = without_bias(logits, penalty_weight=penalty_weight)
    return found


def evaluate(
    model: nn.Module,
    cases: Iterable[Case],
    num_classes: int,
    *,
    regions: Mapping[str, Sequence[int]] | None = None,
    temperature: float | None = None,
    penalty_weight: float | None = None,
    device: str = "auto",
    patch: Patch | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics of each case, and its bins of confidence; all but surface distances are computed on the device.

    Args:
        model: maps images (N, M, H, W) to logits (N, num_classes, H, W).
        cases: what to test on.
        num_classes: number of classes, C.
        regions: named unions of classes that overlap and distance are measured on beside the classes, see
            `nacl.data.Dataset`.
        temperature, penalty_weight: also evaluate what `post_hoc_logits` makes of them, in rows of their own.
        device: one of `DEVICES`.
        patch: the size of the windows of a 3D network, see `nacl.training.predict`.

    Returns:
        One row a case and `post_hoc`: `dice`, `hd95` and `asd` (means over the foreground
        classes that the case or its prediction has, or where there are `regions` over those), `dice_1`, `hd95_1`,
        `asd_1`, ..., and for a region such as ET `dice_ET`, `hd95_ET`, `asd_ET`; for each of `nacl.metrics.REGIONS`
        `ece_REGION`, its part `over_REGION` from bins that are over-confident, and `cece_REGION`; `mce_all`;
        `adaptive_ece_all`; `ece_reference` and `cece_reference` as in the papers' code (true foreground); `nll` and
        `brier`; where the posterior is known `kl_posterior`, `posterior_error` and `true_calibration_error`.
        And one row a `post_hoc`, case, region and bin: `count`, `confidence_sum`, `correct_sum`.

    Raises:
        ValueError: regions with a class that is not there, or named like one; unknown or missing device.
    """
    regions = regions or {}
    check_regions(regions, num_classes)

    def evaluated(case: Case) -> list[tuple[dict, pd.DataFrame]]:
        found = []
        logits, target = _forecast(model, case, device, patch)
        about = {"case": case.name, "patient": case.patient}
        shape = _segmentation_metrics(logits.argmax(dim=1).cpu().numpy(), case, num_classes, regions)
        changed = post_hoc_logits(logits, temperature=temperature, penalty_weight=penalty_weight)
        for post_hoc, of_case in changed.items():
            calibration, bins = _calibration_metrics(of_case, target, case.posterior)
            row = {**about, "post_hoc": post_hoc, **shape, **calibration}
            found.append((row, bins_table(bins).assign(post_hoc=post_hoc, **about)))
        return found

    pairs = chain.from_iterable(map(evaluated, cases))  # map lets a case go before it asks for the next
    rows, tables = zip(*pairs, strict=True)
    return pd.DataFrame(rows), pd.concat(tables, ignore_index=True)


def _segmentation_metrics(
    predicted: NDArray, case: Case, num_classes: int, regions: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    of_classes = _overlap_and_distances(predicted, case.label, num_classes, case.spacing)
    parts = {str(k): values for k, values in enumerate(of_classes, start=1)}
    of_regions = {}
    for name, classes in regions.items():
        masks = (np.isin(labels, classes).astype(np.uint8) for labels in (predicted, case.label))
        (of_regions[name],) = _overlap_and_distances(*masks, 2, case.spacing)
    means = {metric: _mean([values[metric] for values in (of_regions or parts).values()]) for metric in of_classes[0]}
    return means | {f"{metric}_{name}": v[metric] for metric in means for name, v in (parts | of_regions).items()}


def _overlap_and_distances(
    predicted: NDArray, target: NDArray, num_classes: int, spacing: tuple[float, float, float]
) -> list[dict[str, float]]:
    """Dice, HD95 and the average surface distance of each foreground class."""
    overlap = dice_score(predicted, target, num_classes)
    distances = surface_distances(predicted, target, num_classes, spacing=spacing)
    return [
        {"dice": dice, "hd95": found.hausdorff_95(), "asd": found.average()}
        for dice, found in zip(overlap, distances, strict=True)
    ]


def _mean(values: list[float]) -> float:
    """The mean of what is not NaN."""
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def _calibration_metrics(
    logits: Tensor, target: Tensor, posterior: NDArray | None
) -> tuple[dict[str, float], dict[str, CalibrationBins]]:
    options = {"from_logits": True}
    top = calibration_bins(logits, target, **options)
    classes = calibration_bins(logits, target, classwise=True, **options)
    row = {}
    for region in REGIONS:
        row[f"ece_{region}"] = top[region].expected.item()
        row[f"over_{region}"] = top[region].overconfidence.item()
        row[f"cece_{region}"] = classes[region].expected.mean().item()
    row["mce_all"] = top["all"].maximum.item()
    row["adaptive_ece_all"] = adaptive_calibration_error(logits, target, **options)
    row["ece_reference"] = reference_error(top["true_foreground"]).item()
    row["cece_reference"] = reference_error(classes["true_foreground"]).item()
    row["nll"] = negative_log_likelihood(logits, target, **options)
    row["brier"] = brier_score(logits, target, **options)
    if posterior is not None:
        probs, posterior = logits.softmax(dim=1), torch.from_numpy(posterior).movedim(0, 1).to(logits.device)
        row["kl_posterior"] = posterior_divergence(probs, posterior)
        row["posterior_error"] = posterior_error(probs, posterior)
        row["true_calibration_error"] = true_calibration_error(probs, posterior)
    return row, top


def _forecast(model: nn.Module, case: Case, device: str, patch: Patch | None) -> tuple[Tensor, Tensor]:
    """Logits (D, C, H, W) and labels of a case, on the device, unless that has no float64 to sum in (MPS)."""
    place = resolve_device(device)
    logits = case_logits(placed(model, place, patch), case, place, patch)
    logits = logits.cpu() if logits.device.type == "mps" else logits
    return logits, torch.from_numpy(case.label).to(logits.device)
