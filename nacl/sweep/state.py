"""How far a run has come, as told by its folder."""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

DONE, FAILED = "notebook.ipynb", "failed.ipynb"
BEGUN = "begun.json"
LOCK, TRAIN_LOCK = ".sweep.lock", ".lock"
"""Held by who executes a run's notebook, and by who trains it."""


def is_done(folder: Path) -> bool:
    """Whether the run has its result and its executed notebook."""
    return (folder / "run.json").exists() and (folder / DONE).exists()


def present(folders: Sequence[Path]) -> set[Path]:
    """Which of the folders are there, with one look at each place where some may be."""
    names = {root: set(os.listdir(root)) if root.is_dir() else set() for root in {path.parent for path in folders}}
    return {path for path in folders if path.name in names[path.parent]}


def failure(folder: Path) -> str:
    """What the failed run in this folder died of; "" where none failed, or where `nacl train` finished it since."""
    if (folder / "run.json").exists():
        return ""
    try:
        notebook = json.loads((folder / FAILED).read_text(encoding="utf-8"))
        return str(notebook["metadata"]["nacl"]["error"])
    except FileNotFoundError:
        return ""
    except (ValueError, LookupError, TypeError):
        return "it failed, and its notebook does not say of what"


def epoch_seconds(folder: Path) -> list[float]:
    """How long each epoch took that the run in this folder has behind it."""
    try:
        with (folder / "history.csv").open(newline="", encoding="utf-8") as stream:
            return [float(row["seconds"]) for row in csv.DictReader(stream)]
    except (OSError, KeyError, TypeError, ValueError):
        return []


@dataclass(frozen=True)
class Unfinished:
    """A run without a result.

    Attributes:
        folder: where it lies.
        state: "failed", "under way" or "stopped".
        epoch: how many it has behind it.
        epochs: how many it shall have; None where that is not known.
        error: what it died of.
    """

    folder: Path
    state: str
    epoch: int
    epochs: int | None
    error: str = ""

    def __str__(self) -> str:
        """A line for the terminal."""
        if self.state == "failed":
            return f"failed     {self.folder.name}: {self.error}\n           see {self.folder / FAILED}"
        of = f" of {self.epochs}" if self.epochs else ""
        return f"{self.state:10} {self.folder.name}: epoch {self.epoch}{of}"


def unfinished(folder: Path) -> Unfinished | None:
    """What is known of a run without a result; None for a finished run, and for a folder that is no run's."""
    if (folder / "run.json").exists():
        return None
    signs = (FAILED, BEGUN, LOCK, TRAIN_LOCK, "history.csv", "checkpoint.safetensors")
    if not any((folder / sign).exists() for sign in signs):
        return None
    epoch, epochs = len(epoch_seconds(folder)), _planned_epochs(folder)
    if _held(folder / LOCK) or _held(folder / TRAIN_LOCK):
        return Unfinished(folder, "under way", epoch, epochs)
    error = failure(folder)
    return Unfinished(folder, "failed" if error else "stopped", epoch, epochs, error)


def _planned_epochs(folder: Path) -> int | None:
    try:
        return int(json.loads((folder / BEGUN).read_text())["epochs"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _held(file: Path) -> bool:
    """Whether a process has this lock; taken for a moment to know, which who comes in that moment waits for."""
    if not file.exists():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # somebody else's runs, which may only be read
        return False
    lock.release()
    return False
