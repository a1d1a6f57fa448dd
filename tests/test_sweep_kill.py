"""Sweeps whose processes are killed: nothing is lost, nothing is trained twice, and no process is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sweeps import dask_cluster, mentioning, start, train_cell, wait_for, write_notebook

from nacl._files import write_text
from nacl.results import load_result
from nacl.runs import Run
from nacl.sweep import sweep
from nacl.sweep.progress import Progress
from nacl.sweep.state import unfinished

EPOCHS = 6
LONG = 240  # seconds, on a machine that does much else
SECONDS_TO_VANISH = 5
# a line for each epoch when it is filed; then the run waits until the gate lets it go on to the next
GATED = """
import os, time
from pathlib import Path
def note(history):
    epoch = history[-1]["epoch"]
    with open({log!r}, "a") as stream:
        stream.write(f"{{seed}} {{epoch}} {{os.getpid()}}\\n")
    while epoch >= int(Path({gate!r}).read_text() or 0):
        time.sleep(0.05)
"""
DRIVER = """
import sys
from pathlib import Path
from nacl.runs import Run
from nacl.sweep import sweep
options = dict(data={data!r}, size=32, filters=2, epochs={epochs}, device="cpu", loss="ce")
runs = [Run(**options, seed=int(seed)) for seed in sys.argv[2].split(",")]
where = dict(scheduler=sys.argv[1]) if ":" in sys.argv[1] else dict(jobs=int(sys.argv[1]))
outcomes = sweep(runs, folder=Path({folder!r}), notebook=Path({notebook!r}), **where)
sys.exit(any(outcome.error for outcome in outcomes))
"""


class Place:
    """A folder of runs, the notebook that does them, and the log of all epochs that were trained."""

    def __init__(self, base: Path, data: Path) -> None:
        self.folder, self.data, self.base = base / "runs", data, base
        self.log, self.said, self.gate = base / "epochs", base / "driver.log", base / "gate"
        self.log.touch()
        self.let_go_on_to(2)
        code = GATED.format(log=str(self.log), gate=str(self.gate))
        self.notebook = write_notebook(base / "train.ipynb", code, train_cell(", on_epoch=note"))

    def runs(self, *seeds: int) -> list[Run]:
        options = {"data": str(self.data), "size": 32, "filters": 2, "epochs": EPOCHS, "device": "cpu", "loss": "ce"}
        return [Run(**options, seed=seed) for seed in seeds]

    def sweep(self, *seeds: int, **options: object) -> list:
        return sweep(self.runs(*seeds), folder=self.folder, notebook=self.notebook, **options)

    @contextmanager
    def sweep_beside(self, *seeds: int, **options: object) -> Iterator[Future]:
        """The same in a thread, while the test looks on; it comes to its end also where the test fails."""
        with ThreadPoolExecutor(1) as thread:
            try:
                yield thread.submit(self.sweep, *seeds, **options)
            finally:
                self.let_go_on_to(EPOCHS + 1)

    def driver(self, where: str, *seeds: int) -> subprocess.Popen:
        """A sweep in a process of its own: `where` is the number of jobs or the address of a scheduler."""
        code = DRIVER.format(data=str(self.data), epochs=EPOCHS, folder=str(self.folder), notebook=str(self.notebook))
        command = [sys.executable, "-c", code, where, ",".join(map(str, seeds))]
        return start(command, self.said, start_new_session=True)

    def epochs(self) -> list[tuple[int, int]]:
        """(seed, epoch) of each epoch that was trained, in the order of their ends."""
        return [tuple(map(int, line.split()[:2])) for line in self.log.read_text().splitlines()]

    def let_go_on_to(self, epoch: int) -> None:
        """All runs stop before the next epoch, until they may go on."""
        write_text(self.gate, str(epoch))

    def have_reached(self, epoch: int, *seeds: int) -> bool:
        return {(seed, epoch) for seed in seeds} <= set(self.epochs())

    def processes(self) -> list[psutil.Process]:
        return mentioning(str(self.folder))

    def check_that_all_vanish(self) -> None:
        wait_for(lambda: not self.processes(), SECONDS_TO_VANISH)

    def check_done_once(self, *seeds: int) -> None:
        """Each run has its result and nothing else, and no epoch of it was trained twice."""
        trained = self.epochs()
        assert len(set(trained)) == len(trained)
        for run in self.runs(*seeds):
            folder = run.folder(self.folder)
            assert len(load_result(folder).history) == EPOCHS
            assert trained.count((run.seed, EPOCHS)) == 1
            names = {file.name for file in folder.iterdir()}
            assert names == {
                *(
                    "run.json",
                    "metrics.csv",
                    "validation.csv",
                    "bins.csv",
                    "history.csv",
                    "weights.safetensors",
                    "notebook.ipynb",
                ),
                *(".lock", ".sweep.lock"),
            }
        assert not self.processes()


@pytest.fixture
def place(tmp_path, tiny_acdc):
    """A place, and no process left of what was done there."""
    found = Place(tmp_path, tiny_acdc)
    yield found
    for process in found.processes():
        process.kill()


@pytest.fixture(scope="module")
def one_cluster(tmp_path_factory):
    """A real scheduler that all tests of this file share: its workers take long to import torch."""
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(one_cluster):
    """A real scheduler with two worker processes."""
    one_cluster.fill_up(2)
    return one_cluster


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_a_driver_that_is_killed_takes_its_kernels_with_it_and_the_next_one_goes_on(place):
    driver = place.driver("2", 0, 1)
    wait_for(lambda: place.have_reached(2, 0, 1))
    assert len(place.processes()) == 4  # two kernels, and who executes their notebooks
    kill(driver)
    place.check_that_all_vanish()
    assert {unfinished(run.folder(place.folder)).state for run in place.runs(0, 1)} == {"stopped"}
    place.let_go_on_to(EPOCHS + 1)
    outcomes = place.sweep(0, 1, jobs=2)
    assert [outcome.error for outcome in outcomes] == ["", ""]
    place.check_done_once(0, 1)


def test_two_drivers_share_the_runs_of_one_folder(place):
    other = place.driver("1", 0, 1)
    with place.sweep_beside(0, 1, jobs=1) as ended:
        wait_for(lambda: place.have_reached(2, 0, 1))  # each is at one of them
        assert len(place.processes()) == 4
        states = [unfinished(run.folder(place.folder)) for run in place.runs(0, 1)]
        assert {(state.state, state.epoch, state.epochs) for state in states} == {("under way", 2, EPOCHS)}
        place.let_go_on_to(EPOCHS + 1)
        assert [outcome.error for outcome in ended.result(LONG)] == ["", ""]
    assert other.wait(LONG) == 0
    place.check_done_once(0, 1)
    assert len({line.split()[2] for line in place.log.read_text().splitlines()}) == 2  # no kernel beside the two


def test_a_worker_that_is_killed_loses_nothing(place, cluster):
    with place.sweep_beside(0, 1, scheduler=cluster.address) as ended:
        wait_for(lambda: place.have_reached(2, 0, 1))
        doomed = psutil.Process(cluster.workers[0].pid).children(recursive=True)
        assert len(doomed) == 2
        kill(cluster.workers[0])
        _, alive = psutil.wait_procs(doomed, SECONDS_TO_VANISH)
        assert not alive
        place.let_go_on_to(EPOCHS + 1)
        assert [outcome.error for outcome in ended.result(LONG)] == ["", ""]
    place.check_done_once(0, 1)


def test_a_cluster_is_free_again_when_its_driver_is_killed_or_interrupted(place, cluster, monkeypatch):
    """The next drivers, one of them on the cluster and one beside it, go on where the others were."""
    driver = place.driver(cluster.address, 0, 1)
    wait_for(lambda: place.have_reached(2, 0, 1))
    kill(driver)
    place.check_that_all_vanish()

    latest = time.monotonic() + LONG

    def look(*_):
        assert time.monotonic() < latest
        if sum(place.have_reached(4, seed) for seed in (0, 1, 2)) == 2:  # the third is queued
            raise KeyboardInterrupt

    place.let_go_on_to(4)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "look", look)
        with pytest.raises(KeyboardInterrupt):
            place.sweep(0, 1, 2, scheduler=cluster.address)
    place.check_that_all_vanish()
    assert all(worker.poll() is None for worker in cluster.workers)

    place.let_go_on_to(EPOCHS + 1)
    other = place.driver("1", 0, 1)
    outcomes = place.sweep(0, 1, scheduler=cluster.address)
    assert [outcome.error for outcome in outcomes] == ["", ""]
    assert other.wait(LONG) == 0
    place.check_done_once(0, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_with_its_runs_and_words(place, number):
    """As from a terminal, and from Slurm or `kill`."""
    grid = ["main", "--data", str(place.data), "--runs", str(place.folder)]
    fixed = ["--set", "size=32", "filters=2", "epochs=10000", "device=cpu"]
    command = [sys.executable, "-m", "nacl", "sweep", *grid, *fixed]

    def as_in_a_terminal():  # a job in the background of a script ignores Ctrl-C, and so would what it starts
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = start(command, place.said, start_new_session=True, preexec_fn=as_in_a_terminal)
    wait_for(lambda: list(place.folder.glob("*/history.csv")))
    os.killpg(process.pid, number)
    assert process.wait(LONG) == 130
    words = place.said.read_text()
    assert "Traceback" not in words
    assert "the same command goes on" in words
    place.check_that_all_vanish()
    assert not list(place.folder.glob("*/failed.ipynb"))


def test_a_cluster_without_workers_is_waited_for_and_one_without_the_data_is_named(
    place, tmp_path, tiny_acdc_copy, capsys
):
    place.data = tiny_acdc_copy
    with ThreadPoolExecutor(1) as thread, dask_cluster(tmp_path, workers=0) as cluster:
        said = []
        ended = thread.submit(place.sweep, 0, 1, scheduler=cluster.address)
        wait_for(lambda: said.append(capsys.readouterr().err) or "waiting for a worker" in "".join(said))
        assert f"dask worker {cluster.address} --nthreads 1" in "".join(said)
        tiny_acdc_copy.rename(tmp_path / "elsewhere")
        cluster.add_worker()
        outcomes = ended.result(LONG)
    for outcome in outcomes:
        assert (
            f"Expected `data` to be on the worker's host {os.uname().nodename}, got no {tiny_acdc_copy}"
            in outcome.error
        )
        assert not outcome.notebook.exists()  # so that the next sweep tries again


def test_a_scheduler_that_dies_ends_the_sweep_with_what_to_do(place, tmp_path, capsys):
    with ThreadPoolExecutor(1) as thread, dask_cluster(tmp_path, workers=0) as cluster:
        ended = thread.submit(place.sweep, 0, scheduler=cluster.address)
        wait_for(lambda: "waiting for a worker" in capsys.readouterr().err)
        cluster.scheduler.kill()
        with pytest.raises(ConnectionError, match=r"scheduler is gone.*Start the scheduler"):
            ended.result(LONG)
