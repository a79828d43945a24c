"""`python -m examples`: run the examples, one after the other, and with `--page` write the gallery from their results.

Each runs in a process of its own and leaves its folder in `runs/examples`. The exit status is 1 if one of them failed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from rich.table import Table
from rich.text import Text

from tinygrad_rnn.cli.answers import Terminated, answered
from tinygrad_rnn.cli.options import Parser, path
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.screen import console, say, show_table
from tinygrad_rnn.training.disk import write_atomically

if TYPE_CHECKING:
    from rich.console import Console

HERE = Path(__file__).parent
ORDER = (
    "one_to_one", "image_rows", "sentiment", "char_lm", "tagging", "translate", "caption", "speech", "forecast",
    "memory", "vanishing", "new_layer",
)  # fmt: skip
STOPPED = (129, 130, 143)  # by SIGHUP, Ctrl-C, SIGTERM
ENDINGS = {
    0: ("ok", "green"),
    1: ("a claim failed", "red"),
    2: ("wrong input", "red"),
    **dict.fromkeys(STOPPED, ("stopped", "")),
}
TITLE = "# The gallery"
HEAD = f"""{TITLE}

What recurrent networks are taught with, each as one script on real data (or, where it says so, on generated data), each
beside something simple. This page is written by `make gallery` from the results of the scripts themselves: every figure
and picture on it comes from the command above it. {{runs}}

