"""Pictures draw what the table says."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from nacl import plots


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("Agg")
    yield
    plt.close("all")


def bins(count, confidence, correct, region="all", bin_=None, **columns):
    bin_ = range(len(count)) if bin_ is None else bin_
    sums = {"count": count, "confidence_sum": confidence, "correct_sum": correct}
    return pd.DataFrame({"region": region, "bin": bin_} | sums | columns)


def legend(figure):
    """The texts of the legend below the panels."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def points(collection):
    return np.asarray(collection.get_offsets()).tolist()


def outline(ax):
    """The vertices (x, y) of each contour on Axes."""
    return [path.vertices for lines in ax.collections for path in lines.get_paths() if len(path.vertices)]


def square(size=8):
    label = np.zeros((size, size), int)
    label[2:5, 1:7] = 1
    return label


def test_learning_curves_draw_both_columns_and_mark_the_best_epoch():
    history = pd.DataFrame({"epoch": [1, 2, 3, 4], "loss": [0.9, 0.5, 0.4, 0.3], "valid_dice": [0.1, 0.7, 0.6, 0.65]})
    figure = plots.learning_curves(history)
    left, right = figure.axes
    assert left.lines[0].get_xydata().tolist() == history[["epoch", "loss"]].to_numpy().tolist()
    assert right.lines[0].get_xydata().tolist() == history[["epoch", "valid_dice"]].to_numpy().tolist()
    assert right.lines[1].get_xydata().tolist() == [[2, 0.7]]
    assert right.texts[0].get_text() == "best: 0.700"


def test_learning_curves_mark_the_last_of_equal_epochs_as_training_keeps_it():
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "valid_dice": [0.5, 0.5, 0.4]}, index=[7, 8, 9]
    )
    assert plots.learning_curves(history).axes[1].lines[1].get_xdata().tolist() == [2]


def test_reliability_diagram_draws_accuracy_against_confidence_and_leaves_empty_bins_out():
    tables = {"ce": bins([0, 4, 12], [0, 2.0, 9.0], [0, 1, 12]), "mine": bins([1, 0, 1], [0.2, 0, 0.9], [0, 0, 1])}
    ax = plots.reliability_diagram(tables, {"all": "All pixels"}).axes[0]
    diagonal, ce, mine = ax.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert ce.get_xydata().tolist() == [[0.5, 0.25], [0.75, 1.0]]
    assert mine.get_xydata().tolist() == [[0.2, 0], [0.9, 1]]
    assert ce.get_color() == plots.LOSS_COLOURS["ce"]
    assert legend(ax.figure) == ["CE", "mine"]


def test_reliability_dots_sit_on_the_line_and_grow_with_their_pixels():
    ax = plots.reliability_diagram({"nacl": bins([4, 12], [2.0, 9.0], [1, 12])}, {"all": "All pixels"}).axes[0]
    dots = ax.collections[0]
    assert dots.get_offsets().tolist() == ax.lines[1].get_xydata().tolist()
    assert dots.get_sizes().tolist() == pytest.approx([14 + 80 * 0.5, 14 + 80 * 0.75**0.5])
    assert to_hex(dots.get_facecolor()[0]) == plots.LOSS_COLOURS["nacl"].lower()


def test_reliability_diagram_draws_each_region_on_its_own_panel():
    table = bins([4, 12, 2], [2.0, 9.0, 1.8], [1, 12, 1], region=["all", "all", "true_foreground"], bin_=[7, 11, 13])
    figure = plots.reliability_diagram({"ce": table}, {"all": "All pixels", "true_foreground": "Heart"})
    assert [ax.get_title() for ax in figure.axes] == ["All pixels", "Heart"]
    drawn = [ax.lines[1].get_xydata().tolist() for ax in figure.axes]
    assert drawn == [[[0.5, 0.25], [0.75, 1.0]], [[0.9, 0.5]]]


