"""The page "Many machines", followed to the letter: a real Dask cluster, and a Slurm that starts its jobs here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sweeps import PROJECT

from nacl.results import load_result

PAGE = PROJECT / "book" / "machines.md"
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
LONG = 400  # seconds, on a machine that does much else
# what dask-jobqueue asks of Slurm: a job's number for its script, and the end of a job by its number
SBATCH = """#!/bin/sh
cp "$1" job-$$.sh
setsid bash job-$$.sh > job-$$.log 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -TERM -- "-$1"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_acdc):
    """Where a reader stands, with a shared folder and Slurm's commands."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(tiny_acdc, folder / "shared" / "acdc")
    (folder / "bin").mkdir()
    for name, script in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / "bin" / name).write_text(script)
        (folder / "bin" / name).chmod(0o755)
    yield folder
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
        except (psutil.Error, OSError):
            continue


def follow(kind: str, block: str, place: Path) -> str:
    """Type a block of the page; what it printed."""
    path = os.pathsep.join([str(place / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = ["bash", "-ec", block]
    if kind == "python":
        (place / "slurm.py").write_text(block)
        command = ["python", "slurm.py"]
    with (place / "printed").open("w") as out:  # not a pipe, which what goes on in the background would keep open
        where = {"cwd": place, "env": environment, "stdout": out, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, **where, check=False, timeout=LONG)
    printed = (place / "printed").read_text()
    assert done.returncode == 0, printed
    return printed


def lose_a_run(place: Path) -> None:
    """So that the next sweep of the page has one to do."""
    for folder in (place / "shared" / "runs").glob("svls-*"):
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def followed(place):
    """What each block printed, in the page's order; each sweep has a run to do."""
    printed = []
    for kind, block in BLOCKS:
        if "nacl sweep main" in block:
            lose_a_run(place)
        printed.append((block, follow(kind, block, place)))
    return printed


def printed_by(followed, *words: str) -> str:
    (found,) = [text for block, text in followed if all(word in block for word in words)]
    return found


def test_each_sweep_of_the_page_ends_with_the_runs_that_were_left(followed, place):
    assert "finished" in printed_by(followed, "--jobs 2")
    for words in (["--scheduler shared/scheduler.json"], ["SLURMCluster"]):
        text = printed_by(followed, *words)
        assert "1 of 3 runs to do" in text
        assert "finished svls-acdc-" in text
        assert "Traceback" not in text
    assert len([load_result(run.parent) for run in (place / "shared" / "runs").glob("*/run.json")]) == 4


def test_the_slurm_recipe_had_its_run_done_by_a_job(followed, place):
    logs = [log.read_text() for log in place.glob("job-*.log")]
    assert any("Start worker" in log or "Starting established connection" in log for log in logs)


def test_the_table_shows_what_there_is(followed):
    text = printed_by(followed, "nacl table")
    assert all(method in text for method in ("ce", "svls", "nacl"))


def test_two_processes_train_one_run(followed):
    text = printed_by(followed, "torchrun")
    assert "mean over 2 test cases" in text
    assert "nothing is trained" not in text
