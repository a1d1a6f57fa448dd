"""Many runs: each is the train notebook executed by papermill, here or on a Dask cluster.

A run is a process of its own. What kills it, or the process of another run, leaves the others alone.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from nacl._checks import check_flag, check_integer
from nacl.data.load import resolve_data
from nacl.runs import Run, folders, runs_folder
from nacl.sweep.execute import NOTEBOOK, papermill
from nacl.sweep.executors import Cluster, Here
from nacl.sweep.progress import Progress
from nacl.sweep.state import DONE, FAILED, failure, is_done, present

__all__ = ["NOTEBOOK", "Outcome", "papermill", "sweep"]

POLL_SECONDS = 0.5
SECONDS_TO_ASK_AGAIN = 2  # for a run that another sweep does


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended: `error` is empty for a finished run, else what its notebook died of."""

    run: Run
    folder: Path
    error: str = ""

    @property
    def notebook(self) -> Path:
        """The executed notebook, as far as it came."""
        return self.folder / (FAILED if self.error else DONE)


def sweep(
    runs: Sequence[Run],
    *,
    folder: Path | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    notebook: Path = NOTEBOOK,
    retry_failed: bool = False,
) -> list[Outcome]:
    """Do all runs that are not done yet, and say how each ended.

    Finished runs are read, and those that were killed go on from their last epoch. Several sweeps may share a folder,
    at the same time too: each run is done by one of them. Whatever ends a sweep ends its runs as well.

    Args:
        runs: what to do; runs of the same identity are done once.
        folder: of the run folders, by default `runs_folder()`. With a scheduler all workers must see it, and the data.
        jobs: runs at a time on this machine, which share its cores.
        scheduler: address of a Dask scheduler ("tcp://host:8786"), or the file that it wrote; its workers then do the
            runs instead.
        notebook: executed with the fields of `Run` as its parameters.
        retry_failed: do those again too that failed in an earlier sweep; else they are only listed.

    Returns:
        One outcome a run, in order. A run that failed does not stop the others.

    Raises:
        ValueError: `jobs` below 1.
        FileNotFoundError: no such data or notebook.
        OSError: no scheduler answers there.
    """
    check_integer("jobs", jobs, low=1)
    check_flag("retry_failed", retry_failed)
    if not notebook.exists():
        raise FileNotFoundError(f"Expected the train notebook at {notebook}, got no file. Sweep from a checkout.")
    folder, notebook = (folder or runs_folder()).absolute(), notebook.absolute()
    data = {name: str(resolve_data(name)) for name in {run.data for run in runs}}  # workers may start anywhere
    runs = [run if data[run.data] == run.data else replace(run, data=data[run.data]) for run in runs]
    places = folders(runs, folder)
    by_folder = dict(zip(places, runs, strict=True))
    there = present(places)  # one look at the disk for ten thousand runs that are still to do
    done = {place for place in there if is_done(place)}
    errors = {place: failure(place) for place in there - done}
    outcomes = {place: Outcome(run, place, errors.get(place, "")) for place, run in by_folder.items()}
    left = {place: run for place, run in by_folder.items() if place not in done}
    todo = {place: run for place, run in left.items() if retry_failed or not errors.get(place)}
    if todo:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            closing(Cluster(scheduler, notebook) if scheduler else Here(jobs, notebook)) as executor,
            closing(Progress(todo, len(by_folder), begun=there)) as progress,
        ):
            for place, error in _in_order_of_end(executor, todo, retry_failed, progress):
                outcomes[place] = Outcome(todo[place], place, error)
    return [outcomes[place] for place in places]


def _in_order_of_end(
    executor: Here | Cluster, todo: dict[Path, Run], retry_failed: bool, progress: Progress
) -> Iterator[tuple[Path, str]]:
    """Each run's folder and error when it has ended."""
    futures = {executor.submit(run, place, retry_failed): place for place, run in todo.items()}
    elsewhere: dict[Path, float] = {}  # when to ask again for a run that another sweep does
    while futures or elsewhere:
        for future in [future for future in futures if future.done()]:
            place, error = futures.pop(future), executor.error_of(future)
            if error is None:
                elsewhere[place] = time.monotonic() + SECONDS_TO_ASK_AGAIN
                continue
            progress.ended(place, error)
            yield place, error
        for place in [place for place, due in elsewhere.items() if due < time.monotonic()]:
            del elsewhere[place]
            futures[executor.submit(todo[place], place, False)] = place
        progress.look(executor.running(), elsewhere, executor.places(), executor.note())
        if futures or elsewhere:
            time.sleep(POLL_SECONDS)
