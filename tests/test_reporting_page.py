"""What the report says and shows: its words, its page, and its pictures."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from test_reporting import OPTIONS, posterior_cases, summary_of
from test_reporting_cases import made_case

from nacl.reporting import ReportCase, pictures, report, words
from nacl.reporting.cases import checked_case
from nacl.reporting.page import key_rows
from nacl.reporting.summary import Estimate
from nacl.reporting.temperature import Temperature


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report on six cases that are too sure, with its HTML."""
    found = report(posterior_cases(2.0), tmp_path_factory.mktemp("made") / "report.html")
    return found, found.path.read_text(encoding="utf-8")


# Words


def test_the_verdict_follows_the_numbers(made, tmp_path):
    assert re.match(r"Over-confident .*: the model is [\d.]+% sure there and right in [\d.]+%", made[0].verdict)
    modest = report(posterior_cases(0.5), tmp_path / "r.html")
    assert modest.verdict.startswith("Under-confident")
    assert "lower the penalty" in modest.path.read_text()
    right = report(posterior_cases(1.0, cases=12), tmp_path / "r.html")
    assert not right.verdict.startswith(("Over", "Under"))
    gap = right.cases["gap_all"]
    assert abs(gap.mean()) < words.SMALL


def test_advice_is_for_the_border_where_the_excess_is_there():
    summary = summary_of(posterior_cases(2.0))
    ways = {"all": "", "predicted_foreground": "over", "predicted_border": "over"}
    assert summary.excess_at_border() > words.MOSTLY
    assert [a.title for a in words._training(summary, ways)] == ["When you train again, calibrate the borders"]
    sure = np.array([0.99, 0.01])[:, None, None] * np.ones((9, 9))
    flat = summary_of([(name, sure, np.eye(9, dtype=int)) for name in "ab"])
    assert np.isnan(flat.estimate("ece_predicted_border").mean)
    assert words._training(flat, {"all": "over"} | dict.fromkeys(list(ways)[1:], ""))[0].title.startswith("It is too")


def test_a_region_that_is_wrong_both_ways_is_not_called_calibrated():
    probs = np.array([0.75, 0.25, 0.95, 0.05])  # right in 9 of 10, and in 8 of 10
    cases = []
    for name in "abc":
        first = np.repeat(np.where(np.arange(20) < 10, probs[0], probs[2])[None], 10, axis=0)
        label = np.zeros((10, 20), int)
        label[0, :10], label[:2, 10:] = 1, 1
        cases.append((name, np.stack([first, 1 - first]), label))
    summary = summary_of(cases)
    assert abs(summary.estimate("gap_all").mean) < 1e-6
    assert words.verdict(summary).startswith("Neither over- nor under-confident on the whole")
    assert "15.0 points" in words.verdict(summary)
    assert words.tone(summary) == "bad"


class Told:
    """A summary of which only some estimates are asked."""

    unit = "case"

    def __init__(self, **means):
        self.means = means

    def estimate(self, column, low=0, high=1):
        mean = self.means.get(column, 0.001)
        return Estimate(mean, mean - 0.02, mean + 0.02, 20)


@pytest.mark.parametrize("region", words.PLACES)
def test_the_region_of_the_largest_error_is_the_one_told(region):
    assert "ECE is at most 0.1 points" in words.verdict(Told())
    assert words.verdict(Told(**{f"ece_{region}": 0.05})).startswith("Neither")
    assert f"not calibrated {words.PLACES[region]}" in words.verdict(Told(**{f"ece_{region}": 0.05}))
    assert words.verdict(Told(**{f"gap_{region}": 0.015})).startswith(f"Perhaps over-confident {words.PLACES[region]}")
    assert words.verdict(Told(**{f"gap_{region}": -0.015})).startswith("Perhaps under-confident")


@pytest.mark.parametrize(
    ("nll", "border", "title", "part"),
    [
        ((-0.3, -0.5, -0.1), (-0.1, -0.2, 0.0), "Divide the logits by T = 1.50", "It softens"),
        ((-0.3, -0.5, -0.1), (0.1, 0.05, 0.2), "Divide the logits by T = 1.50", "It costs calibration at the border"),
        ((-0.3, -0.5, 0.1), (-0.1, -0.2, 0.0), "A temperature is not worth it", "no gain that can be told"),
        ((0.3, 0.1, 0.5), (-0.1, -0.2, 0.0), "A temperature is not worth it", "95% interval +0.1000 to +0.5000"),
    ],
)
def test_a_temperature_is_advised_where_it_helps(nll, border, title, part):
    level = Estimate(0.5, 0.4, 0.6, 9)
    gains = {
        name: (level, level, Estimate(*change, 9)) for name, change in [("nll", nll), ("ece_predicted_border", border)]
    }
    found = words._temperature(Temperature(1.5, (1.4, 1.6), gains, converged=True, pixels=9), "case")
    assert found.title == title
    assert part in found.text


