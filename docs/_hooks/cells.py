"""The cells of the course: what they print is there once, and each picture is described in words.

In the sources a cell is followed by a block `output`, what it prints, and a picture by its caption in italics. Where a
page is only read, as on a code host, that is all there is to see; here the cell has been run, and shows what it prints
now. That both are the same is a test (`tests/test_course.py`).
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)


def tidy(app: Any, doctree: nodes.document) -> None:
    """Drop the blocks `output`, and give each picture that a cell has made its caption as its alternative text."""
    if not app.env.docname.startswith("course/"):
        return
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") == "output":
            block.parent.remove(block)
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") == "cell_code":
            for image in cell.findall(nodes.image):
                image["alt"] = caption(cell)


def caption(cell: nodes.Element) -> str:
    """The words below a cell, if they are in italics from end to end."""
    below = cell.next_node(siblings=True, descend=False)
    if isinstance(below, nodes.paragraph) and len(below) == 1 and isinstance(below[0], nodes.emphasis):
        return below.astext()
    logger.warning("a picture has no caption in italics below its cell", location=cell)
    return ""


def setup(app: Any) -> dict[str, Any]:
    """Connect the event."""
    app.connect("doctree-read", tidy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
