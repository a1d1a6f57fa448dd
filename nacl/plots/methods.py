"""Methods beside each other: their cases, differences and ranks; and how one learned."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nacl.plots._style import (
    BOOK_WIDTH,
    CLASS_COLOURS,
    Style,
    described,
    dots,
    label_of,
    legend,
    line_of,
    listed,
    panels,
    span,
    styles_of,
)


def learning_curves(history: pd.DataFrame) -> Figure:
    """Training loss and validation Dice by epoch, with the best epoch marked.

    Args:
        history: columns `epoch`, `loss`, `valid_dice`.
    """
    figure, (left, right) = panels(2, width=3.75, height=2.8)
    left.plot(history["epoch"], history["loss"], color="#555555")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(history["epoch"], history["valid_dice"], color="#0072B2")
    best = history.loc[history["valid_dice"][::-1].idxmax()]
    at = best["epoch"], best["valid_dice"]
    right.plot(*at, "o", color=CLASS_COLOURS[4])
    right.annotate(f"best: {at[1]:.3f}", at, xytext=(-6, -16), textcoords="offset points", ha="right")
    right.set(xlabel="epoch", ylabel="validation Dice", ylim=(0, 1))
    loss = "training loss from {:.3g} to {:.3g}".format(*history["loss"].iloc[[0, -1]])
    dice = f"validation Dice, best with {at[1]:.3f} in epoch {at[0]:.0f}"
    return described(figure, f"Learning curves of {len(history)} epochs: {loss}; {dice}.")


def by_case(table: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """The test cases of each method as dots, with their median and quartiles, one panel a metric.

    Args:
        table: one row a case and run, with the column `method`, any name, and the metrics.
        metrics: for each column, the label of its axis.
    """
    styles = styles_of(table["method"])
    figure, axes = panels(len(metrics), width=3, height=0.8 + 0.28 * len(styles), sharey=True)
    for ax, (column, label) in zip(axes, metrics.items(), strict=True):
        for row, (name, style) in enumerate(styles.items()):
            values = table.loc[table["method"] == name, column].dropna()
            spread = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.5  # the golden ratio keeps neighbours apart
            dots(ax, values, row + spread, style, 14)
            ax.hlines(row, *values.quantile([0.25, 0.75]), color=style.colour, alpha=0.3, linewidth=10)
            ax.plot([values.median()] * 2, [row - 0.35, row + 0.35], color="#000000", linewidth=2)
        ax.set_yticks(range(len(styles)), [style.label for style in styles.values()])
        ax.set(xlabel=fill(label, 18), ylim=(len(styles) - 0.5, -0.5))
        ax.xaxis.set_major_locator(MaxNLocator(3))
    shown = (f"{label}: {_medians(table, column)}" for column, label in metrics.items())
    return described(figure, f"A dot a case, a row a method, with quartiles. Medians of {'. '.join(shown)}.")


def _medians(table: pd.DataFrame, column: str) -> str:
    """Each method's median, in words."""
    styles = styles_of(table["method"])
    medians = {name: table.loc[table["method"] == name, column].median() for name in styles}
    return ", ".join(f"{style.label} {medians[name]:.3f}" for name, style in styles.items())


def metric_histograms(table: pd.DataFrame, metric: str, label: str) -> Figure:
    """How many cases of each method have which value, one row a method on shared bins, with the median marked.

    Args:
        table: one row a case and run, with the column `method`, any name, and the metric.
        metric, label: the column, and the label of its axis.
    """
    styles = styles_of(table["method"])
    figure, axes = panels(len(styles), width=6.5, height=0.5 + 0.7 / len(styles), columns=1, sharex=True, sharey=True)
    edges = np.histogram_bin_edges(table[metric].dropna(), bins=20)
    for ax, (name, style) in zip(axes, styles.items(), strict=True):
        values = table.loc[table["method"] == name, metric].dropna()
        look = {"color": style.filling, "edgecolor": style.colour, "hatch": "" if style.line == "-" else "////"}
        sns.histplot(values.to_numpy(), bins=edges, ax=ax, alpha=1, **look)
        ax.axvline(values.median(), color="#000000", linewidth=2)
        ax.set_ylabel(style.label, rotation=0, ha="right", va="center")
        ax.text(1.02, 0.5, f"{values.median():.3f}", transform=ax.transAxes, va="center")
        ax.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes[0].set_title("median", loc="right", fontsize=10)
    axes[-1].set_xlabel(label)
    shown = f"{span(table[metric])}. Medians: {_medians(table, metric)}"
    return described(figure, f"Histograms of {label}, a row a method, {shown}.")