def test_reliability_strip_shows_each_methods_share_of_pixels_side_by_side_in_its_bin():
    tables = {
        "ce": bins([0, 4, 12, 0], [0, 2.0, 9.0, 0], [0, 1, 12, 0]),
        "nacl": bins([2, 2, 2, 2], [1.0] * 4, [1] * 4),
    }
    (strip,) = plots.reliability_diagram(tables, {"all": "All pixels"}).axes[0].child_axes
    ce, nacl = strip.containers
    assert [bar.get_height() for bar in ce] == [0, 0.25, 0.75, 0]
    assert [bar.get_height() for bar in nacl] == [0.25] * 4
    for k, (first, second) in enumerate(zip(ce, nacl, strict=True)):
        edges = [
            k / 4,
            first.get_x(),
            first.get_x() + first.get_width(),
            second.get_x() + second.get_width(),
            (k + 1) / 4,
        ]
        assert edges == sorted(edges)
        assert second.get_x() == pytest.approx(edges[2])
    assert (strip.get_yscale(), strip.get_xlim()) == ("log", (0, 1.02))
    assert strip.get_xlabel() == "confidence"


def cases_of_bins():
    """Three cases, of which the last alone has pixels in bin 1, and none in bin 2 of three."""
    case = [c for c in "abc" for _ in range(3)]
    count = [100, 0, 0, 300, 0, 0, 100, 50, 0]
    correct = [20, 0, 0, 180, 0, 0, 90, 25, 0]
    confidence = [60.0, 0, 0, 150.0, 0, 0, 50.0, 40.0, 0]
    return bins(count, confidence, correct, bin_=[0, 1, 2] * 3, case=case)


def test_reliability_pools_the_cases_before_it_divides():
    ax = plots.reliability_diagram({"ce": cases_of_bins()}, {"all": "All pixels"}).axes[0]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[260 / 500, 290 / 500], [40 / 50, 25 / 50]])


def test_a_region_without_a_pixel_leaves_its_panel_empty():
    table = cases_of_bins().assign(count=0, confidence_sum=0.0, correct_sum=0)
    figure = plots.reliability_diagram({"ce": table}, {"all": "All pixels"})
    figure.canvas.draw()
    assert not len(figure.axes[0].lines[1].get_xydata())


def test_reliability_band_agrees_with_a_loop_over_resampled_cases():
    ax = plots.reliability_diagram({"ce": cases_of_bins()}, {"all": "All pixels"}).axes[0]
    band = ax.collections[1].get_paths()[0].vertices
    rng, count, correct = np.random.default_rng(5), np.array([100, 300, 100]), np.array([20, 180, 90])
    loop = [correct[draw].sum() / count[draw].sum() for draw in (rng.integers(0, 3, 3) for _ in range(4000))]
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], np.quantile(loop, [0.025, 0.975]), atol=0.02)
    np.testing.assert_allclose(band[:, 0], 260 / 500)  # at the bin's mean confidence; the bin of one case has no band


def test_reliability_band_needs_cases_and_is_the_same_each_time():
    tables = cases_of_bins()
    pooled = tables.drop(columns="case")
    for table in (pooled, tables[tables["case"] == "c"]):
        assert len(plots.reliability_diagram({"ce": table}, {"all": "All pixels"}).axes[0].collections) == 1
    many = pd.concat([tables.assign(case=tables["case"] + str(i), correct_sum=i) for i in range(9)])
    first, second = (
        plots.reliability_diagram({"ce": many}, {"all": ""}).axes[0].collections[1].get_paths()[0] for _ in range(2)
    )
    np.testing.assert_array_equal(first.vertices, second.vertices)


def test_reliability_band_of_equal_cases_has_no_width():
    equal = bins([10, 30] * 4, [5.0, 24.0] * 4, [4, 21] * 4, bin_=[0, 1] * 4, case=list("aabbccdd"))
    band = plots.reliability_diagram({"ce": equal}, {"all": ""}).axes[0].collections[1].get_paths()[0].vertices
    assert set(map(tuple, band.round(9))) == {(0.5, 0.4), (0.8, 0.7)}


