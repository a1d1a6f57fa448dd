"""Curves of functions: what a loss, a gradient or a ceiling does as one quantity moves."""

from collections.abc import Mapping
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from nacl.plots._style import described, legend, line_of, panels, styles_of

Curves = Mapping[str, tuple[ArrayLike, ArrayLike]]


def curves(groups: Mapping[str, Curves], x: str, y: str, *, log_x: bool = False, log_y: bool = False) -> Figure:
    """Named curves, a panel a group on shared axes; a name has one look in all panels.

    Args:
        groups: for the title of each panel, its curves by name: x and y, both (points,).
        x, y: labels of the axes.
        log_x, log_y: a logarithmic axis.
    """
    figure, axes = panels(len(groups), width=3.75 if len(groups) > 1 else 5.5, height=3.0, columns=2, sharey=True)
    styles = styles_of(name for group in groups.values() for name in group)
    for ax, (title, group) in zip(axes, groups.items(), strict=True):
        for place, (name, (xs, ys)) in enumerate(group.items()):
            every = (0.15 * place / len(group), 0.15)  # so that the markers of two curves do not coincide
            ax.add_line(line_of(styles[name], np.asarray(xs), np.asarray(ys), markevery=every))
        ax.set(title=fill(title, 40), xlabel=x, xscale="log" if log_x else "linear")
        ax.set(yscale="log" if log_y else "linear")
        ax.autoscale_view()
    axes[0].set_ylabel(y)
    legend(figure, [line_of(style) for style in styles.values()])
    shown = []
    for title, group in groups.items():
        courses = (_course(styles[name].label, *xy) for name, xy in group.items())
        shown.append(f"{title}: {', '.join(courses)}".removeprefix(": "))
    return described(figure, f"{y} against {x}. {'. '.join(shown)}.")


def _course(name: str, x: ArrayLike, y: ArrayLike) -> str:
    """Where a curve starts and ends, in words."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    return f"{name} from {y[0]:.3g} at {x[0]:.3g} to {y[-1]:.3g} at {x[-1]:.3g}" if y.size else f"{name} without values"
