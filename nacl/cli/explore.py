"""`nacl explore`: the explorers in a browser, without a notebook."""

import argparse
import signal
import socket
import tempfile
from pathlib import Path

from nacl._checks import check_choice, expectation, extra_needed
from nacl.cli._help import add_command
from nacl.data.load import PROJECT_ROOT

NAMES = ("neighbourhood", "penalty", "training")
SWEEP = PROJECT_ROOT / "results" / "phantom-explorer.json"

EXAMPLES = """\
examples:
  nacl explore                                          all explorers, served by Voila until Ctrl-C
  nacl explore neighbourhood --port 8900 --no-browser   one of them, on a machine without a browser
  nacl explore --out page.html                          a page that needs no server and no network
  nacl explore training --sweep runs --out sweep.json   what finished runs show, in one small file
  nacl explore training --sweep sweep.json              ... looked at

The runs of a folder must hold cross-entropy and may differ in loss, penalty weight, kernel size, margin and seed:
`nacl sweep explorer` trains such ones.
"""


def add_commands(commands) -> None:
    """Add explore to the parser's commands."""
    explore = add_command(commands, "explore", _explore, "move kernel size and weight and see it happen", EXAMPLES)
    names = f"{', '.join(NAMES)} (default: all that can be shown)"
    explore.add_argument("names", nargs="*", metavar="NAME", help=names)
    explore.add_argument("--sweep", type=Path, metavar="PATH", help="file or folder of runs, for training")
    explore.add_argument("--out", type=Path, metavar="FILE", help="write a page (.html) or a sweep (.json) instead")
    explore.add_argument("--port", type=int, default=8866, metavar="N", help="of the server (default: 8866)")
    explore.add_argument("--no-browser", action="store_true", help="don't open one")


def _explore(options: argparse.Namespace) -> int:
    for name in options.names:
        check_choice("NAME", name, NAMES)
    sweep = options.sweep or (SWEEP if SWEEP.exists() else None)
    names = list(dict.fromkeys(options.names)) or [name for name in NAMES if name != "training" or sweep]
    if "training" in names and sweep is None:
        remedy = "Give --sweep a file or a folder of runs"
        raise ValueError(expectation("--sweep", "for the explorer of trained networks", "none", remedy=remedy))
    if options.out is not None and options.out.suffix not in (".html", ".json"):
        raise ValueError(expectation("--out", "to end in .html or .json", options.out))
    with extra_needed("anywidget", "the explorers", extra="explore"):
        from nacl import explorer  # widgets, matplotlib and training are slow to import

    with tempfile.TemporaryDirectory() as folder:
        if "training" in names and sweep.is_dir():
            found = _collected(sweep)
            sweep = Path(folder) / "sweep.json"
            explorer.write_sweep(found, sweep)
        if options.out is None:
            return _serve(names, sweep, Path(folder), options)
        if options.out.suffix == ".json":
            if names != ["training"]:
                raise ValueError(expectation("NAME", "to be training where --out ends in .json", " ".join(names)))
            explorer.write_sweep(explorer.read_sweep(sweep), options.out)
        else:
            made = [getattr(explorer, name)(*([sweep] if name == "training" else [])) for name in names]
            explorer.save_page(made, options.out)
    print(f"wrote {options.out}")
    return 0


def _collected(folder: Path) -> dict[str, object]:
    from nacl.explorer import collect_sweep
    from nacl.results import load_result

    runs = sorted(file.parent for file in folder.glob("*/run.json"))
    if not runs:
        remedy = "Train some: nacl sweep explorer"
        raise ValueError(expectation("--sweep", "with finished runs", f"none in {folder}", remedy=remedy))
    return collect_sweep([load_result(run) for run in runs])


def _serve(names: list[str], sweep: Path | None, folder: Path, options: argparse.Namespace) -> int:
    """Voila with a notebook that shows the explorers, until it is ended."""
    with extra_needed("voila", "a server of the explorers", extra="explore"):
        import nbformat
        from voila.app import Voila
    _check_port(options.port)
    cells = [
        nbformat.v4.new_markdown_cell("# Explorers of neighbour-aware calibration"),
        nbformat.v4.new_code_cell("from pathlib import Path\n\nfrom nacl import explorer"),
    ]
    for name in names:
        argument = f"Path({str(sweep.resolve())!r})" if name == "training" else ""
        cells.append(nbformat.v4.new_code_cell(f"explorer.{name}({argument})"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = folder / "explorers.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), notebook)
    print(f"The explorers: http://127.0.0.1:{options.port}/ (Ctrl-C ends them)", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what ends a server ends its kernels too
    arguments = [str(notebook), f"--port={options.port}", "--Voila.ip=127.0.0.1"]
    Voila.launch_instance([*arguments, *(["--no-browser"] if options.no_browser else [])])
    return 0


def _check_port(port: int) -> None:
    """Voila would take another one, and the address that is told would be wrong."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise ValueError(expectation("--port", "that is free", port, str(error), "Choose another")) from error
