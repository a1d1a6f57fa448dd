"""What the metrics do as one parameter of a training is varied."""

from collections.abc import Callable, Collection, Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike

from nacl.plots._style import Style, described, dots, legend, line_of, listed, panels, styles_of

METRICS = {
    "dice": "Dice",
    "confidence": "mean confidence, all pixels",
    "ece_all": "ECE, all pixels",
    "ece_predicted_border": "ECE, predicted border",
    "nll": "negative log-likelihood",
    "kl_posterior": "KL to the true posterior",
}
"""The panels of an ablation: columns of `nacl.results.results_table` and `nacl.tables.with_confidence`, with labels."""

APART = 5  # points between the marks of two methods at one value, so that their intervals do not coincide
THEORY = Style("theory", "#000000", "", ":", "none")

Lines = Mapping[str, tuple[ArrayLike, ArrayLike]]


def ablation_curves(
    points: pd.DataFrame,
    field: str,
    metrics: Mapping[str, str],
    *,
    x: str = "",
    baseline: pd.DataFrame | None = None,
    theory: Mapping[str, Lines] | None = None,
    log_x: bool = False,
    log_y: Collection[str] = (),
) -> Figure:
    """Metrics against a number that was varied, a panel a metric, a curve a method, with intervals.

    Where there are several seeds, a band joins the lowest and the highest of their means.

    Args:
        points: what `nacl.tables.ablation_points` gave for this field.
        field: the column that was varied, numbers.
        metrics: for each metric, the label of its axis.
        x: the label of the horizontal axes, by default the field's name.
        baseline: methods to compare with, as horizontal lines in the band of their interval: the rows that
            `nacl.tables.compare` gave for them.
        theory: for a metric, what it should be by theory for a method: x and y, both (points,), as a dotted line.
        log_x: a logarithmic horizontal axis.
        log_y: metrics on a logarithmic axis.
    """
    figure, axes = panels(len(metrics), width=3.75, height=2.5, columns=2)
    levels, theory, shown = _levels(baseline), theory or {}, []
    styles = styles_of([*points["method"], *levels["method"]])
    for ax, (metric, label) in zip(axes, metrics.items(), strict=True):
        of_metric = levels[levels["metric"] == metric]
        _draw_levels(ax.axhspan, ax.axhline, of_metric, styles)
        for name, line in theory.get(metric, {}).items():
            look = THEORY._replace(colour=styles[name].colour)
            ax.add_line(line_of(look, *map(np.asarray, line)))
        curves = _of_methods(points, metric)
        for place, (name, curve) in enumerate(curves.items()):
            _draw_curve(ax, curve, field, styles[name], place - (len(curves) - 1) / 2)
        ax.set(xlabel=x or field, ylabel=fill(label, 26), yscale="log" if metric in log_y else "linear")
        ax.margins(0.08)
        _set_ticks(ax, points[field].unique(), log=log_x)
        shown.append(f"{label}: {_told(curves, of_metric, field, styles)}")
    legend(figure, [line_of(style) for style in (*styles.values(), *([THEORY] if theory else []))])
    return described(figure, f"Means with intervals against {x or field}. {'. '.join(shown)}.")