def test_methods_can_be_told_apart_without_colour_and_relatives_share_it():
    names = ["mine", "nacl", "CE + temperature", "focal", "ce + vector", "ce", "yours", "MbLS", "mine + temperature"]
    figure = plots.reliability_diagram({name: bins([4], [2.0], [1]) for name in names}, {"all": ""})
    handles = dict(zip(legend(figure), figure.legends[0].get_lines(), strict=True))
    shown = ["mine", "NACL", "CE + temperature", "FL", "CE + vector", "CE", "yours", "MbLS", "mine + temperature"]
    assert list(handles) == shown
    looks = {(h.get_marker(), h.get_linestyle()) for h in handles.values()}
    assert len(looks) == len(names)
    assert {handles[x].get_color() for x in ("CE", "CE + temperature", "CE + vector")} == {plots.LOSS_COLOURS["ce"]}
    assert handles["MbLS"].get_color() == plots.LOSS_COLOURS["mbls"]
    assert len({handles[x].get_color() for x in ("mine", "yours", "CE", "FL", "MbLS", "NACL")}) == 6
    assert [handles[x].get_markerfacecolor() for x in ("CE + temperature", "mine + temperature")] == ["#FFFFFF"] * 2


def test_known_losses_have_colours_and_markers_of_their_own():
    assert len(set(plots.LOSS_COLOURS.values())) == len(plots.LOSS_COLOURS) == 8
    assert len(set(plots.LOSS_MARKERS.values())) == len(plots.LOSS_NAMES) == 10


def test_reliability_curves_draw_the_steps_and_drop_only_what_lies_within_one():
    curves = {"ce": ([0.1, 0.2, 0.3, 0.4, 0.9], [0.0, 0.5, 0.5, 0.5, 1.0]), "nacl": (np.array([0.7]), np.array([0.6]))}
    figure = plots.reliability_curves(curves)
    diagonal, ce, nacl = figure.axes[0].lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert ce.get_xydata().tolist() == [[0.1, 0], [0.2, 0.5], [0.4, 0.5], [0.9, 1]]
    assert nacl.get_xydata().tolist() == [[0.7, 0.6]]
    assert legend(figure) == ["CE", "NACL"]


def test_outlines_go_half_a_pixel_round_each_object():
    label = square()
    figure = plots.outlines(np.zeros((8, 8)), {"truth": label, "empty": 0 * label}, ["background", "heart"])
    truth, empty = figure.axes
    (corners,) = outline(truth)
    assert [corners.min(axis=0).tolist(), corners.max(axis=0).tolist()] == [[0.5, 1.5], [6.5, 4.5]]
    assert to_hex(truth.collections[0].get_edgecolor()[0]) == plots.CLASS_COLOURS[1].lower()
    assert outline(empty) == []
    assert [ax.get_title() for ax in figure.axes] == ["truth", "empty"]
    assert legend(figure) == ["heart"]


def test_outlines_show_the_image_below():
    image = np.arange(64.0).reshape(8, 8)
    figure = plots.outlines(image, {"truth": square()}, ["background", "heart"])
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image)


def test_class_that_fills_the_slice_has_no_outline():
    figure = plots.outlines(np.zeros((4, 4)), {"full": np.ones((4, 4), int)}, ["background", "heart"])
    assert outline(figure.axes[0]) == []


def test_maps_share_limits_and_one_colour_bar():
    images = {"a": np.eye(3), "b": np.zeros((3, 3))}
    figure = plots.maps(images, label="confidence", limits=(-1, 2))
    *pictures, bar = figure.axes
    for ax, (title, image) in zip(pictures, images.items(), strict=True):
        assert ax.get_title() == title
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
        assert ax.images[0].get_clim() == (-1, 2)
    assert bar.get_ylabel() == "confidence"


