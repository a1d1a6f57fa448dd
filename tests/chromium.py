"""Chromium for tests, which see only what they are given: every other address is blocked."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK, PHONE, PAPER = 1280, 390, 680  # pixels; 680 are what margins of 15 mm leave of A4


@contextmanager
def launched() -> Iterator:
    """Chromium, where there is one."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


def new_tab(browser, width: int = DESK, allowed: str = "file:", **options):
    """A tab that reaches addresses which begin with `allowed` only; what goes wrong is in `tab.complaints`."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    context.route(lambda url: not url.startswith((allowed, "data:", "blob:")), lambda route: route.abort())
    tab = context.new_page()
    tab.complaints = []
    tab.on("console", lambda message: tab.complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.on("requestfailed", lambda request: tab.complaints.append(f"failed: {request.url}"))
    return tab


def barriers(tab, within: str | None = None, **options):
    """What axe-core finds that shuts readers out, in the page or `within` a part of it, as rule, place and reason."""
    from axe_playwright_python.sync_playwright import Axe

    place = {"exclude": [["dl.py ~ dl.py"]]}  # signatures after the first, a thousand and alike: a minute of looking
    if within is not None:
        place["include"] = [[within]]
    found = Axe().run(tab, place, {"resultTypes": ["violations"], "preload": False, **options}).response["violations"]
    return [(rule["id"], node["target"], node["failureSummary"]) for rule in found for node in rule["nodes"]]
