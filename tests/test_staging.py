"""What of a page concerns others, and what of the book all pages: what decides how much is read anew."""

import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from small_book import CHAPTER
from staging import frame_of, skeleton, write_changed


def _skeleton(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "page.md").write_text(text)
    return skeleton(tmp_path / "page.md")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Prose with", "Other prose with"),
        ("see {eq}`a-sum`", "see {eq}`a-sum`, twice {eq}`a-sum`"),
        ("1 + 1 = 2", "2 = 1 + 1"),
        ("It is two.", "They are two."),
        ("Two.\n````", "Two!\n````"),
        ("More prose.", "More prose.\n\n- in a list\n\n![of a picture](a.png)\n\n```python\na = {}\n```"),
    ],
)
def test_prose_concerns_its_page_only(tmp_path, old, new):
    assert old in CHAPTER
    assert _skeleton(tmp_path, CHAPTER.replace(old, new)) == _skeleton(tmp_path, CHAPTER)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# A chapter", "# The chapter"),
        ("## A part", "### A part"),
        ("More prose.", "More prose.\n\nA heading\n---------"),
        ("More prose.", "More prose.\n\n> # A heading"),
        (":label: a-sum", ":label: the-sum"),
        (":label: a-sum\n\n", ""),
        ("More prose.", "(a-place)=\nMore prose."),
        ("More prose.", "$$ 1 $$ (one)"),
        ("prf:theorem", "prf:lemma"),
        ("} Two\n", "} The two\n"),
        ("{cite}`islam2021`", "nothing"),
        ("More prose.", "More prose {cite:t}`islam2021,\nliu2022`."),
        ("More prose.", "```{figure} a.png\n:name: a\n\nA caption.\n```"),
        ("More prose.", "{glue:text}`a::b:.3f`"),
        (":class: dropdown", ":hidden:"),
    ],
)
def test_what_other_pages_show_or_count_concerns_them(tmp_path, old, new):
    assert old in CHAPTER
    assert _skeleton(tmp_path, CHAPTER.replace(old, new)) != _skeleton(tmp_path, CHAPTER)


def test_the_body_of_a_directive_that_others_may_quote_is_kept_whole(tmp_path):
    figure = "```{figure} a.png\nA caption.\n```\n\nProse.\n"
    assert _skeleton(tmp_path, figure.replace("A caption", "The caption")) != _skeleton(tmp_path, figure)
    assert _skeleton(tmp_path, figure.replace("Prose", "More prose")) == _skeleton(tmp_path, figure)
    head = "---\ntitle: A page\n---\n\nProse.\n"
    assert _skeleton(tmp_path, head.replace("A page", "The page")) != _skeleton(tmp_path, head)
    assert _skeleton(tmp_path, head.replace("Prose", "More prose")) == _skeleton(tmp_path, head)


def test_of_executed_code_only_headings_labels_and_glued_values_concern_others(tmp_path):
    def bones(code="1", **output):
        cell = new_code_cell(code, id="code", outputs=[new_output("display_data", **output)])
        nbformat.write(new_notebook(cells=[cell]), tmp_path / "a.ipynb")
        return skeleton(tmp_path / "a.ipynb")

    plain, glued = {"text/plain": "1"}, {"scrapbook": {"name": "one"}}
    assert bones(data=plain) == bones("2", data={"image/png": "AAAA"})
    assert bones(data={"text/markdown": "One."}) == bones(data={"text/markdown": "Two."})
    assert bones(data={"text/markdown": "# One"}) != bones(data={"text/markdown": "# Two"})
    assert bones(data=plain, metadata=glued) != bones(data={"text/plain": "2"}, metadata=glued)


def test_only_files_that_differ_are_written(tmp_path):
    content = {"a.md": b"a", "deep/b.md": b"b", "c.md": b"c"}
    write_changed(content, tmp_path)
    for file in (tmp_path / "a.md", tmp_path / "deep" / "b.md"):
        os.utime(file, (0, 0))
    write_changed({"a.md": b"a", "deep/b.md": b"new"}, tmp_path)
    assert (tmp_path / "a.md").stat().st_mtime == 0
    assert (tmp_path / "deep" / "b.md").stat().st_mtime > 0
    assert sorted(file.name for file in tmp_path.rglob("*.md")) == ["a.md", "b.md"]


@pytest.fixture
def source(tmp_path):
    """A folder like the one that is staged."""
    names = "_config.yml", "_toc.yml", "book/references.bib", "book/_assets/nacl.css", "book/intro.md"
    write_changed(dict.fromkeys(names, b"a"), tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize("name", ["_config.yml", "_toc.yml", "book/references.bib", "book/_assets/nacl.css"])
def test_what_is_no_page_concerns_all(source, name):
    before = frame_of(source)
    (source / name).write_text((source / name).read_text() + "\n")
    assert frame_of(source) != before


def test_a_page_more_another_package_or_another_source_concerns_all(source, monkeypatch):
    frames = [frame_of(source)]
    (source / "book" / "more.md").write_text("Prose.\n")
    frames.append(frame_of(source))
    monkeypatch.setattr("staging._installed", lambda: ["Sphinx==1"])
    frames.append(frame_of(source))
    monkeypatch.setattr("staging.source_hash", lambda: "new")
    frames.append(frame_of(source))
    assert len(set(frames)) == 4
