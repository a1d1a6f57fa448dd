"""What papermill passes to a notebook, held against what the notebook knows."""

import ast
from collections.abc import Iterable, Mapping

from nacl._checks import check_choice

INJECTED = "# Parameters"
"""The first line of the cell that papermill adds, see `papermill.translators.Translator.codify`."""

OF_PAPERMILL = {"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}
"""What papermill itself passes where it is asked to, with `--inject-paths`."""


def check_parameters(namespace: Mapping[str, object], known: Iterable[str] = ()) -> None:
    """Refuse what papermill passed under a name that the notebook does not know; papermill itself only warns.

    papermill adds a cell that assigns what it was given, behind the notebook's own cell of parameters. A name in it
    that no cell before it assigns is one that nothing reads. Without papermill there is nothing to refuse.

    Args:
        namespace: `globals()` of the notebook, with `In`, the cells that IPython has executed.
        known: more names that the notebook reads.

    Raises:
        ValueError: an unknown name; the nearest is suggested.

    Example:
        >>> check_parameters({"In": ["", "kernel_size = 3", "# Parameters\\nkernel_sise = 5"]})
        Traceback (most recent call last):
        ValueError: Expected `parameter` to be one of 'kernel_size', got 'kernel_sise'. Did you mean 'kernel_size'?
    """
    allowed = [*known]
    for cell in namespace.get("In", ()):
        names = _assigned(cell)
        if cell.partition("\n")[0] == INJECTED:
            for name in (name for name in names if name not in OF_PAPERMILL):
                check_choice("parameter", name, allowed)
        allowed += [name for name in names if name not in allowed]


def _assigned(cell: str) -> list[str]:
    """The names that a cell's own statements assign; none of a cell that is no Python."""
    try:
        statements = ast.parse(cell).body
    except SyntaxError:
        return []
    targets = [target for statement in statements if isinstance(statement, ast.Assign) for target in statement.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]
