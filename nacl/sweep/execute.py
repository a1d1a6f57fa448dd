"""One run of a sweep: the train notebook, executed in a process of its own and filed in the run's folder."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from nacl._files import whole_file, write_text
from nacl.data.load import PROJECT_ROOT
from nacl.models import is_own
from nacl.runs import Run
from nacl.sweep.state import BEGUN, DONE, FAILED, LOCK, failure, is_done

NOTEBOOK = PROJECT_ROOT / "notebooks" / "09_train.ipynb"
PROGRAM = Path(__file__).with_name("_notebook.py")
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_END = 5  # enough to kill a kernel and remove a folder
# no debugger's notice, and pictures in the notebook whatever backend the shell names
QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}


class StoppedError(Exception):
    """A notebook was ended since nobody wants it any more."""


def execute_notebook(
    run: Run,
    folder: Path,
    notebook: Path = NOTEBOOK,
    *,
    threads: int | None = None,
    retry_failed: bool = False,
    wanted: Callable[[], bool] = lambda: True,
) -> str | None:
    """Execute the train notebook for `run`, unless that was done before.

    The notebook appears as `notebook.ipynb` in the run's folder when it is whole, as `failed.ipynb` when it died.

    Args:
        run: its fields are the notebook's parameters.
        folder: of the run.
        notebook: what to execute.
        threads: of torch; $OMP_NUM_THREADS comes first.
        retry_failed: also where `failed.ipynb` is there.
        wanted: asked while the notebook runs; when it says no, the process is ended and nothing is filed.

    Returns:
        What the notebook died of, "" if it came to its end, None while another process executes it.

    Raises:
        StoppedError: it is not wanted any more.
        OSError: a file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _right_to(folder) as mine:
        if not mine:
            return None
        if is_done(folder):
            return ""
        error = failure(folder)
        if error and not retry_failed:
            return error
        (folder / FAILED).unlink(missing_ok=True)
        write_text(folder / BEGUN, json.dumps(asdict(run)))
        return _execute(run, folder, notebook, threads, wanted)


@contextmanager
def _right_to(folder: Path) -> Iterator[bool]:
    """Whether this process is the one that executes the run's notebook; the system takes that right from the dead."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _execute(run: Run, folder: Path, notebook: Path, threads: int | None, wanted: Callable[[], bool]) -> str:
    environment = {"NACL_RUNS": str(folder.parent)}
    if is_own(run.model):  # a network of one's own, which is looked for from here
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), os.getcwd()]))
    if threads is not None:
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    with _executed(notebook, asdict(run), environment, wanted) as (executed, error):
        if not error and not (folder / "run.json").exists():
            error = "the notebook filed its run elsewhere: the package or the data changed since the sweep was planned"
        if error and executed.exists():
            _file_failure(executed, folder / FAILED, error)
        elif not error:
            (folder / BEGUN).unlink(missing_ok=True)
            _file(executed, folder / DONE)
    return error


def _file_failure(executed: Path, target: Path, error: str) -> None:
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    notebook["metadata"]["nacl"] = {"error": error}  # for the sweeps to come
    executed.write_text(json.dumps(notebook, indent=1), encoding="utf-8")
    try:
        _file(executed, target)
    except FileNotFoundError:  # who begins the run at this moment swept away what was half written, but does so once
        _file(executed, target)


def _file(source: Path, target: Path) -> None:
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)


def papermill(
    notebook: Path,
    output: Path,
    parameters: dict[str, object],
    environment: dict[str, str],
    wanted: Callable[[], bool] = lambda: True,
) -> str:
    """Execute a notebook in a process of its own, which ends with this one, however this one ends.

    Args:
        notebook: what to execute.
        output: where it appears, executed, when it is whole or as far as it came.
        parameters: numbers, texts and truth values by name.
        environment: variables beside those of this process.
        wanted: asked while the notebook runs; when it says no, the process is ended and nothing appears.

    Returns:
        What it died of, or "" if it came to its end.

    Raises:
        StoppedError: it is not wanted any more.
    """
    with _executed(notebook, parameters, environment, wanted) as (executed, error):
        if executed.exists():
            _file(executed, output)
    return error


@contextmanager
def _executed(
    notebook: Path,
    parameters: dict[str, object],
    environment: dict[str, str],
    wanted: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[Path, str]]:
    """A notebook in a scratch folder, executed as far as it came, and what it died of."""
    with tempfile.TemporaryDirectory(prefix="nacl-notebook-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        task = {"notebook": str(notebook), "scratch": folder, "parameters": parameters}
        environment = {**os.environ, **QUIET, **environment}
        with _Process(task, environment, scratch / "log") as process:
            while process.runs_on():
                if not wanted():
                    raise StoppedError("stopped before its end")
        yield scratch / "executed.ipynb", process.last_words(scratch / "answer.json")


class _Process:
    """`_notebook.py` at work. Its standard input stays open as long as its work is wanted."""

    def __init__(self, task: dict[str, object], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM)],  # -P: the modules beside it are the package's own
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                env=environment,
                cwd=PROJECT_ROOT,
                start_new_session=True,  # Ctrl-C goes to who started it, and is passed on by the end of its input
            )
        with suppress(BrokenPipeError):  # it died; its exit code will say so
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def runs_on(self) -> bool:
        """Wait a moment; whether it has not ended yet."""
        try:
            self.process.wait(SECONDS_BETWEEN_LOOKS)
        except subprocess.TimeoutExpired:
            return True
        return False

    def last_words(self, answer: Path) -> str:
        """What the notebook died of; the log has what a kernel or this process said before it ended."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        try:
            error = json.loads(answer.read_text())["error"]
        except (OSError, ValueError):
            error = f"its process ended with exit code {self.process.returncode}"
        return f"{error}: {lines[-1]}" if lines and "exit code" in error else error
