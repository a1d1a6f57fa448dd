"""Confidence against what came true: reliability diagrams and curves."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from nacl.plots._style import Style, described, diagonal, dots, legend, line_of, panels, span, styles_of


def reliability_diagram(bins: Mapping[str, pd.DataFrame], regions: Mapping[str, str]) -> Figure:
    """Accuracy against confidence, a panel a region; below the diagonal is over-confident. Dots grow with their pixels.

    Beneath: each bin's share of the pixels. Where the tables tell cases apart, a band holds 95% of 1000 resamples of
    the cases, at the bin's mean confidence; none where only one case has pixels. With few cases it is too narrow.

    Args:
        bins: for each method, columns `region`, `bin` (of equal width, empty ones too), `count`, `confidence_sum` and
            `correct_sum`, one row a region and bin; or, with the column `case`, one row a case, region and bin.
        regions: for each region, the title of its panel.
    """
    width = 2.5 if len(regions) > 2 else 3.6
    figure, axes = panels(len(regions), width=width, height=1.25 * width + 0.2, columns=3)
    styles = styles_of(bins)
    for ax, (region, title) in zip(axes, regions.items(), strict=True):
        strip = ax.inset_axes([0, -0.34, 1, 0.28], sharex=ax)
        diagonal(ax)
        for place, (name, table) in enumerate(bins.items()):
            part = (place / len(bins), (place + 1) / len(bins))
            _draw_reliability(ax, strip, table[table["region"] == region], styles[name], part)
        ax.set(title=fill(title, 20), xlabel="")
        ax.tick_params(labelbottom=False)
        strip.set(xlabel="confidence", ylabel="share", yscale="log", ylim=(1e-5, 2), yticks=[1e-4, 1e-2])
    legend(figure, [line_of(styles[name]) for name in bins])
    shown = []
    for region, title in regions.items():
        means = (_means(styles[name].label, table[table["region"] == region]) for name, table in bins.items())
        shown.append(f"{title}: {', '.join(means)}")
    return described(figure, f"Reliability diagram, accuracy against confidence. {'. '.join(shown)}.")


def _means(name: str, table: pd.DataFrame) -> str:
    """A method's mean confidence and accuracy in a region, in words."""
    count, confidence, correct = table[["count", "confidence_sum", "correct_sum"]].sum()
    if not count:
        return f"{name} has no pixels"
    return f"{name} has mean confidence {confidence / count:.3f} and accuracy {correct / count:.3f}"


def _draw_reliability(ax: plt.Axes, strip: plt.Axes, table: pd.DataFrame, style: Style, part: Sequence[float]) -> None:
    """The line, the dots, the bars in their part of the bin's width and, for several cases, the band."""
    pooled = table.groupby("bin")[["count", "confidence_sum", "correct_sum"]].sum()
    share, step = pooled["count"] / pooled["count"].sum(), 1 / (pooled.index.max() + 1)
    left, width = (pooled.index + 0.05 + 0.9 * part[0]) * step, 0.9 * (part[1] - part[0]) * step
    strip.bar(left, share, width, align="edge", color=style.colour, alpha=1 if style.line == "-" else 0.4)
    pooled, share = pooled[share > 0], share[share > 0]
    confidence, accuracy = pooled["confidence_sum"] / pooled["count"], pooled["correct_sum"] / pooled["count"]
    ax.plot(confidence, accuracy, color=style.colour, linestyle=style.line)
    dots(ax, confidence, accuracy, style, 14 + 80 * np.sqrt(share))
    if len(pooled) and "case" in table and table["case"].nunique() > 1:
        low, high = _accuracy_band(table[table["bin"].isin(pooled.index)])
        ax.fill_between(confidence, low, high, color=style.colour, alpha=0.2, linewidth=0)


def _accuracy_band(table: pd.DataFrame) -> NDArray:
    """The 2.5% and 97.5% quantiles of each bin's accuracy (2, bins) over resamples of the cases."""
    cells = {"index": "case", "columns": "bin", "aggfunc": "sum", "fill_value": 0}
    count, correct = (table.pivot_table(values=column, **cells).to_numpy() for column in ("count", "correct_sum"))
    weights = np.random.default_rng(0).multinomial(len(count), np.full(len(count), 1 / len(count)), size=1000)
    with np.errstate(invalid="ignore"):  # a resample may have no pixel in a bin: it says nothing there
        band = np.nanquantile((weights @ correct) / (weights @ count), [0.025, 0.975], axis=0)
    return np.where((count > 0).sum(axis=0) > 1, band, np.nan)


def reliability_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Accuracy against confidence as rising step functions, without bins; below the diagonal is over-confident.

    Args:
        curves: for each method, the confidences, rising, and the accuracy at each, both (points,).
    """
    figure, (ax,) = panels(1, width=4.5, height=4.7)
    styles = styles_of(curves)
    diagonal(ax)
    for place, (name, (confidence, accuracy)) in enumerate(curves.items()):
        confidence, accuracy = np.asarray(confidence), np.asarray(accuracy)
        new = np.append(True, np.diff(accuracy) != 0)
        ends = new | np.append(new[1:], True)  # of each step: between them there is nothing to draw
        every = (0.12 * place / len(curves), 0.12)  # so that the markers of two methods do not coincide
        ax.add_line(line_of(styles[name], confidence[ends], accuracy[ends], markevery=every))
    legend(figure, [line_of(styles[name]) for name in curves])
    shown = (f"{styles[name].label} {span(y)} at confidences {span(x)}" for name, (x, y) in curves.items())
    return described(figure, f"Accuracy against confidence as rising steps: {'; '.join(shown)}.")
