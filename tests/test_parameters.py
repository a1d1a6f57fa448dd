"""What papermill passes to a notebook that does not know it, told by the cells that were executed."""

import pytest
from papermill.translators import PythonTranslator

from nacl.parameters import INJECTED, check_parameters

CELLS = ("", "size = 96  # pixels\nseed = 0", "import os\nlimit = 3")


def after(injected: str, cells: tuple[str, ...] = CELLS) -> dict[str, object]:
    """`globals()` once papermill's cell was executed behind the parameters."""
    return {"In": [*cells[:2], injected, *cells[2:]]}


def test_papermill_still_writes_what_is_looked_for():
    written = PythonTranslator.codify({"size": 32, "rate": 1e-3, "name": "a'b\n# Parameters", "none": None})
    assert written.startswith(INJECTED)
    with pytest.raises(ValueError, match="got 'rate'"):
        check_parameters(after(written))
    check_parameters(after(written), known=("rate", "name", "none"))


@pytest.mark.parametrize(
    "cell", ["# Parameters\n", "# Parameters\nsize = 32\n", "# Parameters\nseed = 1\nsize = 'x'\n"]
)
def test_what_the_notebook_assigns_can_be_passed(cell):
    check_parameters(after(cell))


def test_an_unknown_name_is_refused_and_the_nearest_suggested():
    with pytest.raises(ValueError, match=r"one of 'size', 'seed', got 'sise'\. Did you mean 'size'\?"):
        check_parameters(after("# Parameters\nseed = 3\nsise = 32\n"))


def test_what_is_assigned_later_is_no_parameter():
    with pytest.raises(ValueError, match="got 'limit'"):
        check_parameters(after("# Parameters\nlimit = 32\n"))


def test_without_papermill_nothing_is_refused():
    check_parameters({"sise": 3})
    check_parameters({"In": []})
    others = ("sise = 32", "size = = 3", "%matplotlib inline", "# Parameters of mine\nx = 3", "x = 1\n# Parameters")
    for cell in others:
        check_parameters({"In": [*CELLS, cell]})


def test_cells_that_are_run_again_by_hand_do_not_matter():
    """In an open notebook `In` grows: edited cells, broken ones, and what the notebook computed."""
    check_parameters({"In": [*CELLS[:2], "# Parameters\nsize = 32", "x = 1", "size = 64", "y = (", CELLS[2]]})


def test_what_papermill_adds_itself_is_known():
    check_parameters(after("# Parameters\nPAPERMILL_INPUT_PATH = 'a'\nPAPERMILL_OUTPUT_PATH = 'b'\nsize = 3\n"))
