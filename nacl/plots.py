"""Tables and arrays to Axes, in Wong's colours (Nature Methods 2011), which colour-blind readers can tell apart."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

CLASS_COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
LOSS_COLOURS = {"ce": "#555555", "svls": "#E69F00", "nacl": "#0072B2"}
LOSS_NAMES = {"ce": "CE", "svls": "SVLS", "nacl": "NACL"}


def learning_curves(history: pd.DataFrame) -> Figure:
    """Training loss and validation Dice by epoch, with the best epoch marked.

    Args:
        history: columns `epoch`, `loss`, `valid_dice`.
    """
    figure, (left, right) = _panels(2, width=4, height=3)
    left.plot(history["epoch"], history["loss"], color="#555555")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(history["epoch"], history["valid_dice"], color="#0072B2")
    best = history.loc[history["valid_dice"][::-1].idxmax()]
    right.plot(best["epoch"], best["valid_dice"], "o", color=CLASS_COLOURS[4])
    right.annotate(
        f"best: {best['valid_dice']:.3f}",
        (best["epoch"], best["valid_dice"]),
        xytext=(-6, -16),
        textcoords="offset points",
        ha="right",
    )
    right.set(xlabel="epoch", ylabel="validation Dice", ylim=(0, 1))
    return figure


def reliability_diagram(bins: Mapping[str, pd.DataFrame], regions: Mapping[str, str]) -> Figure:
    """Accuracy against confidence, a panel a region; below the diagonal is over-confident. Dots grow with their pixels.

    Args:
        bins: for each name, columns `region`, `count`, `confidence_sum`, `correct_sum`, one row a region and bin. A
            name in `LOSS_NAMES` has its own colour.
        regions: for each region, the title of its panel.
    """
    figure, axes = _panels(len(regions), width=3.4, height=3.7)
    for ax, (region, title) in zip(axes, regions.items(), strict=True):
        ax.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
        for name, table in bins.items():
            table = table[(table["region"] == region) & (table["count"] > 0)]
            share = table["count"] / table["count"].sum()
            confidence, accuracy = table["confidence_sum"] / table["count"], table["correct_sum"] / table["count"]
            line = ax.plot(confidence, accuracy, color=LOSS_COLOURS.get(name), label=LOSS_NAMES.get(name, name))[0]
            ax.scatter(confidence, accuracy, s=8 + 120 * np.sqrt(share), color=line.get_color())
        ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", title=title)
    axes[0].legend(frameon=False)
    return figure


def outlines(image: ArrayLike, labels: Mapping[str, ArrayLike], class_names: Sequence[str]) -> Figure:
    """One slice with the outlines of each label map over it, side by side.

    Args:
        image: (H, W).
        labels: for each title, a label map (H, W).
        class_names: of the labels, background first.
    """
    figure, axes = _panels(len(labels), width=2.6, height=3.1)
    for ax, (title, label) in zip(axes, labels.items(), strict=True):
        ax.imshow(image, cmap="gray")
        _draw_outlines(ax, np.asarray(label), len(class_names))
        ax.set_title(title)
        ax.axis("off")
    handles = [plt.Line2D([], [], color=_class_colour(k), label=name) for k, name in enumerate(class_names) if k]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _panels(count: int, *, width: float, height: float) -> tuple[Figure, NDArray]:
    """A figure of `count` Axes side by side, each of that size in inches.

    Closed for pyplot, so that a notebook shows it once, as the value of its cell.
    """
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), layout="constrained", squeeze=False)
    plt.close(figure)
    return figure, axes[0]


def _class_colour(k: int) -> str:
    return CLASS_COLOURS[k % len(CLASS_COLOURS)]


def _draw_outlines(ax: Axes, label: np.ndarray, num_classes: int) -> None:
    for k in range(1, num_classes):
        if (label == k).any() and not (label == k).all():
            ax.contour(label == k, levels=[0.5], colors=[_class_colour(k)], linewidths=1.4)


def maps(images: Mapping[str, ArrayLike], *, label: str, limits: tuple[float, float] = (0, 1)) -> Figure:
    """Pictures of one quantity side by side, with one colour bar.

    Args:
        images: for each title, an array (H, W).
        label: of the colour bar.
        limits: values of its ends.
    """
    figure, axes = _panels(len(images), width=2.6, height=2.9)
    for ax, (title, image) in zip(axes, images.items(), strict=True):
        shown = ax.imshow(image, cmap="cividis", vmin=limits[0], vmax=limits[1])
        ax.set_title(title)
        ax.axis("off")
    figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    return figure


def by_case(table: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """The test cases of each loss as dots, with their median and quartiles, one panel a metric.

    Args:
        table: one row a case and run, with the column `loss` and the metrics.
        metrics: for each column, the label of its axis.
    """
    figure, axes = _panels(len(metrics), width=2.5, height=3.2)
    order = [loss for loss in LOSS_NAMES if loss in set(table["loss"])]
    for ax, (column, label) in zip(axes, metrics.items(), strict=True):
        values = [table.loc[table["loss"] == loss, column].dropna() for loss in order]
        ax.boxplot(values, positions=range(len(order)), widths=0.6, showfliers=False, medianprops={"color": "#000000"})
        sns.stripplot(
            table, x="loss", y=column, order=order, hue="loss", palette=LOSS_COLOURS, legend=False, ax=ax, size=4
        )
        ax.set_xticks(range(len(order)), [LOSS_NAMES[loss] for loss in order])
        ax.set(xlabel="", ylabel=label)
    return figure


def contact_sheet(slices: Mapping[str, tuple[ArrayLike, ArrayLike]], num_classes: int) -> Figure:
    """Slices side by side, each with the outlines of its own labels.

    Args:
        slices: for each title, an image (H, W) and a label map (H, W).
        num_classes: C.
    """
    figure, axes = _panels(len(slices), width=2.4, height=2.7)
    for ax, (title, (image, label)) in zip(axes, slices.items(), strict=True):
        ax.imshow(image, cmap="gray")
        _draw_outlines(ax, np.asarray(label), num_classes)
        ax.set_title(title, fontsize=9)
        ax.axis("off")
    return figure


def confidence_panels(
    image: ArrayLike, label: ArrayLike, confidences: Mapping[str, ArrayLike], class_names: Sequence[str]
) -> Figure:
    """A slice with its true outlines, and the confidence of several networks there on one scale.

    Args:
        image: (H, W).
        label: (H, W).
        confidences: for each network, the probability of its predicted class (H, W).
        class_names: of the labels, background first.
    """
    figure, axes = _panels(1 + len(confidences), width=2.6, height=2.8)
    axes[0].imshow(image, cmap="gray")
    _draw_outlines(axes[0], np.asarray(label), len(class_names))
    axes[0].set_title("image and label")
    for ax, (title, confidence) in zip(axes[1:], confidences.items(), strict=True):
        shown = ax.imshow(confidence, cmap="cividis", vmin=1 / len(class_names), vmax=1)
        ax.set_title(title)
    for ax in axes:
        ax.axis("off")
    figure.colorbar(shown, ax=axes, label="confidence", shrink=0.8)
    return figure
