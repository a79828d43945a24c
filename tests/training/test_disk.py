"""Files on the disk, also where the system is not this one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from tinygrad_rnn.training import disk


def test_on_macos_the_memory_of_the_disk_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, what: asked.append(what))
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append("fsync"))
    disk.write_atomically(tmp_path / "a", b"1")
    assert asked == [51, 51]  # the file, and the folder

    def refused(descriptor: int, what: int) -> None:
        raise OSError("not by this file system")

    asked.clear()
    monkeypatch.setattr(fcntl, "fcntl", refused)
    disk.write_atomically(tmp_path / "a", b"2")
    assert asked == ["fsync", "fsync"] and (tmp_path / "a").read_bytes() == b"2"


@pytest.mark.parametrize("readers", [2, 100])
def test_on_windows_a_file_that_is_read_is_replaced_when_it_is_closed(
    readers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, replace = [0], os.replace

    def held(source: Path, target: Path) -> None:
        tries[0] += 1
        if tries[0] <= readers:
            raise PermissionError(13, "used by another process")
        replace(source, target)

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", held)
    monkeypatch.setattr(disk, "WAITS", (0.0,) * 4)
    with pytest.raises(PermissionError):  # not of Windows: a folder that may not be written to
        disk.write_atomically(tmp_path / "a", b"new")
    assert tries == [1]
    monkeypatch.setattr(disk, "WINDOWS", True)
    if readers == 2:
        disk.write_atomically(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"new" and tries == [3]
    else:
        with pytest.raises(PermissionError):
            disk.write_atomically(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"old" and tries == [6]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_on_windows_what_is_read_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "used by another process")

    disk.remove(tmp_path / "a")
    monkeypatch.setattr(Path, "unlink", held)
    with pytest.raises(PermissionError):
        disk.remove(tmp_path / "a")
    monkeypatch.setattr(disk, "WINDOWS", True)
    disk.remove(tmp_path / "a")
