"""The built pages as files: links, pictures, and what they would ask of other hosts."""

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from links import github_repository

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]


class _Page(HTMLParser):
    """What a page links to and loads, and its ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.loads, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs.get("id"), attrs.get("name")}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag in ("script", "img", "iframe") and attrs.get("src"):
            self.loads.append(attrs["src"])
        if tag == "link" and attrs.get("rel") not in ("canonical", "search", "index", "next", "prev"):
            self.loads.append(attrs.get("href", ""))


@pytest.fixture(scope="module")
def pages():
    assert (HTML / "index.html").exists(), "no book in _build/html: `make book` builds it"
    return {name: _Page((HTML / f"{name}.html").read_text()) for name in PAGES}


def test_every_chapter_is_in_the_contents():
    sources = {f"notebooks/{p.stem}" for p in (ROOT / "notebooks").glob("*.ipynb")}
    sources |= {f"book/{p.stem}" for p in (ROOT / "book").glob("*.md")}
    assert set(PAGES) == sources


def test_pages_load_nothing_from_another_host(pages):
    for name, page in pages.items():
        assert not [url for url in page.loads if urlsplit(url).netloc], name


def test_local_links_lead_somewhere(pages):
    for name, page in pages.items():
        for url in page.links + page.loads:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (HTML / f"{name}.html").parent / unquote(parts.path) if parts.path else HTML / f"{name}.html"
            assert target.resolve().exists(), (name, url)
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in _ids(target.resolve()), (name, url)


def test_notebooks_can_be_downloaded_and_run_elsewhere(pages):
    elsewhere = ["https://mybinder.org", "https://colab.research.google.com"] if github_repository(ROOT) else []
    for name in (name for name in pages if name.startswith("notebooks/")):
        assert f"../_sources/{name}.ipynb" in pages[name].links
        assert [site for site in elsewhere if not any(link.startswith(site) for link in pages[name].links)] == []


@functools.cache
def _ids(file: Path) -> set[str]:
    return _Page(file.read_text()).ids


def test_no_page_shows_where_this_checkout_lies(pages):
    for name in pages:
        assert str(ROOT) not in (HTML / f"{name}.html").read_text(), name


def test_no_reference_was_left_open(pages):
    for name in pages:
        text = re.sub(r"<(script|style|pre|code).*?</\1>", "", (HTML / f"{name}.html").read_text(), flags=re.DOTALL)
        assert "{cite}" not in text
        assert "{doc}" not in text
        assert "{prf:ref}" not in text
        assert not re.search(r"\[\?\]", text)


def test_the_book_is_small():
    assert sum(f.stat().st_size for f in HTML.rglob("*") if f.is_file()) < 25e6
