"""Every entry of the bibliography is cited, and every citation has its entry."""

import re

from conftest import PROJECT

BOOK = PROJECT / "book"


def test_what_is_cited_is_what_is_listed():
    listed = set(re.findall(r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(), flags=re.MULTILINE))
    pages = [*BOOK.glob("*.md"), *PROJECT.glob("notebooks/*.py"), *PROJECT.glob("nacl/data/benchmarks/*.py")]
    text = "\n".join(page.read_text() for page in pages)
    cited = {key for keys in re.findall(r"\{cite(?::\w+)?\}`([\w,\s]+)`", text) for key in re.split(r"[,\s]+", keys)}
    assert cited <= listed
    assert {key for key in listed if key not in text} == set()
