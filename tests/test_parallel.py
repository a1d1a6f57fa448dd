"""Processes: every task has one outcome, whatever happens to the process that does it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import PROJECT
from raw_folders import WRITERS

from nacl._parallel import available_cores, in_processes
from nacl.data.benchmarks import detect, jobs


class TwoWordsError(Exception):
    """Can't be read again from its pickle, which holds one word only."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def do(task):
    what, value = task
    if what == "raise":
        raise ValueError(value)
    if what == "odd error":
        raise TwoWordsError("odd", value)
    if what == "odd result":
        return lambda: value
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(value)
    if what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    if what == "threads":
        return torch.get_num_threads(), os.getpid()
    if what == "sleep":
        time.sleep(value)
    return 10 * value


def outcomes(tasks, jobs):
    return dict(in_processes(do, tasks, jobs, "test"))


def test_here_every_task_has_its_result_or_what_it_raised():
    found = outcomes([("times", 1), ("raise", 2), ("odd error", 3), ("times", 4)], 1)
    assert (found["times", 1], found["times", 4]) == (10, 40)
    assert (str(found["raise", 2]), str(found["odd error", 3])) == ("2", "odd 3")


@pytest.fixture(scope="module")
def mixed():
    """What became of tasks of all kinds in two processes, of which two were killed; one task slept all the time."""
    odd = [("kill", 1), ("raise", 2), ("odd error", 3), ("exit", 3), ("odd result", 4)]
    plain = [(what, value) for value in range(6) for what in ("times", "threads")] + [("interrupt", 7)]
    tasks = [("sleep", 100), *(task for pair in zip(odd, plain, strict=False) for task in pair), *plain[len(odd) :]]
    found, started = {}, time.perf_counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        for task, result in in_processes(do, tasks, 2):
            found[task] = result
            if len(found) == len(tasks) - 1:
                break
    assert time.perf_counter() - started < 90, "the loop waited for the task that sleeps"
    return found


def test_elsewhere_every_task_has_its_result_or_what_it_raised(mixed):
    assert len(mixed) == 18
    assert {value: mixed["times", value] for value in range(6)} == {value: 10 * value for value in range(6)}
    assert isinstance(mixed["raise", 2], ValueError)
    assert str(mixed["raise", 2]) == "2"
    assert "odd 3" in str(mixed["odd error", 3])
    assert isinstance(mixed["odd result", 4], Exception)


def test_a_killed_process_is_the_error_of_its_task_only(mixed):
    assert "was killed, as the system does where memory runs out" in str(mixed["kill", 1])
    assert "exit code 3" in str(mixed["exit", 3])
    assert sum(isinstance(result, Exception) for result in mixed.values()) == 5


def test_ctrl_c_is_for_the_first_process(mixed):
    assert mixed["interrupt", 7] == 70


def test_each_process_has_one_thread(mixed):
    found = [mixed["threads", value] for value in range(6)]
    assert {threads for threads, _ in found} == {1}
    assert os.getpid() not in {process for _, process in found}
    assert len({process for _, process in found}) <= 4  # two at a time, and two that were killed


def test_nothing_runs_after_a_loop_that_ended_early(mixed):
    assert ("sleep", 100) not in mixed
    assert not [line for line in _processes(os.getpid(), 1) if "spawn_main" in line]


def _processes(number, field):
    """The command lines of living processes with this parent (field 1) or process group (field 2)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[field]) == number:
                found.append((stat.parent / "cmdline").read_text())
        except (OSError, IndexError):
            continue  # it ended meanwhile
    return found


def test_no_tasks_and_wrong_jobs():
    assert outcomes([], 2) == {}
    assert available_cores() >= 1
    with pytest.raises(ValueError, match="`jobs` of at least 1, got 0"):
        outcomes([("times", 1)], 0)


def test_ctrl_c_ends_all_processes_and_takes_unfinished_files_away(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time\nfrom pathlib import Path\n"
        "from nacl._files import whole_file\nfrom nacl._parallel import in_processes\n\n"
        "def write(path):\n    with whole_file(Path(path)) as file:\n"
        "        file.write_text('half')\n        try:\n            time.sleep(60)\n"
        "        finally:  # b is still here when it is told again, once a has ended\n"
        "            time.sleep(4 if path.endswith('b') else 0)\n"
        "            Path(path + '-tidied').touch()\n\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored\n"
        "    list(in_processes(write, sys.argv[1:], 2))\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "out" / "a"), str(tmp_path / "out" / "b")]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob(".writing-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    message = process.communicate(timeout=30)[1]
    assert "KeyboardInterrupt" in message
    assert "SystemExit" not in message
    assert message.count("Traceback") == 1
    assert sorted(os.listdir(tmp_path / "out")) == ["a-tidied", "b-tidied"]
    assert not [line for line in _processes(process.pid, 2) if "spawn_main" in line]


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from nacl._parallel import in_processes\nprint(list(in_processes(str, ['a', 'b'], 2)))\n")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'below `if __name__ == "__main__":`, or with jobs=1' in done.stderr


def test_large_cases_get_fewer_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "available_cores", lambda: 8)
    cases = detect(WRITERS["promise12"](tmp_path / "raw")).find(tmp_path / "raw")
    assert {file.suffix for file in jobs.source_files(cases[0])} == {".mhd", ".raw"}
    assert jobs.fitting_jobs(cases) == 1  # done before another process starts
    for case in cases:
        with case.images[0].with_suffix(".raw").open("r+b") as stream:
            stream.truncate(int(jobs.MEMORY / 4 / 3.5))  # holes, not bytes
    assert jobs.fitting_jobs(cases) == 3
