"""Finished runs in three tables: what comes back is what was put in, and nothing that was there is lost."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nacl.archive import LEFT_OUT, TABLES, add_to_archive, archive_of, read_archive
from nacl.cli import main
from nacl.evaluation import SUMMARY
from nacl.experiments import train_run
from nacl.grids import GRIDS, PROFILES, size_of
from nacl.results import results_table
from nacl.runs import Run
from nacl.tables import compare

TINY = {"size": 32, "filters": 2, "epochs": 1, "device": "cpu"}
VALUES = [
    {"loss": "ce"},
    {"loss": "ce", "seed": 1},
    {"loss": "nacl", "mixed_only": True},
    {"loss": "nacl", "penalty_weight": 0.03},
]


@pytest.fixture(scope="module")
def results(tiny_acdc, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [train_run(Run(**values, data=str(tiny_acdc), **TINY), runs=folder) for values in VALUES]


@pytest.fixture
def stem(results, tmp_path):
    add_to_archive(archive_of(results), tmp_path / "small")
    return tmp_path / "small"


def test_the_table_of_an_archive_is_that_of_the_runs(results, stem):
    there, table = results_table(results), read_archive(stem).table()
    assert len(table) == len(there)
    own = ["case", "patient", "post_hoc", "identity", "seed", "loss", "commit", "penalty_weight", "mixed_only", "prior"]
    missing_alike = [t[own].astype(object).where(t[own].notna(), None) for t in (table, there)]
    pd.testing.assert_frame_equal(*missing_alike, check_dtype=False)
    for metric in (*SUMMARY, "dice_1", "hd95_3", "adaptive_ece_all"):
        assert table[metric].to_numpy() == pytest.approx(there[metric].to_numpy(), rel=1e-4, nan_ok=True)
    assert not [name for name in table if name.startswith(LEFT_OUT) and name != "cece_reference"]


def test_methods_are_named_by_what_is_not_as_it_comes(stem):
    names = read_archive(stem).table()["method"].unique()
    assert {"ce", "ce + temperature", "nacl (mixed_only)"} <= set(names)
    assert {"nacl (penalty_weight 0.03)", "nacl (penalty_weight 0.03) + unbiased"} <= set(names)
    assert "nacl (mixed_only) + unbiased" not in names


def test_an_archive_can_be_compared_as_runs_can(results, stem):
    mine, theirs = (
        compare(table[table["loss"] == "ce"], ["nll"])
        for table in (read_archive(stem).table(), results_table(results[:2]))
    )
    pd.testing.assert_frame_equal(mine, theirs, rtol=1e-3, check_dtype=False)


def test_each_run_says_how_it_was_made_and_how_it_did_on_validation(results, stem):
    runs = read_archive(stem).runs.set_index("identity")
    for result in results:
        row = runs.loc[result.info["identity"]]
        for name in ("commit", "device_name", "data_fingerprint", "torch", "finished"):
            assert row[name] == result.info[name]
        plain = result.validation.query("post_hoc == 'none'")
        assert float(row["valid_nll"]) == pytest.approx(plain["nll"].mean(), rel=1e-4)


def test_runs_are_found_by_their_values_whatever_version_and_folder_they_are_of(stem):
    archive = read_archive(stem)
    wanted = [Run(**values, data="elsewhere", **{**TINY, "device": "auto"}) for values in VALUES]
    found = archive.of([wanted[3], wanted[0], replace(wanted[0], seed=7)], "acdc")
    assert list(found.runs["loss"]) == ["nacl", "ce"]
    assert list(found.table()["loss"].unique()) == ["nacl", "ce"]
    assert set(found.bins["identity"]) == set(found.runs["identity"])
    assert archive.of(wanted, "phantom").runs.empty


def test_a_grid_is_found_where_a_seed_has_all_of_it(stem, monkeypatch):
    monkeypatch.setitem(PROFILES, "tiny", dict.fromkeys(("embedded", "benchmark"), TINY))
    monkeypatch.setitem(GRIDS, "ours", [{"loss": ["ce"]}, {"loss": ["nacl"], "mixed_only": [True]}])
    archive = read_archive(stem)
    [(name, found)] = archive.of_grid("ours", profile="tiny", seeds=3).items()
    assert name == "acdc"
    assert list(found.runs["loss"] + found.runs["seed"]) == ["ce0", "nacl0"]  # seed 1 has no NACL
    monkeypatch.setitem(GRIDS, "ours", [{"loss": ["ce"]}])
    assert list(archive.of_grid("ours", profile="tiny", seeds=3)["acdc"].runs["seed"]) == ["0", "1"]
    assert list(archive.of_grid("ours", profile="tiny", seeds=1)["acdc"].runs["seed"]) == ["0"]
    assert archive.of_grid("ours", profile="small", seeds=3) == {}


def test_of_two_versions_of_a_run_the_newer_one_counts(stem):
    archive = read_archive(stem)
    newer = archive.runs.iloc[[0]].assign(identity="later", finished="9999", commit="new")
    both = add_to_archive(replace(archive, runs=newer, cases=archive.cases.assign(identity="later")), stem)
    assert len(both.runs) == len(VALUES) + 1
    assert list(both.of([Run(**VALUES[0], **TINY)], "acdc").runs["commit"]) == ["new"]


def test_bins_are_pooled_over_cases_and_seeds(results, stem):
    pooled = read_archive(stem).pooled_bins()["ce"]
    theirs = pd.concat([result.bins.query("post_hoc == 'none'") for result in results[:2]])
    for region, rows in pooled.groupby("region"):
        assert rows["count"].sum() == theirs.loc[theirs["region"] == region, "count"].sum()
    assert list(pooled[pooled["region"] == "all"]["bin"]) == sorted(pooled["bin"].unique())


def test_what_was_there_stays_and_a_run_is_there_once(results, stem):
    first = {name: (stem.parent / f"small-{name}.csv").read_bytes() for name in TABLES}
    add_to_archive(archive_of(results[:2]), stem)
    again = read_archive(stem)
    assert len(again.runs) == len(VALUES)
    assert len(again.cases) == len(results_table(results))
    add_to_archive(archive_of(results), stem)
    assert {name: (stem.parent / f"small-{name}.csv").read_bytes() for name in TABLES} == first


def test_the_command_adds_the_runs_of_a_folder(results, tmp_path, capsys):
    runs, stem = results[0].folder.parent, tmp_path / "new" / "small"
    assert main(["table", "--runs", str(runs), "--archive", str(stem)]) == 0
    assert "4 runs added to" in capsys.readouterr().out
    assert len(read_archive(stem).runs) == 4


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none-runs\.csv.*nacl table --archive"):
        read_archive(tmp_path / "none")
    for name in TABLES:
        (tmp_path / f"x-{name}.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"column identity, got .*x-runs\.csv"):
        read_archive(tmp_path / "x")


# What is in the repository

RESULTS = Path(__file__).parents[1] / "results" / "small"


PROFILES_SHOWN = ("small", "memorised")


@pytest.fixture(scope="module")
def shown():
    """What the chapters find, by grid and profile."""
    stored = read_archive(RESULTS)
    seeds = stored.runs["seed"].astype(int).max() + 1
    return {(g, p): stored.of_grid(g, profile=p, seeds=seeds) for g in GRIDS for p in PROFILES_SHOWN}


def test_the_results_in_the_repository_are_whole_grids_and_each_run_is_in_one(shown):
    named = {name for sets in shown.values() for there in sets.values() for name in there.runs["identity"]}
    assert named == set(read_archive(RESULTS).runs["identity"])


@pytest.mark.parametrize("grid", ["main-table", "ceiling"])
def test_each_set_that_the_book_shows_has_at_least_three_seeds(shown, grid):
    assert set(shown[grid, "small"]) == {"acdc", "brain", "phantom"}
    for there in shown[grid, "small"].values():
        assert len(there.runs) >= 3 * size_of(grid)


def test_each_row_says_its_commit_and_each_run_has_all_test_cases(shown):
    for sets in shown.values():
        for there in sets.values():
            assert there.runs["commit"].str.fullmatch("[0-9a-f]{40}").all()
            assert there.cases.groupby(["identity", "post_hoc"])["case"].nunique().nunique() == 1
