"""What the tests of sweeps share: a notebook that trains, a real Dask cluster, and a look at the processes left."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import nbformat
import psutil

from nacl.runs import Run

TRAIN = "from nacl.experiments import train_run\nfrom nacl.runs import Run\ntrain_run(Run({fields}){options})"
PROJECT = Path(__file__).resolve().parents[1]


def write_notebook(file: Path, *code: str) -> Path:
    """A notebook with the parameters of `Run` and then the cells of `code`."""
    parameters = nbformat.v4.new_code_cell("\n".join(f"{f.name} = {f.default!r}" for f in fields(Run)))
    parameters.metadata.tags = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=[parameters, *map(nbformat.v4.new_code_cell, code)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, file)
    return file


def train_cell(options: str = "") -> str:
    """Code that trains the run of the notebook's parameters."""
    return TRAIN.format(fields=", ".join(f"{f.name}={f.name}" for f in fields(Run)), options=options)


def wait_for(what: Callable[[], object], seconds: float = 240) -> object:
    """`what()` as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{what} was not true within {seconds} s")


def mentioning(text: str) -> list[psutil.Process]:
    """The living processes whose command line or scratch folder has `text` in it: kernels and who executes them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and text in process.environ().get("NACL_RUNS", ""):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [process for process in found if process.pid != os.getpid()]


def start(command: list[str], log: Path, **options: object) -> subprocess.Popen:
    """A process with this checkout's package, its words in a file."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    with log.open("a") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, **options)


class DaskCluster:
    """A real scheduler, and workers of one thread each that can be added and killed."""

    def __init__(self, folder: Path) -> None:
        self.file, self.log, self.folder = folder / "scheduler.json", folder / "dask.log", folder
        self.workers: list[subprocess.Popen] = []
        command = [sys.executable, "-m", "dask", "scheduler", "--port", "0", *self._common()]
        self.scheduler = start(command, self.log)
        wait_for(self.file.exists)
        self.address = json.loads(self.file.read_text())["address"]

    def _common(self) -> list[str]:
        return ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(self.file)]

    def fill_up(self, workers: int) -> None:
        """See that so many workers live."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < workers:
            self.add_worker()

    def add_worker(self) -> subprocess.Popen:
        options = ["--nworkers", "1", "--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder)]
        worker = start([sys.executable, "-m", "dask", "worker", *self._common(), *options], self.log)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for process in [self.scheduler, *self.workers]:
            process.kill()
            process.wait()


@contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[DaskCluster]:
    """A cluster that ends with the block."""
    cluster = DaskCluster(folder)
    try:
        cluster.fill_up(workers)
        yield cluster
    finally:
        cluster.close()
