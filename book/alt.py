"""What a picture shows, in words, from a notebook's outputs to a page's `alt`."""

import nbformat
from nbformat import NotebookNode


def with_alt(notebook: NotebookNode) -> NotebookNode:
    """The notebook with the `alt` of each picture where MyST-NB looks for it: in the metadata of its cell.

    A cell has room for one, so the second picture of a cell, and what follows it, go to a cell that hides its code.
    """
    notebook.cells = [part for cell in notebook.cells for part in _one_picture_each(cell)]
    return notebook


def _one_picture_each(cell: NotebookNode) -> list[NotebookNode]:
    outputs = cell.get("outputs", [])
    pictures = [place for place, output in enumerate(outputs) if "image/png" in output.get("data", {})]
    if not pictures:
        return [cell]
    parts = [cell, *(_for_outputs(cell, place) for place in range(1, len(pictures)))]
    cuts = [0, *pictures[1:], len(outputs)]
    for part, picture, start, end in zip(parts, pictures, cuts[:-1], cuts[1:], strict=True):
        part.outputs = outputs[start:end]
        alt = outputs[picture].metadata.get("image/png", {}).get("alt")
        if alt:
            part.metadata.setdefault("mystnb", {})["image"] = {"alt": alt}
    return parts


def _for_outputs(cell: NotebookNode, place: int) -> NotebookNode:
    """The cell with its code hidden (one without any is left out of a page), its id the same each time."""
    folded = {"hide-cell", "hide-output"} & set(cell.metadata.get("tags", []))
    tags = ["remove-input", *(["hide-output"] if folded else [])]
    return nbformat.v4.new_code_cell(cell.source, id=f"{cell.id}-{place}", metadata={"tags": tags})
