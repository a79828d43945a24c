"""What people are shown, on a screen and in pictures: names are data, and are shown as they are.

A name of a file, of a column or of a label may hold anything: `[bold]`, `:x:`, `$a$`, a slash, a byte that is no text.
Whoever shows one says it here, where nothing is markup, emoji or mathematics.
"""

from __future__ import annotations

import codecs
import io
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table

ERRORS = "tinygrad_rnn.names"
"""How a stream encodes what it cannot: the bytes of a file's name as they are, anything else as a question mark."""

# Fonts with letters that the usual one lacks, of which those that are installed are used, too.
_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Arabic", "Noto Sans Hebrew", "Nirmala UI", "Segoe UI Emoji"),
    *("Arial Unicode MS", "Noto Emoji", "Unifont"),
)


def console(file: IO[str] | None = None, width: int | None = None) -> Console:
    """A console of rich that takes nothing for markup or for the name of an emoji, and colours no numbers."""
    from rich.console import Console

    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def say(screen: Console, *parts: str | tuple[str, str]) -> None:
    """A line as it is: nothing of it is folded, cut or replaced, so it can be copied. A part may be (text, style), of
    which the style shows in a terminal.

        >>> say(console(), ("[bold] :x:", "bold"), " and more")
        [bold] :x: and more
    """
    from rich.style import Style

    plain = screen.color_system is None or screen.no_color
    texts = ((part, "") if isinstance(part, str) else part for part in parts)
    line = "".join(text if plain or not style else Style.parse(style).render(text) for text, style in texts)
    print(line, file=screen.file, flush=True)


def show_table(screen: Console, title: str, table: Table) -> None:
    """A table under its title. In a terminal what is too long for its column goes on in a line below; elsewhere the
    table is as wide as it needs to be.
    """
    say(screen, (title, "bold"))
    for column in table.columns:
        column.overflow = "fold"
    wide = screen if screen.is_terminal else console(screen.file, width=10**6)
    wide.print(table)


def install(*what: str) -> str:
    """The command that installs packages for the Python that runs, whether its environment is activated or not, as a
    shell takes it.

    >>> install("numba", "matplotlib>=3.9")
    "...python... -m pip install numba 'matplotlib>=3.9'"
    """
    names = (name for name in ("python", "python3") if shutil.which(name) == sys.executable)
    return shlex.join([next(names, sys.executable), "-m", "pip", "install", *what])


def one_line(message: str) -> str:
    r"""A message without ends of lines, but with every other blank in it.

    >>> one_line("a  b.txt: cannot\n    be read\n")
    'a  b.txt: cannot be read'
    """
    return re.sub(r"[^\S\r\n]*[\r\n]\s*", " ", message.strip("\r\n"))


def show_any_name(*streams: IO[str]) -> None:
    """Let streams take what they cannot encode (see `ERRORS`): it is no reason to stop."""
    codecs.register_error(ERRORS, _bytes_of_a_name)
    for stream in streams:
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors=ERRORS)


def _bytes_of_a_name(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    number = ord(error.object[error.start])
    return bytes([number - 0xDC00]) if 0xDC80 <= number <= 0xDCFF else "?", error.start + 1


@contextmanager
def plain_labels() -> Iterator[None]:
    """Inside, what is written in a picture of matplotlib is no mathematics and no TeX, whatever it holds."""
    import matplotlib as mpl
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    fonts = [*mpl.rcParams["font.family"], *(font for font in _FONTS if font in installed)]
    with mpl.rc_context({"text.parse_math": False, "text.usetex": False, "font.family": fonts}):
        yield


def new_figure(size: tuple[float, float], dpi: int = 150) -> Figure:
    """An empty figure of so many inches. A notebook shows it, even one that nothing has yet set up for matplotlib."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            data = io.BytesIO()
            save_picture(self, data)
            return data.getvalue()

    return Shown(figsize=size, dpi=dpi, layout="constrained")


def save_picture(figure: Figure, path: Any) -> str:
    """Save what was drawn with `plain_labels`; returns the characters that no font here has: boxes stand for them."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(re.sub("[\ud800-\udfff]", "\ufffd", text.get_text()))  # bytes that are no character
    _plain_logarithms(figure)
    with warnings.catch_warnings(record=True) as found, plain_labels():
        warnings.simplefilter("always")
        figure.savefig(path)
    lacking: dict[str, None] = {}
    for warning in found:
        if glyph := re.match(r"Glyph (\d+) .* missing from font", str(warning.message)):
            lacking[chr(int(glyph[1]))] = None
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return "".join(lacking)


def _plain_logarithms(figure: Figure) -> None:
    """Let the ticks of logarithmic axes be powers of ten in plain text: matplotlib writes them as mathematics."""
    from matplotlib.ticker import LogFormatterMathtext, LogFormatterSciNotation

    class Plain(LogFormatterSciNotation):
        def __call__(self, value: float, position: Any = None) -> str:
            return _power(super().__call__(value, position))

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        for get, put in (
            (axis.get_major_formatter, axis.set_major_formatter),
            (axis.get_minor_formatter, axis.set_minor_formatter),
        ):
            if isinstance(get(), LogFormatterMathtext):
                plain = Plain()
                plain.__dict__ |= get().__dict__
                put(plain)


def _power(label: str) -> str:
    r"""A power of ten without matplotlib's marks of mathematics.

    >>> _power(r"$\mathdefault{2\times10^{-12}}$"), _power(r"$\mathdefault{10^{3}}$"), _power("")
    ('2×10⁻¹²', '10³', '')
    """
    found = re.fullmatch(r"\$\\mathdefault\{(.*?)(?:\^\{(.*)\})?\}\$", label)
    if not found:
        return label
    return found[1].replace(r"\times", "×") + (found[2] or "").translate(_RAISED)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
