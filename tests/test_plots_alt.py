"""Every picture says in words what it shows, and the words go with it into a notebook and onto a page."""

import pickle

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from nacl import plots
from nacl.plots._style import Picture, described, listed, panels, span

EYE, NAMES = np.eye(4), ["background", "heart"]
CASES = pd.DataFrame({"method": ["ce", "ce", "nacl"], "dice": [0.5, 0.7, 0.8]})
HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "loss": [1.5, 0.75, 0.5], "valid_dice": [0.1, 0.625, 0.5]})
BINS = pd.DataFrame(
    {"region": "all", "bin": [0, 1], "count": [2, 2], "confidence_sum": [1, 1.8], "correct_sum": [0, 1]}
)
PAIRS = pd.DataFrame({"name": ["ce - nacl"], "mean": [0.02], "low": [0.01], "high": [0.03], "significant": [True]})
COMPARED = pd.DataFrame(
    [
        {"metric": metric, "method": method, "mean": mean, "low": mean - 0.01, "high": mean + 0.01}
        for method, means in {"nacl (softmax)": (0.7, 0.2), "ce": (0.6, 0.1)}.items()
        for metric, mean in zip(("dice", "nll"), means, strict=True)
    ]
)
PICTURES = {
    "learning_curves": (
        lambda: plots.learning_curves(HISTORY),
        ["3 epochs", "training loss from 1.5 to 0.5", "best with 0.625 in epoch 2"],
    ),
    "reliability_diagram": (
        lambda: plots.reliability_diagram({"ce": BINS, "nacl": BINS.assign(count=0)}, {"all": "All pixels"}),
        ["All pixels: CE has mean confidence 0.700 and accuracy 0.250, NACL has no pixels"],
    ),
    "reliability_curves": (
        lambda: plots.reliability_curves({"ce": ([0.25, 0.9], [0.1, 0.75])}),
        ["CE from 0.1 to 0.75 at confidences from 0.25 to 0.9"],
    ),
    "curves": (
        lambda: plots.curves({"$K = 4$": {"nacl": ([1, 2, 3], [0.5, 0.9, np.nan])}}, r"weight $\lambda$", "gap"),
        ["gap against weight lambda", "K = 4: NACL from 0.5 at 1 to 0.9 at 2"],
    ),
    "trade": (
        lambda: plots.trade(COMPARED, ("dice", "Dice"), ("nll", "NLL")),
        ["Dice against NLL", "CE 0.600 and 0.100; NACL (softmax) 0.700 and 0.200"],
    ),
    "by_case": (
        lambda: plots.by_case(CASES, {"dice": "Dice"}),
        ["Medians of Dice: CE 0.600, NACL 0.800"],
    ),
    "metric_histograms": (
        lambda: plots.metric_histograms(CASES, "dice", "Dice"),
        ["Histograms of Dice", "from 0.5 to 0.8", "CE 0.600, NACL 0.800"],
    ),
    "critical_difference_diagram": (
        lambda: plots.critical_difference_diagram({"ce": 2.5, "nacl": 1.0, "svls": 2.5}, 0.5, [("ce", "svls")]),
        ["NACL 1.00, CE 2.50", "critical difference 0.50; not told apart: CE and SVLS"],
    ),
    "intervals": (
        lambda: plots.intervals(PAIRS, "difference of ECE"),
        ["difference of ECE", "ce - nacl: 0.020 [0.010, 0.030], significant"],
    ),
    "maps": (
        lambda: plots.maps({"left": EYE, "right": 0.5 * EYE}, label="confidence"),
        ["Maps of confidence", "left from 0 to 1; right from 0 to 0.5"],
    ),
    "outlines": (
        lambda: plots.outlines(EYE, {"truth": EYE, "guess": EYE}, NAMES),
        ["outlines of heart", "truth and guess"],
    ),
    "contact_sheet": (lambda: plots.contact_sheet({"base": (EYE, EYE)}, 2), ["outlines", "base"]),
    "confidence_panels": (
        lambda: plots.confidence_panels(EYE, EYE, {"CE": 0.5 + 0.25 * EYE}, NAMES),
        ["outlines of heart", "CE from 0.5 to 0.75"],
    ),
    "error_maps": (
        lambda: plots.error_maps(EYE, EYE, {"ce": (0 * EYE, 0.75 + 0 * EYE), "nacl": (EYE, EYE)}, NAMES),
        ["CE is wrong in 4 of 16 pixels, with a mean confidence of 0.750; NACL is wrong in 0 of 16 pixels."],
    ),
}


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("Agg")
    yield
    plt.close("all")


@pytest.fixture
def shell():
    """What a notebook's kernel formats its outputs with, set up for pictures as its kernel does."""
    shell = InteractiveShell()
    shell.display_formatter.active_types = ["text/plain", "image/png"]
    select_figure_formats(shell, {"png"})
    return shell


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_a_figure_that_renders_and_that_pyplot_has_let_go(name, tmp_path):
    figure = PICTURES[name][0]()
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == []
    figure.savefig(tmp_path / "picture.png")
    assert plt.imread(tmp_path / "picture.png").std() > 0


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_says_what_it_shows(name):
    draw, parts = PICTURES[name]
    text = draw().get_label()
    assert [part for part in parts if part not in text] == []
    assert text.endswith(".")
    assert not text.endswith("..")
    assert not set("$\\\n") & set(text)


def test_every_function_that_draws_a_new_figure_is_in_a_test_of_its_words():
    topics = {"confidence", "curves", "methods", "slices"}
    drawing = {
        name for name in plots.__all__ if getattr(getattr(plots, name), "__module__", "").split(".")[-1] in topics
    }
    assert drawing == set(PICTURES)


def test_a_notebook_gets_the_image_of_a_plain_figure_bit_by_bit_and_the_words_with_it(shell):
    outputs = {}
    for kind in (Figure, Picture):
        figure = kind(figsize=(3, 2))
        figure.subplots().plot([0, 1])
        outputs[kind] = shell.display_formatter.format(described(figure, "A rising line."))
    (plain, nothing), (picture, words) = outputs.values()
    assert plain["image/png"] == picture["image/png"]
    assert (nothing, words) == ({}, {"image/png": {"alt": "A rising line."}})
    assert set(picture) == {"text/plain", "image/png"}


def test_a_picture_can_be_pickled():
    figure = pickle.loads(pickle.dumps(described(panels(1, width=2, height=2)[0], "Nothing yet.")))
    assert figure._repr_mimebundle_() == ({}, {"image/png": {"alt": "Nothing yet."}})


def test_words_are_free_of_markup():
    figure, _ = panels(1, width=2, height=2)
    assert described(figure, "weight $\\lambda$\n of  two").get_label() == "weight lambda of two"


@pytest.mark.parametrize(("names", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (iter("abc"), "a, b and c")])
def test_names_are_listed(names, text):
    assert listed(names) == text


def test_a_span_leaves_out_what_is_not_finite():
    assert span([np.nan, 2, np.inf, -1.25]) == "from -1.25 to 2"
    assert span([np.nan]) == span([]) == "without values"
