"""`nacl train | sweep | table`: runs, made and shown."""

import argparse
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd

from nacl._checks import check_choice, check_integer, expectation
from nacl._files import whole_file
from nacl.cli._help import add_command, add_runs_folder
from nacl.evaluation import SUMMARY
from nacl.experiments import GRIDS, PROFILES, epoch_bar, plan, train_run
from nacl.results import PROVENANCE, finished, load_result, results_table
from nacl.runs import Run, runs_folder
from nacl.sweep import sweep

TRAIN_EXAMPLES = """\
examples:
  nacl train                                            NACL on the embedded phantom
  nacl train --loss svls --kernel-size 5 --seed 1       another loss
  nacl train --data prepared/acdc --size 96 --epochs 12 real cardiac MRI

A run that was finished before is shown and not trained again; one that was killed goes on from its last epoch.
"""
SWEEP_EXAMPLES = """\
examples:
  nacl sweep main                                       CE, SVLS and NACL on the embedded phantom
  nacl sweep penalty-weight --seeds 3 --jobs 2          an ablation, two runs at a time
  nacl sweep main --data prepared/acdc --profile full   the papers' protocol (use a GPU)
  nacl sweep main --scheduler tcp://host:8786           on the workers of a Dask cluster
  nacl sweep main --set epochs=5 filters=8              with other fields of a run

Each run is notebooks/02_train.ipynb executed by papermill; the executed notebook lies in the run's folder. Runs that
were finished before are not done again. A run that fails is reported, and the others go on.
"""
TABLE_EXAMPLES = """\
examples:
  nacl table                                            mean over the test cases of every finished run
  nacl table --cases --csv results/main.csv             one row a test case, to a file
  nacl table runs/nacl-phantom-*                        of these runs only
"""
_HELP = {f.name: f.metadata["help"] for f in fields(Run)}


def add_commands(commands) -> None:
    """Add train, sweep and table to the parser's commands."""
    train = add_command(commands, "train", _train, "train and test one run", TRAIN_EXAMPLES)
    for f in fields(Run):
        _add_field(train, f)
    add_runs_folder(train)

    many = add_command(commands, "sweep", _sweep, "do all runs of a grid", SWEEP_EXAMPLES)
    many.add_argument("grid", metavar="GRID", help=f"one of: {', '.join(GRIDS)}")
    many.add_argument("--data", default="phantom", help=f"{_HELP['data']} (default: phantom)")
    many.add_argument("--profile", default="quick", help=f"sizes and epochs: {', '.join(PROFILES)} (default: quick)")
    many.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1 for each run (default: 1)")
    many.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time here (default: 1)")
    many.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler, whose workers do the runs")
    many.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="other fields of every run")
    many.add_argument("--dry-run", action="store_true", help="list the runs and which are done, and do none")
    add_runs_folder(many)

    table = add_command(commands, "table", _table, "tabulate finished runs", TABLE_EXAMPLES)
    table.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="run folders (default: all)")
    table.add_argument("--cases", action="store_true", help="one row a test case instead of one a run")
    table.add_argument("--csv", type=Path, metavar="FILE", help="write there instead of printing")
    add_runs_folder(table)


def _add_field(parser: argparse.ArgumentParser, f) -> None:
    flag = "--" + f.name.replace("_", "-")
    choices = f.metadata.get("choices")
    text = f.metadata["help"] + (f": {', '.join(choices)}" if choices else "") + f" (default: {f.default})"
    if f.type is bool:
        parser.add_argument(flag, dest=f.name, action=argparse.BooleanOptionalAction, default=f.default, help=text)
    else:
        metavar = "NAME" if choices else {int: "N", float: "X", str: "VALUE"}[f.type]
        parser.add_argument(flag, dest=f.name, type=f.type, default=f.default, metavar=metavar, help=text)


