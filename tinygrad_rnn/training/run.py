"""A run's folder: what a training leaves behind, and what may be replaced.

config.json      what was asked for, and on what
options.toml     the options, to be asked for the same again
metrics.jsonl    a line a step
loss.png         the learning curve
flow.jsonl       where the gradient was watched: how it flows back through time, a line for each look; and flow.png
checkpoints/     best.json, last.json and previous.json (which `last.json` has replaced), and their weights
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.notebook import run_html
from tinygrad_rnn.training.checkpoint import clear_stale, rename_checkpoint
from tinygrad_rnn.training.disk import write_atomically
from tinygrad_rnn.training.log import read_metrics, truncate_metrics

FORMAT = "tinygrad-rnn run"


class RunFolder:
    """The folder of one run. `check` before anything is computed, `create` once everything else is known to
    be right.

    >>> import tempfile
    >>> run = RunFolder(tempfile.mkdtemp())
    >>> run.check(replace=False)
    >>> run.create({"seed": 0})
    >>> run.is_run(), run.config()["seed"]
    (True, 0)
    >>> run.check(replace=False)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    tinygrad_rnn.errors.InputError: ... holds a run already: choose another folder, or replace it
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.metrics = self.path / "metrics.jsonl"
        self.picture = self.path / "loss.png"
        self.flow, self.flow_picture = self.path / "flow.jsonl", self.path / "flow.png"
        self.checkpoints = self.path / "checkpoints"
        self.options = self.path / "options.toml"
        self._made: list[Path] = []
        self._created = False

    def config(self) -> dict[str, Any]:
        """What `config.json` holds; InputError if the folder is no run."""
        try:
            content = json.loads((self.path / "config.json").read_bytes())
            if content["format"] == FORMAT:
                return dict(content)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        what = "is no run of tinygrad-rnn" if self.path.exists() else "no such folder"
        raise InputError(f"{self.path}: {what}")

    def _repr_html_(self) -> str:
        """What a notebook shows: the learning curve, the figures of the last step, and what was asked for."""
        config = self.config() if self.is_run() else {}
        records = read_metrics(self.metrics) if self.metrics.exists() else []
        picture = self.picture.read_bytes() if self.picture.exists() else None
        return run_html(self.path, config, records[-1] if records else {}, picture)

    def is_run(self) -> bool:
        """Whether the folder holds a run."""
        try:
            return bool(self.config())
        except InputError:
            return False

    def check(self, replace: bool) -> None:
        """Raise InputError if a new run must not be written here; nothing is touched."""
        self.check_place()
        if not self.path.exists():
            return
        if self.is_run():
            if not replace:
                raise InputError(f"{self.path}: holds a run already", hint="choose another folder, or replace it")
        elif any(path.name != "config.json.tmp" for path in self.path.iterdir()):  # that of a process that was killed
            raise InputError(f"{self.path}: is not empty and holds no run: not touched", hint="choose another folder")

    def check_place(self) -> None:
        """Raise InputError unless a folder is, or can be made, here, and can be written to; nothing is touched."""
        if not os.path.lexists(self.path):
            parent = next(p for p in self.path.absolute().parents if os.path.lexists(p))
            if not parent.is_dir():
                raise InputError(f"{self.path}: {parent} is not a folder")
            if not os.access(parent, os.W_OK | os.X_OK):
                raise InputError(f"{self.path}: no permission to write in {parent}")
            return
        if not self.path.is_dir():
            raise InputError(f"{self.path}: is a file, not a folder for a run")
        self.check_writable()

    def check_writable(self) -> None:
        """Raise InputError if nothing can be written here."""
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise InputError(f"{self.path}: no permission to write here")

    def create(self, config: Mapping[str, Any], options: str = "") -> None:
        """Make the folder and write `config.json`, and `options.toml` unless that is empty. Of an older run, only the
        files that a run writes are removed, `config.json` last: until then it is a run.
        """
        self.make()
        if self.is_run():
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            for path in self._files():
                path.unlink(missing_ok=True)
        self._created = True
        self.configure(config)
        if options:
            write_atomically(self.options, options.encode())

    def reopen(self, config: Mapping[str, Any], step: int, damaged: bool = False) -> None:
        """Write `config.json` for a run that goes on after `step`, and remove what it left of later steps. If its last
        checkpoint is `damaged`, the previous one becomes the last.
        """
        self.configure(config)
        self.options.with_name("options.toml.tmp").unlink(missing_ok=True)  # of a process that was killed
        for log in (self.metrics, self.flow):
            truncate_metrics(log, step)
        if damaged:  # or else the damaged one would become the previous one
            rename_checkpoint(self.checkpoints, "previous", "last")
        if self.checkpoints.exists():
            clear_stale(self.checkpoints)

    def _files(self) -> tuple[Path, ...]:
        """What a run writes, but for `config.json` and its checkpoints."""
        options = self.options, self.options.with_name("options.toml.tmp")
        return self.metrics, self.picture, self.flow, self.flow_picture, *options

    def make(self, new: bool = False) -> None:
        """Make the folder and those above it, unless they exist. One that is to be `new` may not: FileExistsError."""
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=not new)
        self._made += made

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write `config.json`."""
        content = {**config, "format": FORMAT, "version": 1}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.path / "config.json", text.encode("utf-8", "backslashreplace"))  # a path is any bytes

    def undo(self) -> None:
        """Remove what `create` has made: the files of the run, and those of the folders that are empty then."""
        if self._created:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            config = self.path / "config.json"
            for path in (*self._files(), config.with_name("config.json.tmp"), config):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            for path in self._made:
                path.rmdir()

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Inside, no other process can be here: raises InputError if one is. It ends with the process, however
        that ends. (Windows has no such lock; there nothing is checked.)
        """
        try:
            import fcntl
        except ImportError:
            yield
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.path}: another process is training here") from None
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(descriptor)


def free_run(parent: str | os.PathLike[str], name: str) -> Path:
    """The first of `parent/name-1`, `parent/name-2`, ... that does not exist yet."""
    n = 1
    while os.path.lexists(Path(parent) / f"{name}-{n}"):
        n += 1
    return Path(parent) / f"{name}-{n}"
