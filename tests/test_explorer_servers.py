"""The explorers with a kernel: in JupyterLab, where Python sees and sets their values, and served by Voila."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import nbformat
import pytest
from chromium import DESK, PHONE, barriers, launched, new_tab
from conftest import PROJECT

from nacl.cli.explore import NAMES

PATIENCE = 120_000  # milliseconds that a kernel may take to start on a busy machine


@contextmanager
def serving(command, address, folder):
    """A server, once it answers, until the test is over."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "JUPYTER_CONFIG_DIR": str(folder / "jupyter")}
    log = (folder / "log").open("w")
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT) as server:
        try:
            end = time.monotonic() + PATIENCE / 1000
            while not _answers(address):
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.3)
            yield
        finally:
            server.terminate()
            server.wait(30)
            log.close()


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


def test_voila_shows_all_of_them_and_they_move(browser, tmp_path):
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "nacl", "explore", "--no-browser", f"--port={port}"]
    with serving(command, f"{address}static/", tmp_path):
        tab = new_tab(browser, allowed=f"{address}")
        tab.goto(address, wait_until="domcontentloaded", timeout=PATIENCE)
        tab.locator(".nacl-explorer").nth(len(NAMES) - 1).wait_for(timeout=PATIENCE)
        assert tab.locator(".nacl-explorer").count() == len(NAMES)
        slider = tab.get_by_label("Kernel size k").first
        slider.focus()
        slider.press("ArrowRight")
        tab.get_by_text("window of 5 × 5").wait_for()
        fits_and_shuts_nobody_out(tab)
        tab.context.close()


def fits_and_shuts_nobody_out(tab):
    """The explorers among what a server has on its page, wide and narrow, under its light theme and its dark one."""
    grounds = set()
    for width, light in ((DESK, "true"), (PHONE, "false")):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.evaluate("light => { document.body.dataset.jpThemeLight = light }", light)
        explorers = tab.locator(".nacl-explorer")
        grounds.add(explorers.first.evaluate("el => getComputedStyle(el).backgroundColor"))
        assert explorers.first.evaluate("el => el.scrollWidth <= el.clientWidth")
        assert barriers(tab, ".nacl-explorer") == []
    assert len(grounds) == 2


@pytest.fixture
def lab(browser, tmp_path):
    """A notebook in JupyterLab, executed cell by cell from the keyboard."""
    if shutil.which("jupyter-lab", path=os.path.dirname(sys.executable)) is None:
        pytest.skip("no JupyterLab in this environment")
    cells = [
        "from nacl import explorer\nwidget = explorer.neighbourhood(kernel_size=7)\nwidget",
        "widget.kernel_size = 9",
        "print('Python sees', widget.kernel_size, widget.map, widget.labels[tuple(widget.cursor)])",
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata.kernelspec = kernel
    nbformat.write(book, tmp_path / "try.ipynb")
    port = free_port()
    options = ["--no-browser", "--allow-root", "--IdentityProvider.token=", f"--ServerApp.port={port}"]
    options += ["--ServerApp.ip=127.0.0.1", "--LabApp.news_url=", "--LabApp.collaborative=False"]
    address = f"http://127.0.0.1:{port}/"
    with serving([sys.executable, "-m", "jupyterlab", *options], f"{address}api", tmp_path):
        tab = new_tab(browser, allowed=address)
        tab.goto(f"{address}lab/tree/try.ipynb", wait_until="domcontentloaded", timeout=PATIENCE)
        tab.locator(".jp-Notebook .jp-CodeCell").nth(2).wait_for(timeout=PATIENCE)
        tab.get_by_text("| Idle").wait_for(timeout=PATIENCE)  # the kernel is there
        yield tab
        tab.context.close()


def test_in_jupyterlab_python_sees_and_sets_the_values(lab):
    lab.locator(".jp-CodeCell .cm-content").first.click()
    lab.keyboard.press("Shift+Enter")
    lab.get_by_text("window of 7 × 7").wait_for(timeout=PATIENCE)
    lab.keyboard.press("Shift+Enter")
    lab.get_by_text("window of 9 × 9").wait_for(timeout=PATIENCE)
    slider = lab.get_by_label("Kernel size k").first
    slider.focus()
    slider.press("ArrowRight")
    lab.get_by_text("window of 11 × 11").wait_for()
    canvas = lab.locator("canvas[role=application]").first
    canvas.focus()
    for key in ("ArrowUp", "1", " "):  # which JupyterLab has uses of its own for
        canvas.press(key)
    lab.locator(".jp-CodeCell .cm-content").nth(2).click()
    lab.keyboard.press("Shift+Enter")
    lab.get_by_text("Python sees 11 painted 1").wait_for(timeout=PATIENCE)
    lab.keyboard.press("Control+b")  # JupyterLab's list of files would leave a phone no room
    fits_and_shuts_nobody_out(lab)
