"""The notebooks: pairs, parameters, shape, and what came out of the quick runs."""

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pandas as pd
import pytest

from nacl.grids import plan
from nacl.results import finished
from nacl.runs import Run
from nacl.statistics import mean_interval

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
BOOK = ROOT / "build" / "book" / "notebooks"


def _cells(notebook):
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_pairs_say_the_same(source):
    script, notebook = jupytext.read(source), nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert _cells(script) == _cells(notebook), "bring them in line with `make notebooks`"


def test_every_notebook_has_its_script():
    assert {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")} == {p.stem for p in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_committed_notebooks_have_no_outputs(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_notebooks_hold_the_story_and_no_code_of_the_package(source):
    tree = ast.parse(source.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert "**Predict.**" in source.read_text()
    assert "**What we saw.**" in source.read_text()
    assert "**Take-away.**" in source.read_text()


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_exercises_have_folded_solutions_and_the_last_cell_holds_their_numbers(source):
    notebook = jupytext.read(source)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    exercises = re.findall(r"^`{3,}\{exercise\}\n:label: (exercise-\S+)$", prose, re.MULTILINE)
    assert exercises
    assert exercises == re.findall(r"^`{3,}\{solution\} (\S+)\n:class: dropdown$", prose, re.MULTILINE)
    assert "assert " in notebook.cells[-1].source


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_parameters_are_literals(source):
    (parameters,) = (text for _, text, tags in _cells(jupytext.read(source)) if "parameters" in tags)
    for node in ast.parse(parameters).body:
        ast.literal_eval(node.value)


def test_the_parameters_of_train_are_the_fields_of_run():
    (text,) = (text for _, text, tags in _cells(jupytext.read(ROOT / "notebooks/09_train.py")) if "parameters" in tags)
    given = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(text).body}
    assert given == {f.name: f.default for f in fields(Run)}


@pytest.fixture(scope="module")
def results():
    found = [finished(run) for run in plan("main")]
    assert all(found), "the quick runs are not there: `make book` makes them"
    return {result.run.loss: result for result in found}


def test_quick_networks_learned_to_segment(results):
    for result in results.values():
        assert result.cases["dice"].mean() > 0.7
        assert result.history["loss"].iloc[-1] < result.history["loss"].iloc[0] / 2


def test_nacl_holds_confidence_below_the_others(results):
    everywhere = {loss: r.bins.query("region == 'all' and post_hoc == 'none'") for loss, r in results.items()}
    confidence = {loss: bins["confidence_sum"].sum() / bins["count"].sum() for loss, bins in everywhere.items()}
    assert confidence["nacl"] < min(confidence["ce"], confidence["svls"]) - 0.01


def test_the_numbers_on_the_page_are_those_of_the_runs(results):
    page = nbformat.read(BOOK / "11_compare.ipynb", as_version=4)
    outputs = [
        o.data["text/html"] for c in page.cells for o in c.get("outputs", []) if "text/html" in o.get("data", {})
    ]
    shown = next(html for html in outputs if "ce + temperature" in html)
    for result in results.values():
        by_patient = result.cases[result.cases["post_hoc"] == "none"].groupby("patient")
        for column in ("dice", "ece_all", "nll"):
            found = mean_interval(by_patient[column].mean())
            assert f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]" in shown, (result.run.loss, column)


def _repeats(cell) -> bool:
    """Whether it holds the second picture of the cell before, see `alt.with_alt`."""
    return re.search(r"-\d+$", cell.id) is not None and "remove-input" in cell.metadata.get("tags", [])


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_pages_are_the_notebooks_of_this_commit(source):
    page = nbformat.read(BOOK / f"{source.stem}.ipynb", as_version=4)
    # a page may have cells whose code is hidden, for a second picture, and a line of links
    cells = [cell for cell in page.cells if cell.source and "injected-parameters" not in cell.metadata.get("tags", [])]
    cells = [cell for cell in cells if not _repeats(cell)]
    ran = [re.sub(r"\n\n<small>Run it: .*</small>", "", cell.source) for cell in cells]
    assert ran == [text for _, text, _ in _cells(jupytext.read(source))]


