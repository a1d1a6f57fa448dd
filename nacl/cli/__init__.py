"""The shell's door: `nacl train | sweep | table | models | data | report | explore`, and what is wrong in words."""

import difflib
import re
import shlex
import sys
from collections.abc import Sequence

from nacl.cli import data, explore, models, report, sweep, table, train
from nacl.cli._help import Help, Parser

EXAMPLES = """\
a first hour (with "phantom" for data, begin at the third line):
  nacl data check path/to/data --picture look.png       what is in the folder?
  nacl data prepare acdc path/to/data prepared/acdc     into what training reads
  nacl train --data prepared/acdc --size 96 --epochs 2  does it run?
  nacl models                                           what --model can be
  nacl sweep main --data prepared/acdc                  CE, SVLS and NACL
  nacl table                                            what came out
  nacl report PREDICTIONS LABELS                        is your own model calibrated?
  nacl explore                                          what do its window and its weight do?
  nacl COMMAND --help                                   more about each
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, 1 where runs or files failed, or 2 for input that can't be used."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(_unknown(unknown[0], options.parser))
    options.typed = shlex.join(["nacl", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        return options.command(options)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        message = str(error) or "Out of memory. Lower --batch-size, --patch or --size, or end other programs"
        if isinstance(error, OSError) and error.strerror:
            message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        print(f"nacl: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nacl: stopped. Finished runs and checkpoints are kept; the same command goes on.", file=sys.stderr)
        return 130


def _unknown(argument: str, parser: Parser) -> str:
    """What is wrong with an argument that a command does not know, and which one it may have meant."""
    if not argument.startswith("-"):
        return f"Expected an option, got {argument!r}."
    name = argument.partition("=")[0]
    known = ["--help", *re.findall(r"--[a-z][a-z0-9-]*", parser.format_usage())]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    message = f"Expected an option of this command, got {name}."
    return f"{message} Did you mean {near[0]}?" if near else message


def _parser() -> Parser:
    parser = Parser(
        prog="nacl",
        description="Train and compare segmentation networks whose confidence can be trusted.",
        epilog=EXAMPLES,
        formatter_class=Help,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for family in (train, sweep, table, models, data, report, explore):
        family.add_commands(commands)
    return parser
