"""One widget for all explorers: live where there is a kernel, and the same script without one where there is none."""

import html
import json
from functools import cache
from importlib.resources import files
from pathlib import Path

import anywidget
import traitlets

from nacl._checks import expectation
from nacl._files import write_text

PARTS = ("arithmetic", "controls", "charts", "pictures", "neighbourhood", "penalty", "sweep", "training", "start")
"""The script, in the order in which its parts need each other."""


@cache
def style() -> str:
    """How explorers look."""
    return _front("explorer.css")


@cache
def script() -> str:
    """An expression of JavaScript: an object with `render` and `standIn`, and nothing left in the page's own names."""
    parts = "\n".join(_front(f"{part}.js") for part in PARTS)
    return f'(() => {{\n"use strict";\n{parts}\nreturn {{ render, standIn }};\n}})()'


def _front(name: str) -> str:
    return files("nacl.explorer").joinpath("front", name).read_text(encoding="utf-8")


class Explorer(anywidget.AnyWidget):
    """What the explorers share. Their values are traits, seen and set from Python; `html` and `save` need no kernel.

    Attributes:
        kind: which part of the script draws it.
    """

    kind = traitlets.Unicode().tag(sync=True)
    title = ""

    def __init__(self, **values: object) -> None:
        self._esm = f"const explorer = {script()};\nexport default {{ render: explorer.render }};\n"
        self._css = style()
        for name in values:
            if name not in self.values():
                raise TypeError(expectation("value", f"to be one of {', '.join(self.values())}", repr(name)))
        super().__init__(**values)

    @classmethod
    def values(cls) -> list[str]:
        """The names of what an explorer holds."""
        shared = {"kind", *anywidget.AnyWidget.class_traits()}
        return sorted(name for name in cls.class_traits(sync=True) if name not in shared and name[0] != "_")

    def state(self) -> dict[str, object]:
        """The values as JSON has them."""
        names = ["kind", *self.values()]
        return {name: _plain(getattr(self, name)) for name in names}

    def html(self) -> str:
        """A fragment of a page that holds all it needs: it asks no other address and no kernel."""
        state = json.dumps(self.state(), ensure_ascii=False).replace("<", "\\u003c")
        start = "const place = document.currentScript.previousElementSibling;"
        start += f"const explorer = {script()};"
        start += f"explorer.render({{ model: explorer.standIn({state}), el: place }});"
        return f"<style>{style()}</style><div></div><script>(() => {{ {start} }})();</script>"

    def save(self, path: str | Path) -> Path:
        """Write a page with this explorer.

        Raises:
            OSError: the file can't be written.
        """
        return save_page([self], path)

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**options)
        return {**data, "text/plain": f"{type(self).__name__}()", "text/html": self.html()}, metadata


def save_page(explorers: list[Explorer], path: str | Path) -> Path:
    """Write one page with several explorers, in light or dark as the reader's system is.

    Raises:
        OSError: the file can't be written.
    """
    title = html.escape(", ".join(explorer.title for explorer in explorers))
    theme = 'const dark = matchMedia("(prefers-color-scheme: dark)").matches;'
    theme += 'document.documentElement.dataset.theme = dark ? "dark" : "light";'
    look = (
        "body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 8px; max-width: 980px; "
        'background: #ffffff; color: #1c1c1c } html[data-theme="dark"] body { background: #16181c; color: #eeeeee }'
    )
    sections = "".join(f"<h2>{html.escape(explorer.title)}</h2>{explorer.html()}" for explorer in explorers)
    write_text(
        Path(path),
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{look}</style>'
        f"<script>{theme}</script></head><body><main><h1>Explorers of neighbour-aware calibration</h1>{sections}"
        "</main></body></html>\n",
    )
    return Path(path)


def _plain(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else value


def number(default: float, low: float, high: float, help: str) -> traitlets.CFloat:
    """A trait of a number on a slider; numbers of numpy and torch are taken too."""
    return traitlets.CFloat(default, help=help).tag(sync=True, low=low, high=high)


def whole(default: int, low: int, high: int, help: str) -> traitlets.Int:
    """A trait of a whole number on a slider."""
    return traitlets.Int(default, help=help).tag(sync=True, low=low, high=high)


def checked_range(proposal: traitlets.Bunch) -> float:
    """The value, once found to be on its slider.

    Raises:
        ValueError: it is not.
    """
    trait, value = proposal.trait, proposal.value
    low, high = trait.metadata["low"], trait.metadata["high"]
    if not low <= value <= high:
        raise ValueError(expectation(trait.name, f"on its slider, from {low:g} to {high:g}", value))
    return value
