"""The shell's door: `nacl train | sweep | table | data | report`."""

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nacl._checks import check_choice, check_integer, expectation
from nacl._files import whole_file
from nacl.data import SPLITS, Case, Dataset, acdc, load_dataset, resolve_data
from nacl.evaluation import SUMMARY
from nacl.experiments import GRIDS, PROFILES, epoch_bar, plan, train_run
from nacl.results import PROVENANCE, finished, load_result, results_table
from nacl.runs import Run, runs_folder
from nacl.sweep import sweep

EXAMPLES = """\
a first hour:
  nacl data check path/to/acdc --picture acdc.png       what is in the folder? ("phantom" needs no data)
  nacl train --data path/to/acdc --size 96 --epochs 2   does it run?
  nacl sweep main --data path/to/acdc                   CE, SVLS and NACL
  nacl table                                            what came out
  nacl report PREDICTIONS LABELS                        is your own model calibrated?
  nacl COMMAND --help                                   more about each
"""
TRAIN_EXAMPLES = """\
examples:
  nacl train                                            NACL on the embedded phantom
  nacl train --loss svls --kernel-size 5 --seed 1       another loss
  nacl train --data path/to/acdc --size 96 --epochs 12  real cardiac MRI

A run that was finished before is shown and not trained again; one that was killed goes on from its last epoch.
"""
SWEEP_EXAMPLES = """\
examples:
  nacl sweep main                                       CE, SVLS and NACL on the embedded phantom
  nacl sweep penalty-weight --seeds 3 --jobs 2          an ablation, two runs at a time
  nacl sweep main --data path/to/acdc --profile full    the papers' protocol (use a GPU)
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
DATA_EXAMPLES = """\
examples:
  nacl data list                                        what this machine can read
  nacl data check path/to/acdc                          every file, to the last; cases, labels, problems
  nacl data check phantom --picture phantom.png         with a picture
"""
REPORT_EXAMPLES = """\
examples:
  nacl report predictions labelsTr                      what nnU-Net's --save_probabilities left, beside its labels
  nacl report probs labels --images imagesTr --class-names background liver tumour --csv cases.csv
  nacl report logits.npy labels.npy --from-logits --out one.html
  nacl report predictions labels --patient-pattern "^[^_]+" --ignore-index 255 --ignore-unmatched

A case is a file of each folder, paired by name: npy, npz, nii, nii.gz, h5, hdf5; probabilities or logits (classes
first, or last in NIfTI) and a label map. The page is one file that asks for no other. Files that can't be read are
named on it, the others are reported, and the status is 1.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, 1 where runs or files failed, or 2 for input that can't be used."""
    options = _parser().parse_args(arguments)
    options.typed = shlex.join(["nacl", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        return options.command(options)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.strerror:
            message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        print(f"nacl: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nacl: stopped. Finished runs and checkpoints are kept; the same command goes on.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nacl",
        description="Train and compare segmentation networks whose confidence can be trusted.",
        epilog=EXAMPLES,
        formatter_class=_Help,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = _command(commands, "train", _train, "train and test one run", TRAIN_EXAMPLES)
    for f in fields(Run):
        _add_field(train, f)
    _add_runs_folder(train)

    many = _command(commands, "sweep", _sweep, "do all runs of a grid", SWEEP_EXAMPLES)
    many.add_argument("grid", metavar="GRID", help=f"one of: {', '.join(GRIDS)}")
    many.add_argument("--data", default="phantom", help="'phantom', or the folder of a benchmark (default: phantom)")
    many.add_argument("--profile", default="quick", help=f"sizes and epochs: {', '.join(PROFILES)} (default: quick)")
    many.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1 for each run (default: 1)")
    many.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time here (default: 1)")
    many.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler, whose workers do the runs")
    many.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="other fields of every run")
    many.add_argument("--dry-run", action="store_true", help="list the runs and which are done, and do none")
    _add_runs_folder(many)

    table = _command(commands, "table", _table, "tabulate finished runs", TABLE_EXAMPLES)
    table.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="run folders (default: all)")
    table.add_argument("--cases", action="store_true", help="one row a test case instead of one a run")
    table.add_argument("--csv", type=Path, metavar="FILE", help="write there instead of printing")
    _add_runs_folder(table)

    data = commands.add_parser("data", help="list and check data sets", epilog=DATA_EXAMPLES, formatter_class=_Help)
    actions = data.add_subparsers(required=True, metavar="ACTION")
    _command(actions, "list", _data_list, "what can be read", "")
    check = _command(actions, "check", _data_check, "read every file of a data set", "")
    check.add_argument("data", help="'phantom', or a folder")
    check.add_argument("--size", type=int, default=96, help="of a slice of the phantom (default: 96)")
    check.add_argument("--picture", type=Path, metavar="FILE", help="middle slices of six cases with their outlines")

    report = _command(
        commands, "report", _report, "is your model calibrated? one page on its predictions", REPORT_EXAMPLES
    )
    report.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="folder of probabilities or logits")
    report.add_argument("labels", type=Path, metavar="LABELS", help="folder of label maps")
    report.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="default: report.html")
    report.add_argument("--csv", type=Path, metavar="FILE", help="the numbers of each case")
    report.add_argument("--images", type=Path, metavar="FOLDER", help="images, shown with the worst cases")
    report.add_argument(
        "--class-names", nargs="+", metavar="NAME", help="background first (default: as in nnU-Net's dataset.json)"
    )
    report.add_argument("--title", default="Is this model calibrated?", help="of the page")
    report.add_argument("--ignore-index", type=int, metavar="N", help="label that never counts (default: -100)")
    report.add_argument("--ignore-unmatched", action="store_true", help="leave out files without a partner")
    report.add_argument("--patient-pattern", metavar="REGEX", help="finds a case's patient in its name (default: all)")
    report.add_argument("--key", metavar="NAME", help="of the scores in npz and HDF5 files")
    report.add_argument("--label-key", metavar="NAME", help="of the labels there")
    report.add_argument("--class-axis", type=int, metavar="N", help="of the classes, in the array as it is stored")
    report.add_argument(
        "--axis-order", metavar="ORDER", help="of arrays beside NIfTI files: zyx, xyz (default: by shape)"
    )
    kind = report.add_mutually_exclusive_group()
    kind.add_argument("--from-logits", action="store_true", default=None, help="they are logits (default: found out)")
    kind.add_argument(
        "--from-probs", dest="from_logits", action="store_false", default=None, help="they are probabilities"
    )
    report.add_argument("--n-bins", type=int, default=15, metavar="N", help="bins of confidence (default: 15)")
    report.add_argument("--worst", type=int, default=3, metavar="N", help="cases to picture (default: 3)")
    report.add_argument("--seed", type=int, default=0, metavar="N", help="of the samples and halves (default: 0)")
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=110)


