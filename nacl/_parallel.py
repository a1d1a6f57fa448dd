"""One function over many tasks in processes of their own, where a task that kills its process ends alone."""

import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection, wait
from typing import TypeVar

import torch
from tqdm.auto import tqdm

from nacl._checks import check_integer

Task = TypeVar("Task")
Result = TypeVar("Result")

READY, ENDED, DIED = "ready", "ended", "died"
CANNOT_START = (
    "The processes can't start; their own message is above. In a script, call this from below "
    '`if __name__ == "__main__":`, or with jobs=1.'
)
SECONDS_TO_END = 5  # enough for a worker to take its unfinished file away


def available_cores() -> int:
    """The cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int | None = None, description: str = ""
) -> Iterator[tuple[Task, Result | Exception]]:
    """`function` of each task, in the order in which they end, under a progress bar.

    What a task raises is its result, and so is a RuntimeError for a task whose process dies (of too little memory, or
    killed): the others go on. At most `jobs` tasks and results are under way. When the loop over the results ends
    early, as by Ctrl-C, the processes are ended too, and what they were writing is taken away.

    Args:
        function: of one argument, at the top of a module, so that another process finds it.
        tasks: arguments that can be pickled.
        jobs: processes; by default one a core. With 1, or one task only, everything happens in this process.
        description: beside the progress bar.

    Yields:
        (task, result or exception)

    Raises:
        ValueError, TypeError: `jobs` is no integer of at least 1.
        RuntimeError: the processes can't start.
    """
    jobs = available_cores() if jobs is None else jobs
    check_integer("jobs", jobs, low=1)
    ended = _here(function, tasks) if min(jobs, len(tasks)) <= 1 else _elsewhere(function, tasks, jobs)
    with closing(ended):
        yield from tqdm(ended, description, total=len(tasks), unit="case", disable=not tasks)


def _here(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result | Exception]]:
    for task in tasks:
        try:
            yield task, function(task)
        except Exception as error:  # whatever a task dies of is its own outcome
            yield task, error


class _Worker:
    """A process, the pipe to it, and the task that it is at."""

    def __init__(self, function: Callable, task: object) -> None:
        # spawn: a fork of a process that has used torch's threads can hang
        context = multiprocessing.get_context("spawn")
        self.task = task
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(function, task, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def give(self, task: object) -> None:
        self.task = task
        with suppress(BrokenPipeError):  # it died; the end of the pipe will say so
            self.pipe.send(task)

    def take(self) -> tuple[str, object]:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):  # OSError: it died with a task unread
            self.end()
            return DIED, self.process.exitcode

    def end(self) -> None:
        self.process.terminate()
        self.process.join(SECONDS_TO_END)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


def _elsewhere(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int
) -> Iterator[tuple[Task, Result | Exception]]:
    left, busy, can_start = deque(tasks), {}, False
    try:
        while left or busy:
            while left and len(busy) < jobs:
                worker = _Worker(function, left.popleft())
                busy[worker.pipe] = worker
            for pipe in wait(list(busy)):
                worker, task = busy[pipe], busy[pipe].task
                what, result = worker.take()
                if what == READY:
                    can_start = True
                    continue
                if what == DIED and not can_start:
                    raise RuntimeError(CANNOT_START)
                if what == DIED:
                    del busy[pipe]
                    result = RuntimeError(_cause(result))
                elif left:
                    worker.give(left.popleft())
                else:
                    del busy[pipe]
                    worker.process.kill()  # it is idle, and unloading all libraries takes seconds
                    worker.end()
                yield task, result
    finally:
        for worker in busy.values():
            worker.process.terminate()  # all at once; then each is waited for
        for worker in busy.values():
            worker.end()


def _cause(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return "its process was killed, as the system does where memory runs out. Free some memory, or use fewer jobs"
    how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
    return f"its process ended {how}"


def _serve(function: Callable, task: object, pipe: Connection) -> None:
    """What a process does: one task after the other, until it is told to end or the pipe does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first process ends the others
    signal.signal(signal.SIGTERM, _exit_once)
    torch.set_num_threads(1)
    pipe.send((READY, None))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the first process is gone
        while True:
            try:
                result = function(task)
                pickle.dumps(result)
            except Exception as error:
                result = _portable(error)
            pipe.send((ENDED, result))
            task = pipe.recv()


def _exit_once(number: int, _frame: object) -> None:
    """End by way of every `finally`, none of which a second signal may cut short."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(1)


def _portable(error: Exception) -> Exception:
    """`error`, or its words where it can't be pickled and read again."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # what an exception's own pickling raises can be anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