| example | what it is | seconds |
|---|---|--:|
"""


def names() -> list[str]:
    """The examples there are: those of the course in its order, then any others."""
    found = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    return [name for name in ORDER if name in found] + [name for name in found if name not in ORDER]


class Ended(NamedTuple):
    """How an example ended: its exit status, its seconds, and what it has found; None if it did not come to that."""

    status: int
    seconds: float
    results: dict[str, Any] | None

    @property
    def how(self) -> Text:
        """In words."""
        if self.status == 1 and not self.results:
            return Text("diverged", "red")
        return Text(*ENDINGS.get(self.status, (f"exit status {self.status}", "red")))


def run_all(chosen: list[str], out: Path, quick: bool, screen: Console) -> dict[str, Ended]:
    """Run examples; how they ended, by name."""
    ended = {}
    for name in chosen:
        screen.rule(Text(name, "bold"), align="left")
        begun = perf_counter()
        before = written(name, out)
        status = run_one([sys.executable, "-m", f"examples.{name}", "--out", str(out / name), *["--quick"] * quick])
        found = results_of(name, out) if written(name, out) != before else None
        ended[name] = Ended(status, perf_counter() - begun, found)
        if status in STOPPED:
            break
    return ended


def run_one(command: list[str]) -> int:
    """Run a command to its end; its exit status."""
    with subprocess.Popen(command, cwd=HERE.parent) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:  # which the child has got, too: it saves what it has before it ends
                continue
            except Terminated as error:
                with suppress(
                    subprocess.TimeoutExpired
                ):  # it may have got this one, too, and a second is obeyed at once
                    return child.wait(timeout=3)
                child.send_signal(error.args[0])


def written(name: str, out: Path) -> int:
    """When an example wrote its results, in nanoseconds; 0 if there are none."""
    file = out / name / "results.json"
    return file.stat().st_mtime_ns if file.exists() else 0


def results_of(name: str, out: Path) -> dict[str, Any] | None:
    """What an example has found; None if it has not run."""
    file = out / name / "results.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: damaged: {error}") from None


def overview(ended: dict[str, Ended], screen: Console) -> None:
    """One line for each: how it ended, its claims, its time."""
    table = Table()
    for column in ("example", "", "claims"):
        table.add_column(column)
    table.add_column("seconds", justify="right")
    for name, one in ended.items():
        claims = (one.results or {}).get("claims", [])
        kept = f"{sum(claim['holds'] for claim in claims)} of {len(claims)}" if one.results else ""
        table.add_row(name, one.how, kept, f"{one.seconds:.0f}")
    say(screen)
    show_table(screen, "Examples", table)


def check_page(page: Path) -> None:
    """Raise InputError unless the gallery can be written to `page`, and its pictures to the folder beside it."""
    if page.suffix != ".md":
        raise InputError(f"{page}: the gallery is a file called NAME.md, and its pictures are in the folder NAME")
    if page.exists() and not (page.is_file() and page.read_bytes().startswith(TITLE.encode())):
        raise InputError(f"{page}: is no gallery: not touched")
    for folder in (page.parent, page.with_suffix("")):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file, not a folder")


def write_page(page: Path, chosen: list[str], out: Path) -> None:
    """The gallery: a table of contents, then story, command, results and pictures of each example.

    Of an example that has no results in `out` the page keeps what it says already.
    """
    found = {name: results for name in chosen if (results := results_of(name, out))}
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    before = said_before(page)
    entries: dict[str, Entry] = {}
    for name in chosen:
        if results := found.get(name):
            row = f"| [`{name}`](#{name}) | {results['about'].splitlines()[0]} | {results['seconds']:.0f} |"
            entries[name] = Entry(
                row, "\n\n".join(section(name, results, folder.name)), int(f"{results['seconds']:.0f}")
            )
        elif name in before:
            entries[name] = before[name]
    for name, results in found.items():
        for picture in results["pictures"]:
            shutil.copyfile(out / name / picture["file"], folder / f"{name}-{picture['file']}")
    minutes = sum(entry.seconds for entry in entries.values()) / 60
    runs = f"All of them take {minutes:.0f} minutes of one core, one after the other."
    contents = HEAD.format(runs=runs) + "\n".join(entry.row for entry in entries.values())
    text = "\n\n".join([contents, *(entry.section for entry in entries.values())]) + "\n"
    gone = shown(page, page.read_text(encoding="utf-8")) - shown(page, text) if page.exists() else set()
    write_atomically(page, text.encode())
    for name in gone:
        (folder / name).unlink(missing_ok=True)


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


def shown(page: Path, text: str) -> set[str]:
    """The names of the pictures in the folder of a page that its text shows."""
    return {unquote(name) for name in re.findall(rf"\]\({re.escape(quote(page.stem))}/([^/)]+)\)", text)}


def section(name: str, results: dict[str, Any], folder: str) -> list[str]:
    """What the page says of one example, whose pictures are in a `folder`: names are data, in Markdown, too."""
    source = escaped(results.get("source", ""))
    parts = [f"## {name}", results["about"], f"```sh\n{results['command']}\n```", f"Data: {source}"]
    for table in results["tables"]:
        cells = [table["columns"], ["---", *["--:"] * (len(table["columns"]) - 1)], *table["rows"]]
        rows = [" | ".join(row if k == 1 else map(escaped, row)) for k, row in enumerate(cells)]
        parts += [f"**{escaped(table['title'])}**", "\n".join(f"| {row} |" for row in rows)]
    parts += [escaped(note) for note in results["notes"]]
    for picture in results["pictures"]:
        caption, file = escaped(picture["caption"]), quote(f"{folder}/{name}-{picture['file']}")
        parts.append(f"![{caption}]({file})\n\n*{caption}*")
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
    return answered("examples", lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    parser = Parser(prog="python -m examples", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names())} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a glance at each")
    parser.add_argument("--out", type=path, default="runs/examples", help="a folder for theirs (default: %(default)s)")
    parser.add_argument(
        "--page", type=path, metavar="NAME.md", help="write the gallery here, from the results there are"
    )
    parser.add_argument("--only-page", action="store_true", help="with --page: run nothing")
    options = parser.parse_args(argv)
    out, page = Path(options.out).absolute(), Path(options.page) if options.page else None
    if unknown := [name for name in options.names if name not in names()]:
        raise InputError(f"no example {unknown[0]!r}: there are {', '.join(names())}")
    if page:
        check_page(page)
    elif options.only_page:
        raise InputError("--only-page writes what --page names, and that is missing: give both")
    screen = console()
    ended: dict[str, Ended] = {}
    if not options.only_page:
        ended = run_all(options.names or names(), out, options.quick, screen)
        overview(ended, screen)
    if page:
        write_page(page, names(), out)
        say(screen, f"The gallery is {page}")
    statuses = [result.status for result in ended.values()]
    return next((status for status in statuses if status in STOPPED), int(any(statuses)))


if __name__ == "__main__":
    sys.exit(main())
