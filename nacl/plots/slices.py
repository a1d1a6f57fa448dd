"""Slices with outlines, maps of confidence, and where a method is wrong."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from nacl.plots._style import CLASS_COLOURS, Style, described, label_of, legend, line_of, listed, panels, span

WRONG = ListedColormap(plt.get_cmap("YlOrRd")(np.linspace(0.25, 1, 256)))  # its palest part is too near to white


def outlines(image: ArrayLike, labels: Mapping[str, ArrayLike], class_names: Sequence[str]) -> Figure:
    """One slice with the outlines of each label map over it, side by side.

    Args:
        image: (H, W).
        labels: for each title, a label map (H, W).
        class_names: of the labels, background first.
    """
    slices = {title: (image, label) for title, label in labels.items()}
    return contact_sheet(slices, len(class_names), class_names=class_names)


def _show(ax: plt.Axes, image: ArrayLike, title: str, **look: object) -> plt.cm.ScalarMappable:
    ax.set_title(fill(title, 22), fontsize=9)
    ax.axis("off")
    return ax.imshow(image, **look)


def _draw_outlines(ax: plt.Axes, label: ArrayLike, num_classes: int, line: str = "-") -> None:
    for k in range(1, num_classes):
        inside = np.asarray(label) == k
        if inside.any() and not inside.all():
            ax.contour(inside, [0.5], colors=[CLASS_COLOURS[k % len(CLASS_COLOURS)]], linewidths=1.4, linestyles=line)


def _class_handles(class_names: Sequence[str]) -> list[plt.Artist]:
    coloured = list(zip(class_names, cycle(CLASS_COLOURS), strict=False))[1:]
    return [plt.Line2D([], [], color=colour, label=name) for name, colour in coloured]


def maps(
    images: Mapping[str, ArrayLike],
    *,
    label: str,
    limits: tuple[float, float] = (0, 1),
    around: ArrayLike | None = None,
) -> Figure:
    """Pictures of one quantity side by side, with one colour bar.

    Args:
        images: for each title, an array (H, W).
        label: of the colour bar.
        limits: values of its ends. Where the lower is 0, nothing is as white as paper.
        around: a mask (H, W); only its surroundings are shown, so that what is small is seen.
    """
    figure, axes = panels(len(images), width=2.5, height=2.4)
    near = (slice(None), slice(None)) if around is None else _near(np.asarray(around))
    look = {"cmap": "cividis" if limits[0] else "Blues", "vmin": limits[0], "vmax": limits[1]}
    for ax, (title, image) in zip(axes, images.items(), strict=True):
        shown = _show(ax, np.asarray(image)[near], title, **look)
        ax.set(xticks=[], yticks=[])
        ax.axis("on")
        ax.spines[:].set_color("#BBBBBB")
    figure.colorbar(shown, ax=axes, label=label, shrink=0.8, aspect=30, panchor=False)
    ranges = "; ".join(f"{title} {span(image)}" for title, image in images.items())
    return described(figure, f"Maps of {label} on one scale {span(limits)}: {ranges}.")


def _near(mask: NDArray) -> tuple[slice, slice]:
    """The square round a mask, with a margin, as far as the picture goes; all of it where the mask is empty."""
    places = np.argwhere(mask)
    if not len(places):
        return slice(None), slice(None)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    middle, half = (low + high) // 2, (high - low).max() // 2 + 6
    return tuple(slice(max(0, m - half), m + half) for m in middle)


def contact_sheet(
    slices: Mapping[str, tuple[ArrayLike, ArrayLike]],
    num_classes: int,
    *,
    class_names: Sequence[str] = (),
    aspects: Mapping[str, float] | None = None,
) -> Figure:
    """Slices side by side, each with the outlines of its own labels.

    Args:
        slices: for each title, an image (H, W) and a label map (H, W).
        num_classes: C.
        class_names: for a legend, background first; without them there is none.
        aspects: for titles, the height of a pixel over its width; by default 1.
    """
    aspects = aspects or {}
    figure, axes = panels(len(slices), width=2.5, height=2.3)
    for ax, (title, (image, label)) in zip(axes, slices.items(), strict=True):
        _show(ax, image, title, cmap="gray", aspect=aspects.get(title, 1))
        _draw_outlines(ax, label, num_classes)
    if len(class_names) > 1:
        legend(figure, _class_handles(class_names))
    classes = f" of {listed(class_names[1:])}" if len(class_names) > 1 else ""
    return described(figure, f"Slices with the outlines{classes} drawn over them: {listed(map(str, slices))}.")


def confidence_panels(
    image: ArrayLike, label: ArrayLike, confidences: Mapping[str, ArrayLike], class_names: Sequence[str]
) -> Figure:
    """A slice with its true outlines, and the confidence of several networks there on one scale.

    Args:
        image, label: (H, W).
        confidences: for each network, the probability of its predicted class (H, W).
        class_names: of the labels, background first.
    """
    figure, axes = panels(1 + len(confidences), width=2.5, height=2.1)
    _show(axes[0], image, "image and label", cmap="gray")
    _draw_outlines(axes[0], label, len(class_names))
    for ax, (title, confidence) in zip(axes[1:], confidences.items(), strict=True):
        shown = _show(ax, confidence, title, cmap="cividis", vmin=1 / len(class_names), vmax=1)
    figure.colorbar(shown, ax=axes, label="confidence", shrink=0.8, panchor=False)
    ranges = "; ".join(f"{title} {span(confidence)}" for title, confidence in confidences.items())
    classes = listed(class_names[1:])
    return described(figure, f"A slice with the outlines of {classes}, and maps of the confidence there: {ranges}.")


def error_maps(
    image: ArrayLike, label: ArrayLike, forecasts: Mapping[str, tuple[ArrayLike, ArrayLike]], class_names: Sequence[str]
) -> Figure:
    """Where methods are wrong, and how sure they are there: in the last panel, dark is sure and wrong, pale is unsure.

    Args:
        image, label: (H, W); a label that is no class is ignored, and never wrong.
        forecasts: for each method, a row, its predicted classes and the probability of them, both (H, W).
        class_names: of the labels, background first.
    """
    figure, axes = panels(3 * len(forecasts), width=2.5, height=2.6, columns=3)
    label, num_classes = np.asarray(label), len(class_names)
    limits, shown = {"vmin": 1 / num_classes, "vmax": 1}, []
    for row, (name, (predicted, confidence)) in zip(axes.reshape(-1, 3), forecasts.items(), strict=True):
        wrong = (np.asarray(predicted) != label) & (label >= 0) & (label < num_classes)
        _show(row[0], image, label_of(name), cmap="gray")
        _draw_outlines(row[0], label, num_classes)
        _draw_outlines(row[0], predicted, num_classes, line=":")
        sure = _show(row[1], confidence, "confidence", cmap="cividis", **limits)
        row[2].imshow(np.full((*label.shape, 3), 0.93))
        wrongly = _show(row[2], np.where(wrong, confidence, np.nan), "confidence where wrong", cmap=WRONG, **limits)
        shown.append(f"{label_of(name)} is wrong in {wrong.sum()} of {wrong.size} pixels{_sureness(wrong, confidence)}")
    for column, scale in ((1, sure), (2, wrongly)):
        figure.colorbar(scale, ax=axes[column::3], location="bottom", shrink=0.9, panchor=False)
    lines = (Style("label", "#555555", "", "-", "none"), Style("prediction", "#555555", "", ":", "none"))
    legend(figure, [*_class_handles(class_names), *map(line_of, lines)])
    return described(figure, f"Label and prediction, confidence, and where it is wrong: {'; '.join(shown)}.")


def _sureness(wrong: NDArray, confidence: ArrayLike) -> str:
    """The mean confidence of what is wrong, in words."""
    return f", with a mean confidence of {np.asarray(confidence)[wrong].mean():.3f}" if wrong.any() else ""
