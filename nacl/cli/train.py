"""`nacl train`: one run, from the shell."""

import argparse
import os
from dataclasses import Field, fields

from nacl.cli._help import add_command, add_runs_folder
from nacl.evaluation import SUMMARY
from nacl.experiments import epoch_bar, train_run
from nacl.results import Result, finished
from nacl.runs import Run

EXAMPLES = """\
examples:
  nacl train                                            NACL on the embedded phantom
  nacl train --loss svls --kernel-size 5 --seed 1       another loss
  nacl train --data prepared/acdc --size 96 --epochs 12 real cardiac MRI
  nacl train --model smp.FPN --encoder resnet34         another network, of `nacl models`
  nacl train --depth 8 --batch-size 2                   3D patches of 8 slices
  nacl train --share 0.25                               a quarter of the training patients

A run that was finished before is shown and not trained again; one that was killed goes on from its last epoch.
"""
GROUPS = {"loss": "loss", "model": "network", "data": "data", "epochs": "training"}
"""The field at which a group of options begins, and its title."""


def add_commands(commands) -> None:
    """Add train to the parser's commands."""
    train = add_command(commands, "train", _train, "train and test one run", EXAMPLES)
    for f in fields(Run):
        if f.name in GROUPS:
            group = train.add_argument_group(GROUPS[f.name])
        _add_field(group, f)
    add_runs_folder(train)


def _add_field(group: argparse._ArgumentGroup, f: Field) -> None:
    flag = "--" + f.name.replace("_", "-")
    choices = f.metadata.get("choices")
    text = f.metadata["help"] + (f": {', '.join(choices)}" if choices else "") + f" (default: {f.default})"
    if f.type is bool:
        group.add_argument(flag, dest=f.name, action=argparse.BooleanOptionalAction, default=f.default, help=text)
    else:
        metavar = "NAME" if choices else {int: "N", float: "X", str: "VALUE"}[f.type]
        group.add_argument(flag, dest=f.name, type=f.type, default=f.default, metavar=metavar, help=text)


def _train(options: argparse.Namespace) -> int:
    run = Run(**{f.name: getattr(options, f.name) for f in fields(Run)})
    speaks = int(os.environ.get("RANK", 0)) == 0  # of the processes that torchrun started, the first
    if speaks and finished(run, options.runs):
        print("This run was finished before; nothing is trained.")
    with epoch_bar(run) as show:
        result = train_run(run, runs=options.runs, on_epoch=show)
    if speaks:
        _print_result(result)
    return 0


def _print_result(result: Result) -> None:
    columns = list(SUMMARY)
    plain = result.cases[result.cases["post_hoc"] == "none"]
    print(plain[["case", *columns]].to_string(index=False, float_format="%.3f"))
    print(f"\nmean over {len(plain)} test cases ({result.info['dataset']}, distances in {result.info['unit']}),")
    print(f"as trained, and with logits divided by the temperature {result.info['temperature']:.3f}:")
    print(result.cases.groupby("post_hoc")[columns].mean().T.to_string(float_format="%.4f"))
    print(f"\n{result.folder}")
