"""The source of the book, laid out for Jupyter Book; and what of it makes a page depend on another."""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distributions, files
from pathlib import Path

import nbformat
from equations import equations_list
from execute import NOTEBOOKS, page_of
from links import github_repository, with_links
from nbformat import NotebookNode
from tables import benchmarks_list, data_table, metrics_table, models_list, speed_table

from nacl._files import write_text
from nacl.data.load import PROJECT_ROOT as ROOT
from nacl.provenance import source_hash

TABLES = ROOT / "build" / "tables"
LOCAL = re.compile(r"math|exercise|solution|prf:\w+|note|tip|warning|admonition|dropdown|margin")
LOOKING = re.compile(r"math|eq|ref|numref|doc|term|prf:ref|py:\w+")
FENCE = re.compile(r"\s*(`{3,}|~{3,}|:{3,})\{([\w:-]+)\}")
ROLE = re.compile(r"\{([\w:+.-]+)\}(`+)(.+?)\2", re.DOTALL)
BONE = re.compile(
    r"[\s>*+\d.)-]*\#"  # a heading, also one in a list or a quotation (or a comment of code: too much does no harm)
    r"|\s*\(.+\)=\s*$"  # a target
    r"|\s*(`{3,}|~{3,}|:{3,})\{"  # a directive
    r"|\s*:[\w-]+:|\s*(label|name):"  # an option of it
    r"|.*(\$\$\s*\(|\\(label|tag|begin)\{)"  # a labelled equation, or one that LaTeX numbers
)


def stage(pages: dict[str, Path], folder: Path) -> None:
    """Lay out the book's source in a folder. A file whose content is the same stays as it is, with its time.

    Args:
        pages: the executed notebooks by name.
        folder: where to; what else lies there is removed.
    """
    write_changed(dict(_source(pages)), folder)


def _source(pages: dict[str, Path]) -> Iterator[tuple[str, bytes]]:
    for file in [*(ROOT / "book").rglob("*"), ROOT / "_config.yml", ROOT / "_toc.yml"]:
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            yield file.relative_to(ROOT).as_posix(), file.read_bytes()
    mathjax = next(f for f in files("sphinx-mathjax-offline") or [] if f.name == "tex-svg-full.js")
    yield f"book/_assets/vendor/mathjax/{mathjax.name}", mathjax.read_binary()
    for name, text in _tables().items():
        yield f"book/_{name}.md", text.encode()
    repository = github_repository(ROOT)
    for name, file in pages.items():
        page = page_of(*(nbformat.read(path, as_version=4) for path in (file, NOTEBOOKS / f"{name}.ipynb")))
        page = with_links(page, name, repository) if repository else page
        yield f"notebooks/{name}.ipynb", f"{nbformat.writes(page)}\n".encode()


def _tables() -> dict[str, str]:
    figures = ROOT / "benchmarks"
    return {
        "speed": speed_table(figures / "losses-cpu.csv"),
        "metrics": metrics_table(figures / "metrics-cpu.csv"),
        "data": data_table(figures / "data-cpu.csv"),
        "benchmarks": benchmarks_list(),
        "equations": equations_list(),
        "models": _models(),
    }


def _models() -> str:
    """The table of networks, kept: to count their parameters takes ten seconds."""
    made_by = (Path(__file__).with_name("tables.py")).read_text()
    kept = TABLES / f"models-{_hash([source_hash(), made_by, *_installed()])}.md"
    if not kept.exists():
        write_text(kept, models_list())
    return kept.read_text()


def write_changed(content: dict[str, bytes], folder: Path) -> None:
    """Make a folder hold these files, by their paths in it, and no others; write only what differs."""
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        if file.relative_to(folder).as_posix() not in content:
            file.unlink()
    for name, data in content.items():
        file = folder / name
        if not file.exists() or file.read_bytes() != data:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def content_of(folder: Path) -> str:
    """A hash of all that the book is made of: with the same nothing is to be done."""
    return _hash([frame_of(folder), *((name, file.read_bytes()) for name, file in _files(folder))])


def frame_of(folder: Path) -> str:
    """A hash of what concerns more pages than one: with the same only pages that changed are to be read anew.

    It holds the configuration, the contents, the bibliography, pictures, the package, the installed packages, and of
    each page its skeleton.
    """
    parts = [sys.version, source_hash(), *_installed()]  # source_hash: the API's page shows the docstrings
    for name, file in _files(folder):
        parts.append((name, skeleton(file) if file.suffix in (".md", ".ipynb") else file.read_bytes()))
    return _hash(parts)


def skeleton(page: Path) -> list[str]:
    """What of a page other pages show or count: headings, labels, captions, citations, glued values."""
    if page.suffix == ".md":
        return list(_bones(page.read_text()))
    notebook = nbformat.read(page, as_version=4)
    found = [json.dumps(notebook.metadata, sort_keys=True)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found += _bones(cell.source)
        else:
            found += _bones_of_code(cell)
    return found


def _bones_of_code(cell: NotebookNode) -> Iterator[str]:
    yield json.dumps(cell.metadata.get("mystnb", {}).get("figure"))
    for output in cell.get("outputs", []):
        yield from _bones(output.get("data", {}).get("text/markdown", ""))
        if "scrapbook" in output.get("metadata", {}):
            yield json.dumps(output, sort_keys=True)


def _bones(text: str) -> Iterator[str]:
    lines, kept, end = text.splitlines(), text.startswith("---\n"), "---"
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if kept:  # the head of the file, or a directive of which the body may concern other pages
            yield line
            kept = number == 0 or not line.strip().startswith(end)
        elif fence and not LOCAL.fullmatch(fence[2]):
            yield line
            kept, end = True, fence[1]
        elif BONE.match(line):
            yield line
        elif re.fullmatch(r"\s*(=+|-+)\s*", line):  # it makes a heading of the line before
            yield from lines[max(0, number - 1) : number + 1]
    yield from (match[0] for match in ROLE.finditer(text) if not LOOKING.fullmatch(match[1]))


def _files(folder: Path) -> list[tuple[str, Path]]:
    return sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.is_file())


def _installed() -> list[str]:
    return sorted(f"{package.name}=={package.version}" for package in distributions())


def _hash(parts: list) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
