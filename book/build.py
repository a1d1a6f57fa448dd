"""Runs, pages, book: what `make book` does once the environment is there.

Nothing is done twice. A run is known by its identity; a page by its notebook, its parameters, the package's source and
the data's content; the book by all that goes into it.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import files
from pathlib import Path

import nbformat
from tables import benchmarks_list, data_table, family, metrics_table, models_list, speed_table
from tqdm import tqdm

from nacl._parallel import available_cores
from nacl.data import dataset_fingerprint, resolve_data
from nacl.data.load import PROJECT_ROOT
from nacl.grids import PROFILES, plan
from nacl.provenance import source_hash
from nacl.runs import Run
from nacl.sweep import papermill, sweep

ROOT = PROJECT_ROOT
PAGES = ROOT / "build" / "pages"
STAGE = ROOT / "build" / "book"
HTML = ROOT / "_build" / "html"


def main() -> int:
    """Build the book; the exit status is 1 where a run, a page or the book failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="phantom", help="'phantom', 'brain', or what `nacl data prepare` made")
    parser.add_argument("--profile", default="quick", choices=PROFILES)
    parser.add_argument("--jobs", type=int, default=max(1, min(3, available_cores() // 2)), help="runs at a time")
    options = parser.parse_args()
    try:
        source = resolve_data(options.data)
    except (FileNotFoundError, ValueError) as error:
        print(f"book: {error}", file=sys.stderr)
        return 2

    start = time.monotonic()
    # as seen from the root, so that no page shows where this checkout lies
    data = source if isinstance(source, str) else os.path.relpath(source, ROOT)
    runs = plan("main", profile=options.profile, data=data)
    print(f"[1/4] Runs: {len(runs)} of the grid 'main', profile '{options.profile}', data {data}", flush=True)
    outcomes = sweep(runs, jobs=options.jobs, retry_failed=True)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(f"book: {outcome.run.loss} failed: {outcome.error}\n  see {outcome.notebook}", file=sys.stderr)
    if failed:
        return 1

    print("[2/4] Pages: the notebooks, executed by papermill", flush=True)
    pages = {}
    results = [(outcome.folder / "run.json").read_text() for outcome in outcomes]
    for name, parameters in tqdm(page_parameters(runs[-1], data, options.profile).items(), unit="page"):
        pages[name], error = execute_page(name, parameters, data, results)
        if error:
            print(f"book: notebooks/{name}.ipynb failed: {error}\n  see {pages[name]}", file=sys.stderr)
            return 1

    print("[3/4] Staging", flush=True)
    key = stage(pages)
    stamp = HTML / ".key"
    if stamp.exists() and stamp.read_text() == key:
        print("[4/4] Book: nothing changed", flush=True)
    else:
        print("[4/4] Book: jupyter-book, warnings are errors", flush=True)
        if not build(key):
            return 1
    print(f"Done in {time.monotonic() - start:.0f} s. The first page: file://{HTML}/index.html", flush=True)
    return 0


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
    return {path.stem: given.get(path.stem, {}) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}


def execute_page(name: str, parameters: dict[str, object], data: str, results: list[str]) -> tuple[Path, str]:
    """The executed notebook, from the cache or made now, and what it died of if it did.

    `results` are the records of the runs that the pages show.
    """
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    parts = [notebook.read_text(), source_hash(), dataset_fingerprint(data), json.dumps(parameters), *results]
    page = PAGES / f"{name}-{hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()}.ipynb"
    if page.exists():
        return page, ""
    PAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PAGES) as scratch:
        output = Path(scratch) / page.name
        error = papermill(notebook, output, parameters, {})
        page = page.with_name(f"failed-{name}.ipynb") if error else page
        if output.exists():
            output.replace(page)
    return page, error


def stage(pages: dict[str, Path]) -> str:
    """Lay out the book's source, with the executed notebooks, in the stage folder; a hash of all of it."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(ROOT / "book", STAGE / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, STAGE / name)
    (STAGE / "book" / "_speed.md").write_text(speed_table(ROOT / "benchmarks" / "losses-cpu.csv"))
    (STAGE / "book" / "_metrics.md").write_text(metrics_table(ROOT / "benchmarks" / "metrics-cpu.csv"))
    (STAGE / "book" / "_family.md").write_text(family())
    (STAGE / "book" / "_data.md").write_text(data_table(ROOT / "benchmarks" / "data-cpu.csv"))
    (STAGE / "book" / "_benchmarks.md").write_text(benchmarks_list())
    (STAGE / "book" / "_models.md").write_text(models_list())
    mathjax = next(f for f in files("sphinx-mathjax-offline") or [] if f.name == "tex-svg-full.js")
    vendor = STAGE / "book" / "_assets" / "vendor" / "mathjax"
    vendor.mkdir(parents=True)
    shutil.copy(mathjax.locate(), vendor / mathjax.name)
    (STAGE / "notebooks").mkdir()
    for name, page in pages.items():
        nbformat.write(dressed(nbformat.read(page, as_version=4)), STAGE / "notebooks" / f"{name}.ipynb")
    digest = hashlib.blake2b(source_hash().encode(), digest_size=16)  # the API page shows the package's docstrings
    for file in sorted(STAGE.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(STAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def dressed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as a page: injected parameters folded away, what papermill noted of time and place left out."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")
    return notebook


def build(key: str) -> bool:
    """Build the pages beside the old ones, then put them in their place; whether that went without a warning."""
    out = ROOT / "build" / "out"
    shutil.rmtree(out, ignore_errors=True)
    book = str(Path(sys.executable).parent / "jupyter-book")
    command = [book, "build", str(STAGE), "--path-output", str(out), "-W", "-n", "--keep-going", "--all", "-q"]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        print("book: jupyter-book found faults, named above; the pages built before are untouched.", file=sys.stderr)
        return False
    built = out / "_build" / "html"
    (built / ".key").write_text(key)
    shutil.rmtree(HTML, ignore_errors=True)
    HTML.parent.mkdir(exist_ok=True)
    built.replace(HTML)
    return True


if __name__ == "__main__":
    sys.exit(main())
