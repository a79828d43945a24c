"""The folder of an example: what it replaces, what it leaves alone, and what a run leaves that has no end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.common.folder import Folder
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.training import RunFolder


def write(folder: Folder, **files: str) -> None:
    """Write files as a run does; `__` stands for a slash."""
    for name, text in files.items():
        path = folder.begin() / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def finished(path: Path, example: str = "forecast", **files: str) -> None:
    folder = Folder(path, example, {"seed": 0})
    folder.check()
    write(folder, **files)
    folder.finish()


def contents(path: Path) -> dict[str, str]:
    """All files below a folder, but for the config.json of an example."""
    files = {p.relative_to(path).as_posix(): p.read_text() for p in path.rglob("*") if p.is_file()}
    return {name: text for name, text in files.items() if name != "config.json"}


def test_new_results_replace_the_last_ones_and_nothing_else(tmp_path: Path) -> None:
    finished(tmp_path, results="1", old="1", checkpoints__a="1", checkpoints__b="1")
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "checkpoints" / "c").write_text("mine")
    finished(tmp_path, results="2", new="2", checkpoints__a="2")
    mine = {"notes": "mine", "checkpoints/c": "mine"}
    assert contents(tmp_path) == {"results": "2", "new": "2", "checkpoints/a": "2", **mine}
    finished(tmp_path, results="3")
    assert contents(tmp_path) == {"results": "3", **mine}


def test_a_folder_without_files_of_others_is_as_a_new_one(tmp_path: Path) -> None:
    finished(tmp_path, results="1", checkpoints__a="1")
    finished(tmp_path, results="2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "results"]


def test_somebodys_file_of_the_same_name_is_renamed(tmp_path: Path) -> None:
    finished(tmp_path, results="1")
    (tmp_path / "picture").write_text("mine")
    (tmp_path / "picture~").write_text("mine, too")
    finished(tmp_path, results="2", picture="2")
    assert contents(tmp_path) == {"results": "2", "picture": "2", "picture~~": "mine", "picture~": "mine, too"}


@pytest.mark.parametrize("name", ["../precious", "{}/precious", "checkpoints/../../precious", "", "."])
def test_a_config_that_was_edited_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    finished(out, results="1")
    (tmp_path / "precious").write_text("mine")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "files": [name.format(tmp_path)]}))
    finished(out, results="2")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (out / "results").read_text() == "2"


def of_the_command(path: Path) -> None:
    RunFolder(path).create({"seed": 0})
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "best.json").write_text("{}")


def of_another(path: Path) -> None:
    finished(path, "speech", results="1")


def somebodys(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("mine")


def of_another_program(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text('{"format": "of another program", "example": "forecast"}')


def a_file(path: Path) -> None:
    path.write_text("mine")


def unfinished_of_somebody(path: Path) -> None:
    (path / "unfinished").mkdir(parents=True)
    (path / "unfinished" / "symphony").write_text("mine")


def an_unfinished_link(path: Path) -> None:
    finished(path, results="1")
    finished(path.parent / "elsewhere", results="1")
    (path / "unfinished").symlink_to(path.parent / "elsewhere")


FOREIGN = {
    of_the_command: "out: holds a run: not touched: choose another folder$",
    of_another: "out: holds what the example speech found: not touched",
    somebodys: "out: is not empty and holds no run of this example: not touched",
    of_another_program: "out: is not empty and holds no run of this example: not touched",
    a_file: "out: is a file, not a folder",
    unfinished_of_somebody: "unfinished: is of no run of this example: not touched",
    an_unfinished_link: "unfinished: is of no run of this example: not touched",
}


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_not_its_own_is_not_touched(tmp_path: Path, make: Any, linked: bool) -> None:
    out = tmp_path / "out"
    make(tmp_path / "there" if linked else out)
    if linked:
        out.symlink_to(tmp_path / "there")
    before = sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=FOREIGN[make]):
        Folder(out, "forecast", {}).check()
    assert sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_the_command_takes_it_for_no_run_of_its_own(tmp_path: Path) -> None:
    finished(tmp_path, results="1")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        RunFolder(tmp_path).check(replace=True)


def test_results_of_an_earlier_version_are_its_own(tmp_path: Path) -> None:
    RunFolder(tmp_path).create({"example": "forecast"})
    (tmp_path / "results").write_text("1")
    finished(tmp_path, results="2")
    assert contents(tmp_path) == {"results": "2"}


def test_until_its_end_the_last_results_stay(tmp_path: Path) -> None:
    finished(tmp_path, **{"results.json": "1"}, checkpoints__a="1")
    folder = Folder(tmp_path, "forecast", {})
    write(folder, checkpoints__a="2", **{"a.jsonl": "2"})
    assert (tmp_path / "checkpoints" / "a").read_text() == "1"
    assert folder.leave() == tmp_path / "unfinished"
    left = {"unfinished/config.json", "unfinished/a.jsonl", "unfinished/checkpoints/a"}
    assert set(contents(tmp_path)) == {"results.json", "checkpoints/a"} | left
    finished(tmp_path, **{"results.json": "3"})  # what was not finished makes room for the next run
    assert contents(tmp_path) == {"results.json": "3"}


def test_without_last_results_what_was_trained_takes_their_place(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a" / "b", "forecast", {})
    write(folder, checkpoints__a="1")
    assert folder.leave() == folder.path and contents(folder.path) == {"checkpoints/a": "1"}


@pytest.mark.parametrize("begun", [False, True])
def test_where_nothing_was_trained_all_is_as_it_was(tmp_path: Path, begun: bool) -> None:
    folder = Folder(tmp_path / "a" / "b", "forecast", {})
    if begun:
        write(folder, log="")
    assert folder.leave() is None
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_is_cleared_away(tmp_path: Path) -> None:
    killed = Folder(tmp_path, "forecast", {})
    write(killed, log="1")
    del killed  # and with it its lock
    finished(tmp_path, results="2")
    assert contents(tmp_path) == {"results": "2"}


def test_two_processes_do_not_share_it(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    first, second = (Folder(tmp_path, "forecast", {}) for _ in range(2))
    write(first, log="1")
    second.check()
    with pytest.raises(InputError, match="another process is training here"):
        second.begin()
    assert second.leave() is None
    assert (tmp_path / "unfinished" / "log").read_text() == "1"