def test_maps_show_the_surroundings_of_a_mask_and_nothing_is_white():
    image = np.arange(40.0 * 50).reshape(40, 50) / 2000
    mask = np.zeros((40, 50), bool)
    mask[20:24, 3:13] = True
    shown = plots.maps({"a": image}, label="share", around=mask).axes[0].images[0]
    np.testing.assert_array_equal(shown.get_array(), image[11:33, :19])  # 5 and a margin of 6 round (22, 8)
    assert min(shown.cmap(0.0)[:3]) > 0.95
    whole = plots.maps({"a": image}, label="share", around=0 * image).axes[0].images[0]
    np.testing.assert_array_equal(whole.get_array(), image)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (10, 4)])
def test_few_columns_keep_panels_large_on_a_phone(count, columns):
    figure = plots.maps({str(k): np.eye(8) for k in range(count)}, label="p")
    figure.draw_without_rendering()
    assert len({round(ax.get_position().x0, 3) for ax in figure.axes[:count]}) == columns


NAMES = ["other", "nacl", "ce + temperature", "ce", "ce + temperature", "other", "ce", "other"]
VALUES = [0.9, 0.5, 0.8, 0.6, 0.7, 0.1, np.nan, 0.2]


def test_by_case_draws_every_case_of_every_method_in_the_order_of_the_book():
    table = pd.DataFrame({"method": NAMES, "dice": VALUES, "ece": np.arange(8) ** 2 / 100})
    figure = plots.by_case(table, {"dice": "Dice", "ece": "ECE"})
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["CE", "CE + temperature", "NACL", "other"]
    order = ["ce", "ce + temperature", "nacl", "other"]
    for ax, (column, label) in zip(figure.axes, {"dice": "Dice", "ece": "ECE"}.items(), strict=True):
        assert ax.get_xlabel() == label
        groups = [table.loc[table["method"] == name, column].dropna() for name in order]
        for row, (group, dots) in enumerate(zip(groups, ax.collections[::2], strict=True)):
            assert [x for x, _ in points(dots)] == group.tolist()
            assert all(abs(y - row) < 0.3 for _, y in points(dots))
        quartiles = [bar.get_segments()[0][:, 0].tolist() for bar in ax.collections[1::2]]
        assert quartiles == [group.quantile([0.25, 0.75]).tolist() for group in groups]
        assert [line.get_xdata()[0] for line in ax.lines] == [group.median() for group in groups]
    assert figure.axes[0].get_ylim() == (3.5, -0.5)


def test_a_trade_has_a_numbered_mark_at_the_means_of_each_method_with_both_intervals():
    rows = [
        {"metric": metric, "method": method, "mean": x, "low": x - 0.1, "high": x + 0.2}
        for method, means in {"nacl": (0.7, 0.2), "ce": (0.6, 0.1)}.items()
        for metric, x in zip(("dice", "nll"), means, strict=True)
    ]
    figure = plots.trade(pd.DataFrame(rows), ("dice", "Dice"), ("nll", "NLL"))
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Dice", "NLL")
    assert [points(dots) for dots in ax.collections] == [[[0.6, 0.1]], [[0.7, 0.2]]]
    assert [text.get_text() for text in ax.texts] == ["1", "2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1  CE", "2  NACL"]
    spans = [line.get_xydata().round(3).tolist() for line in ax.lines]
    assert spans[:2] == [[[0.5, 0.1], [0.8, 0.1]], [[0.6, 0.0], [0.6, 0.3]]]


