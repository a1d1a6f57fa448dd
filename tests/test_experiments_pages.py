"""The pages of experiments: what came out of their runs is what the theory says, and they run on data of one's own."""

from dataclasses import replace
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest

from nacl.grids import GRIDS, PROFILES, plan
from nacl.results import finished
from nacl.statistics import mean_interval
from nacl.theory import confidence_ceiling

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "build" / "book" / "notebooks"
CLASSES = 4  # of the phantom
PAGES = {"12_penalty": "margin", "13_window": "prior", "14_networks": "model", "15_patients": "share"}  # and a grid
TINY = {"size": 32, "filters": 2, "epochs": 1, "batch_size": 64, "encoder": "tu-test_efficientnet"}


def _runs(grid):
    return plan(grid, profile="glance")


def _results(grid):
    """The finished runs of a page, by what varies in them."""
    found = [finished(run) for run in _runs(grid)]
    assert all(found), "the runs of the pages are not there: `make book` makes them"
    (part,) = GRIDS[grid]
    fields = [name for name, values in part.items() if len(values) > 1]
    return {tuple(getattr(r.run, name) for name in fields): r for r in found}


def _mean(result, column):
    return result.cases.loc[result.cases["post_hoc"] == "none", column].mean()


def _confidence(result):
    bins = result.bins.query("region == 'all' and post_hoc == 'none'")
    return bins["confidence_sum"].sum() / bins["count"].sum()


def _accuracy(result):
    bins = result.bins.query("region == 'all' and post_hoc == 'none'")
    return bins["correct_sum"].sum() / bins["count"].sum()


@pytest.fixture(scope="module")
def weights():
    return {weight: result for (weight,), result in _results("penalty-weight").items()}


@pytest.fixture(scope="module")
def losses():
    return {result.run.loss: result for result in _results("share").values() if result.run.share == 1.0}


def test_a_glance_is_enough_to_learn_to_segment(losses):
    assert {loss: _mean(result, "dice") > 0.75 for loss, result in losses.items()} == {"ce": True, "nacl": True}


def test_confidence_falls_with_each_larger_weight(weights):
    confidence = [_confidence(weights[weight]) for weight in sorted(weights)]
    assert (np.diff(confidence) < 0).all()
    assert confidence[0] - confidence[-1] > 0.3


def test_the_error_over_all_pixels_is_near_what_the_ceiling_leaves(weights):
    for weight in (1.0, 3.0):
        ceiling = confidence_ceiling("nacl", CLASSES, penalty_weight=weight)
        assert _mean(weights[weight], "ece_all") == pytest.approx(1 - ceiling, abs=0.06), weight


def test_no_mean_confidence_is_above_its_ceiling(weights):
    for weight, result in weights.items():
        assert _confidence(result) < confidence_ceiling("nacl", CLASSES, penalty_weight=weight) + 0.01, weight
    for (margin,), result in _results("margin").items():
        assert _confidence(result) < confidence_ceiling("mbls", CLASSES, margin=margin) + 0.01, margin


def test_a_margin_that_is_not_reached_is_no_constraint_and_a_tight_one_is(losses):
    margins = {margin: _confidence(result) for (margin,), result in _results("margin").items()}
    assert margins[15.0] == pytest.approx(_confidence(losses["ce"]), abs=0.01)
    assert margins[3.0] < _confidence(losses["ce"]) - 0.02


def test_the_window_moves_confidence_far_less_than_the_weight_does(weights):
    windows = [*_results("prior").values(), *(r for (loss, _), r in _results("kernel-size").items() if loss == "nacl")]
    spread = np.ptp([_confidence(result) for result in windows])
    assert spread < 0.1 * np.ptp([_confidence(result) for result in weights.values()])


def test_a_wider_window_of_svls_makes_a_less_confident_network():
    svls = {size: _confidence(r) for (loss, size), r in _results("kernel-size").items() if loss == "svls"}
    assert svls[9] < svls[3]


def test_networks_that_normalise_learn_in_a_glance_with_either_loss():
    for (loss, model), result in _results("model").items():
        if model != "unet":
            assert _mean(result, "dice") > 0.6, (loss, model)


def test_more_patients_make_a_better_network():
    dice = {(loss, share): _mean(result, "dice") for (loss, share), result in _results("share").items()}
    for loss in ("ce", "nacl"):
        assert dice[loss, 1.0] > dice[loss, 0.05] + 0.1


def test_as_many_steps_on_a_tenth_of_the_patients_make_a_network_surer_but_for_the_ceiling():
    for run in _runs("share"):
        if run.share == 0.1:
            short, long = finished(run), finished(replace(run, epochs=round(run.epochs / run.share)))
            assert short, "`make book` makes it"
            assert long, "`make book` makes it"
            gaps = [_confidence(result) - _accuracy(result) for result in (short, long)]
            assert gaps[1] > gaps[0] + 0.1
            assert _confidence(long) < (confidence_ceiling("nacl", CLASSES) + 0.01 if run.loss == "nacl" else 1)


@pytest.mark.parametrize(("name", "grid"), PAGES.items())
def test_the_table_of_a_page_has_the_numbers_of_its_runs(name, grid):
    page = nbformat.read(BOOK / f"{name}.ipynb", as_version=4)
    shown = " ".join(
        o.data["text/html"] for c in page.cells for o in c.get("outputs", []) if "text/html" in o.get("data", {})
    )
    for values, result in _results(grid).items():
        by_patient = result.cases[result.cases["post_hoc"] == "none"].groupby("patient")
        for column in ("dice", "nll"):
            found = mean_interval(by_patient[column].mean())
            assert f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]" in shown, (values, column)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where the runs of all pages lie: one that is on several pages is trained once."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.filterwarnings("ignore:Calibration. the likelihood has no maximum")  # after so little training
@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_holds_for_a_folder_of_ones_own_and_networks_that_know_nothing(
    name, seeds, tiny_acdc, trained, monkeypatch
):
    monkeypatch.setenv("NACL_RUNS", str(trained))
    monkeypatch.setitem(PROFILES["glance"], "benchmark", TINY)
    given = {"data": str(tiny_acdc), "seeds": seeds, "device": "cpu"}
    page = {}
    for cell in jupytext.read(ROOT / "notebooks" / f"{name}.py").cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{name}: {cell.source[:40]}", "exec"), page)
            page |= given if "parameters" in cell.metadata.get("tags", []) else {}
    results = page["results"].values() if isinstance(page["results"], dict) else page["results"]
    assert {r.run.seed for r in results} == set(range(seeds))
    assert {r.info["dataset"] for r in results} == {"acdc"}
    assert {str(r.folder.parent) for r in results} == {str(trained)}
