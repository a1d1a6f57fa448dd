"""Where a reader can run a notebook: on Binder, on Colab, at home."""

import copy
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
from nbformat import NotebookNode

BRANCH = "main"  # the workflows run on it
PUBLISHED = "gh-pages"  # the branch of the pages, which .github/workflows/book.yml writes
FOLDER = "_colab"
INSTALL = """\
# PyNaCl, which some machines have, would overwrite this package: both are imported as `nacl`
%pip uninstall -q -y PyNaCl
%pip install -q "nacl-calibration[train] @ git+https://github.com/{repository}@{commit}"
"""


def github_repository(root: Path) -> str:
    """The repository as "owner/name": what GitHub says in a workflow, else the remote `origin`; "" where it is not."""
    named = os.environ.get("GITHUB_REPOSITORY", "")
    if named:
        return named
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(\.git)?/?$", _git(root, "remote", "get-url", "origin"))
    return found[1] if found else ""


def with_links(notebook: NotebookNode, name: str, repository: str) -> NotebookNode:
    """The notebook with a line of links under its title."""
    first = notebook.cells[0]
    title, _, rest = first.source.partition("\n")
    first.source = f"{title}\n\n{line_of_links(name, repository)}\n{rest}"
    return notebook


def line_of_links(name: str, repository: str) -> str:
    """Binder, Colab, and the executed notebook as a file, in Markdown; Sphinx keeps each page's source there."""
    places = {
        "Binder": f"https://mybinder.org/v2/gh/{repository}/{BRANCH}?urlpath=lab/tree/notebooks/{name}.ipynb",
        "Colab": f"https://colab.research.google.com/github/{repository}/blob/{PUBLISHED}/{FOLDER}/{name}.ipynb",
    }
    links = [f'<a href="{address}">{place}</a>' for place, address in places.items()]
    links.append(f'<a href="../_sources/notebooks/{name}.ipynb" download>download</a>')
    return f"<small>Run it: {' · '.join(links)}</small>"


def write_colab(notebooks: Path, target: Path, repository: str, commit: str) -> None:
    """Write copies of the notebooks that install the package first, for Colab has none but what is in the notebook."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in sorted(notebooks.glob("*.ipynb")):
        nbformat.write(with_install(nbformat.read(file, as_version=4), repository, commit), target / file.name)


def with_install(notebook: NotebookNode, repository: str, commit: str) -> NotebookNode:
    """A copy whose first cell of code installs the package as of `commit`.

    The extra is `train`: with `notebooks` pip would replace Colab's own IPython and kernel under its feet.
    """
    notebook = copy.deepcopy(notebook)
    first = next(place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    code = INSTALL.format(repository=repository, commit=commit)
    notebook.cells.insert(first, nbformat.v4.new_code_cell(code.rstrip(), id="install"))
    return notebook


def commit_of(root: Path) -> str:
    """The commit that is checked out."""
    return _git(root, "rev-parse", "HEAD")


def _git(root: Path, *words: str) -> str:
    """What git answers; nothing where there is no git, no checkout or no such thing."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()
