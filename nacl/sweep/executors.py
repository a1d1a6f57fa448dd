"""Where the runs of a sweep are done: in processes on this machine, or on the workers of a Dask cluster."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from nacl._checks import expectation
from nacl._parallel import available_cores
from nacl.data.load import EMBEDDED
from nacl.runs import Run
from nacl.sweep import execute
from nacl.sweep.execute import NOTEBOOK, StoppedError
from nacl.sweep.state import epoch_seconds

CONNECT_SECONDS = 20
SECONDS_BETWEEN_COUNTS = 2  # of workers: each is a question to the scheduler


class Here:
    """`jobs` runs at a time in processes of this machine, which share its cores."""

    def __init__(self, jobs: int, notebook: Path) -> None:
        self.jobs, self.notebook = jobs, notebook
        self.threads = max(1, available_cores() // jobs)
        self.pool = ThreadPoolExecutor(jobs)
        self.stopped = threading.Event()
        self.begun: dict[Path, float] = {}

    def submit(self, run: Run, place: Path, retry_failed: bool) -> Future:
        """Have a run done; the future gives what `execute_notebook` returns."""
        return self.pool.submit(self._do, run, place, retry_failed)

    def _do(self, run: Run, place: Path, retry_failed: bool) -> str | None:
        self.begun[place] = time.monotonic()
        try:
            return execute.execute_notebook(
                run,
                place,
                self.notebook,
                threads=self.threads,
                retry_failed=retry_failed,
                wanted=lambda: not self.stopped.is_set(),
            )
        finally:
            del self.begun[place]

    def error_of(self, future: Future) -> str | None:
        """As the function `error_of`."""
        return error_of(future)

    def running(self) -> dict[Path, float]:
        """The runs under way, and when each was begun."""
        return dict(self.begun)

    def places(self) -> int:
        """How many runs go on at once."""
        return self.jobs

    def note(self) -> str:
        """What keeps the runs waiting, if anything does."""
        return ""

    def close(self) -> None:
        """End the processes, begin no more runs."""
        self.stopped.set()
        self.pool.shutdown(cancel_futures=True)


class Cluster:
    """The workers of a Dask scheduler, each thread of which does a run at a time."""

    def __init__(self, address: str, notebook: Path) -> None:
        from distributed import Client  # in the extra `cluster`

        for name in ("distributed", "distributed.client"):  # their news are said in the sweep's own words
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            where = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
            self.client = Client(**where, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            remedy = "Start one with `dask scheduler` and give the address that it prints"
            message = expectation("scheduler", "to be the address of a running Dask scheduler", address, remedy=remedy)
            raise OSError(message) from error
        self.address = self.client.scheduler.address
        self.notebook = None if notebook == NOTEBOOK else notebook  # each worker has its own checkout's
        self.topic = f"nacl-sweep-{uuid4().hex}"
        self.client.subscribe_topic(self.topic, self._heard)
        self.begun: dict[Path, float] = {}
        self.futures: dict[Future, Path] = {}
        self.reached: dict[Path, int] = {}  # epochs, when a run was submitted
        self.priority = 0
        self.threads, self.counted = 0, -SECONDS_BETWEEN_COUNTS

    def _heard(self, event: tuple[float, str]) -> None:
        _, news = event
        self.begun[Path(news)] = time.monotonic()

    def submit(self, run: Run, place: Path, retry_failed: bool) -> Future:
        """Have a run done; the future gives what `execute_notebook` returns."""
        self.priority -= 1  # in the order of the grid; Dask's own is another
        how = {"key": f"{place.name}-{uuid4().hex}", "priority": self.priority}
        future = self.client.submit(_on_worker, run, place, self.notebook, self.topic, retry_failed, **how)
        self.futures[future], self.reached[place] = place, len(epoch_seconds(place))
        return future

    def error_of(self, future: Future) -> str | None:
        """As the function `error_of`; a run is asked for again when its workers died but it got on with each."""
        place, error = self.futures.pop(future), error_of(future)
        died = error is not None and error.startswith("KilledWorker")
        return None if died and len(epoch_seconds(place)) > self.reached[place] else error

    def running(self) -> dict[Path, float]:
        """The runs under way, and when each was begun; the one of a worker that died, until another begins it."""
        submitted = set(self.futures.values())
        return {place: began for place, began in self.begun.items() if place in submitted}

    def places(self) -> int:
        """How many runs go on at once."""
        if time.monotonic() - self.counted > SECONDS_BETWEEN_COUNTS:
            self.counted = time.monotonic()
            try:
                self.threads = sum(self.client.nthreads().values())
            except OSError:
                self.threads = 0
        return self.threads

    def note(self) -> str:
        """What keeps the runs waiting, if anything does."""
        return "" if self.places() else f"waiting for a worker (dask worker {self.address} --nthreads 1)"

    def close(self) -> None:
        """Cancel what has not ended; the workers see it and end their processes."""
        left = [future for future in self.futures if not future.done()]
        if left:
            self.client.cancel(left)
        self.client.close()


def _on_worker(run: Run, place: Path, notebook: Path | None, topic: str, retry_failed: bool) -> str | None:
    """`execute_notebook` on a worker, once it is found to see the data and the runs."""
    from distributed import get_worker

    host = socket.gethostname()
    get_worker().log_event(topic, str(place))
    for name, path, there in (
        ("data", run.data, run.data in EMBEDDED or Path(run.data).is_dir()),
        ("runs", place.parent, place.parent.is_dir()),
        ("notebook", notebook, (notebook or NOTEBOOK).is_file()),
    ):
        if not there:
            remedy = "Mount it there under the same path, or start the workers where it is"
            return expectation(name, f"to be on the worker's host {host}", f"no {path}", remedy=remedy)
    return execute.execute_notebook(run, place, notebook or NOTEBOOK, retry_failed=retry_failed, wanted=_still_wanted())


def _still_wanted() -> Callable[[], bool]:
    """Says whether this thread's task was not cancelled, as it is when the sweep that asked for it is gone."""
    from distributed import Status, get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        at_work = worker.status not in (Status.closing, Status.closed, Status.failed)
        return at_work and task is not None and task.state not in ("cancelled", "released", "forgotten")

    return wanted


def error_of(future: Future) -> str | None:
    """What the run of an ended future died of, "" if it finished, None where it is to be asked for again.

    Raises:
        ConnectionError: the scheduler is gone, or somebody cancelled the run there.
    """
    try:
        return future.result()
    except CancelledError as error:
        reason = str(error).splitlines()[0].rpartition("reason: ")[2].rstrip(".")
        raise ConnectionError(
            f"The scheduler is gone, or the run was cancelled there ({reason}). Start the scheduler and its workers "
            "again, then the same command; finished runs and checkpoints are kept."
        ) from error
    except StoppedError:  # by a worker that was told to end; the next one goes on
        return None
    except Exception as error:  # whatever a worker died of is that run's outcome and not the sweep's end
        return f"{type(error).__name__}: {error}"