def test_metric_histograms_count_each_methods_cases_on_shared_bins_and_mark_the_median():
    table = pd.DataFrame({"method": NAMES, "dice": VALUES})
    figure = plots.metric_histograms(table, "dice", "Dice")
    order = ["ce", "ce + temperature", "nacl", "other"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["CE", "CE + temperature", "NACL", "other"]
    edges = np.linspace(0.1, 0.9, 21)
    for ax, name in zip(figure.axes, order, strict=True):
        values = table.loc[table["method"] == name, "dice"].dropna()
        np.testing.assert_array_equal([bar.get_height() for bar in ax.patches], np.histogram(values, edges)[0])
        np.testing.assert_allclose([bar.get_x() for bar in ax.patches], edges[:-1])
        assert ax.lines[0].get_xdata() == [values.median()] * 2
        assert ax.texts[0].get_text() == f"{values.median():.3f}"
    assert figure.axes[-1].get_xlabel() == "Dice"


def test_error_maps_show_confidence_only_where_a_valid_pixel_is_wrong():
    label, confidence = square(), np.linspace(0.5, 1, 64).reshape(8, 8)
    predicted = np.roll(label, 1, axis=0)
    label[0, 0], label[7, 7], predicted[0, 0] = -100, 255, 1
    forecasts = {"ce": (predicted, confidence), "NACL": (square(), confidence)}
    figure = plots.error_maps(np.eye(8), label, forecasts, ["background", "heart"])
    rows = np.reshape(figure.axes[:6], (2, 3))
    assert [row[0].get_title() for row in rows] == ["CE", "NACL"]
    wrong = rows[0, 2].images[1].get_array()
    expected = [[predicted[i, j] != label[i, j] and label[i, j] in (0, 1) for j in range(8)] for i in range(8)]
    np.testing.assert_array_equal(~np.ma.getmaskarray(wrong), expected)
    np.testing.assert_array_equal(wrong[np.array(expected)], confidence[np.array(expected)])
    assert np.ma.getmaskarray(rows[1, 2].images[1].get_array()).all()
    for row in rows:
        np.testing.assert_array_equal(row[1].images[0].get_array(), confidence)
        assert {ax.images[-1].get_clim() for ax in row[1:]} == {(0.5, 1)}
    assert legend(figure) == ["heart", "label", "prediction"]


def test_error_maps_darken_with_confidence_and_dot_the_prediction():
    figure = plots.error_maps(np.eye(8), square(), {"a": (square().T, np.ones((8, 8)))}, ["background", "heart"])
    true, predicted = figure.axes[0].collections
    assert [true.get_linestyle()[0][1] is None, predicted.get_linestyle()[0][1] is None] == [True, False]
    boxes = [[c.min(axis=0).tolist(), c.max(axis=0).tolist()] for c in outline(figure.axes[0])]
    assert boxes == [[[0.5, 1.5], [6.5, 4.5]], [[1.5, 0.5], [4.5, 6.5]]]
    lightness = plots.WRONG(np.linspace(0, 1, 9))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) < 0).all()


RANKS = {"ce": 3.6, "nacl": 1.2, "svls": 2.0, "own": 3.2}


def test_critical_difference_diagram_leads_each_name_to_its_rank():
    figure = plots.critical_difference_diagram(RANKS, 1.5, [("nacl", "svls"), ("svls", "own", "ce")])
    ax = figure.axes[0]
    leaders, (first, second, bar) = ax.lines[:4], ax.lines[4:]
    texts = {text.get_text().strip(): text for text in ax.texts}
    ends = {"NACL  1.20": ("nacl", "right"), "SVLS  2.00": ("svls", "right"), "3.20  own": ("own", "left")}
    for text, (name, side) in ends.items():
        (leader,) = [line for line in leaders if line.get_xdata()[0] == RANKS[name]]
        assert leader.get_xydata()[0].tolist() == [RANKS[name], 0]
        assert leader.get_xydata()[-1].tolist() == list(texts[text].get_position())
        assert texts[text].get_ha() == side
    assert [points(dots)[0] for dots in ax.collections] == [[rank, 0] for rank in sorted(RANKS.values())]
    heights = [line.get_ydata()[-1] for line in leaders]
    assert heights[0] < heights[1]
    assert heights[3] < heights[2]
    np.testing.assert_allclose(first.get_xdata(), [1.2 - 0.04, 2.0 + 0.04])
    np.testing.assert_allclose(second.get_xdata(), [2.0 - 0.04, 3.6 + 0.04])
    assert 0 < first.get_ydata()[0] < second.get_ydata()[0] < min(heights)
    assert np.ptp(bar.get_xdata()) == 1.5
    assert "critical difference 1.50" in texts


