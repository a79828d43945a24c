"""`python -m examples`: which examples there are, and the gallery that is written from their results."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.__main__ import HERE, main, names, write_page
from examples.common.experiment import Experiment, experiment

pytest.importorskip("matplotlib")


def line(run: Experiment) -> None:
    """A line, drawn."""
    run.source("generated")
    run.table("Errors", ["model", "error"], [["mean", 1.0 + run.seed], ["line", 0.0]])
    with run.picture("errors.png", "The error falls.") as figure:
        figure.subplots().plot([3, 2, 1])
    run.note("It is a line.")


def fitted(out: Path, *argv: str) -> int:
    return experiment(line, steps=1, quick=1, argv=[*argv, "--out", str(out)])


def test_every_script_is_an_example() -> None:
    assert sorted(names()) == sorted(path.stem for path in HERE.glob("*.py") if path.stem != "__main__")


def test_the_gallery_is_written_from_the_results(tmp_path: Path) -> None:
    assert fitted(tmp_path / "runs" / "line") == 0
    page = tmp_path / "docs" / "gallery.md"
    page.parent.mkdir()
    write_page(page, ["line", "never run"], tmp_path / "runs")
    text = page.read_text()
    for part in ("[`line`](#line)", "| mean |", "It is a line.", "![The error falls.](gallery/line-errors.png)"):
        assert part in text
    assert "never run" not in text
    assert (page.parent / "gallery" / "line-errors.png").exists()


def test_names_are_no_marks_on_the_page(tmp_path: Path) -> None:
    def named(run: Experiment) -> None:
        run.source("[a](b)")
        run.table("*t*", ["`c`", "$x$"], [["a|b", "_1_"]])
        with run.picture("[p] $.png", "<i> :smile:") as figure:
            figure.subplots()
        run.note("snake_case at 12:30:45")

    assert experiment(named, steps=1, quick=1, argv=["--out", str(tmp_path / "runs" / "line")]) == 0
    page = tmp_path / "gallery.md"
    write_page(page, ["line"], tmp_path / "runs")
    text = page.read_text()
    for part in (
        r"Data: \[a\](b)",
        r"**\*t\***",
        r"| \`c\` | \$x\$ |",
        r"| a\|b | \_1\_ |",
        r"*&lt;i> &#58;smile:*",
        "snake_case at 12:30:45",
        "(gallery/line-%5Bp%5D%20%24.png)",
    ):
        assert part in text
    assert (tmp_path / "gallery" / "line-[p] $.png").exists()


def test_the_gallery_keeps_what_it_says_of_an_example_that_has_not_run_again(tmp_path: Path) -> None:
    page, pictures = tmp_path / "gallery.md", tmp_path / "gallery"
    for name in ("first", "second"):
        assert fitted(tmp_path / "runs" / name) == 0
    write_page(page, ["first", "second"], tmp_path / "runs")
    said = page.read_text()
    (pictures / "gone-old.png").write_text("of an example that is no more")
    page.write_text(f"{said}\n## gone\n\n![It was.](gallery/gone-old.png)\n")
    (pictures / "mine.png").write_text("of no example")
    (pictures / "second-errors.png").write_text("as it was")
    assert fitted(tmp_path / "again" / "first", "--quick", "--seed", "9") == 0
    write_page(page, ["first", "second"], tmp_path / "again")
    again = page.read_text()
    assert again.split("## second")[1] == said.split("## second")[1]
    assert "--quick --seed 9" in again.split("## first")[1].split("## second")[0]
    assert sorted(path.name for path in pictures.iterdir()) == ["first-errors.png", "mine.png", "second-errors.png"]
    assert (pictures / "second-errors.png").read_text() == "as it was"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["no_such"], "no example 'no_such': there are "),
        (["--page", "README.md", "forecast"], "README.md: is no gallery: not touched"),
        (["--page", "folder.md"], "folder.md: is no gallery: not touched"),
        (["--page", "gallery"], "gallery: the gallery is a file called NAME.md"),
        (["--page", "README.md/gallery.md"], "README.md: is a file, not a folder"),
        (["--page", "page.md", "--only-page", "--out", "damaged"], "results.json: damaged: "),
        (["--only-page"], "--only-page writes what --page names"),
        (["--page", ""], "argument --page: must be the name of a file or folder, not ''"),
        (["--out="], "argument --out: must be the name of a file or folder, not ''"),
        (["--quick=3"], "argument --quick: "),
        (["--pages"], "unrecognized arguments: --pages"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_touched(
    argv: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("# Mine\n")
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "damaged" / "forecast").mkdir(parents=True)
    (tmp_path / "damaged" / "forecast" / "results.json").write_text("{")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("examples: ") and message in shown.err and shown.err.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before and not shown.out


def test_what_an_example_did_not_find_now_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails leaves its last results: they are not those of this run."""
    assert fitted(tmp_path / "forecast") == 0
    capsys.readouterr()
    endings = {"forecast": 1, "speech": 2, "memory": 130}
    monkeypatch.setattr("examples.__main__.run_one", lambda command: endings[command[2].removeprefix("examples.")])
    assert main(["forecast", "speech", "memory", "new_layer", "--out", str(tmp_path)]) == 130
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [row[3] for row in rows] == ["diverged", "wrong", "stopped"]
    assert not any("of" in row for row in rows)