def critical_difference_diagram(
    ranks: Mapping[str, float], critical_difference: float, groups: Sequence[Sequence[str]] = ()
) -> Figure:
    """Demsar's diagram (JMLR 2006): methods on an axis of mean ranks; a thick bar joins those not told apart.

    Args:
        ranks: for each method its mean rank, 1 the best.
        critical_difference: the difference of ranks that counts, drawn as a bar.
        groups: names of methods that cannot be told apart, a bar each.
    """
    styles, order = styles_of(ranks), sorted(ranks, key=lambda name: ranks[name])
    half, deepest, end = -(-len(order) // 2), 0.5 * len(groups) + 0.5, max(len(ranks), 1 + critical_difference)
    figure, (ax,) = panels(1, width=BOOK_WIDTH, height=0.3 * (half + deepest + 3))
    for i, name in enumerate(order):
        side, edge, place = ("right", 0.9, i) if i < half else ("left", end + 0.1, len(order) - 1 - i)
        rank, style, depth = ranks[name], styles[name], deepest + 0.5 + place
        ax.plot([rank, rank, edge], [0, depth, depth], color="#555555", linewidth=1)
        dots(ax, rank, 0, style, 40)
        text = f"{style.label}  {rank:.2f} " if i < half else f" {rank:.2f}  {style.label}"
        ax.text(edge, depth, text, ha=side, va="center")
    for place, group in enumerate(groups):
        ends = [min(ranks[name] for name in group) - 0.04, max(ranks[name] for name in group) + 0.04]
        ax.plot(ends, [0.5 + 0.5 * place] * 2, color="#000000", linewidth=4, solid_capstyle="butt")
    ax.plot([1, 1 + critical_difference], [-1.7] * 2, "|-", color="#000000", linewidth=2, markersize=8)
    ax.text(1, -2, f"critical difference {critical_difference:.2f}", va="bottom")
    ax.text(end, -2, "mean rank, 1 is best", ha="right", va="bottom")
    ax.set(xlim=(0.9, end + 0.1), ylim=(half + deepest, -2.6), xticks=range(1, len(ranks) + 1), yticks=[])
    ax.xaxis.tick_top()
    ax.spines["top"].set_position(("data", 0))
    ax.spines[["left", "right", "bottom"]].set_visible(False)
    shown = ", ".join(f"{styles[name].label} {ranks[name]:.2f}" for name in order)
    alike = "".join(f"; not told apart: {listed(styles[name].label for name in group)}" for group in groups)
    text = f"Mean ranks, 1 is best: {shown}; critical difference {critical_difference:.2f}{alike}."
    return described(figure, text)


def trade(comparison: pd.DataFrame, x: tuple[str, str], y: tuple[str, str]) -> Figure:
    """Two metrics against each other: a numbered mark a method at its means, with its interval along both axes.

    Args:
        comparison: what `nacl.tables.compare` gave for both metrics.
        x, y: a metric and the label of its axis; let it say which end is the better one.
    """
    figure, (ax,) = panels(1, width=BOOK_WIDTH, height=4.2)
    of_x, of_y = (comparison[comparison["metric"] == metric].set_index("method") for metric, _ in (x, y))
    shown, handles = [], []
    for number, (name, style) in enumerate(styles_of(of_x.index).items(), start=1):
        across, up = of_x.loc[name], of_y.loc[name]
        ax.plot([across["low"], across["high"]], [up["mean"]] * 2, color=style.colour, linewidth=0.8, alpha=0.6)
        ax.plot([across["mean"]] * 2, [up["low"], up["high"]], color=style.colour, linewidth=0.8, alpha=0.6)
        dots(ax, across["mean"], up["mean"], style, 40)
        ax.annotate(str(number), (across["mean"], up["mean"]), xytext=(5, 5), textcoords="offset points")
        handles.append(line_of(style._replace(label=f"{number}  {style.label}", line="")))
        shown.append(f"{style.label} {across['mean']:.3f} and {up['mean']:.3f}")
    ax.set(xlabel=x[1], ylabel=fill(y[1], 42))
    legend(figure, handles)
    return described(figure, f"{x[1]} against {y[1]}, with intervals. {'; '.join(shown)}.")


def intervals(table: pd.DataFrame, label: str) -> Figure:
    """Differences of two methods with their intervals, a row each; a filled mark where significant.

    Args:
        table: one row a comparison: columns `name`, `mean`, `low`, `high`, and `significant`, after correction.
        label: of the axis; let it say which sign is the better one.
    """
    figure, (ax,) = panels(1, width=BOOK_WIDTH, height=1.2 + 0.32 * len(table))
    ax.axvline(0, color="#999999", linewidth=1, linestyle="--")
    yes = Style("significant", "#0072B2", "o", "-", "#0072B2")
    no, shown = Style("not significant", "#555555", "o", "--", "#FFFFFF"), []
    for row, x in enumerate(table.itertuples(index=False)):
        style = yes if x.significant else no
        ax.plot([x.low, x.high], [row, row], color=style.colour, linestyle=style.line, linewidth=2)
        dots(ax, x.mean, row, style, 50)
        text = f"{x.mean:.3f} [{x.low:.3f}, {x.high:.3f}]"
        ax.text(1.02, row, text, transform=ax.get_yaxis_transform(), va="center")
        shown.append(f"{label_of(x.name)}: {text}, {style.label}")
    ax.set_yticks(range(len(table)), [label_of(name) for name in table["name"]])
    ax.set(xlabel=label, ylim=(len(table) - 0.5, -0.5))
    legend(figure, [line_of(yes), line_of(no)])
    return described(figure, f"{label}, with intervals. {'; '.join(shown)}.")
