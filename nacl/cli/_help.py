"""How every command of the shell explains itself."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class Help(argparse.RawDescriptionHelpFormatter):
    """Wide enough for an example with its reason on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=110)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, not below a screen of options."""

    def error(self, message: str) -> NoReturn:
        stop = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"{self.prog}: {message}{stop} See `{self.prog} --help`.\n")


def add_command(
    commands, name: str, function: Callable[[argparse.Namespace], int], summary: str, examples: str
) -> argparse.ArgumentParser:
    """A parser that runs `function`; `summary` is a phrase without capital and full stop."""
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = commands.add_parser(name, help=summary, description=description, epilog=examples, formatter_class=Help)
    parser.set_defaults(command=function, parser=parser)
    return parser


def add_runs_folder(parser: argparse.ArgumentParser) -> None:
    """The option that says where runs lie."""
    text = "of run folders (default: $NACL_RUNS, else runs/ of the checkout, else ./runs)"
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help=text)