def _train(options: argparse.Namespace) -> int:
    run = Run(**{f.name: getattr(options, f.name) for f in fields(Run)})
    if finished(run, options.runs):
        print("This run was finished before; nothing is trained.")
    with epoch_bar(run) as show:
        result = train_run(run, runs=options.runs, on_epoch=show)
    columns = list(SUMMARY)
    plain = result.cases[result.cases["post_hoc"] == "none"]
    print(plain[["case", *columns]].to_string(index=False, float_format="%.3f"))
    print(f"\nmean over {len(plain)} test cases ({result.info['dataset']}, distances in {result.info['unit']}),")
    print(f"as trained, and with logits divided by the temperature {result.info['temperature']:.3f}:")
    print(result.cases.groupby("post_hoc")[columns].mean().T.to_string(float_format="%.4f"))
    print(f"\n{result.folder}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    check_integer("--seeds", options.seeds, low=1)
    seeds = range(options.seeds)
    fixed = dict(_assignment(text) for text in options.set)
    runs = plan(options.grid, profile=options.profile, data=options.data, seeds=seeds, **fixed)
    if options.dry_run:
        for run in runs:
            values = " ".join(f"{name}={value}" for name, value in run.values().items())
            print(f"{'done' if finished(run, options.runs) else 'to do':6} {values}")
        return 0
    outcomes = sweep(runs, folder=options.runs, jobs=options.jobs, scheduler=options.scheduler)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(f"FAILED {outcome.run}\n  {outcome.error}\n  see {outcome.notebook}", file=sys.stderr)
    done = [load_result(outcome.folder) for outcome in outcomes if not outcome.error]
    if done:
        _print_runs(results_table(done))
    return 1 if failed else 0


def _assignment(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    types = {f.name: f.type for f in fields(Run)}
    if not equals or name not in types:
        raise ValueError(f"Expected `--set` with FIELD=VALUE, got {text!r}. Fields: {', '.join(types)}.")
    if name == "data":
        raise ValueError("Expected `--set` without data, got it there. Use --data.")
    if types[name] is bool:
        check_choice(name, value.lower(), ("true", "false"))
        return name, value.lower() == "true"
    try:
        return name, types[name](value)
    except ValueError as error:
        raise ValueError(expectation(name, f"of type {types[name].__name__}", repr(value))) from error


def _table(options: argparse.Namespace) -> int:
    folders = options.folders or sorted(file.parent for file in (options.runs or runs_folder()).glob("*/run.json"))
    if not folders:
        where = options.runs or runs_folder()
        raise FileNotFoundError(f"Expected finished runs in {where}, got none. Make some with `nacl sweep main`.")
    for folder in options.folders:
        if not (folder / "run.json").exists() and any(folder.glob("*/run.json")):
            meant = f"Did you mean --runs {shlex.quote(str(folder))}?"
            raise FileNotFoundError(f"Expected a run folder, got {folder}, which holds run folders. {meant}")
    table = results_table([load_result(folder) for folder in folders])
    if not options.cases:
        table = _mean_over_cases(table)
    if options.csv:
        with whole_file(options.csv) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
        print(f"{len(table)} rows in {options.csv}")
    elif options.cases:
        print(table.to_string(index=False, float_format="%.4f"))
    else:
        _print_runs(table)
    return 0


def _mean_over_cases(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["method", *(f.name for f in fields(Run) if f.name in table), "post_hoc", *PROVENANCE]
    return table.groupby(keys, sort=False, dropna=False).mean(numeric_only=True).reset_index()


def _print_runs(table: pd.DataFrame) -> None:
    """Mean over test cases, with only the fields in which the runs differ."""
    table = _mean_over_cases(table) if "case" in table else table
    names = ["method", "dataset", *(f.name for f in fields(Run) if f.name in table and f.name != "loss")]
    varying = [name for name in names if table[name].nunique() > 1 or name in ("method", "seed")]
    same = {name: table[name].dropna().iloc[0] for name in names if name not in varying and table[name].notna().any()}
    print("the same in all:", ", ".join(f"{name}={value}" for name, value in same.items()))
    print(table[[*varying, *SUMMARY]].to_string(index=False, float_format="%.4f"))
