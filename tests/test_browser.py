"""The built pages in Chromium, with every other address blocked."""

import pytest
from chromium import DESK, PAPER, PHONE, barriers, launched, new_tab
from test_book import HTML, PAGES

# What can be wrong with a page, each with the places where it is.
FAULTS = r"""() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const article = document.querySelector("article") ?? document.body;
  const visible = (element) => element.checkVisibility() && element.getClientRects().length > 0;
  const headings = all("h1, h2, h3, h4, h5, h6").filter(visible);
  const level = (heading) => (heading ? Number(heading.tagName[1]) : 0);
  const drawn = [...article.querySelectorAll(".cell_output img")].map((image) => image.src);
  const saysNothing = (alt) => alt.trim().split(/\s+/).length < 3 || /\.(png|svg|jpe?g|gif)\b/.test(alt);
  const raw = [];
  const words = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const text = words.currentNode;
    if (/\$\$|\\[([]|\\begin\{/.test(text.data) && !text.parentElement.closest("pre, code, script, mjx-container"))
      raw.push(text.data);
  }
  return {
    "wider than the window": document.documentElement.scrollWidth > innerWidth ? [innerWidth] : [],
    "broken pictures": all("img").filter((image) => image.complete && !image.naturalWidth).map((image) => image.src),
    "pictures without words": all("article img").filter((i) => saysNothing(i.alt)).map((i) => i.alt || i.src),
    "pictures shown twice": drawn.filter((source, place) => drawn.indexOf(source) !== place),
    "titles": headings.filter((h) => level(h) === 1).length === 1 ? [] : headings.map((h) => h.textContent),
    "jumps of headings": headings.filter((h, i) => level(h) > level(headings[i - 1]) + 1).map((h) => h.textContent),
    "errors in formulas": all("mjx-merror").map((error) => error.textContent),
    "formulas not drawn": all(".math:not(:has(mjx-container svg))").map((math) => math.textContent).concat(raw),
    "formulas cut off": all("span.math:has(svg)")
      .filter((m) => m.querySelector("svg").getBoundingClientRect().width > m.clientWidth + 1)
      .filter((m) => getComputedStyle(m).overflowX === "hidden").map((m) => m.textContent),
    "what programs complained of": all(".cell_output .stderr").map((output) => output.textContent.slice(0, 200)),
  };
}"""

# What of an article lies beyond the right edge, or in a box that would have to be scrolled.
CUT_OFF = """() => [...document.querySelectorAll("article :not(span.math, mjx-container *)")]
  .filter((e) => e.checkVisibility())
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1
      || (e.clientWidth && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== "visible"))
  .map((e) => e.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def browser():
    assert (HTML / "index.html").exists(), "no book in _build/html: `make book` builds it"
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def visit(browser):
    """Open a page, in one tab for each width and theme; its complaints are collected in `tab.complaints`."""
    tabs = {}

    def _visit(name, width, theme="light"):
        tab = tabs[width, theme] = tabs.get((width, theme)) or themed_tab(browser, width, theme)
        tab.emulate_media(media="print" if width == PAPER else "screen")
        tab.complaints.clear()
        tab.goto(f"file://{HTML}/{name}.html", wait_until="load")
        tab.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
        return tab

    return _visit


def themed_tab(browser, width, theme):
    tab = new_tab(browser, width)
    tab.context.add_init_script(f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{theme}')")
    return tab


def faults(tab):
    """What is wrong with a page, and where."""
    found = {"complaints": tab.complaints} | tab.evaluate(FAULTS)
    return {fault: places for fault, places in found.items() if places}


@pytest.mark.parametrize("name", [*PAGES, "search", "genindex"])
def test_page_works_on_a_desk_and_shuts_nobody_out(visit, name):
    tab = visit(name, DESK)
    assert faults(tab) == {}
    assert barriers(tab) == []


@pytest.mark.parametrize("name", PAGES)
def test_page_works_on_a_phone(visit, name):
    tab = visit(name, PHONE)
    assert faults(tab) == {}


@pytest.mark.parametrize("name", ["book/intro", "book/models", "notebooks/06_svls", "notebooks/11_compare"])
def test_page_has_contrast_in_the_dark(visit, name):
    tab = visit(name, DESK, "dark")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert barriers(tab, runOnly=["color-contrast"]) == []


@pytest.mark.parametrize("name", ["book/intro", "book/models", "notebooks/06_svls", "notebooks/11_compare"])
def test_page_fits_paper_with_nothing_cut_off_and_nothing_to_click(visit, name):
    tab = visit(name, PAPER)
    assert faults(tab) == {}
    assert tab.evaluate(CUT_OFF) == []
    tools = "button, summary, form, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-footer-content"
    assert [tool.evaluate("tool => tool.outerHTML") for tool in tab.locator(tools).all() if tool.is_visible()] == []


def test_solutions_and_formulas_are_on_paper(visit):
    tab = visit("notebooks/06_svls", PAPER)
    solutions = tab.locator("div.solution")
    assert solutions.count() > 1
    for solution in solutions.all():
        assert solution.locator("p").last.is_visible()
        assert solution.bounding_box()["height"] > 60
    assert tab.locator("div.math").count() > 10
    assert all(math.locator("svg").first.is_visible() for math in tab.locator("div.math").all())


def test_paper_is_white_where_the_screen_is_dark(visit):
    tab = visit("book/intro", DESK, "dark")
    tab.evaluate("addEventListener('beforeprint', () => { window.printed = document.documentElement.dataset.theme })")
    assert tab.pdf(format="A4").startswith(b"%PDF")
    assert tab.evaluate("[window.printed, document.documentElement.dataset.theme]") == ["light", "dark"]


def test_formulas_are_drawn(visit):
    assert visit("notebooks/06_svls", DESK).locator("mjx-container svg").count() > 40


def test_solutions_are_folded_and_open(visit):
    solution = visit("notebooks/06_svls", DESK).locator("div.solution").first
    text = solution.locator("p").last
    assert not text.is_visible()
    solution.locator("button.toggle-button").click()
    text.wait_for(state="visible", timeout=2000)


def test_pictures_of_a_run_are_shown(visit):
    assert visit("notebooks/09_train", DESK).locator(".cell_output img").count() == 4


def test_wide_tables_can_be_scrolled_by_keyboard(visit):
    tab = visit("notebooks/11_compare", PHONE)
    wide = "[...document.querySelectorAll('.cell_output > .output')].filter(e => e.scrollWidth > e.clientWidth)"
    assert tab.evaluate(f"{wide}.length") > 0
    assert tab.evaluate(f"{wide}.every(e => e.tabIndex === 0)")


def test_search_finds_the_theorem(visit):
    tab = visit("search", DESK)
    tab.goto(tab.url + "?q=neighbours")
    tab.locator("#search-results li").first.wait_for(timeout=5000)
    assert tab.locator("#search-results a", has_text="SVLS").count() >= 1
