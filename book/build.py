"""Runs, pages, book: what `make book` does once the environment is there.

Nothing is done twice. A run is known by its identity; a page by its notebook's code, its parameters, the package's
source and the data's content; the book by all that goes into it.
"""

import argparse
import os
import sys
import time
from dataclasses import replace

from execute import PageError, execute_pages, page_parameters
from links import BRANCH, FOLDER, commit_of, github_repository, write_colab
from staging import stage
from website import build_website, is_built, reads_all

from nacl._parallel import available_cores
from nacl.data import resolve_data
from nacl.data.load import PROJECT_ROOT as ROOT
from nacl.grids import PROFILES, plan
from nacl.runs import Run
from nacl.sweep import Outcome, sweep

STAGE = ROOT / "build" / "book"
OUT = ROOT / "build" / "out"
HTML = ROOT / "_build" / "html"
ABLATIONS = ("penalty-weight", "margin", "kernel-size", "prior", "model", "share")  # of the chapters 12 to 15


def main() -> int:
    """Build the book; the exit status is 1 where a run, a page or the book failed."""
    options = arguments()
    try:
        source = resolve_data(options.data)
    except (FileNotFoundError, ValueError) as error:
        return failed(str(error), status=2)

    start = time.monotonic()
    # as seen from the root, so that no page shows where this checkout lies
    data = source if isinstance(source, str) else os.path.relpath(source, ROOT)
    runs = plan("main", profile=options.profile, data=data)
    ablations = ablation_runs(options.profile, data)
    grids = f"grid 'main' and {len({*ablations} - {*runs})} of ablations" if ablations else "grid 'main'"
    print(f"[1/4] Runs: {len(runs)} of the {grids}, profile '{options.profile}', data {data}", flush=True)
    jobs = options.jobs or max(1, min(3, available_cores() // 2))
    outcomes = sweep([*runs, *ablations], jobs=jobs, retry_failed=True)
    if any(outcome.error for outcome in outcomes):
        return failed("\n".join(told(outcome) for outcome in outcomes if outcome.error))

    print("[2/4] Pages: the notebooks, executed by papermill", flush=True)
    results = [(outcome.folder / "run.json").read_text() for outcome in outcomes[: len(runs)]]
    parameters = page_parameters(runs[-1], data, options.profile)
    try:
        pages = execute_pages(parameters, data, results, jobs=options.jobs or available_cores())
    except PageError as error:
        return failed(str(error))

    print("[3/4] Staging", flush=True)
    stage(pages, STAGE)
    if is_built(STAGE, HTML):
        print("[4/4] Book: nothing changed", flush=True)
    else:
        which = "all pages" if reads_all(STAGE, OUT) else "the pages that changed"
        print(f"[4/4] Book: jupyter-book reads {which}, warnings are errors", flush=True)
        if not build_website(STAGE, OUT, HTML):
            return failed("jupyter-book found faults, named above; the pages built before are untouched.")
    repository = github_repository(ROOT)
    if repository:
        write_colab(ROOT / "notebooks", HTML / FOLDER, repository, commit_of(ROOT) or BRANCH)
    print(f"Done in {time.monotonic() - start:.0f} s. The first page: file://{HTML}/index.html", flush=True)
    return 0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="phantom", help="'phantom', 'brain', or what `nacl data prepare` made")
    parser.add_argument("--profile", default="quick", choices=PROFILES)
    parser.add_argument("--jobs", type=int, help="runs, and then notebooks, at a time (default: by the cores)")
    return parser.parse_args()


def ablation_runs(profile: str, data: str) -> list[Run]:
    """What the chapters 12 to 15 would train one after the other while their pages wait, if the profile is full.

    In other builds these chapters have a profile that trains in seconds, less than a process of its own takes to start.
    """
    if profile != "full":
        return []
    runs = [run for grid in ABLATIONS for run in plan(grid, profile=profile, data=data)]
    # as many steps for a tenth of the patients as for all, see chapter 15
    longer = [replace(run, epochs=round(run.epochs / run.share)) for run in runs if run.share == 0.1]
    return list(dict.fromkeys([*runs, *longer]))


def told(outcome: Outcome) -> str:
    """What became of a run that failed."""
    return f"{outcome.run.loss} failed: {outcome.error}\n  see {outcome.notebook}"


def failed(message: str, status: int = 1) -> int:
    """Say so; the exit status."""
    print(f"book: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
