"""What people are shown: any name as it is, on any screen and in pictures, and whoever shows one cannot forget how."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_rnn.screen import (
    console,
    install,
    new_figure,
    one_line,
    plain_labels,
    save_picture,
    say,
    show_any_name,
    show_table,
)

ROOT = Path(__file__).parents[1]
NAMES = [
    "load [kW]",
    "[bold]x[/]",
    "[/]",
    "[link=a]b",
    "a:x:b :smile:",
    "cost_$ and q_$",
    r"$\frac{1}$ \$ % #",
    "EUR/USD",
    "two  blanks ",
    "\ttab\x0b\x07",
    "{} %s <b> &amp;",
    "_x",
    "long" * 60,
]
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("terminal", [False, True])
def test_a_name_in_a_line_is_what_it_was(name: str, terminal: bool) -> None:
    file = io.StringIO()
    screen = console(file)
    screen._force_terminal = terminal
    say(screen, (name, "bold red"), f": {name}")
    assert ESCAPE.sub("", file.getvalue()) == f"{name}: {name}\n"


def test_styles_show_in_a_terminal_only() -> None:
    from rich.console import Console

    for screen, style in (
        (
            Console(file=io.StringIO(), force_terminal=True, color_system="standard", _environ={}),
            "\x1b[1;31m[/]\x1b[0m",
        ),
        (Console(file=io.StringIO(), force_terminal=True, no_color=True, _environ={}), "[/]"),
        (Console(file=io.StringIO(), _environ={}), "[/]"),
    ):
        say(screen, ("[/]", "bold red"), " x")
        assert screen.file.getvalue() == f"{style} x\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name in NAMES if name.isprintable()])
def test_a_name_in_a_table_is_what_it_was(name: str) -> None:
    from rich.table import Table

    table = Table()
    table.add_column(name)
    table.add_column("figures")
    table.add_row(name, "1")
    file = io.StringIO()
    show_table(console(file), name, table)
    lines = file.getvalue().split("\n")
    assert lines[0] == name
    assert sum(name.strip() in line for line in lines[1:]) == 2


def test_nothing_of_a_long_name_is_cut_in_a_narrow_terminal() -> None:
    from rich.table import Table

    table = Table()
    table.add_column("x" * 100)
    table.add_row("y" * 100)
    file = io.StringIO()
    screen = console(file, width=40)
    screen._force_terminal = True
    show_table(screen, "z" * 100, table)
    shown = ESCAPE.sub("", file.getvalue())
    assert shown.count("x") == shown.count("y") == shown.count("z") == 100 and "z" * 100 in shown


def test_any_bytes_of_a_name_reach_any_stream() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    show_any_name(stream, io.StringIO())
    print("caf\udce9 ü\udfff \U0001f600", file=stream)
    assert raw.getvalue() == b"caf\xe9 ?? ?\n"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", "tinygrad_rnn.names")


def test_a_message_is_one_line_and_keeps_its_blanks() -> None:
    assert one_line("\na  b \r\n   c\n\n d\n") == "a  b c d"
    assert one_line("a\tb  ") == "a\tb  "


# --- pictures -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_mathematics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever matplotlib takes for mathematics is an error."""
    mathtext = pytest.importorskip("matplotlib.mathtext")

    def parse(*arguments: object) -> None:
        raise AssertionError(f"taken for mathematics: {arguments}")

    monkeypatch.setattr(mathtext.MathTextParser, "parse", parse)


@pytest.mark.usefixtures("no_mathematics")
def test_names_in_a_picture_are_no_mathematics(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    with plain_labels():
        figure = Figure()
        axes, log = figure.subplots(2)
        for name in NAMES:
            axes.plot([0, 1], [0, 1], label=name)
            axes.set(title=name, xlabel=name, ylabel=name)
            axes.annotate(name, (0, 0))
            axes.set_xticks([0, 1], [name, "1"])
            log.text(0.5, 0.5, name)
        axes.legend()
        log.set(yscale="log", ylim=(1e-12, 200), xscale="log", xlim=(2, 7))
    assert axes.get_title() == NAMES[-1]
    assert save_picture(figure, tmp_path / "a.png") == "\t\x0b\x07"
    powers = [label.get_text() for label in log.yaxis.get_ticklabels() + log.xaxis.get_ticklabels(minor=True)]
    assert {"10⁻¹²", "10⁰", "2×10⁰"} <= set(powers), powers


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    with plain_labels():
        figure = Figure()
        figure.suptitle("a caf\udce9 \ue000\ue001")  # a byte of a name, and letters that no font has
    assert save_picture(figure, tmp_path / "a.png") == "\ue000\ue001"
    with plain_labels():
        figure = Figure(layout="constrained", figsize=(0.1, 0.1))
        figure.subplots().set_ylabel("x" * 100)
    with pytest.warns(UserWarning, match="constrained_layout"):  # what else matplotlib warns of is not lost
        save_picture(figure, tmp_path / "a.png")


def test_what_was_set_before_holds_after() -> None:
    mpl = pytest.importorskip("matplotlib")
    before = dict(mpl.rcParams)
    with plain_labels():
        assert not mpl.rcParams["text.parse_math"]
    assert dict(mpl.rcParams) == before


# --- nobody shows anything otherwise ------------------------------------------------------------------------


ONLY_HERE = {"Console", "savefig", "from_markup", "render_str"}


def calls(source: str) -> set[str]:
    """The names of the functions and methods that a file calls."""
    found = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {getattr(func, "attr", getattr(func, "id", "")) for func in found}


@pytest.mark.parametrize("room", ["tinygrad_rnn", "examples"])
def test_consoles_and_pictures_are_made_in_one_place(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if path.name == "screen.py" or not any(name in source for name in (*ONLY_HERE, "Figure", "[/", "[bold")):
            continue
        used = calls(source)
        assert not ONLY_HERE & used, f"{path}: see screen.py"
        assert "Figure" not in used or "plain_labels" in used, f"{path}: draws what may be taken for mathematics"
        assert not re.search(r"\[/\]|\[(bold|dim|red|green)\b", source), path


def test_the_screen_costs_nothing_until_it_is_used() -> None:
    program = "import sys, tinygrad_rnn.screen; print(*(set(sys.modules) & {'rich', 'matplotlib', 'numpy.ma'}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "rich" not in done.stdout and "matplotlib" not in done.stdout


def test_a_figure_shows_itself_where_nothing_is_set_up_for_matplotlib() -> None:
    pytest.importorskip("matplotlib")
    figure = new_figure((2, 1), dpi=50)
    figure.subplots().set_title("$a$ \ue000")
    assert figure._repr_png_().startswith(b"\x89PNG") and len(figure.get_size_inches()) == 2


def test_what_is_to_be_installed_is_for_the_python_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/a b/bin/python3")
    for found, python in (("/usr/bin/", "'/a b/bin/python3'"), ("/a b/bin/", "python3")):
        monkeypatch.setattr("shutil.which", lambda name, found=found: found + name)
        assert install("numba>=1", "pooch") == f"{python} -m pip install 'numba>=1' pooch"
