"""The index of equations: nothing left out, and every name leads to the function."""

import re
from importlib import import_module

import jupytext
import pytest
from equations import EQUATIONS, short
from test_book import HTML, PAGES, ROOT, _Page


def _text(page: str) -> str:
    """The prose of a page in Markdown."""
    markdown, script = ROOT / f"{page}.md", ROOT / f"{page}.py"
    if markdown.exists():
        return markdown.read_text()
    return "\n".join(cell.source for cell in jupytext.read(script).cells if cell.cell_type == "markdown")


def _labels(page: str) -> list[str]:
    """The labels of its equations and theorems, in their order."""
    directive = r"^`{3,}\{(?:math|prf:theorem|prf:lemma|prf:corollary)\}.*\n:label: (\S+)"
    return re.findall(directive, _text(page), re.MULTILINE)


def _code(page: str) -> str:
    return "\n".join(c.source for c in jupytext.read(ROOT / f"{page}.py").cells if c.cell_type == "code")


PLACES = {label: page for page in PAGES for label in _labels(page)}


def test_the_index_holds_every_equation_in_the_order_of_the_book():
    assert list(EQUATIONS) == list(PLACES)


@pytest.mark.parametrize("label", [label for label, (_, names) in EQUATIONS.items() if names])
def test_the_chapter_of_an_equation_calls_its_function(label):
    names = [name.rpartition(".")[2] for name in EQUATIONS[label][1]]
    code = _code(PLACES[label])
    assert any(re.search(rf"\b{name}\b", code) for name in names), (PLACES[label], names)


def test_every_row_leads_to_its_place_and_to_the_description_of_its_function():
    page = (HTML / "book" / "equations.html").read_text()
    links = _Page(page).links
    for label, (_, names) in EQUATIONS.items():
        assert any(link.endswith((f"#equation-{label}", f"#{label}")) for link in links), label
        for name in names:
            assert f"api.html#{name}" in links, name


def test_a_short_name_can_be_imported():
    for _, names in EQUATIONS.values():
        for name in names:
            module, _, last = short(name).rpartition(".")
            assert hasattr(import_module(module), last)
