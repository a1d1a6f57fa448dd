"""The words of a picture reach the page."""

import subprocess
import sys

import nbformat
import pytest
from alt import with_alt
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def picture(alt=None):
    metadata = {"image/png": {"alt": alt}} if alt else {}
    return new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"}, metadata=metadata)


def printed(text):
    return new_output("stream", text=text)


def notebook(*outputs, tags=()):
    cell = new_code_cell("draw()", id="drawing", outputs=list(outputs), metadata={"tags": list(tags)})
    return new_notebook(cells=[new_markdown_cell("Words."), cell, new_code_cell("x = 1")])


def alt_of(cell):
    return cell.metadata["mystnb"]["image"]["alt"]


def test_a_picture_gives_its_words_to_its_cell():
    before, cell, after = with_alt(notebook(printed("a"), picture("One line."), printed("b"))).cells
    assert alt_of(cell) == "One line."
    assert (cell.source, len(cell.outputs)) == ("draw()", 3)
    assert "outputs" not in before
    assert "mystnb" not in after.metadata


def test_two_pictures_of_a_cell_keep_their_own_words_and_their_order():
    outputs = [printed("a"), picture("First."), printed("b"), picture("Second."), printed("c"), picture("Third.")]
    book = with_alt(notebook(*outputs))
    cells = book.cells[1:-1]
    assert [alt_of(cell) for cell in cells] == ["First.", "Second.", "Third."]
    assert [output for cell in cells for output in cell.outputs] == outputs
    assert [cell.id for cell in cells] == ["drawing", "drawing-1", "drawing-2"]
    assert [cell.metadata["tags"] for cell in cells] == [[], ["remove-input"], ["remove-input"]]
    nbformat.validate(book)


def test_a_picture_without_words_takes_none_of_its_neighbour():
    cells = with_alt(notebook(picture(), picture("Second."))).cells[1:-1]
    assert "mystnb" not in cells[0].metadata
    assert alt_of(cells[1]) == "Second."


@pytest.mark.parametrize("tag", ["hide-cell", "hide-output"])
def test_what_was_folded_stays_folded(tag):
    cells = with_alt(notebook(picture("First."), picture("Second."), tags=[tag])).cells[1:-1]
    assert cells[1].metadata["tags"] == ["remove-input", "hide-output"]


def test_the_words_are_the_alt_of_the_built_page(tmp_path):
    book = notebook(picture('Confidence "0.9" < 1.'), picture("Second."))
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book.cells[0].source = "# Title"
    nbformat.write(with_alt(book), tmp_path / "index.ipynb")
    (tmp_path / "conf.py").write_text('extensions = ["myst_nb"]\nnb_execution_mode = "off"\n')
    command = [sys.executable, "-m", "sphinx", "-q", "-W", tmp_path, tmp_path / "html"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    page = (tmp_path / "html" / "index.html").read_text()
    assert 'alt="Confidence &quot;0.9&quot; &lt; 1."' in page
    assert page.count('class="cell_input ') == 2  # the code of the cell with pictures once, and that of the last cell
    assert page.index('alt="Confidence') < page.index('alt="Second."')
