"""The notebooks of the book: executed by papermill, several at a time, and made into pages."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event

import nbformat
from alt import with_alt
from nbformat import NotebookNode
from tqdm import tqdm

from nacl._parallel import available_cores
from nacl.data import dataset_fingerprint
from nacl.data.load import PROJECT_ROOT
from nacl.provenance import source_hash
from nacl.runs import Run
from nacl.sweep import papermill
from nacl.sweep.execute import StoppedError

NOTEBOOKS = PROJECT_ROOT / "notebooks"
PAGES = PROJECT_ROOT / "build" / "pages"
INJECTED = "injected-parameters"
WIDGET = "application/vnd.jupyter.widget-view+json"
WAITING = re.compile(r"^Another process does the run in .*; waiting for it\.\n", re.MULTILINE)


class PageError(Exception):
    """A notebook died; the message says of what, and where it lies as far as it came."""


def page_parameters(run: Run, data: str, profile: str) -> dict[str, dict[str, object]]:
    """The parameters of each notebook."""
    experiment = {"data": data, "device": run.device}
    small = {**experiment, "profile": "glance" if profile == "quick" else profile}
    given = {
        "06_svls": {"data": data},
        "09_train": asdict(run),
        "11_compare": {**experiment, "profile": profile},
        "12_penalty": small,
        "13_window": small,
        "14_networks": small,
        "15_patients": small,
    }
    return {path.stem: given.get(path.stem, {}) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}


def execute_pages(
    parameters: dict[str, dict[str, object]], data: str, results: list[str], *, jobs: int
) -> dict[str, Path]:
    """Every notebook executed, `jobs` at a time; those that train begin first, for they take longest.

    The kernels share the cores evenly, whatever the number of notebooks: so a page has the same numbers each time.

    Raises:
        PageError: the first that died; the others are ended, and what they trained goes on from there the next time.
    """
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, available_cores() // jobs)))
    names = sorted(parameters, key=lambda name: "profile" not in parameters[name])
    stopped, pages = Event(), {}

    def execute(name: str) -> Path:
        if stopped.is_set():
            raise StoppedError
        environment, wanted = {"OMP_NUM_THREADS": threads}, lambda: not stopped.is_set()
        page, error = execute_page(name, parameters[name], data, results, environment, wanted)
        if error:
            stopped.set()
            raise PageError(f"notebooks/{name}.ipynb failed: {error}\n  see {page}")
        return page

    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(names), unit="page") as bar:
        try:
            futures = {pool.submit(execute, name): name for name in names}
            for future in as_completed(futures):
                with suppress(StoppedError):  # then one that failed is among those to come
                    pages[futures[future]] = future.result()
                    bar.update()
        finally:  # also for Ctrl-C
            stopped.set()
            pool.shutdown(cancel_futures=True)
    return pages


def execute_page(
    name: str,
    parameters: dict[str, object],
    data: str,
    results: list[str],
    environment: dict[str, str] | None = None,
    wanted: Callable[[], bool] = lambda: True,
) -> tuple[Path, str]:
    """The executed notebook, from an earlier time or made now, and what it died of if it did.

    What it is known by: its code, its parameters, the package's source, the data's content, what explorers are made
    of, the tables of finished sweeps if it names their folder, and `results`, the records of the runs that pages show.
    Its prose is not among them, see `page_of`.
    """
    notebook = NOTEBOOKS / f"{name}.ipynb"
    code = [(cell.source, cell.metadata) for cell in _code(nbformat.read(notebook, as_version=4))]
    shown = sorted(PROJECT_ROOT.glob("nacl/explorer/front/*"))
    if any('"results' in source for source, _ in code):
        shown += sorted(PROJECT_ROOT.glob("results/*.*"))
    parts = [code, source_hash(), dataset_fingerprint(data), json.dumps(parameters), *results]
    parts += [file.read_text(encoding="utf-8") for file in shown]
    page = PAGES / f"{name}-{hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()}.ipynb"
    if page.exists():
        return page, ""
    PAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PAGES) as scratch:
        output = Path(scratch) / page.name
        error = papermill(notebook, output, parameters, environment or {}, wanted)
        page = page.with_name(f"failed-{name}.ipynb") if error else page
        if output.exists():
            output.replace(page)
    return page, error


def page_of(executed: NotebookNode, notebook: NotebookNode) -> NotebookNode:
    """The executed code with the notebook's prose of today, ready for the book.

    Injected parameters are folded away. What differs from one execution to the next is left out: what papermill noted
    of time and place, progress bars, and that a run was waited for.
    """
    ran, cells = _code(executed), []
    for cell in notebook.cells:
        cells.append(ran.pop(0) if cell.cell_type == "code" else cell)
        if ran and INJECTED in _tags(ran[0]):
            cells.append(_folded(ran.pop(0)))
    for cell in cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_lasting, cell.outputs) if output]
    page = nbformat.v4.new_notebook(cells=cells, metadata=executed.metadata, nbformat_minor=executed.nbformat_minor)
    page.metadata.pop("papermill", None)
    page.metadata.pop("widgets", None)
    return with_alt(page)


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _folded(injected: NotebookNode) -> NotebookNode:
    injected.id = INJECTED
    injected.metadata.tags.append("hide-input")
    return injected


def _lasting(output: NotebookNode) -> NotebookNode | None:
    """What of an output is the same each time; None if nothing is."""
    if output.output_type == "stream" and output.name == "stderr":
        output.text = WAITING.sub("", output.text)
        return output if output.text else None
    if WIDGET in output.get("data", {}):  # its name is another one each time
        del output.data[WIDGET]
        return output if "text/html" in output.data else None
    return output
