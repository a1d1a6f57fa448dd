"""Names: what may name a file anywhere, the file that tells of a folder, and how a message names many."""

import re
from collections.abc import Collection

from nacl._checks import expectation

TABLE = "dataset.json"  # of nnU-Net and of the Decathlon, each with a content of its own, and of a prepared folder
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")  # no "/", and neither "." nor ".."
NAME_RULE = 'of 1 to 100 letters, digits, ".", "_" and "-", the first no "."'
SHOWN = 5  # names in a message, before "and so many more" is enough


def is_name(value: object) -> bool:
    """Whether `value` can name a file on any system."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def check_name(argument: str, name: object, context: str = "") -> None:
    """Raise ValueError unless `name` can name a file on any system."""
    if not is_name(name):
        raise ValueError(expectation(argument, NAME_RULE, repr(name), context))


def shortened(names: Collection[str]) -> str:
    """The first few of them, in order.

    >>> shortened("gfedcba")
    'a, b, c, d, e and 2 more'
    """
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
