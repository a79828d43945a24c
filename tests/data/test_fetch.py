"""Fetching: from a server on the loopback address, with data sets of the tests' own; no test reaches the network."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import socket
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.data.test_readers import idx, write_wav
from tests.permissions import can_obey, obey_permissions
from tinygrad_rnn.data import SETS, DataFile, DataSet, fetch, read_idx, read_labelled, read_tsv, read_waveforms
from tinygrad_rnn.errors import InputError


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's `contents`; files whose name begins with "half" are cut off, "slow" ones not sent."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name = self.path[1:]
        if name not in self.server.contents:
            self.send_error(404)
            return
        raw = self.server.contents[name]
        if name.startswith("slow"):
            self.server.stopped.wait(10)
            return
        self.send_response(200)
        if not name.startswith("unsized"):
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw[: len(raw) // 2] if name.startswith("half") else raw)

    def log_message(self, format: str, *args: Any) -> None: ...


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.stopped = threading.Event()

    def file(self, name: str, raw: bytes) -> DataFile:
        """Serve these bytes."""
        self.contents[name] = raw
        return DataFile(f"http://127.0.0.1:{self.server_port}/{name}", hashlib.sha256(raw).hexdigest(), len(raw))


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")  # whatever the machine says of proxies
    with serving() as running:
        yield running


def one(*files: DataFile, **more: Any) -> DataSet:
    return DataSet("own", "of the tests", "ours", "http://127.0.0.1", files, **more)


def zipped(**members: bytes) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return raw.getvalue()


def tarred(members: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return raw.getvalue()


def quiet(data_set: str | DataSet, cache: Path, **more: Any) -> Path:
    return fetch(data_set, cache=cache, progress=False, **more)


def refused(data_set: DataSet, cache: Path, message: str, **more: Any) -> str:
    """That it is refused in one line, and that nothing half done is left."""
    with pytest.raises(InputError, match=message) as error:
        quiet(data_set, cache, **more)
    assert "\n" not in str(error.value)
    good = {file.name for file in data_set.files}
    left = list(cache.rglob("*")) if cache.is_dir() else []
    for path in left:
        assert path.is_dir() or path.name in good
        assert path.name in good | {"own"}
    return str(error.value)


# --- what is fetched can be read ----------------------------------------------------------------------------


def test_single_files(server: Server, tmp_path: Path) -> None:
    images, labels = np.arange(24, dtype="u1").reshape(2, 3, 4), np.array([7, 1], "u1")
    data_set = one(
        server.file("images.gz", gzip.compress(idx(images))), server.file("unsized.gz", gzip.compress(idx(labels)))
    )
    folder = quiet(data_set, tmp_path)
    assert folder == tmp_path / "own" and {p.name for p in folder.iterdir()} == {"images.gz", "unsized.gz"}
    assert (read_idx(folder / "images.gz") == images).all() and (read_idx(folder / "unsized.gz") == labels).all()
    assert server.asked == ["/images.gz", "/unsized.gz"]
    (folder / "images.gz").unlink()  # only what is missing is fetched again
    assert quiet(data_set, tmp_path) == folder and server.asked == ["/images.gz", "/unsized.gz", "/images.gz"]
    (folder / "images.gz").write_bytes(b"spoilt")
    quiet(data_set, tmp_path)
    assert (read_idx(folder / "images.gz") == images).all() and len(server.asked) == 4


def test_a_zip(server: Server, tmp_path: Path) -> None:
    raw = zipped(**{"SET/": b"", "SET/train.tsv": b"sentence\tlabel\na good film\t1\n", "SET/original/a.txt": b"a"})
    folder = quiet(one(server.file("set.zip", raw), archive=True, folder="SET"), tmp_path)
    assert read_labelled(folder / "train.tsv").texts == ["a good film"]
    assert (folder / "original" / "a.txt").read_bytes() == b"a"


def test_a_tar(server: Server, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.full((5, 1), 64), 1)
    wav = (tmp_path / "a.wav").read_bytes()
    top = tarfile.TarInfo("set-1.0")
    top.type = tarfile.DIRTYPE
    raw = tarred({"set-1.0/recordings/7_ann_0.wav": wav, "set-1.0/README.md": b"hello"}, top)
    folder = quiet(one(server.file("v1.0.tar.gz", raw), archive=True, folder="set-1.0/recordings"), tmp_path)
    assert [(r.label, r.samples.tolist()) for r in read_waveforms(folder)] == [("7", [0.5] * 5)]


def test_pairs(server: Server, tmp_path: Path) -> None:
    left = server.file("a.de.gz", gzip.compress("Ein\tHund. \r\nÄpfel\n".encode()))
    right = server.file("a.en.gz", gzip.compress(b"A dog.\nApples\n"))
    folder = quiet(one(left, right, pairs=(("a.tsv", "a.de.gz", "a.en.gz"),)), tmp_path)
    assert read_tsv(folder / "a.tsv") == [("Ein Hund.", "A dog."), ("Äpfel", "Apples")]
    short = server.file("b.en.gz", gzip.compress(b"A dog.\n"))
    refused(one(left, short, pairs=(("a.tsv", "a.de.gz", "b.en.gz"),)), tmp_path / "b", "a.de.gz has 2 .*b.en.gz has 1")


def test_not_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        file = server.file("set.zip", zipped(**{"a.tsv": b"one\ttwo\n"}))
        data_set = one(file, archive=True)
        folder = quiet(data_set, tmp_path)
        made = (folder / "a.tsv").stat().st_mtime_ns
    assert quiet(data_set, tmp_path) == folder  # the server is gone
    assert read_tsv(folder / "a.tsv") == [("one", "two")] and (folder / "a.tsv").stat().st_mtime_ns == made
    again = tmp_path / "elsewhere" / "own"
    again.mkdir(parents=True)
    (again / "set.zip").write_bytes((tmp_path / "own" / "set.zip").read_bytes())  # put there by hand
    assert read_tsv(quiet(data_set, tmp_path / "elsewhere") / "a.tsv") == [("one", "two")]


def test_a_new_version_is_unpacked_anew(server: Server, tmp_path: Path) -> None:
    for text in (b"old\told\n", b"new\tnew\n"):
        folder = quiet(one(server.file("set.zip", zipped(**{"a.tsv": text})), archive=True), tmp_path)
        assert (folder / "a.tsv").read_bytes() == text


def test_where_the_cache_is(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_set = one(server.file("a.txt", b"a"))
    monkeypatch.setenv("TINYGRAD_RNN_DATA", str(tmp_path / "named"))
    assert fetch(data_set, progress=False) == tmp_path / "named" / "own"
    monkeypatch.delenv("TINYGRAD_RNN_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    if sys.platform == "linux":
        assert fetch(data_set, progress=False) == tmp_path / "caches" / "tinygrad-rnn" / "own"
    assert quiet(data_set, Path("~/mine")) == tmp_path / "mine" / "own"


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_another_hash(server: Server, tmp_path: Path) -> None:
    file = server.file("a.gz", b"what is expected")
    server.contents["a.gz"] = b"something else!"
    message = refused(one(file), tmp_path, "not the file that is expected")
    found = hashlib.sha256(b"something else!").hexdigest()
    assert file.url in message and f"SHA-256 {found} instead of {file.sha256} (15 bytes, 16 expected)" in message


def test_a_file_that_the_server_does_not_have(server: Server, tmp_path: Path) -> None:
    good, gone = server.file("good", b"good"), server.file("gone", b"gone")
    del server.contents["gone"]
    message = refused(one(good, gone), tmp_path, "cannot be downloaded: HTTP 404 Not Found")
    assert gone.url in message and f"put it into {tmp_path / 'own'} by hand" in message
    assert (tmp_path / "own" / "good").read_bytes() == b"good"


def test_a_server_that_breaks_off(server: Server, tmp_path: Path) -> None:
    file = server.file("half", bytes(100_000))
    message = refused(one(file), tmp_path, r"cannot be downloaded: .*50000 bytes read, 50000 more expected")
    assert file.url in message and not list((tmp_path / "own").iterdir())


def test_a_server_that_says_nothing(server: Server, tmp_path: Path) -> None:
    refused(one(server.file("slow", b"slow")), tmp_path, "cannot be downloaded: .*timed out", timeout=0.1)


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as held:  # a port that nothing listens at
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/a.gz"
        message = refused(one(DataFile(url, "0" * 64, 1)), tmp_path, "cannot be downloaded: Connection refused")
    assert url in message and "by hand" in message


EVIL = ("../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:\\evil", "C:evil", "\\evil")


@pytest.mark.parametrize("name", EVIL)
def test_archives_that_lead_elsewhere(name: str, server: Server, tmp_path: Path) -> None:
    for raw in (zipped(**{"good": b"good", name: b"evil"}), tarred({"good": b"good", name: b"evil"})):
        data_set = one(server.file("evil.archive", raw), archive=True)
        message = refused(data_set, tmp_path, "cannot be unpacked: the member .* of evil.archive is no file inside")
        assert repr(name) in message


def test_archives_with_links_or_damage(server: Server, tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    refused(one(server.file("a", tarred({}, link)), archive=True), tmp_path, "the member 'link' of a is no file")
    whole = tarred({"a": os.urandom(50_000)})
    for raw in (b"no archive", zipped(a=b"content").replace(b"content", b"damaged"), whole[:30_000]):
        refused(one(server.file("a", raw), archive=True), tmp_path, "own: what was downloaded .* cannot be unpacked: ")


def test_interrupted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    data_set = one(server.file("set.zip", zipped(**{"a.tsv": b"one\ttwo\n", "b.tsv": b"three\tfour\n"})), archive=True)

    def half(self: object, url: str, target: str, _: object) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    def after_the_first(source: Any, target: Any) -> None:
        target.write(source.read())
        if "b.tsv" in target.name:
            raise KeyboardInterrupt

    for place, name, interrupt, left in (
        (pooch.HTTPDownloader, "__call__", half, []),
        (sys.modules["tinygrad_rnn.data.fetch"], "copyfileobj", after_the_first, ["set.zip"]),
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(place, name, interrupt)
            quiet(data_set, tmp_path)
        assert [path.name for path in (tmp_path / "own").iterdir()] == left
    assert {path.name for path in quiet(data_set, tmp_path).iterdir()} == {"a.tsv", "b.tsv"}


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_set = one(server.file("a.txt", b"a"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="own: cannot be written: Not a directory; set TINYGRAD_RNN_DATA to another"):
        quiet(data_set, tmp_path / "file")
    (tmp_path / "folder" / "own" / "a.txt").mkdir(parents=True)
    with pytest.raises(InputError, match="own: cannot be written: Is a directory"):
        quiet(data_set, tmp_path / "folder")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    import pooch

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", full)
    refused(data_set, tmp_path / "full", "own: cannot be written: No space left on device; set")


@pytest.mark.skipif(not can_obey(), reason="this user may write everywhere")
def test_a_folder_without_permission(server: Server, tmp_path: Path) -> None:
    data_set = one(server.file("a.txt", b"a"))
    (tmp_path / "own").mkdir(mode=0o500)

    def refused_by_permissions() -> None:
        obey_permissions()
        refused(data_set, tmp_path, "own: cannot be written: Permission denied; set TINYGRAD_RNN_DATA")

    with ThreadPoolExecutor(1) as thread:  # which ends with what it may not do
        thread.submit(refused_by_permissions).result()


def test_without_pooch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r"^data sets are downloaded with pooch: pip install pooch$"):
        quiet("mnist", tmp_path)


def test_a_name_that_is_none() -> None:
    with pytest.raises(InputError, match="no data set is called 'imagenet'; there are fsdd, mnist, multi30k, sst2"):
        fetch("imagenet")


# --- what is shown ------------------------------------------------------------------------------------------


def shown(data_set: DataSet, cache: Path, **more: Any) -> str:
    screen = io.StringIO()
    fetch(data_set, cache=cache, console=Console(file=screen, width=100, **more))
    return screen.getvalue()


def test_progress(server: Server, tmp_path: Path) -> None:
    data_set = one(server.file("a.bin", os.urandom(2_500_000)), server.file("unsized.bin", os.urandom(3000)))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(data_set, tmp_path / "bar", force_terminal=True))
    last = text.rsplit("a.bin", 1)[1]
    assert "2.5/2.5 MB" in last and "unsized.bin" in last and "3.0/3.0 kB" in last and "━" in last
    lines = shown(data_set, tmp_path / "lines").splitlines()
    first, second = data_set.files
    assert lines == [
        f"downloading {first.url} (2.5 MB) into {tmp_path / 'lines' / 'own'}",
        f"downloading {second.url} (3.0 kB) into {tmp_path / 'lines' / 'own'}",
    ]
    assert shown(data_set, tmp_path / "lines") == ""  # there is nothing to do


def test_progress_goes_to_standard_error_or_nowhere(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data_set = one(server.file("a.bin", b"a"))
    fetch(data_set, cache=tmp_path / "told")
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"downloading {data_set.files[0].url} (0.0 kB)")
    fetch(data_set, cache=tmp_path / "quiet", progress=False)
    assert capfd.readouterr() == ("", "")


# --- the table ----------------------------------------------------------------------------------------------


def test_the_sets() -> None:
    assert list(SETS) == [data_set.name for data_set in SETS.values()]
    hashes = [file.sha256 for data_set in SETS.values() for file in data_set.files]
    assert len(set(hashes)) == len(hashes) and all(re.fullmatch("[0-9a-f]{64}", digits) for digits in hashes)
    for data_set in SETS.values():
        names = [file.name for file in data_set.files]
        assert all(file.url.startswith("https://") and file.size > 0 for file in data_set.files)
        assert len(set(names)) == len(names) and data_set.about and data_set.licence and "://" in data_set.home
        assert {side for _, *sides in data_set.pairs for side in sides} <= set(names)
        assert not data_set.archive or len(names) == 1
