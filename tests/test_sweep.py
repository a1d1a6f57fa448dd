"""Sweeps: every run ends or is reported, and none is done twice."""

import os
import sys
import time
from concurrent.futures import Future
from dataclasses import asdict

import nbformat
import pytest
from sweeps import train_cell, write_notebook

from nacl import sweep as module
from nacl.results import load_result
from nacl.runs import Run
from nacl.sweep import execute, papermill, sweep
from nacl.sweep.execute import execute_notebook
from nacl.sweep.executors import Cluster
from nacl.sweep.progress import Progress

RAISES, KILLED = 1, 2  # seeds that go wrong in `notebook`
CODE = """
import os
from pathlib import Path
attempts = Path({attempts!r})
with attempts.open("a") as stream:
    stream.write(f"{{seed}}\\n")
if seed == {raises} and attempts.read_text().split().count("{raises}") == 1:
    raise ValueError("seed one fails the first time")
if seed == {killed}:
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for runs, a notebook in which two seeds go wrong, and the file that lists each attempt's seed."""
    base = tmp_path_factory.mktemp("sweep")
    code = CODE.format(attempts=str(base / "attempts"), raises=RAISES, killed=KILLED)
    return base / "runs", write_notebook(base / "train.ipynb", code, train_cell()), base / "attempts"


@pytest.fixture(scope="module")
def runs_of(tiny_acdc):
    options = {"data": str(tiny_acdc), "size": 32, "filters": 2, "epochs": 1, "device": "cpu", "loss": "ce"}
    return lambda *seeds: [Run(**options, seed=seed) for seed in seeds]


@pytest.fixture(scope="module")
def first(place, runs_of):
    """The outcomes of three runs, two at a time, by seed: 1 raises, 2 is killed, and 0, which comes last, finishes."""
    folder, notebook, _ = place
    outcomes = sweep(runs_of(RAISES, KILLED, 0), folder=folder, jobs=2, notebook=notebook)
    return {outcome.run.seed: outcome for outcome in outcomes}


def test_a_run_that_fails_is_reported_and_the_others_go_on(first):
    assert list(first) == [RAISES, KILLED, 0]
    assert first[0].error == ""
    assert first[RAISES].error == "ValueError: seed one fails the first time"
    assert "DeadKernelError" in first[KILLED].error


def test_a_finished_run_has_its_result_and_its_executed_notebook(first, runs_of):
    assert load_result(first[0].folder).run == runs_of(0)[0]
    executed = nbformat.read(first[0].notebook, as_version=4)
    assert [cell.execution_count for cell in executed.cells] == [1, 2, 3, 4]
    assert "injected-parameters" in executed.cells[1].metadata.tags
    assert "filters = 2" in executed.cells[1].source


def test_a_failed_run_leaves_failed_ipynb_and_nothing_under_a_final_name(first):
    for seed in (RAISES, KILLED):
        names = {file.name for file in first[seed].folder.iterdir()}
        assert names == {"failed.ipynb", "begun.json", ".sweep.lock"}
        assert first[seed].notebook == first[seed].folder / "failed.ipynb"
    raised = nbformat.read(first[RAISES].notebook, as_version=4)
    assert any("seed one fails" in str(cell.get("outputs")) for cell in raised.cells)


def stamps(outcome):
    return {file: file.stat().st_mtime_ns for file in outcome.folder.iterdir()}


def test_what_failed_is_listed_and_not_done_again_unless_asked(place, first, runs_of, capsys):
    folder, notebook, attempts = place
    before, done = stamps(first[0]), attempts.read_text()
    again = sweep(runs_of(0, RAISES, KILLED), folder=folder, jobs=2, notebook=notebook)
    assert attempts.read_text() == done
    assert stamps(first[0]) == before
    assert [outcome.error for outcome in again] == [first[seed].error for seed in (0, RAISES, KILLED)]


def test_a_retry_does_only_what_failed(place, first, runs_of, capsys):
    folder, notebook, attempts = place
    before, done = stamps(first[0]), len(attempts.read_text().split())
    again = sweep(runs_of(0, RAISES, KILLED), folder=folder, jobs=2, notebook=notebook, retry_failed=True)
    assert sorted(attempts.read_text().split()[done:]) == [str(RAISES), str(KILLED)]
    assert stamps(first[0]) == before
    assert [bool(outcome.error) for outcome in again] == [False, False, True]
    assert load_result(again[1].folder).run.seed == RAISES
    assert {"notebook.ipynb"} == {file.name for file in again[1].folder.glob("*.ipynb")}
    printed = capsys.readouterr().err
    assert "FAILED" in printed
    assert "2 of 3 runs to do" in printed


