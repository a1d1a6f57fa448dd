"""`nacl sweep`: all runs of a grid."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from nacl._checks import check_choice, check_integer, expectation
from nacl.cli._help import add_command, add_runs_folder
from nacl.cli.table import print_runs
from nacl.grids import GRIDS, PROFILES, plan, size_of
from nacl.results import load_result, results_table
from nacl.runs import Run, folders
from nacl.sweep import sweep
from nacl.sweep.state import present, unfinished

EXAMPLES = """\
examples:
  nacl sweep --list                                     the grids by name
  nacl sweep main                                       CE, SVLS and NACL on the embedded phantom
  nacl sweep penalty-weight --seeds 3 --jobs 2          an ablation, two runs at a time
  nacl sweep main --data prepared/acdc --profile full   the papers' protocol (use a GPU)
  nacl sweep main --scheduler tcp://host:8786           on the workers of a Dask cluster
  nacl sweep main --set epochs=5 filters=8              with other fields of a run
  nacl sweep main --retry-failed                        also what failed before

Each run is notebooks/09_train.ipynb executed by papermill; the executed notebook lies in the run's folder. Runs that
were finished before are not done again, and those that were killed go on from their last epoch. A run that fails is
reported, and the others go on. Ctrl-C ends all of them; the same command goes on.
"""


def add_commands(commands) -> None:
    """Add sweep to the parser's commands."""
    data = next(f.metadata["help"] for f in fields(Run) if f.name == "data")
    parser = add_command(commands, "sweep", _sweep, "do all runs of a grid", EXAMPLES)
    parser.add_argument("grid", nargs="?", metavar="GRID", help=f"one of: {', '.join(GRIDS)}")
    parser.add_argument("--list", action="store_true", help="list the grids with the number of runs of each")
    parser.add_argument("--data", default="phantom", help=f"{data} (default: phantom)")
    parser.add_argument("--profile", default="quick", help=f"sizes and epochs: {', '.join(PROFILES)} (default: quick)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1 for each run (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time here (default: 1)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="or file of a Dask scheduler, whose workers do the runs")
    text = "other fields of every run"
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help=text)
    parser.add_argument("--retry-failed", action="store_true", help="do those again that failed in an earlier sweep")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and which are done, and do none")
    add_runs_folder(parser)


def _sweep(options: argparse.Namespace) -> int:
    check_integer("--seeds", options.seeds, low=1)
    check_integer("--jobs", options.jobs, low=1)
    if options.list:
        for name in GRIDS:
            print(f"{name:16} {size_of(name) * options.seeds:4} runs: {_in_words(name)}")
        return 0
    if options.grid is None:
        raise ValueError(f"Expected the name of a grid, got none. Give one of: {', '.join(GRIDS)}.")
    seeds = range(options.seeds)
    fixed = _assignments(options.set)
    runs = plan(options.grid, profile=options.profile, data=options.data, seeds=seeds, **fixed)
    if options.dry_run:
        return _list_runs(runs, options)
    where = {"folder": options.runs, "jobs": options.jobs, "scheduler": options.scheduler}
    with _ended_like_ctrl_c(signal.SIGTERM):
        outcomes = sweep(runs, **where, retry_failed=options.retry_failed)
    failed = [outcome for outcome in outcomes if outcome.error]
    done = [load_result(outcome.folder) for outcome in outcomes if not outcome.error]
    if done:
        print_runs(results_table(done))
    for outcome in failed:
        values = " ".join(f"{name}={value}" for name, value in outcome.run.values().items())
        see = f"\n  see {outcome.notebook}" if outcome.notebook.exists() else ""
        print(f"FAILED {values}\n  {outcome.error}{see}", file=sys.stderr)
    if failed and not options.retry_failed:
        print("Runs that failed are done again with --retry-failed.", file=sys.stderr)
    return 1 if failed else 0


@contextmanager
def _ended_like_ctrl_c(number: int) -> Iterator[None]:
    """Slurm and `kill` end a sweep as Ctrl-C does: its runs are ended too, and it says so."""
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _in_words(grid: str) -> str:
    """What a grid varies, part by part."""
    parts = []
    for part in GRIDS[grid]:
        parts.append(" x ".join(f"{name} {', '.join(map(str, values))}" for name, values in part.items()))
    return "; ".join(parts)


def _list_runs(runs: list[Run], options: argparse.Namespace) -> int:
    """One line a run: how far it is, and its values."""
    places = folders(runs, options.runs)
    there = present(places)
    for run, place in zip(runs, places, strict=True):
        values = " ".join(f"{name}={value}" for name, value in run.values().items())
        print(f"{_state(place) if place in there else 'to do':9} {values}")
    return 0


def _state(folder: Path) -> str:
    if (folder / "run.json").exists():  # its notebook may be to do; its training is not
        return "done"
    begun = unfinished(folder)
    return begun.state if begun else "to do"


def _assignments(texts: list[str]) -> dict[str, object]:
    fixed = {}
    for text in texts:
        name, value = _assignment(text)
        if name in fixed:
            raise ValueError(f"Expected `--set` with each field once, got {name} twice. Sweep a grid that varies it.")
        fixed[name] = value
    return fixed


def _assignment(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    types = {f.name: f.type for f in fields(Run)}
    if not equals:
        raise ValueError(f"Expected `--set` with FIELD=VALUE, got {text!r}. Fields: {', '.join(types)}.")
    check_choice("--set", name, types)
    if name == "data":
        raise ValueError("Expected `--set` without data, got it there. Use --data.")
    if types[name] is bool:
        check_choice(name, value.lower(), ("true", "false"))
        return name, value.lower() == "true"
    try:
        return name, types[name](value)
    except ValueError as error:
        raise ValueError(expectation(name, f"of type {types[name].__name__}", repr(value))) from error
