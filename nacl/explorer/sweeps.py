"""A finished sweep in one small file, for the explorer of trained networks."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from nacl._checks import check_choice, expectation
from nacl._files import write_text
from nacl.data import Dataset
from nacl.plots import LOSS_NAMES
from nacl.results import Result, results_table
from nacl.statistics import mean_interval
from nacl.training import predict_logits

FORMAT = 1
AXES = {"penalty_weight": 0.1, "kernel_size": 3, "margin": 10.0}
"""What the sliders move, with the values of the methods as they come."""

SCORES = ("dice", "ece_all")
LEVEL = 0.95
LOGIT_RANGE, LOGIT_BINS = (0.0, 25.0), 50
KEYS = {"format", "runs", "groups", "slice", "class_names", "loss_names", "ranges", "level", "n_bins", "logit_range"}
RUN_KEYS = {"loss", "seed", "group", "scores", "bins", "logits", "map", *AXES}


def collect_sweep(results: Sequence[Result], *, level: float = LEVEL) -> dict[str, object]:
    """What the explorer of trained networks shows of finished runs; each network predicts its test cases once.

    Args:
        results: of one data set and one size that differ in loss, penalty weight, kernel size, margin and seed alone,
            cross-entropy among them.
        level: confidence of the intervals.

    Returns:
        Plain values for JSON. For each run: its place on the sliders; `scores`, Dice and ECE with an interval over
        patients; `bins`, reliability over all test pixels; `logits`, how far the largest logit is above the mean of
        its pixel's, as counts; `map`, one test slice, a byte a pixel. For each group of seeds: `scores` whose
        intervals know of seeds.

    Raises:
        ValueError: no runs, runs of two data sets, no cross-entropy.
    """
    if not results:
        raise ValueError(expectation("results", "with finished runs", "none", remedy="Run: nacl sweep explorer"))
    of_data = {(result.info["data_fingerprint"], result.run.size, result.run.epochs) for result in results}
    if len(of_data) > 1:
        rule = "of one data set, one size and one number of epochs"
        raise ValueError(expectation("results", rule, f"{len(of_data)} of them"))
    if "ce" not in {result.run.loss for result in results}:
        raise ValueError(expectation("results", "with cross-entropy", "none", remedy="Run: nacl sweep explorer"))
    results = sorted(results, key=_order)
    dataset = results[0].dataset()
    middle = len(dataset.split("test")[0].label) // 3
    groups: dict[tuple, list[int]] = {}
    runs = []
    for result in tqdm(results, desc="networks", unit="run"):
        place = _place(result)
        members = groups.setdefault(tuple(place.values()), [])
        members.append(len(runs))
        of_run = _predictions(result, dataset, middle)
        table = _unscaled(result)
        scores = {metric: _interval([table[metric]], level) for metric in SCORES}
        group = list(groups).index(tuple(place.values()))
        runs.append({**place, "seed": result.run.seed, "group": group, "scores": scores, **of_run})
    together = [
        {metric: _interval([_unscaled(results[i])[metric] for i in members], level) for metric in SCORES}
        for members in groups.values()
    ]
    case = dataset.split("test")[0]
    height, width = case.label.shape[1:]
    shown = {"height": height, "width": width, "case": case.name, "slice": middle}
    grey = np.round(255 * case.image[0, middle].clip(0, 1))
    return {
        "format": FORMAT,
        "made": _made(results, dataset),
        "class_names": list(dataset.class_names),
        "loss_names": {name: LOSS_NAMES.get(name, name) for name in dict.fromkeys(run["loss"] for run in runs)},
        "level": level,
        "n_bins": len(runs[0]["bins"]),
        "logit_range": list(LOGIT_RANGE),
        "ranges": {metric: _range([group[metric] for group in together]) for metric in SCORES},
        "slice": {**shown, "image": _text(grey), "labels": _text(case.label[middle])},
        "groups": [{"scores": scores} for scores in together],
        "runs": runs,
    }


def _order(result: Result) -> tuple:
    """Methods as pictures have them, then along the sliders, then seeds."""
    known = list(LOSS_NAMES)
    return known.index(result.run.loss), *(value or 0 for value in list(_place(result).values())[1:]), result.run.seed


def _place(result: Result) -> dict[str, object]:
    used = result.run.values()
    return {"loss": result.run.loss, **{name: used.get(name) for name in AXES}}


def _unscaled(result: Result) -> pd.DataFrame:
    """The means over each patient's cases, of the network as it is."""
    table = results_table([result])
    return table[table["post_hoc"] == "none"].groupby("patient")[list(SCORES)].mean()