def test_a_case_apart_is_pointed_at_and_pictured(tmp_path):
    cases = [(f"case {i}", *made_case(i)) for i in range(4)]
    assert words._cases(summary_of(cases)) == []
    name, probs, label = cases[2]
    cases[2] = (name, probs, (label + 1) % 3)
    assert [found.title for found in words._cases(summary_of(cases))] == ["Look at case 2"]
    html = report(cases, tmp_path / "r.html", worst=1).path.read_text()
    assert re.findall("Map of the errors of (.*?):", html) == ["case 2"]


# The page


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.headings, self.nameless, self.addresses, self.tags, self.ids = [], [], [], set(), []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if (tag == "img" and not attributes.get("alt")) or (tag == "svg" and not attributes.get("aria-label")):
            self.nameless.append(tag)
        self.addresses += [attributes[name] for name in ("src", "href", "action") if attributes.get(name)]
        self.ids += [attributes["id"]] if "id" in attributes else []


def test_the_page_asks_no_other_and_is_in_order(made):
    found, html = made
    page = Page(html)
    assert not re.search(r"https?:|@import|url\(", html)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "default-src 'none'" in html
    assert page.nameless == []
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.ids) == len(set(page.ids)) == 3
    assert len(html) < 400_000
    assert found.path.parent.joinpath("report.html").exists()
    assert [file.name for file in found.path.parent.iterdir()] == ["report.html"]


def test_names_from_outside_are_escaped(tmp_path):
    bad = "<script>alert(1)</script>\"'&"
    cases = [(bad, *made_case(0)), ("b", *made_case(1)), (f"{bad}!", np.zeros(3), np.zeros(2))]
    with pytest.warns(RuntimeWarning, match="is left out"):
        found = report(cases, tmp_path / "r.html", class_names=(bad, "<b>", "</style>"), title=bad, command=bad)
    html = found.path.read_text()
    assert "<script" not in html
    assert "<b>" not in html
    assert html.count("</style>") == 1
    assert html.count("&lt;script&gt;") > 5
    assert "script" not in Page(html).tags


def test_the_key_table_names_its_units():
    rows = {row.name: row for row in key_rows(summary_of([("a", *made_case(0)), ("b", *made_case(1), (1, 1, 1))]))}
    assert "mixes units" in rows["HD95, mm and voxels"].note
    assert rows["Dice"].pooled is None


def test_all_pixels_weigh_alike_in_the_last_column():
    small, large = ("a", *made_case(0, shape=(4, 5))), ("b", *made_case(1, shape=(40, 50), sharpness=5))
    summary = summary_of([small, large])
    rows = {row.name: row for row in key_rows(summary)}
    for name, column in [("NLL", "nll"), ("Brier score", "brier")]:
        one, two = summary.table[column]
        assert rows[name].pooled == pytest.approx((20 * one + 2000 * two) / 2020)
        assert rows[name].estimate.mean == pytest.approx((one + two) / 2)


# Pictures


def test_an_outline_goes_round_every_pixel_of_a_mask():
    mask = np.array([[1, 1, 0], [0, 1, 0]], bool)
    lines = set(re.findall(r"M\d+ \d+[HV]\d+", pictures.outline(mask)))
    assert lines == {"M0 0H2", "M0 1H1", "M1 2H2", "M0 0V1", "M1 1V2", "M2 0V2"}
    assert pictures.outline(np.zeros((3, 3), bool)) == ""


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_worst_slice_is_across_the_short_axis_and_has_the_most_errors(axis):
    label = np.zeros((5, 70, 80), int)
    label[:, 30:40, 30:42] = 1
    predicted = label.copy()
    predicted[3, 30:40, 30:42] = 0
    label, predicted = (np.moveaxis(x, 0, axis) for x in (label, predicted))
    probs = np.stack([predicted == 0, predicted == 1]) * 0.8 + 0.1
    case = checked_case(ReportCase("a", probs, label, (1.0, 2.0, 4.0), label * 7.0), **OPTIONS)
    shown = pictures.worst_slice(case, ignore_index=-100)
    assert (shown.number, shown.depth, shown.errors) == (3, 5, 120)
    assert shown.label.shape == (48, 48)
    assert shown.aspect == {0: 0.5, 1: 0.25, 2: 0.5}[axis]
    assert (shown.image == 7 * shown.label).all()
