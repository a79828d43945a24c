"""Formulas as MathML, by the converter of docutils: browsers draw it, and no script is loaded for it."""

from __future__ import annotations

from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def html(node: nodes.Element, block: bool) -> str:
    """A formula as MathML; one that cannot be converted is a warning, and stays as it is written."""
    try:
        return str(latex2mathml.tex2mathml(node.astext(), as_block=block))
    except MathError as error:
        logger.warning("the formula %r cannot be converted: %s", node.astext(), error, location=node)
        return f"<code>{escape(node.astext())}</code>"


def visit_inline(visitor: Any, node: nodes.math) -> None:
    """A formula within a line."""
    visitor.body.append(html(node, block=False))
    raise nodes.SkipNode


def visit_block(visitor: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own, which can be scrolled where the screen is narrow."""
    visitor.body.append(f'<div class="formula" tabindex="0">{html(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Add the renderer under the name that conf.py chooses."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
