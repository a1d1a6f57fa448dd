"""The page: what the template shows, put together from the numbers."""

import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nacl.metrics import REGIONS
from nacl.reporting import pictures, words
from nacl.reporting.pictures import Slice
from nacl.reporting.summary import Estimate, Summary, reliability
from nacl.reporting.temperature import JUDGED, LEAST_PATIENTS, Temperature

REGION_NAMES = {
    "all": "all pixels",
    "predicted_foreground": "predicted foreground",
    "predicted_border": "predicted border",
    "true_foreground": "true foreground",
}
REGION_NOTES = {
    "all": "every pixel that is not ignored",
    "predicted_foreground": "the predicted class is not the background",
    "predicted_border": "within 2 pixels of another predicted class",
    "true_foreground": "the papers' region; it chooses pixels by the answer, so that even a perfect model has an error",
}
MOST_CLASSES = 12


@dataclass(frozen=True)
class Making:
    """How the page was made, for its foot."""

    title: str
    class_names: tuple[str, ...]
    n_bins: int
    seed: int
    ignore_index: int
    command: str | None


@dataclass(frozen=True)
class WorstCase:
    """A case to look at: its row of numbers, and its slice."""

    row: Mapping[str, object]
    shown: Slice


@dataclass(frozen=True)
class Row:
    """A line of the key table; `pooled` None where the number is one of a case only."""

    name: str
    note: str
    estimate: Estimate
    pooled: float | None


