"""The folder of an example: its last results stay until the next ones are whole, and what is not its own stays anyway.

config.json     what was asked for, and the names of the files that the example wrote: these it may replace
results.json    what was found; pictures, a log of each model, and checkpoints/ are beside it
unfinished/     the same, of a run that is not at its end yet, or never was
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.training import RunFolder
from tinygrad_rnn.training.disk import write_atomically
from tinygrad_rnn.training.loop import interruptible

FORMAT = "tinygrad-rnn example"


class Folder:
    """Where the script called `example` keeps what it finds: `check` before anything is computed, `begin` once all that
    can be wrong with the data is known, and in the end `finish`, or `leave` if something came between.

    >>> import tempfile
    >>> folder = Folder(tempfile.mkdtemp(), "forecast", {"seed": 0})
    >>> folder.check()
    >>> _ = (folder.begin() / "results.json").write_text("{}")
    >>> folder.finish()
    >>> sorted(path.name for path in folder.path.iterdir())
    ['config.json', 'results.json']
    >>> Folder(folder.path, "speech", {}).check()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    tinygrad_rnn.errors.InputError: ...: holds what the example forecast found: not touched: choose another folder
    """

    def __init__(self, path: str | os.PathLike[str], example: str, config: Mapping[str, Any]) -> None:
        self.path, self.example, self.config = Path(path), example, config
        self.unfinished = self.path / "unfinished"
        self._place = RunFolder(path)
        self._begun = False
        self._occupied = ExitStack()

    def check(self) -> None:
        """Raise InputError unless what this example finds can be written here; nothing is touched."""
        self._place.check_place()
        if not self.path.exists():
            return
        names, owner = {path.name for path in self.path.iterdir()}, _owner(self.path)
        if owner != self.example and names - {"unfinished"}:
            what = "holds a run" if self._place.is_run() else "is not empty and holds no run of this example"
            what = f"holds what the example {owner} found" if owner else what
            raise InputError(f"{self.path}: {what}: not touched", hint="choose another folder")
        if "unfinished" in names and (self.unfinished.is_symlink() or _owner(self.unfinished) != self.example):
            raise InputError(
                f"{self.unfinished}: is of no run of this example: not touched", hint="choose another folder"
            )

    def begin(self) -> Path:
        """The folder to write to, `unfinished`: made at the first call, beside the last results. Raises InputError as
        `check` does, and if another process is here.
        """
        if not self._begun:
            self._place.make()
            self._occupied.enter_context(self._place.occupied())
            self.check()
            if self.unfinished.exists():
                shutil.rmtree(self.unfinished)
            self.unfinished.mkdir()
            _configure(self.unfinished, {**self.config, "example": self.example})
            self._begun = True
        return self.unfinished

    def finish(self) -> None:
        """Put what was written in the place of the last results, of which the files go that the example wrote."""
        new = sorted(_files(self.unfinished), key=lambda name: (name == "results.json", name))
        with interruptible():  # Ctrl-C waits: nothing here takes long
            last = config_of(self.path)
            for name in filter(_inside, last.get("files", ())):
                (self.path / name).unlink(missing_ok=True)
            _configure(self.path, {**config_of(self.unfinished), "files": new})
            for name in new:
                target = self.path / name
                target.parent.mkdir(exist_ok=True)
                if os.path.lexists(target) and "files" in last:  # somebody's own, under the same name
                    target.rename(_free(target))
                shutil.move(self.unfinished / name, target)
            shutil.rmtree(self.unfinished)
            with suppress(OSError):
                (self.path / "checkpoints").rmdir()  # if there are none any more
        self._occupied.close()

    def leave(self) -> Path | None:
        """The run ends before its end: returns where that is which was trained so far; None if there is nothing, and
        then all is as it was. The last results stay; where there are none, what was trained takes their place.
        """
        kept = None
        if self._begun:
            if not any((self.unfinished / name).stat().st_size for name in _files(self.unfinished)):
                shutil.rmtree(self.unfinished, ignore_errors=True)  # somebody may have done so
            elif (self.path / "results.json").exists():
                kept = self.unfinished
            else:
                self.finish()
                kept = self.path
        self._occupied.close()
        self._place.undo()
        return kept


def config_of(folder: Path) -> dict[str, Any]:
    """What the `config.json` of an example says; nothing if there is none, or another one."""
    try:
        content = json.loads((folder / "config.json").read_bytes())
        ours = content["format"] in (FORMAT, "tinygrad-rnn run") and isinstance(content["example"], str)
        return dict(content) if ours else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _owner(folder: Path) -> str:
    """The example that a folder is of, "" if it is of none."""
    return str(config_of(folder).get("example", ""))


def _configure(folder: Path, config: Mapping[str, Any]) -> None:
    content = {**config, "format": FORMAT, "version": 1}
    write_atomically(folder / "config.json", (json.dumps(content, indent=2) + "\n").encode())


def _files(folder: Path) -> list[str]:
    """The files in a folder and below it, but for its `config.json`, by their names from there."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in found if name != "config.json"]


def _inside(name: str) -> bool:
    """Whether the name of a file leads nowhere but into its folder: `config.json` may have been edited."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and name not in ("", ".", "config.json")


def _free(path: Path) -> Path:
    """The first of `path~`, `path~~`, ... that there is not."""
    while os.path.lexists(path := path.with_name(f"{path.name}~")):
        pass
    return path
