"""One notebook, executed by papermill: a program that `nacl.sweep` starts for each.

It is started by its path and imports nothing of the package, for that would load torch, for seconds, into a process
that only waits for its kernel. The first line of its standard input is the task, in JSON. Where that input ends, who
started it is gone, however it died, or wants it no more: then the kernel is killed and the scratch folder removed.
"""

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

LONGEST_SOCKET = 100  # characters; the system allows 103 or 107, and the kernel adds two
MOST_WORDS = 1000  # characters of an error that a table of failures can bear


def main() -> None:
    """Do the task of standard input; `answer.json` in the scratch folder says what the notebook died of."""
    task = json.loads(sys.stdin.readline())
    kernel = None

    def stop(*_: object) -> None:
        _kill(kernel)
        shutil.rmtree(task["scratch"], ignore_errors=True)
        os._exit(1)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    threading.Thread(target=lambda: (sys.stdin.read(), stop()), daemon=True).start()
    from jupyter_client import AsyncKernelManager

    name, socket = _kernel_name(Path(task["notebook"])), f"{task['scratch']}/kernel"
    # by files: a port that was free when it was chosen may be another's when the kernel comes to bind it
    by_files = {"transport": "ipc", "ip": socket} if len(socket) < LONGEST_SOCKET else {}
    kernel = AsyncKernelManager(kernel_name=name, connection_file=f"{socket}.json", **by_files)
    # not in the main thread, where nbclient would put handlers of its own in the place of these
    work = threading.Thread(target=_answer, args=(task, kernel))
    work.start()
    work.join()
    _kill(kernel)
    os._exit(0)  # at once: nothing here needs the time that zmq takes to close


def _kernel_name(notebook: Path) -> str:
    return json.loads(notebook.read_text(encoding="utf-8"))["metadata"].get("kernelspec", {}).get("name", "python3")


def _answer(task: dict, kernel) -> None:
    answer = json.dumps({"error": _execute(task, kernel)})
    (Path(task["scratch"]) / "answer.json").write_text(answer)


def _execute(task: dict, kernel) -> str:
    from papermill import PapermillExecutionError, execute_notebook

    output = Path(task["scratch"]) / "executed.ipynb"
    try:
        execute_notebook(task["notebook"], output, task["parameters"], km=kernel, progress_bar=False)
    except PapermillExecutionError as error:
        return _words(error.ename, error.evalue)
    except Exception as error:  # whatever it is, the sweep goes on and lists it
        cause = _cause(kernel)
        return _words("DeadKernelError", cause) if cause else _words(type(error).__name__, str(error))
    return ""


def _words(name: str, text: str) -> str:
    return " ".join(f"{name}: {text}".split())[:MOST_WORDS]


def _cause(kernel) -> str:
    code = kernel.provisioner.process.poll() if kernel.provisioner and kernel.provisioner.process else None
    if code == -signal.SIGKILL:
        return "the kernel was killed, as the system does where memory runs out. Lower batch_size or jobs"
    if code is None:
        return ""
    return f"the kernel ended {f'by {signal.Signals(-code).name}' if code < 0 else f'with exit code {code}'}"


def _kill(kernel) -> None:
    """End the kernel with all that it started; a run that is killed at any moment goes on from its last epoch."""
    process = kernel.provisioner.process if kernel is not None and kernel.provisioner else None
    if process is None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)  # jupyter_client starts a kernel as the leader of a session
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


if __name__ == "__main__":
    main()
