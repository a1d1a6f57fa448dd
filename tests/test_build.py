"""What `make book` does: notebooks executed side by side, pages staged, and only what changed read anew."""

import re
import shutil
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import execute
import nbformat
import pytest
import website
from execute import PageError, execute_page, execute_pages, page_of
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from small_book import CHAPTER
from staging import frame_of, write_changed
from sweeps import train_cell, write_notebook

from nacl.grids import plan
from nacl.sweep import Outcome
from nacl.sweep.execute import StoppedError

ROOT = Path(__file__).resolve().parents[1]
build = import_module("build")  # ruff sorts `import build` by whether there is a folder build/

INTRO = """\
# A book

It begins with {doc}`../notebooks/a`, has {prf:ref}`a-theorem`, {ref}`exercise-a` and {py:func}`divmod`.

```{include} _table.md
```
"""


# ---- pages -------------------------------------------------------------------------------------------------------


def _notebook(*cells: nbformat.NotebookNode) -> nbformat.NotebookNode:
    language = {"name": "python", "pygments_lexer": "ipython3"}
    kernel = {"name": "python3", "display_name": "Python 3"}
    return new_notebook(cells=list(cells), metadata={"kernelspec": kernel, "language_info": language})


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Folders of notebooks and of executed pages in the place of the book's."""
    monkeypatch.setattr(execute, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(execute, "PAGES", tmp_path / "pages")
    execute.NOTEBOOKS.mkdir()
    return execute.NOTEBOOKS


def test_a_page_is_todays_prose_around_the_code_that_was_executed():
    code = [new_code_cell("a = 1", metadata={"tags": ["parameters"]}), new_code_cell("a", id="second")]
    notebook = _notebook(new_markdown_cell("# Old"), *code, new_markdown_cell("old"))
    executed = nbformat.from_dict(notebook)
    executed.cells.insert(2, new_code_cell("# Parameters\na = 2", metadata={"tags": ["injected-parameters"]}))
    executed.cells[3].outputs = [new_output("execute_result", {"text/plain": "2"}, execution_count=3)]
    executed.cells[3].metadata.papermill = {"start_time": "now"}
    today = _notebook(new_markdown_cell("# New"), new_markdown_cell("and more"), *code)

    page = page_of(executed, today)
    nbformat.validate(page)
    assert [cell.source for cell in page.cells] == ["# New", "and more", "a = 1", "# Parameters\na = 2", "a"]
    assert page.cells[3].metadata.tags == ["injected-parameters", "hide-input"]
    assert page.cells[4].outputs[0].data["text/plain"] == "2"
    assert "papermill" not in page.cells[4].metadata


def _executed_once(place: str) -> nbformat.NotebookNode:
    """A notebook as papermill leaves it; `place` stands for all that is another each time."""
    injected = new_code_cell("# Parameters\na = 2", metadata={"tags": ["injected-parameters"]})
    cell = new_code_cell("work()", id="work", metadata={"papermill": {"duration": place}, "execution": {"at": place}})
    bar = {"application/vnd.jupyter.widget-view+json": {"model_id": place}, "text/plain": place}
    waited = f"Another process does the run in /runs/{place}; waiting for it.\n"
    cell.outputs = [
        new_output("stream", name="stderr", text=waited),
        new_output("stream", name="stderr", text=f"{waited}a real warning\n"),
        new_output("display_data", bar),
        new_output("display_data", {"text/html": "<b>live</b>", next(iter(bar)): {}}),
    ]
    notebook = _notebook(new_code_cell("a = 1", id="parameters"), injected, cell)
    notebook.metadata.papermill = {"start_time": place}
    notebook.metadata.widgets = {place: {}}
    return notebook


def test_two_executions_of_a_notebook_give_the_same_page():
    source = _notebook(new_code_cell("a = 1", id="parameters"), new_code_cell("work()", id="work"))
    first, second = (nbformat.writes(page_of(_executed_once(place), source)) for place in ("here", "there"))
    assert first == second
    page = nbformat.reads(first, as_version=4)
    assert [o.get("text") or o.data["text/html"] for o in page.cells[2].outputs] == ["a real warning\n", "<b>live</b>"]


def test_a_page_is_executed_again_when_its_code_its_parameters_or_what_it_reads_changed(notebooks, monkeypatch):
    done = []

    def papermill(notebook, output, parameters, environment, wanted):
        done.append(parameters)
        shutil.copy(notebook, output)
        return ""

    monkeypatch.setattr(execute, "papermill", papermill)

    def write(prose, code, **metadata):
        cells = new_markdown_cell(prose, id="prose"), new_code_cell(code, id="code", metadata=metadata)
        nbformat.write(_notebook(*cells), notebooks / "a.ipynb")

    write("Prose.", "1")
    page, error = execute_page("a", {}, "phantom", ["run"])
    assert (page.exists(), error, len(done)) == (True, "", 1)
    write("Other prose.", "1")
    assert execute_page("a", {}, "phantom", ["run"]) == (page, "")
    assert len(done) == 1
    for change in (
        lambda: (write("Other prose.", "2"), execute_page("a", {}, "phantom", ["run"])),
        lambda: (write("Other prose.", "2", tags=["hide-input"]), execute_page("a", {}, "phantom", ["run"])),
        lambda: execute_page("a", {"size": 32}, "phantom", ["run"]),
        lambda: execute_page("a", {}, "brain", ["run"]),
        lambda: execute_page("a", {}, "phantom", ["another run"]),
        lambda: (monkeypatch.setattr(execute, "source_hash", lambda: "new"), execute_page("a", {}, "phantom", ["run"])),
    ):
        before = len(done)
        change()
        assert len(done) == before + 1


def test_a_notebook_that_died_is_kept_to_look_at_and_executed_again(notebooks, monkeypatch):
    def papermill(notebook, output, *_):
        shutil.copy(notebook, output)
        return "ValueError: no"

    monkeypatch.setattr(execute, "papermill", papermill)
    nbformat.write(_notebook(new_code_cell("1")), notebooks / "a.ipynb")
    for _ in range(2):
        assert execute_page("a", {}, "phantom", []) == (execute.PAGES / "failed-a.ipynb", "ValueError: no")
    assert [file.name for file in execute.PAGES.iterdir()] == ["failed-a.ipynb"]


def test_notebooks_that_train_begin_first_and_share_the_cores(monkeypatch):
    begun, at_once, most = [], set(), []

    def fake(name, parameters, data, results, environment, wanted):
        begun.append((name, environment["OMP_NUM_THREADS"]))
        at_once.add(name)
        most.append(len(at_once))
        time.sleep(0.02)
        at_once.remove(name)
        return Path(name), ""

    monkeypatch.setattr(execute, "execute_page", fake)
    monkeypatch.setattr(execute, "available_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    parameters = {"a": {}, "b": {}, "c": {"profile": "glance"}, "d": {}, "e": {"profile": "glance"}}
    assert execute_pages(parameters, "phantom", [], jobs=2) == {name: Path(name) for name in "abcde"}
    assert {name for name, _ in begun[:2]} == {"c", "e"}
    assert {threads for _, threads in begun} == {"2"}
    assert max(most) == 2


def test_the_first_failure_is_named_and_ends_the_others(monkeypatch):
    begun, ended = [], []
    at_work = threading.Event()

    def fake(name, parameters, data, results, environment, wanted):
        begun.append(name)
        if name == "bad":
            assert at_work.wait(10)
            return Path("failed-bad.ipynb"), "ValueError: no"
        at_work.set()
        while wanted():
            time.sleep(0.01)
        ended.append(name)
        raise StoppedError

    monkeypatch.setattr(execute, "execute_page", fake)
    parameters = {"bad": {"profile": "glance"}, "long": {"profile": "glance"}, "later": {}}
    with pytest.raises(PageError, match=r"notebooks/bad\.ipynb failed: ValueError: no\n  see failed-bad\.ipynb"):
        execute_pages(parameters, "phantom", [], jobs=2)
    assert (sorted(begun), ended) == (["bad", "long"], ["long"])


def test_a_kernel_at_work_is_ended_when_another_notebook_dies(notebooks):
    for name, code in (("bad", "1 / 0"), ("long", "import time\ntime.sleep(3600)")):
        nbformat.write(_notebook(new_code_cell(code)), notebooks / f"{name}.ipynb")
    with pytest.raises(PageError, match="ZeroDivisionError"):
        execute_pages({"long": {}, "bad": {}}, "phantom", [], jobs=2)
    assert [file.name for file in execute.PAGES.iterdir()] == ["failed-bad.ipynb"]


def test_of_two_notebooks_that_want_the_same_run_one_trains_and_the_other_reads(notebooks, runs, tiny_acdc):
    fields = {"data": str(tiny_acdc), "epochs": 3, "size": 32, "filters": 2, "batch_size": 64, "device": "cpu"}
    trained = train_cell(", on_epoch=lambda history: print('trained')")
    for name in ("a", "b"):
        write_notebook(notebooks / f"{name}.ipynb", trained)
    pages = execute_pages({"a": fields, "b": fields}, str(tiny_acdc), [], jobs=2)
    printed = [page.read_text().count('"trained\\n"') for page in pages.values()]
    assert sorted(printed) == [0, 3]
    assert len([*runs.glob("*/run.json")]) == 1


# ---- the book ------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    """A book of three pages, as it is staged, with the configuration of the real one."""
    figure = new_output("display_data", {"text/html": "<b>a result</b>"})
    chapter = _notebook(
        new_markdown_cell(CHAPTER, id="chapter"), new_code_cell("1 + 1", id="code", outputs=[figure], execution_count=1)
    )
    toc = "format: jb-book\nroot: book/intro\nchapters:\n- file: notebooks/a\n- file: book/sources\n"
    content = {
        "_config.yml": (ROOT / "_config.yml").read_bytes(),
        "_toc.yml": toc.encode(),
        "book/references.bib": (ROOT / "book" / "references.bib").read_bytes(),
        "book/_assets/nacl.css": b"",
        "book/_assets/vendor/mathjax/tex-svg-full.js": b"",
        "book/_table.md": b"| a |\n| --- |\n| 1 |\n",
        "book/intro.md": INTRO.encode(),
        "book/sources.md": b"# Sources\n\n```{bibliography}\n```\n",
        "notebooks/a.ipynb": nbformat.writes(chapter).encode(),
    }
    write_changed(content, tmp_path / "source")
    return tmp_path / "source"


def _replace(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def _files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_reading_what_changed_gives_the_same_bytes_as_reading_all(source, tmp_path):
    out, html = tmp_path / "out", tmp_path / "html"
    assert website.reads_all(source, out)
    assert website.build_website(source, out, html)
    assert website.is_built(source, html)

    _replace(source / "notebooks" / "a.ipynb", "More prose.", "A quokka.")
    _replace(source / "notebooks" / "a.ipynb", "a result", "a wombat")
    _replace(source / "book" / "_table.md", "| 1 |", "| numbat |")
    assert not website.is_built(source, html)
    assert not website.reads_all(source, out)
    assert website.build_website(source, out, html)
    assert website.build_website(source, tmp_path / "out of all", tmp_path / "html of all")

    some, every = _files(html), _files(tmp_path / "html of all")
    assert some == every
    assert b"quokka" in some["searchindex.js"]
    assert b"wombat" in some["notebooks/a.html"]
    assert b"numbat" in some["book/intro.html"]
    assert b"prose" not in some["_sources/notebooks/a.ipynb"].split(b"A part of it")[1]

    _replace(source / "notebooks" / "a.ipynb", "## A part", "## One part")
    assert website.reads_all(source, out)


def test_after_a_failure_all_is_read_and_the_pages_are_untouched(source, tmp_path, monkeypatch):
    out, html = tmp_path / "out", tmp_path / "html"
    html.mkdir()
    (html / "index.html").write_text("before")
    (out / "_build").mkdir(parents=True)
    (out / ".frame").write_text(frame_of(source))
    assert not website.reads_all(source, out)
    monkeypatch.setattr(website, "JUPYTER_BOOK", [sys.executable, "-c", "raise SystemExit(1)"])
    assert not website.build_website(source, out, html)
    assert website.reads_all(source, out)
    assert (html / "index.html").read_text() == "before"


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """The steps of `make book` without their work; what they were asked for."""
    asked = {}

    def sweep(runs, **options):
        asked.update(runs=runs, **options)
        (tmp_path / "run.json").write_text("record")
        return [Outcome(run, tmp_path) for run in runs]

    def execute_pages(parameters, data, results, *, jobs):
        asked.update(parameters=parameters, results=results, notebooks_at_a_time=jobs)
        return {}

    monkeypatch.setattr(build, "HTML", tmp_path / "html")
    monkeypatch.setattr(build, "github_repository", lambda root: "")
    monkeypatch.setattr(build, "available_cores", lambda: 8)
    for name, step in (("sweep", sweep), ("execute_pages", execute_pages), ("stage", lambda *_: None)):
        monkeypatch.setattr(build, name, step)
    for name, answer in (("is_built", False), ("reads_all", False), ("build_website", True)):
        monkeypatch.setattr(build, name, lambda *_, answer=answer: answer)
    return asked


def _make(monkeypatch, capsys, *options):
    monkeypatch.setattr(sys, "argv", ["build.py", *options])
    status = build.main()
    return status, capsys.readouterr()


def test_the_book_says_what_it_does_and_where_its_first_page_is(steps, monkeypatch, capsys):
    status, said = _make(monkeypatch, capsys)
    assert status == 0
    assert re.findall(r"^\[\d/4\] (\w+)", said.out, re.MULTILINE) == ["Runs", "Pages", "Staging", "Book"]
    assert "reads the pages that changed" in said.out
    assert said.out.splitlines()[-1].endswith(f"The first page: file://{build.HTML}/index.html")
    assert (steps["runs"], steps["jobs"], steps["notebooks_at_a_time"]) == (plan("main"), 3, 8)
    assert steps["results"] == ["record"] * 3
    assert not (build.HTML / "_colab").exists()


@pytest.mark.parametrize(("profile", "small"), [("quick", "glance"), ("full", "full")])
def test_the_profile_reaches_every_experiment(profile, small, steps, monkeypatch, capsys):
    _make(monkeypatch, capsys, "--profile", profile, "--jobs", "1", "--data", "brain")
    main = plan("main", profile=profile, data="brain")
    assert steps["runs"][: len(main)] == main
    assert len(steps["results"]) == len(main)
    assert (len(steps["runs"]) > len(main)) == (profile == "full"), "a glance is trained by its pages"
    assert (steps["jobs"], steps["notebooks_at_a_time"]) == (1, 1)
    given = {name: values["profile"] for name, values in steps["parameters"].items() if "profile" in values}
    assert given == {name: profile if name == "11_compare" else small for name in given}
    assert all(steps["parameters"][name]["data"] == "brain" for name in given)
    assert {f"{number}" for number in range(11, 16)} >= {name[:2] for name in given} > {"11"}


def test_of_the_full_profile_every_run_of_the_pages_is_swept_before_them():
    swept = build.ablation_runs("full", "phantom")
    assert len(set(swept)) == len(swept)
    for number, *grids in (
        (12, "penalty-weight", "margin"),
        (13, "kernel-size", "prior"),
        (14, "model"),
        (15, "share"),
    ):
        (notebook,) = (ROOT / "notebooks").glob(f"{number}_*.py")
        code = notebook.read_text()
        assert all(f'"{grid}"' in code for grid in grids)
        assert {run for grid in grids for run in plan(grid, profile="full")} <= set(swept)
    shares = {(run.share, run.epochs) for run in swept if run.share < 1}
    assert shares == {(0.05, 100), (0.1, 100), (0.1, 1000), (0.25, 100), (0.5, 100)}


def test_with_an_address_on_github_colab_finds_its_notebooks_beside_the_pages(steps, monkeypatch, capsys):
    monkeypatch.setattr(build, "github_repository", lambda root: "owner/name")
    monkeypatch.setattr(build, "is_built", lambda *_: True)
    status, said = _make(monkeypatch, capsys)
    assert status == 0
    assert "nothing changed" in said.out
    assert "owner/name@" in (build.HTML / "_colab" / "06_svls.ipynb").read_text()


def _dies(*_, **__):
    raise PageError("notebooks/a.ipynb failed: ValueError")


@pytest.mark.parametrize(
    ("name", "step", "says"),
    [
        ("sweep", lambda runs, **_: [Outcome(runs[0], Path("ce"), "OSError: no disk")], "ce failed: OSError: no disk"),
        ("execute_pages", _dies, "notebooks/a.ipynb failed"),
        ("build_website", lambda *_: False, "the pages built before are untouched"),
    ],
)
def test_a_step_that_fails_is_named_and_the_status_is_1(name, step, says, steps, monkeypatch, capsys):
    monkeypatch.setattr(build, name, step)
    status, said = _make(monkeypatch, capsys)
    assert status == 1
    assert says in said.err
    assert "Done" not in said.out


def test_data_that_is_not_there_is_named_and_the_status_is_2(steps, monkeypatch, capsys):
    status, said = _make(monkeypatch, capsys, "--data", "no/such/folder")
    assert (status, steps) == (2, {})
    assert "no/such/folder" in said.err
