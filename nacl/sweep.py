"""Many runs: each is the train notebook executed by papermill, here or on a Dask cluster.

A run is a process of its own. What kills it, or the process of another run, leaves the others alone.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml
from tqdm.auto import tqdm

from nacl._checks import check_integer, expectation
from nacl._parallel import available_cores
from nacl.data.load import PROJECT_ROOT, resolve_data
from nacl.runs import Run, runs_folder

NOTEBOOK = PROJECT_ROOT / "notebooks" / "02_train.ipynb"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended: `error` is empty for a finished run, else what its notebook died of."""

    run: Run
    folder: Path
    error: str = ""

    @property
    def notebook(self) -> Path:
        """The executed notebook, as far as it came."""
        return self.folder / ("failed.ipynb" if self.error else "notebook.ipynb")


def sweep(
    runs: Sequence[Run],
    *,
    folder: Path | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    notebook: Path = NOTEBOOK,
) -> list[Outcome]:
    """Do all runs that are not done yet, and say how each ended.

    Args:
        runs: what to do; runs of the same identity are done once.
        folder: of the run folders, by default `runs_folder()`. With a scheduler all workers must see it, and the data.
        jobs: runs at a time on this machine, which share its cores.
        scheduler: address of a Dask scheduler ("tcp://host:8786"); its workers then do the runs instead.
        notebook: executed with the fields of `Run` as its parameters.

    Returns:
        One outcome a run, in order. A run that failed does not stop the others.

    Raises:
        ValueError: `jobs` below 1.
        FileNotFoundError: no such data or notebook.
        OSError: no scheduler answers there.
    """
    check_integer("jobs", jobs, low=1)
    if not notebook.exists():
        raise FileNotFoundError(f"Expected the train notebook at {notebook}, got no file. Sweep from a checkout.")
    folder, notebook = (folder or runs_folder()).absolute(), notebook.absolute()
    runs = [replace(run, data=str(resolve_data(run.data))) for run in runs]  # workers may start anywhere
    places = [run.folder(folder) for run in runs]
    by_folder = dict(zip(places, runs, strict=True))
    todo = {place: run for place, run in by_folder.items() if not _is_done(place)}
    outcomes = {place: Outcome(run, place) for place, run in by_folder.items()}
    with _executor(scheduler, jobs) as submit:
        futures = {submit(execute_notebook, run, place, notebook): place for place, run in todo.items()}
        for place, error in _in_order_of_end(futures, todo, len(by_folder)):
            outcomes[place] = Outcome(todo[place], place, error)
    return [outcomes[place] for place in places]


def execute_notebook(run: Run, folder: Path, notebook: Path = NOTEBOOK, threads: int | None = None) -> str:
    """Execute the train notebook for `run` in a process of its own; what it died of, or "" if it finished.

    The notebook appears as `notebook.ipynb` in the run's folder when it is whole, as `failed.ipynb` when it died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failed.ipynb").unlink(missing_ok=True)
    environment = {"NACL_RUNS": str(folder.parent)}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    with tempfile.TemporaryDirectory(prefix=".running-", dir=folder) as scratch:
        output = Path(scratch) / "notebook.ipynb"
        error = papermill(notebook, output, asdict(run), environment)
        if not error and not (folder / "run.json").exists():
            error = "the notebook filed its run elsewhere: the package or the data changed since the sweep was planned"
        if output.exists():
            output.replace(folder / ("failed.ipynb" if error else "notebook.ipynb"))
        return error


def papermill(notebook: Path, output: Path, parameters: dict[str, object], environment: dict[str, str]) -> str:
    """Execute a notebook in a process of its own; the last words of its error, or "" if it came to its end."""
    command = [sys.executable, "-m", "papermill", str(notebook), str(output), "--no-progress-bar"]
    command += ["--parameters_yaml", yaml.safe_dump(parameters)]
    # no debugger's notice, and pictures in the notebook whatever backend the shell names
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    environment = {**os.environ, **quiet, **environment}
    done = subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else _last_words(done.stderr, done.returncode)


def _is_done(folder: Path) -> bool:
    return (folder / "run.json").exists() and (folder / "notebook.ipynb").exists()


def _last_words(stderr: str, code: int) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line.split(":")[0]]
    return (named or lines or [f"papermill ended with code {code}"])[-1]


@contextmanager
def _executor(scheduler: str | None, jobs: int) -> Iterator[Callable[..., Future]]:
    """A function that submits a call: to threads that wait for processes here, or to the workers of a cluster."""
    if scheduler is None:
        threads = max(1, available_cores() // jobs)
        pool = ThreadPoolExecutor(jobs)
        try:
            yield lambda function, *arguments: pool.submit(function, *arguments, threads)
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, start nothing more
        return
    from distributed import Client  # in the extra `cluster`

    try:
        client = Client(scheduler, timeout="20s")
    except OSError as error:
        remedy = "Start one with `dask scheduler` and give the address that it prints"
        message = expectation("scheduler", "to be the address of a running Dask scheduler", scheduler, remedy=remedy)
        raise OSError(message) from error
    with client:
        yield lambda function, *arguments: client.submit(function, *arguments, pure=False)


def _error(future: Future) -> str:
    try:
        return future.result()
    except Exception as error:  # whatever a worker died of is that run's outcome and not the sweep's end
        return f"{type(error).__name__}: {error}"


def _in_order_of_end(futures: dict[Future, Path], todo: dict[Path, Run], planned: int) -> Iterator[tuple[Path, str]]:
    """Each run's folder and error when it has ended, under a bar of epochs that the runs' histories feed."""
    waiting = set(futures)
    total = sum(run.epochs for run in todo.values())
    with tqdm(total=total, unit="epoch", desc=f"{len(todo)} of {planned} runs to do", disable=not todo) as bar:
        while waiting:
            ended = {future for future in waiting if future.done()}
            for future in ended:
                place = futures[future]
                error = _error(future)
                bar.write(f"{'FAILED  ' if error else 'finished'} {place.name} {error}".rstrip())
                yield place, error
            waiting -= ended
            epochs = sum(todo[p].epochs if f not in waiting else _epochs_done(p) for f, p in futures.items())
            if epochs != bar.n:
                bar.update(epochs - bar.n)
            if waiting:
                time.sleep(POLL_SECONDS)


def _epochs_done(folder: Path) -> int:
    try:
        return max(0, (folder / "history.csv").read_text().count("\n") - 1)
    except FileNotFoundError:
        return 0