def _command(commands, name: str, function, summary: str, examples: str) -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = commands.add_parser(name, help=summary, description=description, epilog=examples, formatter_class=_Help)
    parser.set_defaults(command=function)
    return parser


def _add_runs_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="of run folders (default: $NACL_RUNS, else runs)")


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


def _data_list(options: argparse.Namespace) -> int:
    print("phantom    embedded: a cardiac-like short axis, drawn from a posterior that is known at every pixel")
    print("acdc       FOLDER/{train,valid,test}/patientXXX_frameYY.h5 with `img` and `mask`, 192 or 224 pixels wide")
    return 0


def _data_check(options: argparse.Namespace) -> int:
    source = resolve_data(options.data)
    if source == "phantom":
        checked = [(case.name, case, "") for case in load_dataset("phantom", size=options.size).cases]
    else:
        checked = list(tqdm(acdc.check(source), total=len(acdc.files(source)), unit="file", disable=None))
    cases = [case for _, case, _ in checked if case is not None]
    problems = [problem for _, _, problem in checked if problem]
    try:
        Dataset("checked", acdc.CLASS_NAMES, tuple(cases), unit="px")
    except ValueError as error:
        problems.append(str(error))
    if cases:
        print(_describe(cases, acdc.CLASS_NAMES).to_string(float_format="%.4f"))
    for problem in problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    print(f"{len(cases)} cases can be used, {len(checked) - len(cases)} can't.")
    if options.picture and cases:
        from nacl.plots import contact_sheet  # matplotlib is slow to import

        middles = {
            f"{case.name} ({case.split})": (case.image[len(case.image) // 2], case.label[len(case.image) // 2])
            for case in cases[:: max(1, len(cases) // 6)][:6]
        }
        with whole_file(options.picture) as temporary:
            contact_sheet(middles, len(acdc.CLASS_NAMES)).savefig(
                temporary, dpi=120, format=options.picture.suffix[1:] or "png"
            )
        print(f"picture in {options.picture}")
    return 1 if problems else 0


def _describe(cases: Sequence[Case], class_names: Sequence[str]) -> pd.DataFrame:
    """One row a split: patients, cases, slices, and the share of pixels of each class."""
    rows = {}
    for split in SPLITS:
        of_split = [case for case in cases if case.split == split]
        counts = sum((np.bincount(c.label.ravel(), minlength=len(class_names)) for c in of_split), np.zeros(1))
        shares = counts / max(1, counts.sum())
        rows[split] = {
            "patients": len({case.patient for case in of_split}),
            "cases": len(of_split),
            "slices": sum(len(case.image) for case in of_split),
            **dict(zip(class_names, shares if of_split else [0.0] * len(class_names), strict=True)),
        }
    return pd.DataFrame(rows).T.astype({"patients": int, "cases": int, "slices": int})


def _report(options: argparse.Namespace) -> int:
    from nacl.reporting import (
        Reading,
        find_cases,
        nnunet_labels,
        report,
    )  # jinja2 and matplotlib's colours are slow to import

    reading = Reading(
        key=options.key,
        label_key=options.label_key,
        class_axis=options.class_axis,
        axis_order=options.axis_order,
        from_logits=options.from_logits,
        patient=options.patient_pattern,
    )
    cases = find_cases(
        options.predictions,
        options.labels,
        images=options.images,
        ignore_unmatched=options.ignore_unmatched,
        reading=reading,
    )
    class_names, ignored = nnunet_labels(options.predictions)
    if options.ignore_index is None:
        options.ignore_index = -100 if ignored is None else ignored
    options.class_names = options.class_names or class_names
    names = ("class_names", "n_bins", "ignore_index", "worst", "csv", "title", "seed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what is left out is said below
        found = report(cases, options.out, command=options.typed, **{name: getattr(options, name) for name in names})
    print(found.verdict)
    print(f"read as {', '.join(sorted(set(found.cases['scores'])))}; {len(found.cases)} cases in {found.path}")
    for name, reason in found.unread.items():
        print(f"NOT READ {name}: {reason}", file=sys.stderr)
    return 1 if found.unread else 0
