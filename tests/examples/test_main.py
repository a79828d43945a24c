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
    (pictures / "second-errors.png").write_text("as it was")
    assert fitted(tmp_path / "again" / "first", "--quick", "--seed", "9") == 0
    write_page(page, ["first", "second"], tmp_path / "again")
    again = page.read_text()
    assert again.split("## second")[1] == said.split("## second")[1]
    assert "--quick --seed 9" in again.split("## first")[1].split("## second")[0]
    assert sorted(path.name for path in pictures.iterdir()) == ["first-errors.png", "second-errors.png"]
    assert (pictures / "second-errors.png").read_text() == "as it was"


def test_an_unknown_example_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["no_such"])
    assert caught.value.code == 2 and "no example 'no_such': there are " in capsys.readouterr().err