def test_every_page_ran_to_its_end():
    for source in SOURCES:
        page = nbformat.read(BOOK / f"{source.stem}.ipynb", as_version=4)
        code = [cell for cell in page.cells if cell.cell_type == "code" and cell.source.strip() and not _repeats(cell)]
        assert all(cell.execution_count for cell in code), source.stem
        assert not [o for c in code for o in c.outputs if o.output_type == "error"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_what_papermill_passes_is_held_against_the_parameters_before_anything_is_done(source):
    code = [text for kind, text, _ in _cells(jupytext.read(source)) if kind == "code"]
    check = "Run.from_parameters(globals())" if source.stem == "09_train" else "check_parameters(globals())"
    assert check in code[1] + code[2]


def _papermill(name, tmp_path, options, *, cwd=ROOT):
    """`papermill NAME out.ipynb -p ...` as from a user's shell; how it ended, and the executed notebook."""
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / f"{name}.ipynb"), str(out)]
    command += [part for name, value in options.items() for part in ("-p", name, str(value))]
    environment = {**os.environ, "NACL_RUNS": str(tmp_path)}
    environment.pop("MPLBACKEND", None)
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True, env=environment)
    return done, nbformat.read(out, as_version=4)


def _papermill_train(tmp_path, *, cwd=ROOT, **options):
    """One epoch of the smallest network, to its end."""
    smallest = {"epochs": 1, "size": 32, "filters": 2, "batch_size": 64, "device": "cpu"}
    done, page = _papermill("09_train", tmp_path, {**smallest, **options}, cwd=cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    return page


def _outputs(page):
    return [o for c in page.cells for o in c.get("outputs", [])]


@pytest.mark.parametrize("place", ["notebooks", "elsewhere"])
def test_papermill_runs_train_from_anywhere(place, tmp_path, tiny_acdc):
    folder = {"notebooks": ROOT / "notebooks", "elsewhere": tmp_path}[place]
    data = os.path.relpath(tiny_acdc, folder)
    page = _papermill_train(tmp_path, cwd=folder, loss="nacl", penalty_weight=0.3, kernel_size=5, data=data)
    assert sum("image/png" in o.get("data", {}) for o in _outputs(page)) == 4
    assert any("patient004_frame01" in str(o.get("data", "")) for o in _outputs(page))
    (run,) = tmp_path.glob("nacl-acdc-*/run.json")
    assert json.loads(run.read_text())["run"]["penalty_weight"] == 0.3
    assert np.isfinite(pd.read_csv(run.parent / "metrics.csv")["ece_all"]).all()


def test_papermill_finds_data_named_from_the_root_when_started_elsewhere(tmp_path, acdc):
    page = _papermill_train(tmp_path, cwd=tmp_path, data=os.path.relpath(acdc, ROOT))
    assert any("patient001_frame01" in str(o.get("data", "")) for o in _outputs(page))


@pytest.mark.parametrize(
    "options",
    [
        {"model": "smp.FPN", "encoder": "mobilenet_v2", "share": 0.5},
        {"depth": 2, "kernel_depth": 3, "loss": "svls", "batch_size": 2},
    ],
    ids=["another network on fewer patients", "3D"],
)
def test_papermill_trains_other_networks_on_volumes_and_on_fewer_patients(options, tmp_path, tiny_acdc):
    page = _papermill_train(tmp_path, data=tiny_acdc, **options)
    (file,) = tmp_path.glob("*-acdc-*/run.json")
    values = json.loads(file.read_text())["run"]
    assert {name: values[name] for name in options} == options
    told = " ".join(str(o.get("data", "")) for o in _outputs(page))
    assert f"with the network `{values['model']}`" in told
    if values["depth"] > 1:
        assert "patches of 2 x 32 x 32 pixels" in told
    else:
        assert "(50% of its training patients)" in told


@pytest.mark.parametrize(
    ("notebook", "options", "says"),
    [
        ("09_train", {"epochs": 1, "kernel_sise": 5}, "got 'kernel_sise'. Did you mean 'kernel_size'?"),
        ("09_train", {"penalty_weight": "much"}, "`penalty_weight` of type float, got 'much'"),
        ("04_phantom", {"sise": 32}, "got 'sise'. Did you mean 'size'?"),
    ],
)
def test_papermill_is_refused_what_a_notebook_does_not_know_and_nothing_is_done(notebook, options, says, tmp_path):
    done, page = _papermill(notebook, tmp_path, options)
    assert done.returncode == 1
    assert says in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["out.ipynb"]
    assert not [o for o in _outputs(page) if "data" in o and "text/plain" in o["data"]]
