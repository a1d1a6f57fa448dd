"""Time, memory and error of the metrics beside the papers' way, torchmetrics, MONAI and exacta, from the same logits.

All rivals take turns in one process; the figure is the median over the rounds, and its ratio to the papers' way (one
masked pass for each of 15 bins). Memory is the most that a call holds at one time, in units of the logits. The error is
the difference from the same bins summed in float64.

    python benchmarks/metrics.py --csv benchmarks/metrics-cpu.csv

exacta (pip install exacta==0.0.1a5) is no dependency of this project: without it, its rows are left out.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timing import Step, alternating, peak_bytes, text, write_csv
from torch import Tensor

from nacl.data import load_dataset
from nacl.data.phantom import draw_labels
from nacl.metrics import (
    AdaptiveCalibrationError,
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    hausdorff_distance_95,
)
from nacl.provenance import provenance

SHAPES = [(10, 4, 192, 192), (155, 4, 240, 240)]
PAPERS = "the papers' way"
OURS = "nacl"


def main() -> int:
    """Print a table for each metric and shape; with --csv, keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--shape", nargs="*", help="such as 10,4,192,192; by default those of the book's table")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--csv", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    shapes = [tuple(map(int, s.split(","))) for s in options.shape] if options.shape else SHAPES
    rows = []
    for shape in shapes:
        torch.manual_seed(0)
        logits = 3 * torch.randn(shape, device=options.device)
        target = torch.distributions.Categorical(logits=logits.movedim(1, -1) / 1.5).sample()
        exact = exact_errors(logits, target)
        for metric, rivals in CALIBRATION.items():
            steps = {name: bound(rival, logits, target) for name, rival in rivals().items()}
            rows += measured(metric, shape, steps, options, exact[metric], logits.numel() * 4)
    rows += hausdorff_rows(options)
    if options.csv:
        write_csv(options.csv, rows, {**provenance(options.device), "rounds": options.rounds, "seed": 0})
    return 0


def bound(rival: Callable[[Tensor, Tensor], float], logits: Tensor, target: Tensor) -> Step:
    return lambda: rival(logits, target)


def measured(
    metric: str,
    shape: tuple[int, ...],
    steps: dict[str, Step],
    options: argparse.Namespace,
    exact: float | None,
    unit: int,
) -> list[dict[str, object]]:
    """A row for each rival, printed."""
    medians = alternating(steps, options.rounds, device=options.device, title=f"{metric} {text(shape)}")
    base = medians.get(PAPERS, next(iter(medians.values())))
    print(f"\n{metric}, {text(shape)}\n{'':28}{'ms':>10}{'x faster':>10}{'memory':>9}{'error':>10}")
    rows = []
    for name, step in steps.items():
        memory = round(peak_bytes(step, options.device) / unit, 2)
        error = "" if exact is None else abs(float(step()) - exact)
        ratio = round(base / medians[name], 2)
        rows.append(
            {
                "metric": metric,
                "shape": text(shape),
                "rival": name,
                "ms": round(1e3 * medians[name], 3),
                "times_faster": ratio,
                "memory_in_logits": memory,
                "error": "" if exact is None else f"{error:.2g}",
            }
        )
        shown = "" if exact is None else f"{error:.1e}"
        print(f"{name:28}{1e3 * medians[name]:10.2f}{ratio:10.2f}{memory:9.2f}{shown:>10}")
    return rows


def masked_passes(confidence: Tensor, right: Tensor, edges: Tensor) -> Tensor:
    """The sum over bins of share times abs(accuracy - confidence), by a masked pass for each bin."""
    error = torch.zeros((), device=confidence.device)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        inside = confidence.gt(low) * confidence.le(high)
        share = inside.float().mean()
        if share.item() > 0:
            error += (right[inside].float().mean() - confidence[inside].mean()).abs() * share
    return error