def test_critical_difference_diagram_holds_a_bar_longer_than_the_axis():
    ax = plots.critical_difference_diagram({"ce": 1.5, "nacl": 1.5}, 3.0).axes[0]
    assert ax.get_xlim()[1] > 4
    assert len(ax.lines) == 3


def test_intervals_draw_a_row_a_comparison_and_fill_the_significant():
    table = pd.DataFrame(
        {
            "name": ["ce + temperature", "NACL - SVLS"],
            "mean": [-0.02, 0.01],
            "low": [-0.03, -0.01],
            "high": [-0.01, 0.03],
            "significant": [True, False],
        }
    )
    figure = plots.intervals(table, "difference")
    ax = figure.axes[0]
    zero, *bars = ax.lines
    assert list(zero.get_xdata()) == [0, 0]
    assert [bar.get_xydata().tolist() for bar in bars] == [[[-0.03, 0], [-0.01, 0]], [[-0.01, 1], [0.03, 1]]]
    assert [points(dot) for dot in ax.collections] == [[[-0.02, 0]], [[0.01, 1]]]
    assert [to_hex(dot.get_facecolor()[0]) for dot in ax.collections] == ["#0072b2", "#ffffff"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["CE + temperature", "NACL - SVLS"]
    assert [text.get_text() for text in ax.texts] == ["-0.020 [-0.030, -0.010]", "0.010 [-0.010, 0.030]"]
    assert ax.get_xlabel() == "difference"
    assert legend(figure) == ["significant", "not significant"]


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_no_figure_is_wider_than_the_book_and_no_title_is_cut(count):
    images = {f"{'NACL, Gaussian prior, ' * (k % 4 == 0)}run {k}": np.eye(8) for k in range(count)}
    for figure in (plots.maps(images, label="p"), plots.outlines(np.eye(8), {k: square() for k in images}, ["", "a"])):
        assert figure.get_figwidth() <= plots.BOOK_WIDTH
        assert len(figure.axes) - (figure.axes[-1].get_ylabel() == "p") == count
        figure.draw_without_rendering()
        boxes = [ax.title.get_window_extent() for ax in figure.axes[:count]]
        assert all(b.x0 >= 0 and b.x1 <= figure.bbox.x1 and b.y1 <= figure.bbox.y1 for b in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_contact_sheet_outlines_each_slice_with_its_own_labels():
    low, high = square(), square().T
    figure = plots.contact_sheet({"low": (np.zeros((8, 8)), low), "high": (np.ones((8, 8)), high)}, 2)
    boxes = [[c.min(axis=0).tolist(), c.max(axis=0).tolist()] for ax in figure.axes for c in outline(ax)]
    assert boxes == [[[0.5, 1.5], [6.5, 4.5]], [[1.5, 0.5], [4.5, 6.5]]]
    assert [ax.get_title() for ax in figure.axes] == ["low", "high"]
    assert figure.axes[1].images[0].get_array().min() == 1


def test_confidence_panels_show_the_label_once_and_each_confidence_on_one_scale():
    confidences = {"CE": np.full((8, 8), 0.9), "NACL": np.linspace(0.3, 1, 64).reshape(8, 8)}
    figure = plots.confidence_panels(np.zeros((8, 8)), square(), confidences, ["background", "heart"])
    first, *others, bar = figure.axes
    (corners,) = outline(first)
    assert [corners.min(axis=0).tolist(), corners.max(axis=0).tolist()] == [[0.5, 1.5], [6.5, 4.5]]
    assert [ax.get_title() for ax in others] == list(confidences)
    for ax, shown in zip(others, confidences.values(), strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), shown)
    assert len({ax.images[0].get_clim() for ax in others}) == 1
    assert bar.get_ylabel() == "confidence"


def test_more_classes_than_colours_are_drawn():
    label = np.arange(81).reshape(9, 9) // 9
    figure = plots.contact_sheet({"nine": (np.zeros((9, 9)), label)}, 9)
    assert len(outline(figure.axes[0])) >= 8
