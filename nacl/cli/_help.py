"""How every command of the shell explains itself."""

import argparse
from collections.abc import Callable
from pathlib import Path


class Help(argparse.RawDescriptionHelpFormatter):
    """Wide enough for an example with its reason on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=110)


def add_command(
    commands, name: str, function: Callable[[argparse.Namespace], int], summary: str, examples: str
) -> argparse.ArgumentParser:
    """A parser that runs `function`; `summary` is a phrase without capital and full stop."""
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = commands.add_parser(name, help=summary, description=description, epilog=examples, formatter_class=Help)
    parser.set_defaults(command=function)
    return parser


def add_runs_folder(parser: argparse.ArgumentParser) -> None:
    """The option that says where runs lie."""
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="of run folders (default: $NACL_RUNS, else runs)")
