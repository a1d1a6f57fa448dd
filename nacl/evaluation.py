"""The metrics of a trained network, case by case, as it is and after temperature scaling."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nacl.data import Case
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
from nacl.scaling import TemperatureScaling
from nacl.training import predict_logits

POST_HOC = ("none", "temperature")
"""What is done to the logits after training."""

SUMMARY = ("dice", "hd95", "ece_all", "ece_predicted_border", "ece_reference", "cece_reference", "nll", "brier")
"""The columns that a short table shows: overlap, distance, honest and reference calibration, and proper scores."""


def fitted_temperature(model: nn.Module, valid: Iterable[Case], *, device: str = "auto") -> float:
    """The temperature that suits the validation cases best, by their likelihood."""
    batches = [(predict_logits(model, case, device=device), _target(case)) for case in valid]
    return TemperatureScaling().fit(batches).temperature.item()


def evaluate(
    model: nn.Module,
    cases: Iterable[Case],
    num_classes: int,
    *,
    temperature: float | None = None,
    device: str = "auto",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics of each case, and its bins of confidence.

    Args:
        model: maps images (N, 1, H, W) to logits (N, num_classes, H, W).
        cases: what to test on.
        num_classes: number of classes, C.
        temperature: also evaluate the logits divided by it, in rows of their own.
        device: one of `DEVICES`.

    Returns:
        One row a case and `post_hoc` ("none", "temperature"): `dice`, `hd95` and `asd` (means over the foreground
        classes that the case or its prediction has), `dice_1`, `hd95_1`, `asd_1`, ...; for each region `ece_REGION`,
        its part `over_REGION` from bins that are over-confident, and `cece_REGION`; `mce_all`; `adaptive_ece_all`;
        `ece_reference` and `cece_reference` as in the papers' code (true foreground); `nll` and `brier`; where the
        posterior is known `kl_posterior`, `posterior_error` and `true_calibration_error`.
        And one row a `post_hoc`, case, region and bin: `count`, `confidence_sum`, `correct_sum`.
    """
    rows, tables = [], []
    for case in cases:
        logits = predict_logits(model, case, device=device)
        about = {"case": case.name, "patient": case.patient}
        shape = _segmentation_metrics(logits.argmax(dim=1).numpy(), case, num_classes)
        scaled = {"none": logits} | ({} if temperature is None else {"temperature": logits / temperature})
        for post_hoc, of_case in scaled.items():
            calibration, bins = _calibration_metrics(of_case, case)
            rows.append({**about, "post_hoc": post_hoc, **shape, **calibration})
            tables.append(bins_table(bins).assign(post_hoc=post_hoc, **about))
    return pd.DataFrame(rows), pd.concat(tables, ignore_index=True)


def bins_table(bins: Mapping[str, CalibrationBins]) -> pd.DataFrame:
    """One row a region and bin: `region`, `bin`, `count`, `confidence_sum`, `correct_sum`.

    Args:
        bins: of the predicted class, by region, see `calibration_bins`.
    """
    columns = ("count", "confidence_sum", "correct_sum")
    tables = [
        pd.DataFrame({"region": region, "bin": range(one.n_bins)} | {c: getattr(one, c).cpu().numpy() for c in columns})
        for region, one in bins.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _segmentation_metrics(predicted: np.ndarray, case: Case, num_classes: int) -> dict[str, float]:
    distances = surface_distances(predicted, case.label, num_classes, spacing=case.spacing)
    values = {
        "dice": dice_score(predicted, case.label, num_classes),
        "hd95": np.array([of_class.hausdorff_95() for of_class in distances]),
        "asd": np.array([of_class.average() for of_class in distances]),
    }
    means = {name: float(np.nanmean(v)) if not np.isnan(v).all() else float("nan") for name, v in values.items()}
    return means | {f"{name}_{k}": value for name, v in values.items() for k, value in enumerate(v, start=1)}


def _calibration_metrics(logits: Tensor, case: Case) -> tuple[dict[str, float], dict[str, CalibrationBins]]:
    target, options = _target(case), {"from_logits": True}
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
    if case.posterior is not None:
        probs, posterior = logits.softmax(dim=1), torch.from_numpy(case.posterior).movedim(0, 1)
        row["kl_posterior"] = posterior_divergence(probs, posterior)
        row["posterior_error"] = posterior_error(probs, posterior)
        row["true_calibration_error"] = true_calibration_error(probs, posterior)
    return row, top


def _target(case: Case) -> Tensor:
    return torch.from_numpy(case.label)
