"""The named ablations: each is planned in full, and each of its runs was executed, tiny."""

import time
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from nacl.cli import main
from nacl.experiments import train_run
from nacl.grids import GRIDS, PROFILES, plan, size_of
from nacl.losses import LOSSES
from nacl.runs import Run

TINY = {"size": 32, "filters": 2, "epochs": 1, "batch_size": 8, "device": "cpu"}
OF_THE_PAPERS = {
    "penalty-weight": ("penalty_weight", {0.01, 0.03, 0.1, 0.3, 1.0, 3.0}),
    "margin": ("margin", {3.0, 5.0, 8.0, 10.0, 15.0}),
    "kernel-size": ("kernel_size", {3, 5, 7, 9}),
    "prior": ("prior", {"mean", "gaussian", "max", "min", "median", "mode"}),
    "penalty": ("penalty", {"l1", "l2", "huber"}),
    "model": ("model", {"unet", "smp.UnetPlusPlus", "smp.Segformer", "monai.AttentionUnet", "monai.DynUNet"}),
    "share": ("share", {0.05, 0.1, 0.25, 0.5, 1.0}),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_grid_is_planned_with_each_seed_and_no_run_twice(grid, profile):
    runs = plan(grid, profile=profile, seeds=range(3))
    assert len(runs) == 3 * size_of(grid)
    assert len({run.identity() for run in runs}) == len(runs)
    assert set(Counter(run.seed for run in runs).values()) == {size_of(grid)}
    assert {run.epochs for run in runs} == {PROFILES[profile]["embedded"]["epochs"]}


@pytest.mark.parametrize("grid", OF_THE_PAPERS)
def test_a_grid_varies_what_its_name_says(grid):
    field, values = OF_THE_PAPERS[grid]
    runs = plan(grid)
    assert {getattr(run, field) for run in runs} == values
    per_value = Counter(getattr(run, field) for run in runs)
    assert len(set(per_value.values())) == 1  # every value with the same others


def test_the_main_table_has_every_loss_and_cross_entropy_with_company():
    runs = plan("main-table")
    assert {run.loss for run in runs} == set(LOSSES) - {"dice", "l1_ace"}
    assert {(run.dice_weight, run.l1_ace_weight) for run in runs if run.loss == "ce"} == {(0, 0), (1, 0), (0, 1)}
    assert {run.prior for run in runs if run.loss == "nacl"} == {"mean", "gaussian"}


def test_what_lifts_the_ceiling_differs_from_nacl_in_one_field():
    nacl = Run(loss="nacl")
    changes = [
        {f.name for f in fields(Run) if getattr(run, f.name) != getattr(nacl, f.name)}
        for run in plan("ceiling", **{f.name: getattr(nacl, f.name) for f in fields(Run) if f.name in TINY})
    ]
    assert changes == [{"loss"}, set(), {"penalty_weight"}, {"schedule"}, {"mixed_only"}]


def test_a_glance_is_the_smallest_profile_and_its_network_is_one_that_the_grid_of_networks_has():
    for kind in ("embedded", "benchmark"):
        glance, quick = (PROFILES[profile][kind] for profile in ("glance", "quick"))
        assert all(glance[name] < quick[name] for name in ("size", "filters", "epochs"))
    (default,) = {run.model for run in plan("main", profile="glance")}
    assert default in {run.model for run in plan("model", profile="glance")}


def test_pages_that_show_the_same_run_share_it():
    ce, nacl = (run for run in plan("main", profile="glance") if run.loss != "svls")
    for grid in ("share", "model"):
        assert {ce, nacl} < set(plan(grid, profile="glance"))
    for grid in ("penalty-weight", "kernel-size", "prior"):
        assert nacl in plan(grid, profile="glance")


def test_logits_and_softmax_are_constrained_with_each_penalty():
    pairs = {(run.penalty, run.softmax) for run in plan("penalty")}
    assert pairs == {(penalty, softmax) for penalty in ("l1", "l2", "huber") for softmax in (False, True)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Where the runs of all grids lie: one that is in several grids is trained once."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.filterwarnings("ignore:Calibration. the likelihood has no maximum")  # after so little training
@pytest.mark.parametrize("grid", GRIDS)
def test_every_run_of_a_grid_ends_with_numbers(grid, trained, tiny_acdc):
    for run in plan(grid, data=str(tiny_acdc), **TINY):
        result = train_run(run, runs=trained)
        assert result.run == run
        assert result.cases["dice"].between(0, 1).all()
        assert len(result.history) == 1


# Ten thousand


def test_ten_thousand_runs_are_planned_and_listed_with_few_looks_at_the_disk(tiny_acdc, monkeypatch, tmp_path, capsys):
    looks = Counter()
    for name in ("stat", "read_text", "read_bytes", "open", "exists"):
        whole = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda *a, _n=name, _w=whole, **k: looks.update([_n]) or _w(*a, **k))
    start = time.perf_counter()
    fixed = ["--data", str(tiny_acdc), "--runs", str(tmp_path), "--dry-run"]
    assert main(["sweep", "margin", "--seeds", "2000", *fixed]) == 0
    seconds = time.perf_counter() - start
    assert len(capsys.readouterr().out.splitlines()) == 10_000
    assert looks.total() < 200  # at the data and at the folder of runs, not at each run
    assert seconds < 120  # 4 s on two quiet cores


def test_the_grids_are_listed_with_their_sizes(capsys):
    assert main(["sweep", "--list", "--seeds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: int(line.split()[1]) for line in lines}
    assert listed == {grid: 3 * len(plan(grid)) for grid in GRIDS}
    assert any(line.endswith("loss nacl x penalty_weight 0.01, 0.03, 0.1, 0.3, 1.0, 3.0") for line in lines)
