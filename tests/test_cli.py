"""The command line: what it prints, what it returns, and what it says when it can't."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from nacl.cli import main
from nacl.cli import runs as run_commands
from nacl.evaluation import SUMMARY
from nacl.runs import Run
from nacl.sweep import Outcome

TINY = ["--size", "32", "--filters", "2", "--epochs", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tiny_acdc, tmp_path_factory):
    """The folder of two runs that `nacl train` made: CE and NACL."""
    runs = tmp_path_factory.mktemp("runs")
    for loss in ("ce", "nacl"):
        assert main(["train", "--loss", loss, "--data", str(tiny_acdc), "--runs", str(runs), *TINY]) == 0
    return runs


# train


def test_train_prints_the_cases_their_mean_and_the_folder(runs, tiny_acdc, capsys):
    assert main(["train", "--loss", "svls", "--kernel-size", "5", "--data", str(tiny_acdc), *TINY]) == 0
    out = capsys.readouterr().out
    assert "patient004_frame01" in out
    assert "mean over 2 test cases (acdc, distances in px)" in out
    assert all(name in out for name in SUMMARY)
    folder = Path(out.splitlines()[-1])
    assert folder.parent == runs
    assert (folder / "run.json").exists()


def test_train_shows_a_finished_run_and_does_not_train_it(trained, tiny_acdc, capsys):
    before = {file: file.stat().st_mtime_ns for file in trained.glob("*/*.*")}
    assert main(["train", "--loss", "ce", "--data", str(tiny_acdc), "--runs", str(trained), *TINY]) == 0
    assert "nothing is trained" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in trained.glob("*/*.*")} == before


def test_train_has_an_option_for_every_field_of_run(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert all("--" + f.name.replace("_", "-") in text for f in fields(Run))


# table


def test_table_is_the_mean_of_each_run_with_what_differs(trained, capsys):
    assert main(["table", "--runs", str(trained)]) == 0
    first, header, *rows = capsys.readouterr().out.splitlines()
    assert "size=32" in first
    assert header.split()[:2] == ["method", "seed"]
    assert sorted(row.split()[0] for row in rows) == ["ce", "ce", "nacl", "nacl"]
    assert sum("ce + temperature" in row for row in rows) == 1


def test_table_of_cases_goes_to_a_file_with_every_column(trained, tmp_path, capsys):
    file = tmp_path / "new" / "cases.csv"
    assert main(["table", "--runs", str(trained), "--cases", "--csv", str(file)]) == 0
    assert f"8 rows in {file}" in capsys.readouterr().out
    table = pd.read_csv(file)
    assert ({f.name for f in fields(Run)} - {"data", "device"}) | {"case", "identity", "commit", *SUMMARY} <= set(table)
    mean = table.groupby("method")["nll"].mean()
    assert main(["table", "--runs", str(trained), "--csv", str(file)]) == 0
    means = pd.read_csv(file).set_index("method")["nll"]
    assert means["nacl"] == pytest.approx(mean["nacl"], rel=1e-5)
    assert means["nacl + temperature"] == pytest.approx(mean["nacl + temperature"], rel=1e-5)


def test_table_of_named_folders_is_of_these_only(trained, capsys):
    only = next(trained.glob("ce-*"))
    assert main(["table", str(only), "--cases"]) == 0
    out = capsys.readouterr().out
    assert "patient005_frame01" in out
    assert "nacl" not in out


def test_table_of_nothing_says_how_to_get_something(runs, capsys):
    assert main(["table"]) == 2
    err = capsys.readouterr().err
    assert str(runs) in err
    assert "nacl sweep main" in err


def test_a_table_that_cannot_be_written_is_named(trained, tmp_path, capsys):
    assert main(["table", "--runs", str(trained), "--csv", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


# sweep


def test_a_dry_run_lists_what_is_done_and_does_nothing(trained, tiny_acdc, capsys):
    before = sorted(trained.rglob("*"))
    fixed = ["size=32", "filters=2", "epochs=1", "batch_size=4", "device=cpu"]
    assert main(["sweep", "main", "--dry-run", "--data", str(tiny_acdc), "--runs", str(trained), "--set", *fixed]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("loss=")[0].strip() for line in lines] == ["done", "to do", "done"]
    assert [line.split("loss=")[1].split()[0] for line in lines] == ["ce", "svls", "nacl"]
    assert sorted(trained.rglob("*")) == before


def test_a_sweep_returns_1_and_names_the_run_that_failed(trained, tiny_acdc, capsys, monkeypatch):
    def fake(runs, **options):
        assert (len(runs), options["jobs"], options["scheduler"]) == (6, 2, None)
        folders = [next(trained.glob("ce-*"))] * 5
        return [*map(Outcome, runs, folders), Outcome(runs[5], Path("runs/there"), "ValueError: no luck")]

    monkeypatch.setattr(run_commands, "sweep", fake)
    assert main(["sweep", "main", "--seeds", "2", "--jobs", "2", "--data", str(tiny_acdc)]) == 1
    printed = capsys.readouterr()
    assert "ValueError: no luck" in printed.err
    assert "runs/there/failed.ipynb" in printed.err
    assert "dice" in printed.out


@pytest.mark.parametrize(
    ("assignment", "says"),
    [("epochs", "FIELD=VALUE"), ("epoch=3", "epochs"), ("epochs=x", "epochs"), ("softmax=maybe", "softmax")],
)
def test_a_bad_assignment_is_named(runs, capsys, assignment, says):
    assert main(["sweep", "main", "--dry-run", "--set", assignment]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Expected" in err


@pytest.mark.parametrize("assignment", ["loss=ce", "seed=3", "data=phantom"])
def test_a_field_that_the_grid_or_an_option_sets_is_not_silently_dropped(runs, capsys, assignment):
    assert main(["sweep", "main", "--dry-run", "--set", assignment]) == 2
    err = capsys.readouterr().err
    assert assignment.split("=")[0] in err
    assert "keyword argument" not in err


@pytest.mark.parametrize("seeds", ["0", "-1"])
def test_a_sweep_of_no_seeds_is_refused(runs, capsys, seeds):
    assert main(["sweep", "main", "--dry-run", "--seeds", seeds]) == 2
    assert "seeds" in capsys.readouterr().err


# What can't be used


def test_an_unknown_loss_gets_the_nearest_name(runs, capsys):
    assert main(["train", "--loss", "nalc", *TINY]) == 2
    assert "Did you mean 'nacl'?" in capsys.readouterr().err
    assert not runs.exists()


@pytest.mark.parametrize("command", [["train", "--data"], ["sweep", "main", "--dry-run", "--data"], ["data", "check"]])
def test_a_missing_folder_is_named_with_what_to_give(runs, tmp_path, capsys, command):
    missing = str(tmp_path / "no" / "acdc")
    assert main([*command, missing]) == 2
    err = capsys.readouterr().err
    assert missing in err
    assert "Give a folder that `nacl data prepare` made" in err
    assert "Traceback" not in err


def test_a_folder_of_runs_that_is_a_file_is_named(tiny_acdc, tmp_path, capsys):
    (tmp_path / "runs").write_text("")
    assert main(["train", "--data", str(tiny_acdc), "--runs", str(tmp_path / "runs"), *TINY]) == 2
    assert str(tmp_path / "runs") in capsys.readouterr().err


def test_an_interrupt_says_that_the_same_command_goes_on(runs, tiny_acdc, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_commands, "train_run", interrupted)
    assert main(["train", "--data", str(tiny_acdc), *TINY]) == 130
    assert "the same command goes on" in capsys.readouterr().err


# Help


@pytest.mark.parametrize("command", ["train", "sweep", "table", "report", "data"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"  nacl {command}" in text


def test_an_unknown_grid_or_command_shows_what_there_is(capsys):
    assert main(["sweep", "mian"]) == 2
    assert "Did you mean 'main'?" in capsys.readouterr().err
    for arguments, there in [(["trian"], "train"), ([], "COMMAND")]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert there in capsys.readouterr().err


def test_the_installed_script_ends_with_the_status_and_no_traceback(tmp_path):
    script = Path(sys.executable).with_name("nacl")
    environment = {**os.environ, "NACL_RUNS": str(tmp_path)}
    done = subprocess.run([script, "table"], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nacl: Expected finished runs in ")
