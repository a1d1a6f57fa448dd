"""The command line: what it prints, what it returns, and what it says when it can't."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from nacl.cli import main
from nacl.cli import sweep as sweep_command
from nacl.cli import train as train_command
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


def test_the_options_of_train_stand_in_groups(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    lines = capsys.readouterr().out.partition("examples:")[0].splitlines()
    starts = [lines.index(f"{title}:") for title in ("loss", "network", "data", "training")]
    assert starts == sorted(starts)
    of_group = ["\n".join(lines[a:b]) for a, b in pairwise([*starts, len(lines)])]
    for option, text in zip(("--kernel-depth ", "--encoder ", "--share ", "--engine "), of_group, strict=True):
        assert option in text
        assert sum(option in other for other in of_group) == 1


@pytest.mark.filterwarnings("ignore:Calibration:RuntimeWarning")  # a network that learned nothing has no temperature
def test_train_takes_another_network_volumes_and_a_share(runs, tiny_acdc, capsys):
    options = ["--depth", "2", "--kernel-depth", "3", "--share", "0.5", "--batch-size", "2"]
    assert main(["train", "--data", str(tiny_acdc), *TINY, *options]) == 0
    (file,) = runs.glob("*/run.json")
    values = json.loads(file.read_text())["run"]
    assert (values["depth"], values["kernel_depth"], values["share"]) == (2, 3, 0.5)


# table


def test_table_is_the_mean_of_each_run_with_what_differs(trained, capsys):
    assert main(["table", "--runs", str(trained)]) == 0
    first, header, *rows = capsys.readouterr().out.splitlines()
    assert "size=32" in first
    assert header.split()[:2] == ["method", "seed"]
    assert sorted(row.split()[0] for row in rows) == ["ce", "ce", "nacl", "nacl", "nacl"]
    assert sum("ce + temperature" in row for row in rows) == 1


def test_table_of_cases_goes_to_a_file_with_every_column(trained, tmp_path, capsys):
    file = tmp_path / "new" / "cases.csv"
    assert main(["table", "--runs", str(trained), "--cases", "--csv", str(file)]) == 0
    assert f"10 rows in {file}" in capsys.readouterr().out
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
    for folder in trained.glob("*-acdc-*"):
        (folder / "notebook.ipynb").touch()  # what a sweep leaves beside what `nacl train` does
    before = sorted(trained.rglob("*"))
    fixed = ["size=32", "filters=2", "epochs=1", "batch_size=4", "device=cpu"]
    assert main(["sweep", "main", "--dry-run", "--data", str(tiny_acdc), "--runs", str(trained), "--set", *fixed]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("loss=")[0].strip() for line in lines] == ["done", "to do", "done"]
    assert [line.split("loss=")[1].split()[0] for line in lines] == ["ce", "svls", "nacl"]
    assert sorted(trained.rglob("*")) == before


def test_a_sweep_returns_1_and_names_the_run_that_failed(trained, tiny_acdc, tmp_path, capsys, monkeypatch):
    (tmp_path / "failed.ipynb").touch()

    def fake(runs, **options):
        assert (len(runs), options["jobs"], options["scheduler"]) == (6, 2, None)
        folders = [next(trained.glob("ce-*"))] * 5
        return [*map(Outcome, runs, folders), Outcome(runs[5], tmp_path, "ValueError: no luck")]

    monkeypatch.setattr(sweep_command, "sweep", fake)
    assert main(["sweep", "main", "--seeds", "2", "--jobs", "2", "--data", str(tiny_acdc)]) == 1
    printed = capsys.readouterr()
    assert "ValueError: no luck" in printed.err
    assert str(tmp_path / "failed.ipynb") in printed.err
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


def test_assignments_add_up_and_do_not_contradict_each_other(runs, capsys):
    assert main(["sweep", "main", "--dry-run", "--set", "size=32", "--set", "filters=2"]) == 0
    assert all("size=32" in line and "filters=2" in line for line in capsys.readouterr().out.splitlines())
    assert main(["sweep", "main", "--dry-run", "--set", "epochs=1", "epochs=2"]) == 2
    assert "epochs twice" in capsys.readouterr().err


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

    monkeypatch.setattr(train_command, "train_run", interrupted)
    assert main(["train", "--data", str(tiny_acdc), *TINY]) == 130
    assert "the same command goes on" in capsys.readouterr().err


# Help


@pytest.mark.parametrize("command", ["train", "sweep", "table", "models", "report", "data", "explore"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"  nacl {command}" in text


UNKNOWN = [
    (["train", "--kernal-size", "5"], "Did you mean --kernel-size?"),
    (["train", "--loss", "ce", "--lerning-rate=0.1"], "got --lerning-rate. Did you mean --learning-rate?"),
    (["train", "--no-augmnt"], "Did you mean --no-augment?"),
    (["sweep", "main", "--sedes", "3"], "Did you mean --seeds?"),
    (["table", "--cvs", "file"], "Did you mean --csv?"),
    (["models", "--filtres", "3"], "Did you mean --filters?"),
    (["data", "list", "--hepl"], "Did you mean --help?"),
    (["data", "check", "phantom", "--pitcure", "x"], "Did you mean --picture?"),
    (["data", "prepare", "acdc", "a", "b", "--spcaing", "1"], "Did you mean --spacing?"),
    (["data", "manifest", "acdc", "a", "b", "--job", "1", "--spilt-file", "x"], "Did you mean --split-file?"),
    (["report", "a", "b", "--form-probs"], "Did you mean --from-probs?"),
    (["explore", "--swep", "x"], "Did you mean --sweep?"),
    (["train", "--xyzzy"], "got --xyzzy. See `nacl train --help`"),
    (["train", "ce"], "Expected an option, got 'ce'. See `nacl train --help`"),
]


@pytest.mark.parametrize(("arguments", "says"), UNKNOWN, ids=lambda value: value[-2] if isinstance(value, list) else "")
def test_an_unknown_option_is_refused_in_one_line_with_the_nearest(arguments, says, runs, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("nacl " + arguments[0])
    assert err.count("\n") == 1
    assert not runs.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--epochs", "x"], "invalid int value: 'x'"),
        (["train", "--epochs"], "expected one argument"),
        (["data"], "required: ACTION"),
        (["trian"], "'train', 'sweep'"),
        ([], "required: COMMAND"),
    ],
)
def test_what_the_parser_refuses_fits_a_line_too(arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert "--help`." in err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError("Out of memory. Lower batch_size, 64"), "nacl: Out of memory. Lower batch_size, 64"),
        (MemoryError(), "nacl: Out of memory. Lower --batch-size"),
        (FloatingPointError("the loss is nan at step 3"), "nacl: the loss is nan at step 3"),
        (ImportError("monai is not installed"), "nacl: monai is not installed"),
    ],
)
def test_what_ends_a_training_is_said_in_words(error, says, tiny_acdc, runs, capsys, monkeypatch):
    def failed(*arguments, **options):
        raise error

    monkeypatch.setattr(train_command, "train_run", failed)
    assert main(["train", "--data", str(tiny_acdc), *TINY]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(says)


def test_an_unknown_grid_shows_what_there_is(capsys):
    assert main(["sweep", "mian"]) == 2
    assert "Did you mean 'main'?" in capsys.readouterr().err


def test_the_installed_script_ends_with_the_status_and_no_traceback(tmp_path):
    script = Path(sys.executable).with_name("nacl")
    environment = {**os.environ, "NACL_RUNS": str(tmp_path)}
    done = subprocess.run([script, "table"], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nacl: Expected finished runs in ")
