"""The built pages in Chromium, with every other address blocked."""

import shutil
from pathlib import Path

import pytest
from test_book import HTML, PAGES

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


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    assert (HTML / "index.html").exists(), "no book in _build/html: `make book` builds it"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open a page; its complaints are collected in `page.complaints`."""
    contexts = []

    def _visit(name: str, width: int):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url}"))
        context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        page.goto(f"file://{Path(HTML)}/{name}.html", wait_until="load")
        page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
        return page

    yield _visit
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_page_has_no_complaint_and_fits(visit, name, width):
    page = visit(name, width)
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    assert page.evaluate(broken) == []
    assert page.locator("h1:visible").count() == 1  # the theme keeps a second one for print


def test_formulas_are_drawn(visit):
    page = visit("notebooks/06_svls", 1280)
    assert page.locator("mjx-container svg").count() > 40
    assert page.locator("mjx-merror").count() == 0
    assert page.locator(".math:not(:has(mjx-container))").count() == 0


def test_solutions_are_folded_and_open(visit):
    page = visit("notebooks/06_svls", 1280)
    solution = page.locator("div.solution").first
    text = solution.get_by_text("Three of the eight neighbours")
    assert not text.is_visible()
    solution.locator("button.toggle-button, summary").first.click()
    text.wait_for(state="visible", timeout=2000)


def test_each_picture_is_shown_once(visit):
    page = visit("notebooks/09_train", 1280)
    assert page.locator(".cell_output img").count() == 4
    assert page.locator(".cell_output .stderr").count() == 0


def test_search_finds_the_theorem(visit):
    page = visit("search", 1280)
    page.goto(page.url + "?q=neighbours")
    page.locator("#search-results li").first.wait_for(timeout=5000)
    assert page.locator("#search-results a", has_text="SVLS").count() >= 1
