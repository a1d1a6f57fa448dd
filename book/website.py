"""The book's source to pages, by Jupyter Book, where warnings are errors."""

import shutil
import subprocess
import sys
from pathlib import Path

from staging import content_of, frame_of

JUPYTER_BOOK = [str(Path(sys.executable).parent / "jupyter-book"), "build"]


def is_built(source: Path, html: Path) -> bool:
    """Whether the pages in `html` are those of the source as it is."""
    key = html / ".key"
    return key.exists() and key.read_text() == content_of(source)


def reads_all(source: Path, out: Path) -> bool:
    """Whether all pages have to be read: what concerns more than one changed, or the last build failed."""
    frame = out / ".frame"
    return not frame.exists() or frame.read_text() != frame_of(source)


def build_website(source: Path, out: Path, html: Path) -> bool:
    """Build the pages beside the old ones, then put them in their place; whether that went without a warning.

    Sphinx reads the pages that changed, or whose included files did, and takes the others as it read them before. It
    writes every page anew, for the numbers and titles of one are on others. Reading takes most of the time.

    Args:
        source: as staged.
        out: where Sphinx works and keeps what it read.
        html: the pages, touched only when all are there.
    """
    everything, frame = reads_all(source, out), out / ".frame"
    frame.unlink(missing_ok=True)  # so that after a failure all is read
    shutil.rmtree(out if everything else out / "_build" / "html", ignore_errors=True)
    options = ["-W", "-n", "--keep-going", "-q", *(["--all"] if everything else [])]
    command = [*JUPYTER_BOOK, str(source), "--path-output", str(out), *options]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        return False
    built = out / "_build" / "html"
    for map_of_source in built.rglob("*.map"):  # for who debugs the theme; a seventh of the book
        map_of_source.unlink()
    (built / ".key").write_text(content_of(source))
    frame.write_text(frame_of(source))
    shutil.rmtree(html, ignore_errors=True)
    html.parent.mkdir(parents=True, exist_ok=True)
    built.replace(html)
    return True
