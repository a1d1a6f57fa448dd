"""`nacl table`: what finished runs gave, and how far the others are."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import pandas as pd

from nacl._files import whole_file
from nacl.archive import add_to_archive, archive_of
from nacl.cli._help import add_command, add_runs_folder
from nacl.evaluation import SUMMARY
from nacl.results import PROVENANCE, Result, load_result, results_table
from nacl.runs import Run, runs_folder
from nacl.sweep.state import Unfinished, unfinished

EXAMPLES = """\
examples:
  nacl table                                            mean over the test cases of every finished run
  nacl table --cases --csv results/main.csv             one row a test case, to a file
  nacl table --archive results/small                    runs, cases and bins, added to what is there
  nacl table runs/nacl-phantom-*                        of these runs only

At any moment: runs under way, stopped or failed are listed below the table.
"""


def add_commands(commands) -> None:
    """Add table to the parser's commands."""
    parser = add_command(commands, "table", _table, "tabulate finished runs", EXAMPLES)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="run folders (default: all)")
    parser.add_argument("--cases", action="store_true", help="one row a test case instead of one a run")
    parser.add_argument("--archive", metavar="NAME", help="add to NAME-runs.csv, NAME-cases.csv and NAME-bins.csv")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write there instead of printing")
    add_runs_folder(parser)


def _table(options: argparse.Namespace) -> int:
    where = options.runs or runs_folder()
    folders = options.folders or sorted(path for path in where.glob("*") if path.is_dir())
    for folder in options.folders:
        _check_run_folder(folder)
    begun = [state for state in map(unfinished, folders) if state]
    results, left_out = _results(folders, begun)
    if not results and not begun and not left_out:
        raise FileNotFoundError(f"Expected finished runs in {where}, got none. Make some with `nacl sweep main`.")
    if results and options.archive:
        there = add_to_archive(archive_of(results), options.archive)
        print(f"{len(results)} runs added to {options.archive}-*.csv, which holds {len(there.runs)}")
    elif results:
        _show(results_table(results), options)
    _print_unfinished(begun)
    for line in left_out:
        print(f"left out   {line}", file=sys.stderr)
    if (options.csv or options.archive) and not results:
        print(f"nacl: no run has finished yet, so {options.csv or options.archive} is not written.", file=sys.stderr)
        return 1
    return 0


def _check_run_folder(folder: Path) -> None:
    if not (folder / "run.json").exists() and any(folder.glob("*/run.json")):
        meant = f"Did you mean --runs {shlex.quote(str(folder))}?"
        raise FileNotFoundError(f"Expected a run folder, got {folder}, which holds run folders. {meant}")
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a run folder, got {folder} (no such folder).")


def _results(folders: Iterable[Path], begun: Sequence[Unfinished]) -> tuple[list[Result], list[str]]:
    """What the finished runs left, and a line for each that can't be read: of another version, or damaged."""
    results, left_out, skip = [], [], {state.folder for state in begun}
    for folder in folders:
        if folder in skip or not (folder / "run.json").exists():
            continue
        try:
            results.append(load_result(folder))
        except (OSError, ValueError, TypeError) as error:
            left_out.append(f"{folder.name}: {error}")
    return results, left_out


def _show(table: pd.DataFrame, options: argparse.Namespace) -> None:
    if not options.cases:
        table = _mean_over_cases(table)
    if options.csv:
        with whole_file(options.csv) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
        print(f"{len(table)} rows in {options.csv}")
    elif options.cases:
        print(table.to_string(index=False, float_format="%.4f"))
    else:
        print_runs(table)


def _print_unfinished(begun: Sequence[Unfinished]) -> None:
    for state in ("under way", "stopped", "failed"):
        for run in begun:
            if run.state == state:
                print(run)


def _mean_over_cases(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["method", *(f.name for f in fields(Run) if f.name in table), "post_hoc", *PROVENANCE]
    return table.groupby(keys, sort=False, dropna=False).mean(numeric_only=True).reset_index()


def print_runs(table: pd.DataFrame) -> None:
    """Mean over test cases, with only the fields in which the runs differ."""
    table = _mean_over_cases(table) if "case" in table else table
    names = ["method", "dataset", *(f.name for f in fields(Run) if f.name in table and f.name != "loss")]
    varying = [name for name in names if table[name].nunique() > 1 or name in ("method", "seed")]
    whole = {f.name for f in fields(Run) if f.type is int}
    table = table.astype({name: "Int64" for name in names if name in whole})  # a gap makes floats of a column
    same = {name: table[name].dropna().iloc[0] for name in names if name not in varying and table[name].notna().any()}
    print("the same in all, where it acts:", ", ".join(f"{name}={value}" for name, value in same.items()))
    print(table[[*varying, *SUMMARY]].to_string(index=False, float_format="%.4f"))
