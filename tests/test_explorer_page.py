"""The explorers in a page without a kernel: mouse, touch and keys, light and dark, wide and narrow, http and file."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from chromium import DESK, PHONE, barriers, launched, new_tab

from nacl import explorer
from nacl.cli.explore import NAMES, SWEEP
from nacl.theory import svls_softening

NEIGHBOURHOOD, PENALTY, TRAINING = range(3)
HASH = "el => { const c = el.getContext('2d'); return c.getImageData(0, 0, el.width, el.height).data.join('') }"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorers")
    made = [explorer.neighbourhood(), explorer.penalty(), explorer.training(SWEEP)]
    explorer.save_page(made, folder / "all.html")
    labels = np.zeros((8, 8), int)
    labels[:, 4:] = 1
    logits = np.stack([4.0 * (labels == 0), 4.0 * (labels == 1)])
    explorer.save_page([explorer.neighbourhood(labels, logits, class_names=["air", "bone"])], folder / "own.html")
    explorer.save_page([explorer.neighbourhood(np.zeros((500, 500), int))], folder / "huge.html")
    tall = np.zeros((90, 3), int)
    tall[3] = 255
    explorer.save_page([explorer.neighbourhood(tall)], folder / "tall.html")
    return folder


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def opened(browser, folder):
    """Open one of the pages; at the end nothing may have gone wrong in it."""
    tabs = []

    def _opened(name="all", width=DESK, **options):
        tab = new_tab(browser, width, **options)
        tab.goto(f"file://{folder}/{name}.html")
        tabs.append(tab)
        return tab

    yield _opened
    for tab in tabs:
        assert tab.complaints == []
        assert tab.locator(".nacl-trouble:not(:empty)").count() == 0
        tab.context.close()


def _explorer(tab, place):
    return tab.locator(".nacl-explorer").nth(place)


def _summary(tab, place):
    frame(tab)
    return _explorer(tab, place).locator(".nacl-summary").inner_text()


def frame(tab):
    """Wait until what changed has been drawn."""
    tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_the_page_fits_and_shuts_nobody_out(opened, width, theme):
    tab = opened(width=width, color_scheme=theme)
    assert tab.evaluate("document.documentElement.dataset.theme") == theme
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert _explorer(tab, PENALTY).evaluate("el => el.scrollWidth <= el.clientWidth")
    assert barriers(tab) == []


def test_the_page_over_http_is_the_same(browser, folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    tab = new_tab(browser, allowed=address)
    tab.goto(f"{address}all.html")
    assert tab.locator(".nacl-explorer").count() == len(NAMES)
    assert "changes the label of" in _summary(tab, NEIGHBOURHOOD)
    assert [complaint for complaint in tab.complaints if "favicon" not in complaint and "404" not in complaint] == []
    server.shutdown()
    server.server_close()
    tab.context.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_a_slider_moves_by_keys_and_says_its_value(opened):
    tab = opened()
    slider = tab.get_by_label("Kernel size k").first
    before = _summary(tab, NEIGHBOURHOOD)
    slider.focus()
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "5 × 5"
    assert _summary(tab, NEIGHBOURHOOD) != before
    for _ in range(12):
        slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "15 × 15"


def test_a_slider_moves_by_mouse(opened):
    tab = opened()
    slider = tab.get_by_label("Penalty weight λ").first
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    tab.mouse.click(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    assert float(slider.get_attribute("aria-valuetext")) > 5
    assert "confidence 0.475" in _summary(tab, PENALTY)
    assert tab.get_by_label("Width δ of Huber").is_disabled()
    tab.get_by_label("Penalty", exact=True).select_option(label="Huber")
    assert tab.get_by_label("Width δ of Huber").is_enabled()


def test_the_penalty_says_where_its_loss_is_lowest(opened):
    tab = opened()
    assert "the logit 4.76" in _summary(tab, PENALTY)
    assert "confidence 0.975 (CE 1.000, SVLS 1.000)" in _summary(tab, PENALTY)
    noise = tab.get_by_label("Label noise")
    noise.fill("0.2")
    assert "where the labels say 0.800" in _summary(tab, PENALTY)


def _pixel(tab, row, column, side):
    """The middle of a cell of the canvas to paint on, in the page."""
    canvas = _explorer(tab, NEIGHBOURHOOD).locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    return box["x"] + (column + 0.5) * box["width"] / side, box["y"] + (row + 0.5) * box["height"] / side


def _tables(tab):
    """Those of the pixel and of the classes."""
    return _explorer(tab, NEIGHBOURHOOD).locator("table")


def _label_at(tab):
    """The class in whose row of the table the label is 1."""
    frame(tab)
    lines = _tables(tab).first.locator("tbody tr").all()
    (own,) = [line for line in lines if line.locator("td").first.inner_text() == "1"]
    return own.locator("th").inner_text()


def test_labels_are_painted_by_mouse(opened):
    tab = opened("own")
    tab.mouse.move(*_pixel(tab, 2, 1, 8))
    assert _label_at(tab) == "air"
    tab.mouse.down()
    tab.mouse.move(*_pixel(tab, 2, 2, 8))
    tab.mouse.up()
    assert _label_at(tab) == "bone"
    tab.mouse.move(*_pixel(tab, 2, 1, 8))
    assert _label_at(tab) == "bone"
    assert tab.get_by_label("Label map", exact=True).locator("option:checked").inner_text() == "painted"
    tab.get_by_label("Label map", exact=True).select_option(label="yours")
    tab.mouse.move(*_pixel(tab, 2, 1, 8))
    assert _label_at(tab) == "air"


def test_labels_are_painted_by_touch(opened):
    tab = opened("own", PHONE, has_touch=True)
    tab.touchscreen.tap(*_pixel(tab, 6, 0, 8))
    assert _label_at(tab) == "bone"


def test_labels_are_painted_by_keys(opened):
    tab = opened("own")
    canvas = tab.locator("canvas").first
    canvas.focus()
    assert "Row 4, column 4: bone" in canvas.get_attribute("aria-label")
    canvas.press("ArrowUp")
    canvas.press("0")
    canvas.press(" ")
    frame(tab)
    assert "Row 3, column 4: air" in canvas.get_attribute("aria-label")
    for _ in range(9):
        canvas.press("ArrowLeft")
    frame(tab)
    assert "Row 3, column 0: air" in canvas.get_attribute("aria-label")


def test_the_numbers_of_a_pixel_are_those_of_the_formulas(opened):
    tab = opened("own")
    tab.mouse.move(*_pixel(tab, 4, 4, 8))
    frame(tab)
    rows = [line.locator("td").all_inner_texts() for line in _tables(tab).first.locator("tbody tr").all()]
    # label, count, tau, tau in SVLS, SVLS label, logit, softmax, distance
    edge, corner = 1.0, np.exp(-0.5)
    ring = (edge + 2 * corner) / (4 * edge + 4 * corner)
    expected = [[0, 3, 1 / 3, ring, ring / 2, 0, 0.018, 1 / 3], [1, 6, 2 / 3, 1 - ring, 1 - ring / 2, 4, 0.982, 10 / 3]]
    np.testing.assert_allclose(np.array(rows, float), expected, atol=6e-3)
    assert "1.833" in tab.locator(".nacl-caption").first.inner_text()
    tab.get_by_label("Label map", exact=True).select_option(label="phantom slice")
    frame(tab)
    assert "logit" not in _tables(tab).first.inner_text()
    tab.get_by_label("Label map", exact=True).select_option(label="yours")
    frame(tab)
    assert "logit" in _tables(tab).first.inner_text()


def test_the_band_is_told_class_by_class(opened):
    tab = opened()
    tab.get_by_label("Label map", exact=True).select_option(label="thin vessel")
    frame(tab)
    rows = [line.locator("td").all_inner_texts() for line in _tables(tab).nth(1).locator("tbody tr").all()]
    vessel = torch.from_numpy(explorer.neighbourhood(map="thin vessel").labels)[None]
    softened = svls_softening(vessel, 2)
    for k, (pixels, band, kept) in enumerate(rows):
        own = softened[vessel == k]
        assert int(pixels) == len(own)
        assert band == f"{100 * (own > 1e-9).double().mean():.1f}%"
        assert float(kept) == pytest.approx(1 - own.mean().item(), abs=6e-4)


def test_a_tall_map_with_many_classes_stays_small(opened):
    tab = opened("tall")
    assert _explorer(tab, NEIGHBOURHOOD).bounding_box()["height"] < 900
    assert _tables(tab).first.locator("tbody th").all_inner_texts() == ["class 0", "class 255"]


def test_every_map_and_every_prior_is_drawn(opened):
    tab = opened()
    pictures = _explorer(tab, NEIGHBOURHOOD).locator("canvas")
    maps = tab.get_by_label("Label map", exact=True)
    seen = set()
    for name in maps.locator("option").all_inner_texts():
        maps.select_option(label=name)
        frame(tab)
        seen.add(pictures.nth(1).evaluate(HASH))
    assert len(seen) == 5
    priors = tab.get_by_label("Prior τ of NACL")
    seen = set()
    for name in priors.locator("option").all_inner_texts():
        priors.select_option(label=name)
        frame(tab)
        seen.add(pictures.nth(1).evaluate(HASH))
    assert len(seen) == 6  # on noise all differ


def test_a_huge_map_says_what_is_shown(opened):
    tab = opened("huge")
    assert "shown by 1 in 6 of its rows and columns, 84 × 84" in tab.locator(".nacl-note").inner_text()
    assert "here it is cross-entropy" in _summary(tab, NEIGHBOURHOOD)


def test_trained_networks_follow_the_sliders(opened):
    tab = opened()
    sweep = explorer.read_sweep(SWEEP)
    nacl = [run for run in sweep["runs"] if run["loss"] == "nacl"]
    summary = _summary(tab, TRAINING)
    own = next(run for run in nacl if (run["penalty_weight"], run["kernel_size"]) == (0.1, 3))
    assert f"Dice {sweep['groups'][own['group']]['scores']['dice'][0]:.3f}" in summary
    weight = tab.get_by_label("NACL’s weight λ")
    weight.focus()
    weight.press("End")
    assert "NACL, λ = 3, k = 3" in _summary(tab, TRAINING)
    tab.get_by_label("Seed").select_option(label="1")
    own = next(r for r in nacl if (r["penalty_weight"], r["kernel_size"], r["seed"]) == (3.0, 3, 1))
    assert f"error {own['scores']['ece_all'][0]:.4f}" in _summary(tab, TRAINING)
    mean, low, high = own["scores"]["dice"]
    assert tab.get_by_text(f"{mean:.3f} ({low:.3f}–{high:.3f})").count() == 1
    tab.get_by_label("Method").select_option(label="SVLS")
    assert _summary(tab, TRAINING).startswith("SVLS, k = 3: Dice")


def test_a_value_that_can_not_be_drawn_is_told_and_the_page_goes_on(browser, folder):
    tab = new_tab(browser)
    sweep = explorer.read_sweep(SWEEP)
    kept = [run for run in sweep["runs"] if run["loss"] != "nacl" or run["penalty_weight"] != 0.3]
    kept += [run for run in sweep["runs"] if (run["penalty_weight"], run["kernel_size"]) == (0.3, 9)]
    explorer.save_page([explorer.training({**sweep, "runs": kept})], folder / "gaps.html")
    tab.goto(f"file://{folder}/gaps.html")
    weight = tab.get_by_label("NACL’s weight λ")
    weight.focus()
    weight.press("ArrowRight")
    frame(tab)
    assert "the sweep has no run of NACL, λ = 0.3, k = 3" in tab.locator(".nacl-trouble").inner_text()
    weight.press("ArrowRight")
    frame(tab)
    assert tab.locator(".nacl-trouble").inner_text() == ""
    tab.context.close()
