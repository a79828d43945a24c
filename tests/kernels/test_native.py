"""The object file of the compiled kernels: found by what it depends on, whole or not at all, and compiled again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tinygrad_rnn.kernels import native

pytest.importorskip("numba")
CODE = b"no object, but as good as one here"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_kept_is_found(cache: Path) -> None:
    assert native.kept("float32") is None
    file = native.keep("float32", native.container(CODE, native.key()))
    assert file is not None and native.kept("float32") == (file, CODE)
    assert native.kept("others") is None and [file] == list(cache.iterdir())


@pytest.mark.parametrize("place", [0, 30, 100, -1])
def test_a_damaged_file_is_none(cache: Path, place: int) -> None:
    data = bytearray(native.container(CODE, native.key()))
    data[place] ^= 1
    native.keep("float32", bytes(data))
    assert native.kept("float32") is None


@pytest.mark.parametrize("length", [0, 10, 150, -1])
def test_half_a_file_is_none(cache: Path, length: int) -> None:
    native.keep("float32", native.container(CODE, native.key())[:length])
    assert native.kept("float32") is None


def test_a_file_of_other_kernels_is_none(cache: Path) -> None:
    native.keep("float32", native.container(CODE, native.key()[::-1]))
    assert native.kept("float32") is None


def test_the_key_is_that_of_versions_and_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    make = native.key.__wrapped__
    assert make() == native.key()
    monkeypatch.setattr(native.metadata, "version", lambda name: "0")
    assert make() != native.key()
    monkeypatch.undo()
    monkeypatch.setattr(native, "SOURCES", native.SOURCES[:-1])
    assert make() != native.key()


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert native.keep("float32", native.container(CODE, native.key())) is None
    assert native.kept("float32") is None


def test_a_write_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert native.keep("float32", native.container(CODE, native.key())) is None
    assert not list(cache.iterdir())


def test_what_cannot_be_compiled_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"^the kernels cannot be compiled: KeyError: 'no group'$"):
        native._run("tests.kernels.fails", "no group", folder=str(cache.parent))
    monkeypatch.setattr(native.sys, "executable", "")
    with pytest.raises(RuntimeError, match="this program has none"):
        native.compiled("float32")


def test_an_object_that_ends_its_process_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(module: str, group: str, path: str, folder: str) -> None:
        Path(path).write_bytes(native.container(CODE, native.key()))
        if module == native.__name__:
            real(module, group, path, folder=folder)

    real: Any = native._run
    monkeypatch.setattr(native, "_run", run)
    with pytest.raises(RuntimeError, match="the kernels cannot be compiled"):
        native.compiled("float32")
    assert native.kept("float32") is None


def test_numba_is_not_imported_by_a_training() -> None:
    code = (
        "import sys, tinygrad_rnn as tr\n"
        "tr.enable_numba()\n"
        "x = tr.ones(40, 2, 3)\n"
        "layer = tr.nn.LSTM(3, 4)\n"
        "adam = tr.optim.Adam(layer.parameters())\n"
        "layer(x)[0].sum().backward()\n"
        "adam.step()\n"
        "sys.exit('numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