def render(
    summary: Summary,
    temperature: Temperature,
    worst: Sequence[WorstCase],
    unread: Mapping[str, str],
    making: Making,
) -> str:
    """The HTML of a report."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "percent": words.percent, "share": share}
    names = making.class_names
    return environment.get_template("page.html").render(
        making=making,
        summary=summary,
        verdict=words.verdict(summary),
        tone=words.tone(summary),
        unit=summary.unit,
        cases=words.count(len(summary.rows), "case"),
        patients=words.count(summary.patients, "patient"),
        pixels=f"{summary.pixels:,}",
        rows=key_rows(summary),
        regions=_region_rows(summary),
        region_charts=[_region_chart(summary, region, making.seed) for region in REGIONS],
        classes=_class_rows(summary, names),
        class_charts=_class_charts(summary, names, making.seed),
        histograms=[_histogram(summary, region) for region in ("all", "predicted_border")],
        worst=[_worst(case, len(names)) for case in worst],
        legend=[(name, pictures.class_colour(k)) for k, name in enumerate(names) if k],
        bars={"confidence": pictures.colour_bar("cividis"), "error": pictures.colour_bar("YlOrRd", start=0.25)},
        least=f"{1 / len(names):.2g}",
        temperature=temperature,
        gains=[(JUDGED[name], *temperature.gains[name]) for name in JUDGED if temperature.gains[name][0].patients],
        least_patients=LEAST_PATIENTS,
        advice=words.advice(summary, temperature, names),
        unread=unread,
        scores=_score_kinds(summary),
        side=pictures.SIDE,
        bar_side=pictures.BARS,
        made=_made(),
    )


def key_rows(summary: Summary) -> list[Row]:
    """The key table: one line a metric."""
    rows = []
    for region, name in REGION_NAMES.items():
        pooled = summary.pooled(region).expected.item()
        rows.append(Row(f"ECE, {name}", REGION_NOTES[region], summary.estimate(f"ece_{region}", low=0, high=1), pooled))
    classes = summary.pooled_classes().expected.mean().item()
    note = "each class's probability against how often it is there; mean over classes"
    rows.append(Row("Classwise ECE, all pixels", note, summary.estimate("cece_all", low=0, high=1), classes))
    note = "the worst bin, which may hold few pixels"
    for region in ("all", "predicted_border"):
        estimate, pooled = summary.estimate(f"mce_{region}", low=0, high=1), summary.pooled(region).maximum.item()
        rows.append(Row(f"MCE, {REGION_NAMES[region]}", note, estimate, pooled))
    note = "a proper score, in nats: lower is better, and it can't be cheated"
    rows.append(Row("NLL", note, summary.estimate("nll", low=0), summary.pixel_mean("nll")))
    note = "a proper score: squared error summed over classes, from 0 to 2"
    rows.append(Row("Brier score", note, summary.estimate("brier", low=0, high=2), summary.pixel_mean("brier")))
    note = "overlap; mean over foreground classes"
    rows.append(Row("Dice", note, summary.estimate("dice", low=0, high=1), None))
    units = sorted({str(row["unit"]) for row in summary.rows})
    note = "95th percentile of the distance between outlines; mean over foreground classes"
    note += ". Some cases have a spacing and others have none: this mean mixes units" * (len(units) > 1)
    rows.append(Row(f"HD95, {' and '.join(units)}", note, summary.estimate("hd95", low=0), None))
    return rows


def _region_rows(summary: Summary) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "share": summary.share(region),
            "confidence": summary.estimate(f"confidence_{region}").mean,
            "accuracy": summary.estimate(f"accuracy_{region}").mean,
            "gap": summary.estimate(f"gap_{region}", low=-1, high=1),
            "over": summary.estimate(f"over_{region}").mean,
            "under": summary.estimate(f"under_{region}").mean,
        }
        for region, name in REGION_NAMES.items()
    ]


def _class_rows(summary: Summary, names: Sequence[str]) -> list[dict[str, object]]:
    errors = summary.pooled_classes().expected.tolist()
    return [
        {
            "name": name,
            "colour": pictures.class_colour(k) if k else None,
            "labelled": summary.labelled[k] / summary.pixels,
            "predicted": summary.predicted[k] / summary.pixels,
            "ece": errors[k],
            "dice": summary.estimate(f"dice_{k}", low=0, high=1) if k else None,
            "hd95": summary.estimate(f"hd95_{k}", low=0) if k else None,
        }
        for k, name in enumerate(names)
    ]


def _region_chart(summary: Summary, region: str, seed: int) -> dict[str, object]:
    parts = list(summary.bins[region].values())
    table = reliability(parts, seed=seed)
    pooled = summary.pooled(region)
    axes = {"x": "confidence", "y": "accuracy"}
    return _chart(REGION_NAMES[region], pooled.expected.item(), table, pooled.n_bins) | axes


def _class_charts(summary: Summary, names: Sequence[str], seed: int) -> list[dict[str, object]]:
    errors, parts = summary.pooled_classes().expected.numpy(), list(summary.class_bins.values())
    chosen = sorted(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
    axes = {"x": "probability of the class", "y": "how often it is there"}
    return [
        _chart(names[k], errors[k], reliability(parts, row=int(k), seed=seed), parts[0].n_bins) | axes for k in chosen
    ]


def _chart(name: str, error: float, table: pd.DataFrame, n_bins: int) -> dict[str, object]:
    width = pictures.SIDE / n_bins
    points = [
        {
            "x": pictures.SIDE * row.confidence,
            "y": pictures.SIDE * (1 - row.accuracy),
            "left": width * (row.Index + 0.1),
            "width": 0.8 * width,
            "height": pictures.bar_height(row.share),
            "text": f"{row.confidence:.3f} against {row.accuracy:.3f}, {share(row.share)} of the pixels",
        }
        for row in table.itertuples()
    ]
    over = table["share"][table["confidence"] > table["accuracy"]].sum()
    return {
        "name": name,
        "error": error,
        "points": points,
        "line": pictures.line(table["confidence"], table["accuracy"]),
        "band": pictures.band(table["confidence"], table["low"], table["high"]),
        "over": over,
    }


def _histogram(summary: Summary, region: str) -> dict[str, object]:
    values = summary.table[f"ece_{region}"].dropna().to_numpy()
    if not len(values):
        return {"name": REGION_NAMES[region], "bars": [], "top": 0, "most": 0, "values": 0}
    top = max(float(values.max()), 1e-3)
    counts, edges = np.histogram(values, bins=int(np.clip(np.ceil(2 * np.sqrt(len(values))), 5, 20)), range=(0, top))
    most, width = int(counts.max()), pictures.SIDE / len(counts)
    bars = [
        {
            "left": width * (i + 0.06),
            "width": 0.88 * width,
            "height": 100 * n / most,
            "text": f"{words.count(int(n), 'case')} from {edges[i]:.4f} to {edges[i + 1]:.4f}",
        }
        for i, n in enumerate(counts)
    ]
    return {"name": REGION_NAMES[region], "bars": bars, "top": top, "most": most, "values": len(values)}


def _worst(case: WorstCase, num_classes: int) -> dict[str, object]:
    shown = case.shown
    return {
        "row": case.row,
        "shown": shown,
        "height": shown.label.shape[0],
        "width": shown.label.shape[1],
        "image": pictures.image_png(shown),
        "confidence": pictures.confidence_png(shown, num_classes),
        "errors": pictures.error_png(shown, num_classes),
        "label": pictures.outlines(shown.label, num_classes),
        "predicted": pictures.outlines(shown.predicted, num_classes),
    }


def number(value: float | None) -> str:
    """Four digits after the point, two from 1 on; a dash for what is not known."""
    if value is None or np.isnan(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def interval(estimate: Estimate) -> str:
    """ "0.0123 to 0.0456", or a dash."""
    return f"{number(estimate.low)} to {number(estimate.high)}" if estimate.has_interval else "–"


def share(value: float) -> str:
    """A share with the digits that small ones need."""
    if np.isnan(value):
        return "–"
    return f"{100 * value:.1f}%" if value >= 0.001 or value == 0 else f"{100 * value:.2g}%"


def _score_kinds(summary: Summary) -> str:
    counts = summary.table["scores"].value_counts()
    return " and ".join(f"{kind} in {words.count(int(n), 'case')}" for kind, n in counts.items())


def _made() -> dict[str, str]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": now.strftime("%d %B %Y, %H:%M UTC"),
        "versions": f"nacl-calibration {version('nacl-calibration')}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}",
    }