def ablation_rows(
    points: pd.DataFrame,
    field: str,
    metrics: Mapping[str, str],
    *,
    baseline: pd.DataFrame | None = None,
    log_x: Collection[str] = (),
) -> Figure:
    """Metrics for each of some names that were varied, a row a name and a panel a metric, with intervals.

    Where there are several seeds, a pale bar joins the lowest and the highest of their means.

    Args:
        points: what `nacl.tables.ablation_points` gave for this field.
        field: the column that was varied, names.
        metrics: for each metric, the label of its axis.
        baseline: as in `ablation_curves`, as vertical lines.
        log_x: metrics on a logarithmic axis.
    """
    levels, names, shown = _levels(baseline), list(dict.fromkeys(points[field])), []
    styles = styles_of([*points["method"], *levels["method"]])
    methods = points["method"].nunique()
    height = 0.8 + (0.2 + 0.12 * methods) * len(names)
    figure, axes = panels(len(metrics), width=3.75, height=height, columns=2, sharey=True)
    for ax, (metric, label) in zip(axes, metrics.items(), strict=True):
        of_metric, rows = levels[levels["metric"] == metric], _of_methods(points, metric)
        _draw_levels(ax.axvspan, ax.axvline, of_metric, styles)
        for place, (name, group) in enumerate(rows.items()):
            at = np.array([names.index(value) for value in group[field]]) + 0.3 * (place - (methods - 1) / 2)
            ax.hlines(at, group["low"], group["high"], color=styles[name].colour, linewidth=1.5)
            if (group["seeds"] > 1).any():
                ax.hlines(at, group["lowest"], group["highest"], color=styles[name].colour, alpha=0.3, linewidth=7)
            dots(ax, group["mean"], at, styles[name], 36)
        ax.set(xlabel=fill(label, 30), ylim=(len(names) - 0.5, -0.5), xscale="log" if metric in log_x else "linear")
        ax.set_yticks(range(len(names)), names)
        shown.append(f"{label}: {_told(rows, of_metric, field, styles)}")
    legend(figure, [line_of(style) for style in styles.values()])
    return described(figure, f"Means with intervals, a row each for {listed(map(str, names))}. {'. '.join(shown)}.")


def _levels(baseline: pd.DataFrame | None) -> pd.DataFrame:
    return pd.DataFrame(columns=["metric", "method"]) if baseline is None else baseline


def _of_methods(points: pd.DataFrame, metric: str) -> dict[str, pd.DataFrame]:
    return dict(iter(points[points["metric"] == metric].groupby("method", sort=False)))


def _draw_levels(
    span: Callable[..., object], line: Callable[..., object], rows: pd.DataFrame, styles: Mapping[str, Style]
) -> None:
    for row in rows.itertuples():
        style = styles[row.method]
        span(row.low, row.high, color=style.colour, alpha=0.12, linewidth=0)
        line(row.mean, color=style.colour, linestyle=style.line, linewidth=1.2)


def _draw_curve(ax: plt.Axes, curve: pd.DataFrame, field: str, style: Style, place: float) -> None:
    """A curve, moved aside by `place` marks."""
    curve = curve.sort_values(field)
    aside = ScaledTranslation(place * APART / 72, 0, ax.figure.dpi_scale_trans)  # 72 points an inch
    look = {"color": style.colour, "transform": ax.transData + aside}
    ax.add_line(line_of(style, curve[field], curve["mean"], transform=look["transform"]))
    ax.vlines(curve[field], curve["low"], curve["high"], linewidth=1.5, **look)
    if (curve["seeds"] > 1).any():
        ax.fill_between(curve[field], curve["lowest"], curve["highest"], alpha=0.2, linewidth=0, **look)
    ax.update_datalim(np.column_stack([np.tile(curve[field], 3), curve[["mean", "low", "high"]].to_numpy().T.ravel()]))


def _set_ticks(ax: plt.Axes, values: ArrayLike, *, log: bool) -> None:
    """A tick at each value, as it would be typed."""
    if log:
        ax.set_xscale("log")
    ax.autoscale_view()
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.xaxis.set_minor_locator(NullLocator())
    if ax.get_yscale() == "log":
        ax.yaxis.set_minor_formatter(NullFormatter())


def _told(curves: Mapping[str, pd.DataFrame], levels: pd.DataFrame, field: str, styles: Mapping[str, Style]) -> str:
    """The means of a panel, in words."""
    words = []
    for name, curve in curves.items():
        means = (f"{row['mean']:.3g} at {row[field]}" for _, row in curve.iterrows())
        words.append(f"{styles[name].label} {', '.join(means)}")
    words += [f"{styles[row.method].label} {row.mean:.3g} throughout" for row in levels.itertuples()]
    return "; ".join(words)
