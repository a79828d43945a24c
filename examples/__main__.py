"""`python -m examples`: run the examples, one after the other, and with `--page` write the gallery from their results.

Each runs in a process of its own and leaves its folder in `runs/examples`. The exit status is 1 if one of them failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from rich.table import Table
from rich.text import Text

from tinygrad_rnn.screen import console, say, show_any_name, show_table

if TYPE_CHECKING:
    from rich.console import Console

HERE = Path(__file__).parent
ORDER = (
    "one_to_one", "image_rows", "sentiment", "char_lm", "tagging", "translate", "caption", "speech", "forecast",
    "memory", "vanishing", "new_layer",
)  # fmt: skip
ENDINGS = {0: ("ok", "green"), 1: ("a claim failed", "red"), 2: ("wrong input", "red"), 130: ("stopped", "")}
HEAD = """# The gallery

What recurrent networks are taught with, each as one script on real data (or, where it says so, on generated data), each
beside something simple. This page is written by `make gallery` from the results of the scripts themselves: every figure
and picture on it comes from the command above it. {runs}

| example | what it is | seconds |
|---|---|--:|
"""


def names() -> list[str]:
    """The examples there are: those of the course in its order, then any others."""
    found = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    return [name for name in ORDER if name in found] + [name for name in found if name not in ORDER]


def run_all(chosen: list[str], out: Path, quick: bool, screen: Console) -> dict[str, tuple[int, float]]:
    """Run examples; their exit statuses and seconds by name."""
    ended = {}
    for name in chosen:
        screen.rule(Text(name, "bold"), align="left")
        begun = perf_counter()
        command = [sys.executable, "-m", f"examples.{name}", "--out", str(out / name), *["--quick"] * quick]
        status = subprocess.run(command, cwd=HERE.parent, check=False).returncode
        ended[name] = status, perf_counter() - begun
        if status == 130:
            break
    return ended


def results_of(name: str, out: Path) -> dict[str, Any] | None:
    """What an example has found; None if it has not run."""
    path = out / name / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def overview(ended: dict[str, tuple[int, float]], out: Path, screen: Console) -> None:
    """One line for each: how it ended, its claims, its time."""
    table = Table()
    for column in ("example", "", "claims"):
        table.add_column(column)
    table.add_column("seconds", justify="right")
    for name, (status, seconds) in ended.items():
        claims = (results_of(name, out) or {}).get("claims", [])
        kept = f"{sum(claim['holds'] for claim in claims)} of {len(claims)}" if status in (0, 1) else ""
        ending = Text(*ENDINGS.get(status, (f"exit status {status}", "red")))
        table.add_row(name, ending, kept, f"{seconds:.0f}")
    say(screen)
    show_table(screen, "Examples", table)


def write_page(page: Path, chosen: list[str], out: Path) -> None:
    """The gallery: a table of contents, then story, command, results and pictures of each example.

    Of an example that has no results in `out` the page keeps what it says already.
    """
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    before = said_before(page)
    entries: dict[str, Entry] = {}
    for name in chosen:
        if results := results_of(name, out):
            row = f"| [`{name}`](#{name}) | {results['about'].splitlines()[0]} | {results['seconds']:.0f} |"
            entries[name] = Entry(row, "\n\n".join(section(name, results)), int(f"{results['seconds']:.0f}"))
        elif name in before:
            entries[name] = before[name]
    for picture in folder.iterdir():
        if picture.name.partition("-")[0] not in entries:
            picture.unlink()
    for name in entries:
        copy_pictures(name, out, folder)
    minutes = sum(entry.seconds for entry in entries.values()) / 60
    runs = f"All of them take {minutes:.0f} minutes of one core, one after the other."
    contents = HEAD.format(runs=runs) + "\n".join(entry.row for entry in entries.values())
    page.write_text("\n\n".join([contents, *(entry.section for entry in entries.values())]) + "\n", encoding="utf-8")


class Entry(NamedTuple):
    """What the page says of one example: its row in the table of contents, its section, and its seconds."""

    row: str
    section: str
    seconds: int


def said_before(page: Path) -> dict[str, Entry]:
    """What a page says of each example."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    rows = {match[1]: match for match in re.finditer(r"^\| \[`(\w+)`\].* \| (\d+) \|$", text, re.MULTILINE)}
    sections = {match[1]: match[0].rstrip() for match in re.finditer(r"^## (\w+)\n.*?(?=^## |\Z)", text, re.M | re.S)}
    return {name: Entry(row[0], sections[name], int(row[2])) for name, row in rows.items() if name in sections}


def copy_pictures(name: str, out: Path, folder: Path) -> None:
    """Put the pictures of an example that has run beside the page, in place of those it had."""
    if results := results_of(name, out):
        for picture in folder.glob(f"{name}-*"):
            picture.unlink()
        for picture in results["pictures"]:
            shutil.copyfile(out / name / picture["file"], folder / f"{name}-{picture['file']}")


def section(name: str, results: dict[str, Any]) -> list[str]:
    """What the page says of one example: names are data, in Markdown, too."""
    source = escaped(results.get("source", ""))
    parts = [f"## {name}", results["about"], f"```sh\n{results['command']}\n```", f"Data: {source}"]
    for table in results["tables"]:
        cells = [table["columns"], ["---", *["--:"] * (len(table["columns"]) - 1)], *table["rows"]]
        rows = [" | ".join(row if k == 1 else map(escaped, row)) for k, row in enumerate(cells)]
        parts += [f"**{escaped(table['title'])}**", "\n".join(f"| {row} |" for row in rows)]
    parts += [escaped(note) for note in results["notes"]]
    for picture in results["pictures"]:
        caption, file = escaped(picture["caption"]), quote(f"{name}-{picture['file']}")
        parts.append(f"![{caption}](gallery/{file})\n\n*{caption}*")
    failed = [claim for claim in results["claims"] if not claim["holds"]]
    parts += [f"**Not reached:** {escaped(c['what'])}: {c['value']:.4g}, {c['bound']}." for c in failed]
    return parts


def escaped(text: str) -> str:
    r"""Text as Markdown shows it as it is: no marks, links, tables, HTML, mathematics or emoji.

    >>> print(escaped("a|b <i> [x] $y$ *z* _w_ snake_case :smile: 12:30:45"))
    a\|b &lt;i> \[x\] \$y\$ \*z\* \_w\_ snake_case &#58;smile: 12:30:45
    """
    text = re.sub(r"[\\`*\[\]|$~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text.replace("&", "&amp;").replace("<", "&lt;"))
    return " ".join(re.sub(r":(?=[a-z][\w+-]*:)", "&#58;", text).split("\n"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names())} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a glance at each")
    parser.add_argument("--out", type=Path, default=Path("runs/examples"), help="a folder for theirs (%(default)s)")
    parser.add_argument("--page", type=Path, help="write the gallery here, from the results there are then")
    parser.add_argument("--only-page", action="store_true", help="with --page: run nothing")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.names if name not in names()]:
        parser.error(f"no example {unknown[0]!r}: there are {', '.join(names())}")
    show_any_name(sys.stdout, sys.stderr)
    screen = console()
    ended = {}
    if not options.only_page:
        ended = run_all(options.names or names(), options.out.absolute(), options.quick, screen)
        overview(ended, options.out.absolute(), screen)
    if options.page:
        write_page(options.page, names(), options.out.absolute())
        say(screen, f"The gallery is {options.page}")
    return 130 if any(s == 130 for s, _ in ended.values()) else int(any(s for s, _ in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