def flat(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (pixels, C) and labels (pixels,)."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1]).softmax(dim=1), target.flatten()


def papers_ece(logits: Tensor, target: Tensor) -> Tensor:
    probs, labels = flat(logits, target)
    confidence, predicted = probs.max(dim=1)
    return masked_passes(confidence, predicted.eq(labels), torch.linspace(0, 1, 16))


def papers_cece(logits: Tensor, target: Tensor) -> Tensor:
    probs, labels = flat(logits, target)
    edges = torch.linspace(0, 1, 16)
    return sum(masked_passes(probs[:, k], labels.eq(k), edges) for k in range(probs.shape[1])) / probs.shape[1]


def papers_adaptive(logits: Tensor, target: Tensor) -> Tensor:
    probs, labels = flat(logits, target)
    confidence, predicted = probs.max(dim=1)
    values = confidence.cpu().numpy()
    places = np.linspace(0, len(values), 16)
    edges = np.interp(places, np.arange(len(values)), np.sort(values))
    np.histogram(values, edges)  # the papers' code calls it for the edges that it was given
    return masked_passes(confidence, predicted.eq(labels), torch.from_numpy(edges))


def rivals_of_ece() -> dict[str, Callable]:
    from torchmetrics.functional.classification import multiclass_calibration_error

    rivals = {
        PAPERS: papers_ece,
        OURS: lambda x, y: expected_calibration_error(x, y, from_logits=True),
        f"{OURS}, of probabilities": lambda x, y: expected_calibration_error(x.softmax(dim=1), y),
        "torchmetrics": lambda x, y: multiclass_calibration_error(x, y, num_classes=x.shape[1], n_bins=15),
    }
    return rivals | exacta("top-label")


def rivals_of_cece() -> dict[str, Callable]:
    rivals = {
        PAPERS: papers_cece,
        OURS: lambda x, y: classwise_calibration_error(x, y, from_logits=True),
        "MONAI": monai_cece,
    }
    return rivals | exacta("classwise")


def rivals_of_adaptive() -> dict[str, Callable]:
    return {
        PAPERS: papers_adaptive,
        OURS: lambda x, y: adaptive_calibration_error(x, y, from_logits=True),
        f"{OURS}, streaming": streaming_adaptive,
    }


CALIBRATION = {"ECE": rivals_of_ece, "classwise ECE": rivals_of_cece, "adaptive ECE": rivals_of_adaptive}


def streaming_adaptive(logits: Tensor, target: Tensor) -> float:
    metric = AdaptiveCalibrationError(from_logits=True)
    metric.update(logits, target)
    return metric.compute()


def monai_cece(logits: Tensor, target: Tensor) -> Tensor:
    """As one case, since MONAI bins each image of a batch for itself."""
    from monai.metrics import CalibrationErrorMetric

    probs, labels = flat(logits, target)
    metric = CalibrationErrorMetric(num_bins=15, include_background=True, right=True)
    metric(probs.T[None].contiguous(), F.one_hot(labels, probs.shape[1]).T[None].contiguous())
    return metric.aggregate()


def exacta(mode: str) -> dict[str, Callable]:
    if importlib.util.find_spec("exacta") is None:
        return {}
    from exacta.functional.calibration import expected_calibration_error as theirs

    def pooled(logits: Tensor, target: Tensor) -> Tensor:
        one_case = logits.movedim(0, 1).flatten(1, 2)[None]
        return theirs(one_case, target.flatten(0, 1)[None], mode=mode, from_logits=True).mean()

    return {"exacta": pooled}


def exact_errors(logits: Tensor, target: Tensor) -> dict[str, float]:
    """Each error with float32 probabilities, as the rivals have them, and all sums in float64."""
    probs, labels = flat(logits, target)
    top, predicted = (part.cpu().numpy() for part in probs.max(dim=1))
    labels, probs = labels.cpu().numpy(), probs.cpu().numpy()
    edges = np.arange(16) / 15

    def error(values: np.ndarray, right: np.ndarray, edges: np.ndarray) -> float:
        index = np.clip(np.searchsorted(edges.astype(values.dtype), values, side="left") - 1, 0, len(edges) - 2)
        return abs(np.bincount(index, values.astype(np.float64) - right, minlength=15)).sum() / len(values)

    classes = [error(probs[:, k], labels == k, edges) for k in range(probs.shape[1])]
    ranks = -(-np.arange(1, 16) * len(top) // 15) - 1
    quantiles = np.concatenate([[-1], np.sort(top)[ranks]])
    right = predicted == labels
    return {
        "ECE": error(top, right, edges),
        "classwise ECE": float(np.mean(classes)),
        "adaptive ECE": error(top, right, quantiles),
    }


def hausdorff_rows(options: argparse.Namespace) -> list[dict[str, object]]:
    """HD95 of three classes on a volume of ACDC's size, two annotators of the phantom against each other."""
    from monai.metrics import compute_hausdorff_distance

    case = load_dataset("phantom", size=192).split("test")[0]
    other = draw_labels(case.posterior.astype(float), np.random.default_rng(0))
    a, b = (np.concatenate([labels, labels[::-1]]) for labels in (case.label, other))
    hot = [F.one_hot(torch.from_numpy(x).long(), 4).movedim(-1, 0)[None] for x in (a, b)]
    spacing = (10.0, 1.5, 1.5)

    def monai() -> None:
        compute_hausdorff_distance(*hot, percentile=95, spacing=spacing)

    steps = {"MONAI": monai, OURS: lambda: hausdorff_distance_95(a, b, 4, spacing=spacing)}
    return measured("HD95", a.shape, steps, options, None, a.size * 4)


if __name__ == "__main__":
    sys.exit(main())
