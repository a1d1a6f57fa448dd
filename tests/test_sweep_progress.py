"""What a sweep says while it goes: counts, an estimate of the time left, and lines that suit a terminal or a log."""

import json
import sys

import pytest
from filelock import FileLock

from nacl.cli import main
from nacl.runs import Run
from nacl.sweep import progress as module
from nacl.sweep.progress import Pace, Progress, seconds_left
from nacl.sweep.state import failure, present, unfinished

FAST, SLOW = ("unet",), ("smp.Unet",)


def left(*paces: Pace, places: int = 1, now: float = 0.0, around: float = 0.0, known: tuple = ()) -> float | None:
    return seconds_left(paces, [*paces, *known], places, now, around)


def running(epochs: int, *seconds: float, kind: tuple = FAST, before: int = 0, began: float = 0.0) -> Pace:
    return Pace(epochs, kind, began, before, list(seconds))


# The estimate


def test_nothing_is_promised_before_the_first_epoch():
    assert left(running(10), Pace(10, FAST)) is None


def test_runs_one_after_the_other_add_up():
    assert left(running(10, 3.0, 3.0), Pace(10, FAST), Pace(5, FAST), now=6.0) == 3 * (8 + 10 + 5)


@pytest.mark.parametrize(("places", "seconds"), [(1, 4 * 20), (2, 2 * 20), (3, 2 * 20), (4, 20), (9, 20)])
def test_runs_side_by_side_take_turns_in_the_places(places, seconds):
    known = (Pace(10, FAST, seconds=[2.0] * 10),)
    assert left(*[Pace(10, FAST)] * 4, places=places, known=known) == seconds


def test_a_run_that_goes_on_has_only_its_last_epochs_to_do():
    resumed = running(10, *[1.0] * 6, before=6, began=100.0)
    assert left(resumed, now=100.0) == 4
    assert left(Pace(10, FAST, seconds=[1.0] * 6)) == 4  # not begun again yet


def test_runs_of_different_lengths_count_as_they_are():
    fast, slow = running(10, 1.0, kind=FAST), running(10, 5.0, kind=SLOW)
    assert left(fast, slow, places=2, now=5.0) == 45
    waiting = Pace(10, SLOW)  # begins when the fast one ends, and takes as long as its kind does
    assert left(fast, slow, waiting, places=2, now=5.0) == 9 + 50
    of_no_known_kind = Pace(20, ("new",))
    assert left(fast, slow, of_no_known_kind, places=2, now=5.0) == 9 + 20 * 3


def test_what_a_run_needs_beside_its_epochs_counts_once():
    assert left(Pace(10, FAST), places=1, around=7.0, known=(Pace(1, FAST, seconds=[2.0]),)) == 27
    tested_now = running(10, *[2.0] * 10)
    assert left(tested_now, now=21.0, around=7.0) == 6
    assert left(tested_now, now=99.0, around=7.0) == 0


def test_without_workers_the_runs_under_way_elsewhere_are_still_known():
    assert left(running(10, 1.0), Pace(10, FAST), places=0, now=1.0) == 19


# The lines


@pytest.fixture
def place(tmp_path):
    """The folders of three runs of 4 epochs."""
    folders = [tmp_path / name for name in ("ce-a", "svls-b", "nacl-c")]
    for folder in folders:
        folder.mkdir()
    return folders


def write_history(folder, *seconds: float) -> None:
    (folder / "history.csv").write_text("epoch,seconds\n" + "".join(f"{i},{s}\n" for i, s in enumerate(seconds)))


def shown(place, monkeypatch, capsys, **options) -> str:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", -1)
    runs = {folder: Run(epochs=4, loss=folder.name.split("-")[0]) for folder in place}
    progress = Progress(runs, planned=5, begun=present(place))
    write_history(place[0], 60.0, 60.0)
    progress.look({place[0]: 0.0}, **{"elsewhere": [], "places": 1, "note": "", **options})
    progress.ended(place[1], "ValueError: no luck")
    progress.look({place[0]: 0.0}, **{"elsewhere": [], "places": 1, "note": "", **options})
    progress.close()
    return capsys.readouterr().err


