"""The metrics of a trained network, case by case."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import nn

from nacl.data import Case
from nacl.metrics import (
    REGIONS,
    CalibrationError,
    dice_score,
    hausdorff_distance_95,
    negative_log_likelihood,
    posterior_divergence,
)
from nacl.training import predict

SUMMARY = ("dice", "hd95", "ece_all", "ece_predicted_border", "ece_reference", "cece_reference", "nll")
"""The columns that a short table shows: overlap, distance, honest and reference calibration, and a proper score."""


def evaluate(
    model: nn.Module, cases: Iterable[Case], num_classes: int, *, device: str = "auto"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics of each case, and the bins of confidence of all.

    Returns:
        One row a case: `dice` and `hd95` (means over the foreground classes that the case or its prediction has),
        `dice_1`, `hd95_1`, ...; `ece_REGION` and `cece_REGION` for each region; `ece_reference` and
        `cece_reference` as in the papers' code (true foreground); `nll`; `kl_posterior` where the posterior is known.
        And one row a region and bin: `count`, `confidence_sum`, `correct_sum`.
    """
    rows, pooled = [], {region: CalibrationError(region=region) for region in REGIONS}
    for case in cases:
        probs, target = predict(model, case, device=device), torch.from_numpy(case.label).long()
        predicted = probs.argmax(dim=1).numpy()
        dice = dice_score(predicted, case.label, num_classes)
        hd95 = hausdorff_distance_95(predicted, case.label, num_classes, spacing=case.spacing)
        row = {"case": case.name, "patient": case.patient, "dice": _mean(dice), "hd95": _mean(hd95)}
        row |= {f"dice_{k}": value for k, value in enumerate(dice, start=1)}
        row |= {f"hd95_{k}": value for k, value in enumerate(hd95, start=1)}
        for region in REGIONS:
            row[f"ece_{region}"] = _calibration_error(probs, target, region=region)
            row[f"cece_{region}"] = _calibration_error(probs, target, region=region, classwise=True)
            pooled[region].update(probs, target)
        reference = {"region": "true_foreground", "convention": "reference"}
        row["ece_reference"] = _calibration_error(probs, target, **reference)
        row["cece_reference"] = _calibration_error(probs, target, classwise=True, **reference)
        row["nll"] = negative_log_likelihood(probs, target)
        if case.posterior is not None:
            row["kl_posterior"] = posterior_divergence(probs, torch.from_numpy(case.posterior).movedim(0, 1))
        rows.append(row)
    return pd.DataFrame(rows), bins_table(pooled)


def bins_table(metrics: Mapping[str, CalibrationError]) -> pd.DataFrame:
    """One row a region and bin: `region`, `bin`, `count`, `confidence_sum`, `correct_sum`.

    Args:
        metrics: top-label metrics by region, each updated.
    """
    tables = [
        pd.DataFrame(
            {
                "region": region,
                "bin": range(metric.n_bins),
                "count": metric.bins.count.numpy(),
                "confidence_sum": metric.bins.confidence_sum.numpy(),
                "correct_sum": metric.bins.correct_sum.numpy(),
            }
        )
        for region, metric in metrics.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _calibration_error(probs: torch.Tensor, target: torch.Tensor, **options: object) -> float:
    metric = CalibrationError(**options)
    metric.update(probs, target)
    return metric.compute()


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
