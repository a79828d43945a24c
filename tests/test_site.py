"""What builds and checks the site: docstrings as reStructuredText, and a site that loads something from elsewhere."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

from tests import reference_page, site

HOOKS = Path(__file__).parents[1] / "docs" / "_hooks"


def hook(name: str):
    """A hook's module, which Sphinx alone imports by name."""
    spec = importlib.util.spec_from_file_location(f"hook_{name}", HOOKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docstrings = hook("docstrings")


@pytest.mark.parametrize(
    ("written", "converted"),
    [
        ("`x` of *a* | b_", "``x`` of \\*a\\* \\| b\\_"),
        ("`x`s and T`y`", "``x``\\ s and T\\ ``y``"),
        ("(`x`), `y`.", "(``x``), ``y``."),
        ("`one\nname`", "``one name``"),
        ("    h = x W\n    y = h", ".. code-block:: text\n\n        h = x W\n        y = h"),
        ("    >>> 1\n    1", ">>> 1\n1"),
        ("Arguments:\n    a: one\n        more\n    b: `two`", "Arguments:\n\n- ``a``: one\n  more\n- ``b``: ``two``"),
        ("- one\n  more\n- two", "- one\n  more\n- two"),
        ("Of a cell:\n    it is\n    short", "Of a cell:\n\n    it is\n    short"),
    ],
)
def test_a_docstring_becomes_restructuredtext(written: str, converted: str) -> None:
    assert "\n".join(docstrings.converted(written.splitlines())).strip() == converted


def test_a_backtick_that_is_not_closed_is_an_error() -> None:
    with pytest.raises(ValueError, match="not closed in 'a `b'"):
        docstrings.converted(["a `b"])


def test_every_docstring_can_be_converted() -> None:
    for module in (reference_page.tr, *reference_page.public_modules().values()):
        for name in reference_page.public_names(module):
            docstrings.converted((inspect.getdoc(getattr(module, name)) or "").splitlines())


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<script src="//cdn.example.org/a.js"></script>',
        '<link rel="stylesheet" href="HTTP://example.org/a.css">',
        '<img alt="a" src="https://example.org/a.png">',
        '<img alt="a" src="a.png" srcset="a.png 1x, https://example.org/a.png 2x">',
        '<iframe title="a" src="https://example.org"></iframe>',
        '<iframe src="a.html"></iframe>',
        "<style>p { background: url(https://example.org/a.png) }</style>",
        "<style>@import 'https://example.org/a.css';</style>",
        '<div class="system-message">what</div>',
        r"<p>so $$\frac{1}{2}$$</p>",
        r"<p>so \frac{1}{2}</p>",
        '<img src="a.png">',
    ],
)
def test_a_fault_of_a_page_is_found(text: str) -> None:
    assert len(list(site.faults_of_page(text))) == 1


def test_what_is_here_is_no_fault() -> None:
    page = '<a href="https://example.org">x</a><script src="../a.js"></script><img alt="a" src="data:image/png;,A">'
    assert not list(site.faults_of_page(page + r"<pre>\frac</pre><style>p { color: url(#a) }</style>"))


def test_a_missing_name_and_too_many_bytes_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index.html").write_text('<p id="a.b">x</p><script src="gone.js?v=1"></script><script src="site.css">')
    (tmp_path / "site.css").write_text("p { background: url(//example.org/a.png) }")
    assert list(site.faults(tmp_path, {"a.b", "a.c"})) == [
        "index.html loads gone.js?v=1, which is not there",
        "site.css loads //example.org/a.png from elsewhere",
        "no page tells of a.c",
    ]
    monkeypatch.setattr(site, "MOST", 10)
    assert "10 are allowed" in list(site.faults(tmp_path, {"a.b"}))[-1]


def test_public_names_are_full_ones() -> None:
    assert {"tinygrad_rnn.Tensor", "tinygrad_rnn.nn.LSTM", "tinygrad_rnn.data.PAD"} <= site.public_names()
