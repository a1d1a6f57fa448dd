"""Pictures draw what the table says."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nacl import plots


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("Agg")
    yield
    plt.close("all")


def bins(count, confidence, correct, region="all"):
    return pd.DataFrame({"region": region, "count": count, "confidence_sum": confidence, "correct_sum": correct})


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
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["CE", "mine"]


def test_reliability_dots_sit_on_the_line_and_grow_with_their_pixels():
    ax = plots.reliability_diagram({"nacl": bins([4, 12], [2.0, 9.0], [1, 12])}, {"all": "All pixels"}).axes[0]
    dots = ax.collections[0]
    assert dots.get_offsets().tolist() == ax.lines[1].get_xydata().tolist()
    assert dots.get_sizes().tolist() == pytest.approx([8 + 120 * 0.5, 8 + 120 * 0.75**0.5])
    assert to_hex(dots.get_facecolor()[0]) == plots.LOSS_COLOURS["nacl"].lower()


def test_reliability_diagram_draws_each_region_on_its_own_panel():
    table = bins([4, 12, 2], [2.0, 9.0, 1.8], [1, 12, 1], region=["all", "all", "true_foreground"])
    figure = plots.reliability_diagram({"ce": table}, {"all": "All pixels", "true_foreground": "Heart"})
    assert [ax.get_title() for ax in figure.axes] == ["All pixels", "Heart"]
    points = [ax.lines[1].get_xydata().tolist() for ax in figure.axes]
    assert points == [[[0.5, 0.25], [0.75, 1.0]], [[0.9, 0.5]]]


def test_outlines_go_half_a_pixel_round_each_object():
    label = square()
    figure = plots.outlines(np.zeros((8, 8)), {"truth": label, "empty": 0 * label}, ["background", "heart"])
    truth, empty = figure.axes
    (corners,) = outline(truth)
    assert [corners.min(axis=0).tolist(), corners.max(axis=0).tolist()] == [[0.5, 1.5], [6.5, 4.5]]
    assert to_hex(truth.collections[0].get_edgecolor()[0]) == plots.CLASS_COLOURS[1].lower()
    assert outline(empty) == []
    assert [ax.get_title() for ax in figure.axes] == ["truth", "empty"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["heart"]


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


def test_by_case_draws_every_case_of_every_loss_in_the_order_of_the_book():
    table = pd.DataFrame(
        {
            "loss": ["nacl", "ce", "nacl", "ce", "ce"],
            "dice": [0.9, 0.5, 0.8, 0.6, 0.7],
            "ece": [0.01, 0.1, 0.02, 0.2, 0.3],
        }
    )
    figure = plots.by_case(table, {"dice": "Dice", "ece": "ECE"})
    for ax, (column, label) in zip(figure.axes, {"dice": "Dice", "ece": "ECE"}.items(), strict=True):
        assert ax.get_ylabel() == label
        assert [text.get_text() for text in ax.get_xticklabels()] == ["CE", "NACL"]
        dots = [np.sort(d.get_offsets()[:, 1]).tolist() for d in ax.collections if len(d.get_offsets())]
        assert dots == [sorted(table.loc[table["loss"] == loss, column]) for loss in ("ce", "nacl")]
        medians = [line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1]
        for loss in ("ce", "nacl"):
            assert table.loc[table["loss"] == loss, column].median() in medians


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


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.maps({"a": np.eye(3)}, label="p"),
        lambda: plots.outlines(np.eye(3), {"a": np.eye(3, dtype=int)}, ["background", "heart"]),
        lambda: plots.contact_sheet({"a": (np.eye(3), np.eye(3, dtype=int))}, 2),
        lambda: plots.by_case(pd.DataFrame({"loss": ["ce", "ce"], "dice": [0.1, 0.2]}), {"dice": "Dice"}),
        lambda: plots.learning_curves(pd.DataFrame({"epoch": [1], "loss": [1.0], "valid_dice": [0.5]})),
        lambda: plots.reliability_diagram({"ce": bins([1], [0.5], [1])}, {"all": "All pixels"}),
        lambda: plots.confidence_panels(np.eye(3), np.eye(3, dtype=int), {"a": np.eye(3)}, ["background", "heart"]),
    ],
)
def test_every_picture_is_a_figure_that_renders_and_that_pyplot_has_let_go(draw, tmp_path):
    figure = draw()
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == []
    figure.savefig(tmp_path / "picture.png")
    assert plt.imread(tmp_path / "picture.png").std() > 0