# One notebook


def test_numbers_reach_the_notebook_as_numbers(tmp_path, runs_of):
    """Also those that Python writes without a point, which YAML takes for text."""
    run = Run(**{**vars(runs_of(0)[0]), "learning_rate": 1e-5, "penalty_weight": 1e16, "sigma": 0.5})
    code = "assert (learning_rate, penalty_weight, sigma) == (1e-5, 1e16, 0.5), (learning_rate, penalty_weight, sigma)"
    assert papermill(write_notebook(tmp_path / "a.ipynb", code), tmp_path / "out.ipynb", asdict(run), {}) == ""


def test_a_process_that_dies_at_once_is_reported(tmp_path, runs_of, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    notebook = write_notebook(tmp_path / "a.ipynb")
    error = execute_notebook(runs_of(0)[0], tmp_path / "run", notebook)
    assert "1" in error
    assert not list((tmp_path / "run").glob("*.ipynb"))


# What a sweep promises, without processes


@pytest.fixture
def fake(monkeypatch):
    """Runs take 0.2 s and do nothing; the list of those that were started."""
    started = []

    def fake_execution(run, folder, notebook, **options):
        started.append(run.seed)
        time.sleep(0.2)
        if run.seed == 7:
            raise OSError(28, "No space left on device")
        return ""

    monkeypatch.setattr(execute, "execute_notebook", fake_execution)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    return started


def test_an_interrupted_sweep_starts_no_more_runs(fake, place, tmp_path, runs_of, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "look", interrupt)  # the sweep's own thread calls it between looks at the runs
    with pytest.raises(KeyboardInterrupt):
        sweep(runs_of(*range(10, 16)), folder=tmp_path, jobs=1, notebook=place[1])
    assert len(fake) <= 2


def test_runs_of_one_identity_are_done_once(fake, place, tmp_path, runs_of):
    one = runs_of(10)[0]
    outcomes = sweep([one, one, *runs_of(11)], folder=tmp_path, jobs=2, notebook=place[1])
    assert sorted(fake) == [10, 11]
    assert [outcome.run.seed for outcome in outcomes] == [10, 10, 11]


def test_an_error_outside_the_notebook_is_that_runs_outcome(fake, place, tmp_path, runs_of):
    outcomes = sweep(runs_of(7, 8), folder=tmp_path, notebook=place[1])
    assert "No space left" in outcomes[0].error
    assert outcomes[1].error == ""


@pytest.mark.parametrize(("epochs", "asked_again"), [(3, True), (2, False)])
def test_a_run_that_outlasts_its_workers_is_asked_for_as_long_as_it_gets_on(tmp_path, epochs, asked_again):
    (tmp_path / "history.csv").write_text("epoch,seconds\n" + "1,1.0\n" * epochs)
    killed, ended = type("KilledWorker", (Exception,), {}), Future()
    ended.set_exception(killed("four workers died"))
    cluster = Cluster.__new__(Cluster)  # without a scheduler, which only gives the futures
    cluster.futures, cluster.reached = {ended: tmp_path}, {tmp_path: 2}
    assert cluster.error_of(ended) == (None if asked_again else "KilledWorker: four workers died")


def test_what_cannot_be_swept_is_refused_before_anything_starts(place, tmp_path, runs_of):
    with pytest.raises(ValueError, match="`jobs` of at least 1, got 0"):
        sweep(runs_of(0), folder=tmp_path, jobs=0, notebook=place[1])
    with pytest.raises(FileNotFoundError, match=r"no\.ipynb.*Sweep from a checkout"):
        sweep(runs_of(0), folder=tmp_path, notebook=tmp_path / "no.ipynb")
    with pytest.raises(FileNotFoundError, match="Give a folder that `nacl data prepare` made"):
        sweep([Run(data="no/such/folder")], folder=tmp_path, notebook=place[1])
    assert os.listdir(tmp_path) == []


def test_a_sweep_of_nothing_is_nothing(place, tmp_path):
    assert sweep([], folder=tmp_path, notebook=place[1]) == []


def test_a_network_of_ones_own_is_found_from_where_the_sweep_was_started(tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text("def make(in_channels, num_classes, *, filters): ...")
    monkeypatch.chdir(tmp_path)
    finish = "import mynet, os, pathlib\n(pathlib.Path(os.environ['NACL_RUNS']) / 'run' / 'run.json').touch()"
    notebook = write_notebook(tmp_path / "a.ipynb", finish)
    assert execute_notebook(Run(model="mynet:make"), tmp_path / "run", notebook) == ""
