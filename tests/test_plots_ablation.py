"""Pictures of ablations draw the points that they were given, where they belong."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from nacl import plots

METRICS = {"dice": "Dice", "ece_all": "ECE, all pixels"}


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("Agg")
    yield
    plt.close("all")


def points(field, values, *, seeds=1, methods=("svls", "nacl")):
    rows = []
    for metric in METRICS:
        for m, method in enumerate(methods):
            for i, value in enumerate(values):
                mean = 0.1 + 0.2 * i + 0.05 * m + 0.01 * len(metric)
                ends = {"low": mean - 0.03, "high": mean + 0.04, "lowest": mean - 0.01, "highest": mean + 0.02}
                rows.append({"metric": metric, "method": method, field: value, "mean": mean, "seeds": seeds, **ends})
    return pd.DataFrame(rows)


def baseline():
    rows = [("dice", "ce", 0.3, 0.2, 0.5), ("ece_all", "ce", 0.02, 0.01, 0.04)]
    return pd.DataFrame(rows, columns=["metric", "method", "mean", "low", "high"])


def lines(ax, colour):
    """The curves of a colour, by their markers; levels and lines of theory have none."""
    own = [line for line in ax.lines if to_hex(line.get_color()) == colour.lower()]
    return [np.column_stack(line.get_data()) for line in own if line.get_marker() not in ("", "None")]


def segments(ax, colour):
    return [
        np.sort(segment, axis=0)
        for lines in ax.collections
        if hasattr(lines, "get_segments") and to_hex(lines.get_color()[0]) == colour.lower()
        for segment in lines.get_segments()
    ]


def test_a_curve_a_method_and_an_interval_a_point():
    table = points("penalty_weight", [1.0, 0.01, 0.1])  # in no order
    figure = plots.ablation_curves(table, "penalty_weight", METRICS, x="weight", log_x=True)
    for ax, metric in zip(figure.axes, METRICS, strict=True):
        for method in ("svls", "nacl"):
            own = table[(table["metric"] == metric) & (table["method"] == method)].sort_values("penalty_weight")
            (curve,) = lines(ax, plots.LOSS_COLOURS[method])
            np.testing.assert_allclose(curve, own[["penalty_weight", "mean"]])
            ends = segments(ax, plots.LOSS_COLOURS[method])
            found = [[segment[0, 0], *segment[:, 1]] for segment in ends]
            np.testing.assert_allclose(found, own[["penalty_weight", "low", "high"]])
        assert ax.get_ylabel() == METRICS[metric]
        assert ax.get_xscale() == "log"
        assert sorted(text.get_text() for text in ax.get_xticklabels()) == ["0.01", "0.1", "1"]
        bottom, top = ax.get_ylim()
        own = table[table["metric"] == metric]
        assert bottom < own["low"].min()
        assert top > own["high"].max()


def test_two_methods_at_one_value_are_drawn_beside_each_other():
    figure = plots.ablation_curves(points("margin", [3.0, 5.0]), "margin", METRICS)
    figure.draw_without_rendering()
    marked = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_marker() in "^s"]
    shown = [line.get_transform().transform((3.0, 0.1))[0] for line in marked]
    assert shown[1] - shown[0] == pytest.approx(5 / 72 * figure.dpi)


def test_a_band_joins_the_seeds_only_where_there_are_several():
    one, three = (
        plots.ablation_curves(points("margin", [3.0, 5.0], seeds=seeds, methods=["mbls"]), "margin", METRICS).axes[0]
        for seeds in (1, 3)
    )
    bands = [c for c in three.collections if not hasattr(c, "get_segments")]
    assert not [c for c in one.collections if not hasattr(c, "get_segments")]
    (path,) = bands[0].get_paths()
    mean = 0.1 + 0.01 * len("dice")
    assert path.vertices[:, 1].min() == pytest.approx(mean - 0.01)
    assert path.vertices[:, 1].max() == pytest.approx(mean + 0.2 + 0.02)


def test_the_baseline_is_a_level_in_its_interval():
    ax = plots.ablation_curves(points("margin", [3.0, 5.0]), "margin", METRICS, baseline=baseline()).axes[1]
    (level,) = [line for line in ax.lines if to_hex(line.get_color()) == plots.LOSS_COLOURS["ce"]]
    assert set(level.get_ydata()) == {0.02}
    (band,) = ax.patches
    box = band.get_bbox()
    assert (box.y0, box.y1) == (0.01, 0.04)


def test_the_theory_is_dotted_in_its_panel_alone_and_named_in_the_legend():
    theory = {"ece_all": {"nacl": ([3.0, 5.0], [0.1, 0.2])}}
    figure = plots.ablation_curves(points("margin", [3.0, 5.0]), "margin", METRICS, theory=theory)
    dotted = [[line for line in ax.lines if line.get_linestyle() == ":"] for ax in figure.axes]
    assert [len(found) for found in dotted] == [0, 1]
    assert np.column_stack(dotted[1][0].get_data()).tolist() == [[3.0, 0.1], [5.0, 0.2]]
    assert to_hex(dotted[1][0].get_color()) == plots.LOSS_COLOURS["nacl"].lower()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SVLS", "NACL", "theory"]


def test_a_logarithmic_panel_is_one_of_those_that_were_asked_for():
    figure = plots.ablation_curves(points("margin", [3.0, 5.0]), "margin", METRICS, log_y=["ece_all"])
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "log"]


def test_a_point_without_a_value_leaves_the_others():
    table = points("margin", [3.0, 5.0, 8.0], methods=["mbls"])
    table.loc[table["margin"] == 5.0, ["mean", "low", "high", "lowest", "highest"]] = np.nan
    figure = plots.ablation_curves(table, "margin", METRICS)
    figure.draw_without_rendering()
    (curve,) = lines(figure.axes[0], plots.LOSS_COLOURS["mbls"])
    assert np.isfinite(curve[:, 1]).tolist() == [True, False, True]
    assert np.isfinite(figure.axes[0].get_ylim()).all()


def test_rows_are_named_and_hold_each_method():
    names = ["unet", "smp.FPN", "mine:net"]
    table = points("model", names)
    figure = plots.ablation_rows(table, "model", METRICS, baseline=baseline())
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == names
    own = table[(table["metric"] == "dice") & (table["method"] == "nacl")]
    marks = [c for c in ax.collections if not hasattr(c, "get_segments")]
    at = [np.asarray(c.get_offsets()) for c in marks]
    nacl = next(xy for xy in at if xy[0, 0] == own["mean"].iloc[0])
    np.testing.assert_allclose(nacl[:, 0], own["mean"])
    assert np.round(nacl[:, 1]).tolist() == [0, 1, 2]  # in the row of its name
    assert not set(nacl[:, 1]) & set(next(xy for xy in at if xy is not nacl)[:, 1])
    (level,) = ax.lines
    assert set(level.get_xdata()) == {0.3}
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is the top one


@pytest.mark.parametrize("draw", [plots.ablation_curves, plots.ablation_rows])
def test_figures_fit_the_book_and_are_described(draw):
    field, values = ("margin", [3.0, 5.0]) if draw is plots.ablation_curves else ("prior", ["mean", "mode"])
    metrics = {**METRICS, "nll": "likelihood"}
    more = points(field, values)
    more = pd.concat([more, more[more["metric"] == "dice"].assign(metric="nll")])
    figure = draw(more, field, metrics, baseline=baseline())
    assert figure.get_figwidth() <= plots.BOOK_WIDTH
    assert len(figure.axes) == 3
    told = figure.get_label()
    assert all(label in told for label in metrics.values())
    assert f"NACL 0.19 at {values[0]}" in told
    assert "CE 0.3 throughout" in told
