"""The shell's door: `nacl train | sweep | table | data | report`."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from nacl.cli import data, report, runs
from nacl.cli._help import Help

EXAMPLES = """\
a first hour (with "phantom" for data, begin at the third line):
  nacl data check path/to/data --picture look.png       what is in the folder?
  nacl data prepare acdc path/to/data prepared/acdc     into what training reads
  nacl train --data prepared/acdc --size 96 --epochs 2  does it run?
  nacl sweep main --data prepared/acdc                  CE, SVLS and NACL
  nacl table                                            what came out
  nacl report PREDICTIONS LABELS                        is your own model calibrated?
  nacl COMMAND --help                                   more about each
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
        formatter_class=Help,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for family in (runs, data, report):
        family.add_commands(commands)
    return parser
