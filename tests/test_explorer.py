"""The explorers from Python: what they take, what they refuse, and what they leave in a page."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import PROJECT

from nacl import explorer
from nacl.cli import main
from nacl.cli.explore import NAMES, SWEEP
from nacl.explorer._maps import LARGEST
from nacl.explorer._widget import script

EDGE = np.arange(16).reshape(4, 4) // 8


@pytest.fixture(scope="module")
def sweep():
    return explorer.read_sweep(SWEEP)


def test_values_are_seen_and_set():
    widget = explorer.neighbourhood(kernel_size=5)
    widget.kernel_size = 7
    widget.prior = "median"
    assert (widget.state()["kernel_size"], widget.state()["prior"]) == (7, "median")


def test_a_built_in_map_is_loaded_by_its_name():
    widget = explorer.neighbourhood()
    widget.map = "noise"
    assert widget.labels.shape == (32, 32)
    assert widget.class_names == ["a", "b", "c"]
    assert widget.shown_class == 2
    widget.map = "corner"
    assert widget.num_classes == 2


def test_labels_may_be_a_tensor_and_painted():
    widget = explorer.neighbourhood(torch.from_numpy(EDGE), class_names=["air", "bone"])
    assert widget.map == "yours"
    widget.labels = 1 - EDGE
    assert widget.labels.tolist() == (1 - EDGE).tolist()
    assert widget.map == "painted"


def test_logits_stay_with_their_map():
    logits = np.random.default_rng(0).normal(size=(2, 4, 4))
    widget = explorer.neighbourhood(EDGE, torch.from_numpy(logits).bfloat16())
    assert np.abs(widget.logits - logits).max() < 0.02
    widget.map = "phantom slice"
    assert widget.logits is None
    widget.map = "yours"
    assert widget.logits.shape == (2, 4, 4)
    widget.labels = 1 - EDGE
    assert widget.logits is not None
    widget.labels = np.zeros((5, 3), int)
    assert widget.logits is None
    assert widget.cursor == [2, 1]


def test_logits_alone_give_the_labels():
    logits = np.random.default_rng(0).normal(size=(1, 3, 6, 5))
    widget = explorer.neighbourhood(logits=logits)
    assert widget.labels.tolist() == logits[0].argmax(0).tolist()
    assert "rank first" in widget.note


def test_labels_that_are_set_later_are_held_to_the_same_rules():
    widget = explorer.neighbourhood(EDGE)
    widget.labels = np.zeros((3000, 200), np.uint8)
    assert max(widget.labels.shape) <= LARGEST
    assert "3000 × 200 pixels is shown by 1 in 32" in widget.note
    assert widget.cursor == [size // 2 for size in widget.labels.shape]
    widget.labels = EDGE
    assert widget.note == ""
    for name, value in (("labels", EDGE + 1), ("num_classes", 300), ("num_classes", 1), ("class_names", ["one"])):
        with pytest.raises(ValueError, match=name):
            setattr(widget, name, value)
    widget.num_classes = 3
    assert widget.class_names == ["class 0", "class 1", "class 2"]
    widget.brush = 2
    widget.num_classes = 2
    assert (widget.brush, widget.class_names) == (1, ["class 0", "class 1"])
    with pytest.raises(ValueError, match=r"`logits` of 2 classes, as the labels, got 3"):
        widget.logits = np.zeros((3, 4, 4))


def test_numbers_of_arrays_are_numbers():
    widget = explorer.neighbourhood(EDGE, kernel_size=np.int64(5), sigma=np.float32(2))
    assert (widget.kernel_size, widget.sigma) == (5, 2.0)


def test_a_page_holds_its_values_and_asks_no_other_address(sweep):
    for widget in (explorer.neighbourhood(EDGE), explorer.penalty(), explorer.training(sweep)):
        html = widget.html()
        assert html == widget.html()
        assert html.count("</script") == 1
        assert not any(address in html.replace("http://www.w3.org/2000/svg", "") for address in ("http:", "https:"))


def test_names_of_classes_cannot_end_the_script():
    widget = explorer.neighbourhood(EDGE, class_names=["</script><b>", "b"])
    assert widget.html().count("</script") == 1


def test_the_same_script_runs_with_a_kernel_and_without():
    widget = explorer.penalty()
    data, _ = widget._repr_mimebundle_()
    assert script() in widget._esm
    assert script() in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_huge_map_is_shown_at_fewer_pixels_and_says_so():
    labels = np.zeros((300, 1000), int)
    labels[:, 500:] = 1
    widget = explorer.neighbourhood(labels, np.zeros((2, 300, 1000)))
    assert max(widget.labels.shape) <= LARGEST
    assert "300 × 1000" in widget.note
    assert "1 in 11 of its rows and columns" in widget.note
    assert np.shape(widget.logits)[1:] == widget.labels.shape


REFUSED = [
    ({"labels": [[0, 4]], "num_classes": 4}, ValueError, r"`labels` in \[0, 3\], got 4"),
    ({"labels": [[0, -100]]}, ValueError, "got -100.*a class of their own"),
    ({"labels": [[0, float("nan")]]}, ValueError, "`labels` to be whole numbers, got nan"),
    ({"labels": [[0, 0.5]]}, ValueError, "classes, not shares"),
    ({"labels": np.zeros((2, 4, 4))}, ValueError, r"of shape \(H, W\), got \(2, 4, 4\).*labels\[0\]"),
    ({"labels": np.zeros((0, 4))}, ValueError, r"of shape \(H, W\)"),
    ({"labels": [["a"]]}, TypeError, "an array of numbers"),
    ({"labels": EDGE, "logits": np.zeros((2, 3, 4))}, ValueError, r"`logits` of shape \(K, 4, 4\)"),
    ({"labels": EDGE, "logits": np.full((2, 4, 4), np.nan)}, ValueError, "`logits` to be finite, got nan"),
    ({"labels": EDGE + 2, "logits": np.zeros((2, 4, 4))}, ValueError, r"`labels` in \[0, 1\]"),
    ({"labels": EDGE, "logits": np.zeros((3, 4, 4)), "num_classes": 2}, ValueError, "that of logits, 3"),
    ({"labels": EDGE, "num_classes": 300}, ValueError, "of at most 256, got 300"),
    ({"labels": EDGE + 255}, ValueError, r"in \[0, 255\], got 256\. Give ignored pixels a class of their own\.$"),
    ({"labels": [[0, 1], [1]]}, ValueError, "`labels` with rows of one length"),
    ({"labels": EDGE, "map": "corner"}, ValueError, "`map` without labels or logits"),
    ({"num_classes": 3}, ValueError, "`labels` with num_classes"),
    ({"logits": np.zeros((2, 4))}, ValueError, r"`logits` of shape \(K, H, W\)"),
    ({"kind": "penalty"}, TypeError, "got 'kind'"),
    ({"labels": EDGE, "class_names": ["one"]}, ValueError, "one for each of 2 classes"),
    ({"kernel_size": 4}, ValueError, "`kernel_size` to be odd, got 4"),
    ({"kernel_size": 17}, ValueError, "on its slider, from 1 to 15, got 17"),
    ({"sigma": float("nan")}, ValueError, "`sigma` on its slider"),
    ({"prior": "meen"}, ValueError, "Did you mean 'mean'?"),
    ({"map": "heart"}, ValueError, "phantom slice"),
    ({"shown_class": 4}, ValueError, r"in \[0, 4\), got 4"),
    ({"cursor": [99, 0]}, ValueError, "inside the map"),
    ({"kernal_size": 3}, TypeError, "kernel_size.*got 'kernal_size'"),
]


@pytest.mark.parametrize(("values", "error", "says"), REFUSED, ids=lambda v: str(v)[:40] if isinstance(v, dict) else "")
def test_what_can_not_be_shown_is_refused(values, error, says):
    with pytest.raises(error, match=says):
        explorer.neighbourhood(**values)


@pytest.mark.parametrize(("name", "value"), [("penalty_weight", 11), ("noise", 0.6), ("tau", -0.1), ("penalty", "l3")])
def test_a_value_beyond_its_slider_is_refused_and_nothing_changes(name, value):
    widget = explorer.penalty()
    before = widget.state()
    with pytest.raises(ValueError, match=name):
        setattr(widget, name, value)
    assert widget.state() == before


# The sweep


def test_a_sweep_has_a_network_at_each_place_of_its_sliders(sweep):
    places = {(r["loss"], r["penalty_weight"], r["kernel_size"], r["margin"], r["seed"]) for r in sweep["runs"]}
    assert len(places) == len(sweep["runs"])
    seeds = {run["seed"] for run in sweep["runs"]}
    nacl = [(r["penalty_weight"], r["kernel_size"]) for r in sweep["runs"] if r["loss"] == "nacl"]
    assert len(nacl) == 6 * 4 * len(seeds)
    for run in sweep["runs"]:
        counts = [count for count, _, _ in run["bins"]]
        assert sum(counts) == sum(run["logits"])
        mean, low, high = sweep["groups"][run["group"]]["scores"]["dice"]
        assert low <= mean <= high


def test_a_sweep_comes_back_as_it_was_written(sweep, tmp_path):
    explorer.write_sweep(sweep, tmp_path / "again.json")
    assert explorer.read_sweep(tmp_path / "again.json") == sweep


@pytest.mark.parametrize("text", ["", "[1]", '{"format": 1}'])
def test_a_file_that_is_no_sweep_is_refused(text, tmp_path):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ValueError, match=r"write_sweep"):
        explorer.read_sweep(tmp_path / "sweep.json")


def test_a_sweep_of_another_format_is_refused(sweep):
    with pytest.raises(ValueError, match="of format 1, got 2"):
        explorer.training({**sweep, "format": 2})


def test_a_seed_may_be_a_number_and_another_sweep_is_another_explorer(sweep):
    widget = explorer.training(sweep, seed=1)
    widget.penalty_weight = np.float32(3)
    assert (widget.seed, widget.penalty_weight) == ("1", 3.0)
    with pytest.raises(ValueError, match=r"nacl\.explorer\.training"):
        widget.sweep = {**sweep}


def test_a_missing_sweep_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="nacl sweep explorer"):
        explorer.training(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("name", "value"), [("penalty_weight", 0.2), ("loss", "crac"), ("seed", "77"), ("margin", 4.0)]
)
def test_a_value_that_the_sweep_does_not_have_is_refused(sweep, name, value):
    with pytest.raises(ValueError, match=name):
        explorer.training(sweep, **{name: value})


# The command


@pytest.mark.parametrize("names", [[], ["penalty"]])
def test_the_command_writes_a_page(names, tmp_path, capsys):
    assert main(["explore", *names, "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count('"kind": ') == (len(names) or len(NAMES))
    assert "wrote" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["penality"], "Did you mean 'penalty'?"),
        (["--out", "page.pdf"], "to end in .html or .json"),
        (["penalty", "--out", "sweep.json"], "to be training"),
        (["training", "--sweep", "no.json", "--out", "a.html"], "no.json"),
        (["training", "--sweep", "tests", "--out", "a.html"], "nacl sweep explorer"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, says, capsys, monkeypatch):
    monkeypatch.chdir(PROJECT)
    assert main(["explore", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["explore", "penalty", "--no-browser", f"--port={port}"]) == 2
    assert f"Expected `--port` that is free, got {port}" in capsys.readouterr().err


def test_other_commands_do_not_wait_for_widgets():
    code = "import sys, nacl.cli; print([m for m in ('anywidget', 'voila') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