def test_a_log_gets_lines_with_counts_and_the_time_left(place, monkeypatch, capsys):
    lines = shown(place, monkeypatch, capsys).splitlines()
    assert lines[0] == "3 of 5 runs to do"
    assert lines[1].startswith("1 running, 2 to go, about ")
    assert lines[2] == "FAILED   svls-b ValueError: no luck"
    assert lines[3].startswith("1 running, 1 failed, 1 to go, about 6 min left")
    assert not any("\r" in line for line in lines)


def test_a_log_is_not_flooded(place, monkeypatch, capsys):
    runs = {folder: Run(epochs=4) for folder in place}
    progress = Progress(runs, planned=3, begun=set())
    for _ in range(100):
        progress.look({}, [], 1, "")
    assert capsys.readouterr().err.splitlines() == ["3 of 3 runs to do"]


def test_a_terminal_gets_a_bar_of_epochs_in_one_line(place, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    last = shown(place, monkeypatch, capsys, elsewhere=[place[2]]).split("\r")
    assert any("2 of 8 epochs, 1 running, 1 elsewhere, 1 failed, 0 to go, about" in line for line in last)


def test_what_keeps_the_runs_waiting_is_said_once(place, monkeypatch, capsys):
    progress = Progress({place[0]: Run()}, planned=1, begun=set())
    for _ in range(5):
        progress.look({}, [], 0, "waiting for a worker")
    assert capsys.readouterr().err.count("waiting for a worker") == 1


# nacl table, at any moment


def test_the_table_lists_what_is_under_way_stopped_and_failed(place, tmp_path, capsys):
    for folder, epochs in zip(place, ([1.0], [1.0] * 2, [1.0] * 3), strict=True):
        write_history(folder, *epochs)
        (folder / "begun.json").write_text(json.dumps({"epochs": 4}))
    notebook = {"metadata": {"nacl": {"error": "ValueError: no luck"}}, "cells": [], "nbformat": 4}
    (place[2] / "failed.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "no-run").mkdir()
    with FileLock(place[0] / ".sweep.lock"):
        assert main(["table", "--runs", str(tmp_path)]) == 0
        assert unfinished(place[0]).state == "under way"
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "under way  ce-a: epoch 1 of 4",
        "stopped    svls-b: epoch 2 of 4",
        "failed     nacl-c: ValueError: no luck",
        f"           see {place[2] / 'failed.ipynb'}",
    ]
    assert main(["table", "--runs", str(tmp_path)]) == 0
    assert "stopped    ce-a" in capsys.readouterr().out


def test_a_run_that_only_trains_is_under_way_too(place):
    write_history(place[0], 1.0)
    with FileLock(place[0] / ".lock"):
        assert str(unfinished(place[0])) == "under way  ce-a: epoch 1"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"metadata": {}}'])
def test_a_notebook_that_does_not_tell_of_what_is_a_failure_still(place, text):
    (place[0] / "failed.ipynb").write_text(text)
    assert unfinished(place[0]).state == "failed"


def test_a_damaged_run_is_named_and_left_out(place, tmp_path, capsys):
    (place[0] / "run.json").write_text("{")
    write_history(place[1], 1.0)
    assert main(["table", "--runs", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("left out   ce-a: ")
    assert "stopped    svls-b" in printed.out


def test_a_table_file_of_nothing_finished_is_not_written(place, tmp_path, capsys):
    write_history(place[1], 1.0)
    assert main(["table", "--runs", str(tmp_path), "--csv", str(tmp_path / "a.csv")]) == 1
    assert "no run has finished yet" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_a_run_that_failed_and_was_finished_since_is_no_failure(tmp_path):
    (tmp_path / "failed.ipynb").write_text('{"metadata": {"nacl": {"error": "MemoryError: too little"}}}')
    assert failure(tmp_path) == "MemoryError: too little"
    (tmp_path / "run.json").touch()
    assert failure(tmp_path) == ""
