"""How methods and classes look, and the frame of every picture, no wider than the book's column."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

CLASS_COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
LOSS_NAMES = {"ce": "CE", "label_smoothing": "LS", "focal": "FL", "ecp": "ECP", "svls": "SVLS", "mbls": "MbLS"}
LOSS_NAMES |= {"nacl": "NACL", "crac": "CRaC", "dice": "Dice", "l1_ace": "L1-ACE"}
LOSS_COLOURS = {"ce": "#555555", "label_smoothing": "#56B4E9", "focal": "#D55E00", "ecp": "#CC79A7", "svls": "#E69F00"}
LOSS_COLOURS |= {"mbls": "#009E73", "nacl": "#0072B2", "crac": "#000000"}
LOSS_MARKERS = dict(zip(LOSS_NAMES, "ovP<^DsX>*", strict=True))
BOOK_WIDTH = 7.5  # inches: the book's column, about 750 pixels, at matplotlib's 100 dots an inch


class Picture(Figure):
    """A figure that tells a notebook what it shows: its label, see `described`, goes with the image as `alt`."""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict, dict]:
        """No image of its own, so that the notebook draws it as it draws any figure, but the words to go with it."""
        return {}, {"image/png": {"alt": self.get_label()}}


class Style(NamedTuple):
    """How one method looks in every picture."""

    label: str
    colour: str
    marker: str
    line: str
    filling: str


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """The style of each method, known losses first, as in `LOSS_NAMES`, and relatives after their own method."""
    names, known = dict.fromkeys(names), {loss: place for place, loss in enumerate(LOSS_NAMES)}
    bases = sorted(dict.fromkeys(_split(name)[0] for name in names), key=lambda base: known.get(base, len(known)))
    colours = _with_further(LOSS_COLOURS, bases, CLASS_COLOURS[1:] + CLASS_COLOURS[:1])
    markers = _with_further(LOSS_MARKERS, bases, "os^DvPX<>*")
    styles, dashes = {}, {base: cycle(("--", ":", "-.")) for base in bases}
    for name in sorted(names, key=lambda name: (bases.index(_split(name)[0]), _split(name)[1] != "")):
        base, extra = _split(name)
        look = ("-", colours[base]) if not extra else (next(dashes[base]), "#FFFFFF")
        styles[name] = Style(label_of(name), colours[base], markers[base], *look)
    return styles


def _split(name: str) -> tuple[str, str]:
    """The key of a method's loss, or its own name, and what was added to it: "CE + T" gives ("ce", " + T"), "nacl (x)"
    ("nacl", " (x)")."""
    base, extra = re.fullmatch(r"(.*?)((?: \+ | \().*)?", name).groups(default="")
    keys = {shown: key for key, shown in LOSS_NAMES.items()}
    return keys.get(base, base), extra


def label_of(name: str) -> str:
    """A method as pictures and tables call it.

    >>> label_of("ce + temperature"), label_of("nacl (mixed_only)")
    ('CE + temperature', 'NACL (mixed_only)')
    """
    base, extra = _split(name)
    return LOSS_NAMES.get(base, base) + extra


def _with_further(known: Mapping[str, str], names: Sequence[str], pool: Sequence[str]) -> dict[str, str]:
    """What is known of `names`, and for the others what is left of `pool`, in its order."""
    found = {name: known[name] for name in names if name in known}
    free = [x for x in pool if x not in found.values()] or pool
    return found | dict(zip([name for name in names if name not in known], cycle(free), strict=False))


def panels(
    count: int, *, width: float, height: float, columns: int | None = None, **options: bool
) -> tuple[Picture, NDArray]:
    """A figure of `count` Axes of that size in inches, closed for pyplot, so that a notebook shows it only once.

    Two columns for four panels, else three up to nine, and four beyond, unless `columns` says otherwise: a picture is
    as wide as a phone there, and each column makes its panels and letters smaller.
    """
    columns = columns or {4: 2}.get(count, 3 if count <= 9 else 4)
    columns, rows = min(count, columns), -(-count // columns)
    size = (min(columns * width, BOOK_WIDTH), rows * height)
    grid = {"layout": "constrained", "squeeze": False, "subplot_kw": {"anchor": "N"}}  # "N": room for long titles
    figure, axes = plt.subplots(rows, columns, figsize=size, FigureClass=Picture, **grid, **options)
    plt.close(figure)
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, axes.flat[:count]


def described(figure: Picture, text: str) -> Picture:
    """The figure with what it shows in words, for those who cannot see it; formulas lose their dollars and slashes."""
    figure.set_label(" ".join(text.replace("$", "").replace("\\", "").split()))
    return figure


def listed(names: Iterable[str]) -> str:
    """Names as a sentence joins them: "CE, SVLS and NACL"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def span(values: ArrayLike) -> str:
    """From the lowest to the highest, in words; what is not finite does not count."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    return f"from {values.min():.3g} to {values.max():.3g}" if values.size else "without values"


def line_of(style: Style, x: ArrayLike = (), y: ArrayLike = (), **options: object) -> plt.Line2D:
    look = {"color": style.colour, "linestyle": style.line, "marker": style.marker, "markerfacecolor": style.filling}
    return plt.Line2D(x, y, label=style.label, markersize=6, **look, **options)


def dots(ax: plt.Axes, x: ArrayLike, y: ArrayLike, style: Style, size: ArrayLike) -> None:
    look = {"marker": style.marker, "edgecolors": style.colour, "facecolors": style.filling, "linewidths": 0.9}
    ax.scatter(x, y, size, zorder=3, **look)


def legend(figure: Figure, handles: Sequence[plt.Artist]) -> None:
    """A legend below all panels, in as many columns as fit, for which the figure grows."""
    longest = max(len(handle.get_label()) for handle in handles)
    columns = min(len(handles), max(1, int(figure.get_figwidth() * 11 / (longest + 7))))  # about 11 letters an inch
    figure.set_figheight(figure.get_figheight() + 0.1 + 0.2 * -(-len(handles) // columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def diagonal(ax: plt.Axes) -> None:
    ax.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