def _interval(scores: Sequence[pd.Series], level: float) -> list[float | None]:
    array = np.stack([of_seed.to_numpy(float) for of_seed in scores])
    if np.isfinite(array).all(axis=0).sum() < 2:
        return [float(np.nanmean(array)), None, None]
    found = mean_interval(array, level=level)
    return [round(value, 6) for value in (found.mean, found.low, found.high)]


def _range(intervals: Sequence[list[float | None]]) -> list[float]:
    """A range for an axis; from 0 if it comes near it."""
    means = [mean for mean, _, _ in intervals]
    ends = [end for interval in intervals for end in interval if end is not None]
    low, high = max(0.0, min(ends)), min(1.0, max(ends))
    return [0.0 if low < 0.3 * high else low, max(high, 1.02 * max(means))]


def _predictions(result: Result, dataset: Dataset, middle: int) -> dict[str, object]:
    model, counts, first = result.model(), np.zeros(LOGIT_BINS, int), None
    for case in dataset.split("test"):
        logits = predict_logits(model, case, device="cpu", patch=result.run.patch_shape())
        above = (logits.amax(dim=1) - logits.mean(dim=1)).clamp(*LOGIT_RANGE)
        counts += np.histogram(above.numpy(), LOGIT_BINS, LOGIT_RANGE)[0]
        if first is None:
            first = logits[middle].softmax(dim=0), torch.from_numpy(case.label[middle].astype(int))
    probs, label = first
    confidence, predicted = probs.max(dim=0)
    low = 1 / len(probs)
    level = ((confidence - low) / (1 - low) * 127).round().clamp(0, 127).to(torch.uint8)
    packed = level | ((predicted != label).to(torch.uint8) << 7)
    bins = result.bins[(result.bins["region"] == "all") & (result.bins["post_hoc"] == "none")]
    sums = bins.groupby("bin")[["count", "confidence_sum", "correct_sum"]].sum()
    rows = [[int(count), round(confidence, 3), round(correct, 3)] for count, confidence, correct in sums.to_numpy()]
    return {"bins": rows, "logits": counts.tolist(), "map": _text(packed.numpy())}


def _text(array: NDArray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.uint8).tobytes()).decode()


def _made(results: Sequence[Result], dataset: Dataset) -> str:
    run, info = results[0].run, results[0].info
    seeds = sorted({result.run.seed for result in results})
    commits = ", ".join(sorted({result.info["commit"][:12] for result in results}))
    network = f"network {run.model}, {run.size} × {run.size} pixels, {run.filters} filters"
    return (
        f"{len(results)} runs on {dataset.name}: {network}, "
        f"{run.epochs} epochs, seeds {', '.join(map(str, seeds))}; commit {commits}, {info['device_name']}."
    )


def write_sweep(sweep: dict[str, object], path: str | Path) -> None:
    """Write what `collect_sweep` gave, all or nothing, one run a line."""
    runs = ",\n".join(json.dumps(run, ensure_ascii=False) for run in sweep["runs"])
    head = json.dumps({**sweep, "runs": []}, ensure_ascii=False, indent=1, sort_keys=True)
    write_text(Path(path), head.replace('"runs": []', f'"runs": [\n{runs}\n]') + "\n")


def read_sweep(path: str | Path) -> dict[str, object]:
    """What `write_sweep` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a sweep's file, got nothing at {path}. Make one: nacl sweep explorer, "
            "then nacl explore training --sweep FOLDER_OF_RUNS --out sweep.json."
        )
    try:
        sweep = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(expectation("source", "to be a file of write_sweep", path, str(error))) from error
    return check_sweep(sweep)


def check_sweep(sweep: object) -> dict[str, object]:
    """`sweep`, once found to be what `collect_sweep` gives.

    Raises:
        ValueError: it is not; the message says what is missing.
    """
    remedy = "Write it with nacl.explorer.write_sweep"
    if not isinstance(sweep, dict) or not sweep.keys() >= KEYS:
        missing = sorted(KEYS - set(sweep)) if isinstance(sweep, dict) else type(sweep).__name__
        raise ValueError(expectation("sweep", "of collect_sweep", f"one without {missing}", remedy=remedy))
    if sweep["format"] != FORMAT:
        raise ValueError(expectation("sweep", f"of format {FORMAT}", sweep["format"], remedy=remedy))
    if not sweep["runs"] or any(not run.keys() >= RUN_KEYS for run in sweep["runs"]):
        raise ValueError(
            expectation("sweep", f"with runs that have {', '.join(sorted(RUN_KEYS))}", "others", remedy=remedy)
        )
    check_choice("loss of the sweep", "ce", {run["loss"] for run in sweep["runs"]})
    return sweep
