"""The pages "In MONAI", "In segmentation-models-pytorch" and "In Lightning", followed to the letter."""

import re
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
PAGES = ("monai", "smp", "lightning")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, at import and in their loops


def blocks(page, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", (BOOK / f"in-{page}.md").read_text(), flags=re.MULTILINE | re.DOTALL)


def run(code, folder):
    with chdir(folder), redirect_stdout(StringIO()) as out:
        space = {"__name__": "page"}
        exec(compile(code, "page", "exec"), space)
    return out.getvalue(), space


def numbers(text):
    return {name: float(value) for name, value in re.findall(r"^(\w+) ([0-9.]+|nan)$", text, flags=re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs_and_prints_what_it_says(page, tmp_path):
    printed, _ = run("\n".join(blocks(page, "python")), tmp_path)
    (shown,) = blocks(page, "text")
    assert len(numbers(shown)) == len(shown.strip().splitlines())
    # the same to the second digit on another machine: rounding, and little training
    assert numbers(printed) == pytest.approx(numbers(shown), abs=0.03)
    if page == "lightning":
        assert sorted(path.parent.name for path in tmp_path.rglob("*.png")) == ["test_reliability"] + 4 * [
            "val_reliability"
        ]
        assert list(tmp_path.rglob("val_reliability/epoch0000.png"))


@pytest.mark.parametrize("page", PAGES)
def test_the_line_that_changes_is_the_only_one(page, tmp_path):
    """With the line that stood there before, the program runs as it did."""
    (diff,) = blocks(page, "diff")
    before, after = (line[1:] for line in diff.splitlines())
    code = blocks(page, "python")[0]
    assert code.count(f"{after}\n") == 1
    _, space = run(code.replace(after, before), tmp_path)
    assert "loss" in space


@pytest.mark.parametrize("page", PAGES)
def test_what_is_installed_is_an_extra_of_this_project(page):
    (command,) = blocks(page, "bash")
    extras = re.fullmatch(r"pip install -e 'path/to/this\[([\w,]+)\]'\n", command)[1].split(",")
    pyproject = (BOOK.parent / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", pyproject, flags=re.MULTILINE) for extra in extras)
