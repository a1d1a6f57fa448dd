"""Where a reader can run a notebook, and the workflows that make these places."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import links
import nbformat
import pytest
import yaml
from links import BRANCH, FOLDER, PUBLISHED, commit_of, github_repository, with_install, with_links, write_colab
from packaging.requirements import Requirement

from nacl.parameters import check_parameters

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WORKFLOWS = ROOT / ".github" / "workflows"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout without a remote, in the eyes of a process that is not in a workflow."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("origin", "repository"),
    [
        ("https://github.com/owner/a.name-1.git", "owner/a.name-1"),
        ("https://github.com/owner/name/", "owner/name"),
        ("git@github.com:owner/name.git", "owner/name"),
        ("ssh://git@github.com/owner/name", "owner/name"),
        ("https://example.org/owner/name.git", ""),
        ("../elsewhere", ""),
    ],
)
def test_the_repository_is_that_of_the_remote(checkout, origin, repository):
    subprocess.run(["git", "-C", str(checkout), "remote", "add", "origin", origin], check=True)
    assert github_repository(checkout) == repository


def test_without_a_remote_a_commit_or_git_there_is_no_repository(checkout, monkeypatch):
    assert (github_repository(checkout), commit_of(checkout)) == ("", "")
    monkeypatch.setenv("PATH", "")
    assert (github_repository(checkout), commit_of(checkout)) == ("", "")


def test_in_a_workflow_github_names_the_repository(checkout, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/fork")
    assert github_repository(checkout) == "someone/fork"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_page_has_its_links_under_its_title(file):
    original = nbformat.read(file, as_version=4)
    page = with_links(nbformat.read(file, as_version=4), file.stem, "owner/name")
    nbformat.validate(page)
    title, empty, line, *rest = page.cells[0].source.splitlines()
    assert title.startswith("# ")
    assert [title, *rest] == original.cells[0].source.splitlines()
    assert empty == ""
    assert page.cells[1:] == original.cells[1:]
    assert re.findall(r'<a href="([^"]+)"', line) == [
        f"https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/{file.name}",
        f"https://colab.research.google.com/github/owner/name/blob/gh-pages/_colab/{file.name}",
        f"../_sources/notebooks/{file.name}",
    ]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_on_colab_the_first_code_installs_the_package(file):
    original = nbformat.read(file, as_version=4)
    copy = with_install(original, "owner/name", COMMIT)
    nbformat.validate(copy)
    install = next(cell for cell in copy.cells if cell.cell_type == "code")
    assert [cell for cell in copy.cells if cell is not install] == original.cells
    assert "install" not in [cell.id for cell in original.cells]
    (wanted,) = re.findall(r'^%pip install -q "(.*)"$', install.source, re.MULTILINE)
    requirement = Requirement(wanted)
    assert (requirement.name, requirement.url) == ("nacl-calibration", f"git+https://github.com/owner/name@{COMMIT}")
    check_parameters({"In": ["", install.source, "size = 1", "# Parameters\nsize = 2"]})


def test_what_is_installed_on_colab_leaves_its_kernel_alone_and_has_what_notebooks_import():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (extra,) = re.findall(r"nacl-calibration\[(\w+)\]", links.INSTALL)
    installed = {Requirement(line).name for line in extras[extra]}
    assert not installed & {"ipython", "ipykernel", "ipywidgets"}
    code = "\n".join(file.with_suffix(".py").read_text() for file in NOTEBOOKS)
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    of_python = {"math", "time", "warnings", "dataclasses", "itertools", "pathlib", "functools", "collections"}
    assert imported - of_python <= {*installed, "nacl", "torch", "numpy", "scipy", "IPython", "PIL"}


def test_the_copies_for_colab_are_those_of_this_commit_and_no_others(tmp_path):
    (tmp_path / "_colab").mkdir()
    (tmp_path / "_colab" / "00_gone.ipynb").touch()
    write_colab(ROOT / "notebooks", tmp_path / "_colab", "owner/name", COMMIT)
    assert sorted(file.name for file in (tmp_path / "_colab").iterdir()) == [file.name for file in NOTEBOOKS]


def _workflow(name):
    workflow = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())
    (job,) = workflow["jobs"].values()
    return workflow, job, workflow[True]  # YAML 1.1 reads the key `on` as a truth value


def _commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


@pytest.mark.parametrize(("name", "target"), [("test", "make test"), ("book", "make book")])
def test_a_workflow_does_what_make_does_here(name, target):
    workflow, job, events = _workflow(name)
    assert target in _commands(job)
    assert re.search(rf"^{target.split()[1]}: ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert events["push"] == {"branches": [BRANCH]}
    assert job["timeout-minutes"] <= 120
    assert workflow["permissions"] == {"contents": "read"}
    assert "concurrency" in workflow
    for action in (step["uses"] for step in job["steps"] if "uses" in step):
        assert re.fullmatch(r"(actions|astral-sh)/[\w-]+@v\d+", action)


def test_the_tests_run_on_the_oldest_and_the_newest_python():
    _, job, events = _workflow("test")
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert "pull_request" in events
    assert "permissions" not in job


def test_the_book_is_published_where_colab_looks_for_it(tmp_path):
    _, job, _ = _workflow("book")
    assert job["permissions"] == {"contents": "write"}
    (publish,) = (step for step in job["steps"] if "git push" in step.get("run", ""))
    assert publish["working-directory"] == "_build/html"
    assert publish["if"] == f"github.ref == 'refs/heads/{BRANCH}'"
    for file in ("index.html", f"{FOLDER}/01.ipynb", "_static/a.css"):
        (tmp_path / "html" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "html" / file).write_text("")
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "hub")], check=True)
    address = "https://x-access-token:$TOKEN@github.com/$GITHUB_REPOSITORY.git"
    assert address in publish["run"]
    script = publish["run"].replace(address, str(tmp_path / "hub"))
    environment = {**os.environ, "GITHUB_SHA": COMMIT}
    for _ in range(2):
        subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path / "html", check=True, env=environment)
        shutil.rmtree(tmp_path / "html" / ".git")

    def of_hub(*words):
        command = ["git", "-C", str(tmp_path / "hub"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    files = of_hub("ls-tree", "-r", "--name-only", PUBLISHED)
    assert files == [".nojekyll", f"{FOLDER}/01.ipynb", "_static/a.css", "index.html"]
    assert of_hub("rev-list", "--count", PUBLISHED) == ["1"]
