"""Public data sets, downloaded when they are asked for: checked by SHA-256, and kept in a cache."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path, PureWindowsPath
from shutil import copyfileobj
from typing import IO, TYPE_CHECKING

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.screen import console as console_on
from tinygrad_rnn.screen import install, one_line, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

CACHE = "TINYGRAD_RNN_DATA"


@dataclass(frozen=True)
class DataFile:
    """A file to download: its `url`, its `sha256` in hexadecimal digits, its `size` in bytes."""

    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """What it is called in the cache: the end of the URL."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A public data set: what it is `about`, its `licence` as far as known, its `home` page, and its `files`.

    If the first of the files is an `archive` (ZIP or tar), `folder` is where in it the data lie. `pairs` name TSV files
    to be made of two files of sentences, line by line: (name, left, right).
    """

    name: str
    about: str
    licence: str
    home: str
    files: tuple[DataFile, ...]
    archive: bool = False
    folder: str = ""
    pairs: tuple[tuple[str, str, str], ...] = ()

    @property
    def size(self) -> int:
        """How many bytes are downloaded."""
        return sum(file.size for file in self.files)


_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist"
_MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw"

SETS = {
    data_set.name: data_set
    for data_set in (
        # Sizes and hashes: tensorflow/datasets on GitHub, tensorflow_datasets/url_checksums/mnist.txt. Licence: the
        # documentation of Keras.
        DataSet(
            "mnist",
            "70,000 handwritten digits, 28 by 28 pixels, as four IDX files",
            "CC BY-SA 3.0",
            "http://yann.lecun.com/exdb/mnist/",
            (
                DataFile(
                    f"{_MNIST}/train-images-idx3-ubyte.gz",
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    9912422,
                ),
                DataFile(
                    f"{_MNIST}/train-labels-idx1-ubyte.gz",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    28881,
                ),
                DataFile(
                    f"{_MNIST}/t10k-images-idx3-ubyte.gz",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    1648877,
                ),
                DataFile(
                    f"{_MNIST}/t10k-labels-idx1-ubyte.gz",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    4542,
                ),
            ),
        ),
        # Size and hash: tensorflow/datasets, url_checksums/glue.txt (the same file at its first address), and the
        # metadata that Hugging Face shows for the configuration sst2 of glue (this address).
        DataSet(
            "sst2",
            "sentences of film reviews with their sentiment: train.tsv (67,349), dev.tsv (872), test.tsv (no labels)",
            "none is stated",
            "https://nlp.stanford.edu/sentiment/",
            (
                DataFile(
                    "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
                    "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
                    7439277,
                ),
            ),
            archive=True,
            folder="SST-2",
        ),
        # Size and hash: tensorflow/datasets, tensorflow_datasets/datasets/spoken_digit/checksums.tsv; `git archive` of
        # the tag gives the same. Licence: its README.
        DataSet(
            "fsdd",
            "the Free Spoken Digit Dataset 1.0.9: 2,500 recordings of five speakers, WAV, 8 kHz",
            "CC BY-SA 4.0",
            "https://github.com/Jakobovski/free-spoken-digit-dataset",
            (
                DataFile(
                    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.9.tar.gz",
                    "8bc44cde129d505cbbb6b365c09f80c663f2aa77578afc634e6141a2f87100c0",
                    11975353,
                ),
            ),
            archive=True,
            folder="free-spoken-digit-dataset-1.0.9/recordings",
        ),
        # Sizes and hashes: of the files in the repository multi30k/dataset at the commit that the URLs name.
        DataSet(
            "multi30k",
            "captions of pictures, German and English: train.tsv (29,000 pairs), val.tsv (1,014), test.tsv (1,000)",
            "none is stated in the repository; others cite CC BY-NC-SA 4.0 (not for commerce)",
            "https://github.com/multi30k/dataset",
            (
                DataFile(
                    f"{_MULTI30K}/train.de.gz",
                    "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
                    637044,
                ),
                DataFile(
                    f"{_MULTI30K}/train.en.gz",
                    "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
                    568929,
                ),
                DataFile(
                    f"{_MULTI30K}/val.de.gz",
                    "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
                    24681,
                ),
                DataFile(
                    f"{_MULTI30K}/val.en.gz",
                    "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
                    21650,
                ),
                DataFile(
                    f"{_MULTI30K}/test_2016_flickr.de.gz",
                    "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
                    22890,
                ),
                DataFile(
                    f"{_MULTI30K}/test_2016_flickr.en.gz",
                    "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
                    21077,
                ),
            ),
            pairs=(
                ("train.tsv", "train.de.gz", "train.en.gz"),
                ("val.tsv", "val.de.gz", "val.en.gz"),
                ("test.tsv", "test_2016_flickr.de.gz", "test_2016_flickr.en.gz"),
            ),
        ),
    )
}


def fetch(
    data_set: str | DataSet,
    *,
    cache: str | PathLike[str] | None = None,
    progress: bool = True,
    console: Console | None = None,
    timeout: float = 30.0,
) -> Path:
    """The folder with the files of a data set, ready to be read; what is missing there is downloaded first.

    `data_set` is a name in `SETS`, or a `DataSet` of one's own. `cache` is the folder that holds a folder for each
    set; without it, the environment variable TINYGRAD_RNN_DATA says which, or else it is where the system keeps
    caches. With `progress`, `console` (the standard error output unless given) shows a bar for each file if it is a
    terminal, else a line. `timeout` is in seconds without a byte from the server.

    A file appears under its name when its SHA-256 is right, and an archive's files when all of them are unpacked, so a
    download that is interrupted leaves nothing half done. Nothing is downloaded twice: the network is not touched while
    the cache has every file.

    Needs pooch. Raises InputError for an unknown name, without pooch, for a server
    that cannot be reached or does not have the file, a file with another SHA-256, an archive that is damaged or would
    write outside its folder, and a cache that cannot be written.

        >>> sorted(SETS)
        ['fsdd', 'mnist', 'multi30k', 'sst2']
        >>> f"{SETS['mnist'].size:,} bytes"
        '11,594,722 bytes'
        >>> fetch("emnist")
        Traceback (most recent call last):
        ...
        tinygrad_rnn.errors.InputError: no data set is called 'emnist'; there are fsdd, mnist, multi30k, sst2
    """
    if isinstance(data_set, str):
        if data_set not in SETS:
            raise InputError(f"no data set is called {data_set!r}; there are {', '.join(sorted(SETS))}")
        data_set = SETS[data_set]
    try:
        import pooch
    except ImportError:
        raise InputError(f"data sets are downloaded with pooch: {install('pooch')}") from None
    root = cache or os.environ.get(CACHE) or pooch.os_cache("tinygrad-rnn")
    folder = Path(root).expanduser() / data_set.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(data_set, folder, progress, console, timeout)
        return _prepare(data_set, folder)
    except OSError as error:
        reason = _innermost(error)
        raise InputError(
            f"{folder}: cannot be written: {getattr(reason, 'strerror', None) or reason}; set {CACHE} to another folder"
        ) from None


# --- downloading --------------------------------------------------------------------------------------------


def _download(data_set: DataSet, folder: Path, progress: bool, console: Console | None, timeout: float) -> None:
    """Bring the files of a set that are missing, or have another hash, into a folder."""
    import pooch
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = console or console_on(sys.stderr)
    live = progress and console.is_terminal and not console.is_dumb_terminal
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    pooch.get_logger().setLevel("WARNING")  # what it would log is shown here
    with Progress(*columns, console=console, disable=not live) as bars:
        for file in data_set.files:

            def get(url: str, target: str, _: object, file: DataFile = file) -> None:
                if progress and not live:
                    say(console, f"downloading {url} ({_bytes(file.size)}) into {folder}")
                bar = _Bar(bars, bars.add_task(file.name, total=file.size)) if live else False
                by_hand = f"put it into {folder} by hand and try again"
                try:
                    pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=timeout)(url, target, None)
                except OSError as error:
                    if error.errno is not None:  # the disk's error; those of requests have none
                        raise
                    raise InputError(f"{url}: cannot be downloaded: {_why(error)}; {by_hand}") from None
                found = pooch.file_hash(target)
                if found != file.sha256:
                    size = f"{os.path.getsize(target):,} bytes, {file.size:,} expected"
                    raise InputError(
                        f"{url}: not the file that is expected: SHA-256 {found} instead of {file.sha256} ({size})"
                    )

            pooch.retrieve(file.url, f"sha256:{file.sha256}", fname=file.name, path=folder, downloader=get)


class _Bar:
    """What pooch wants of a progress bar, drawn by rich."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self.bars, self.task = bars, task
        self.total = 0  # pooch sets it to what the server says; the bar knows the size already

    def update(self, count: int) -> None:
        self.bars.advance(self.task, count)

    def reset(self) -> None:
        self.bars.update(self.task, completed=0)

    def close(self) -> None:
        self.bars.update(self.task, completed=self.bars.tasks[self.task].total)


def _why(error: OSError) -> str:
    """What an exception of requests comes down to: the answer of the server, or the error at the bottom."""
    response = getattr(error, "response", None)
    if response is not None:
        response.close()
        return f"HTTP {response.status_code} {response.reason}"
    reason = _innermost(error)
    return " ".join((getattr(reason, "strerror", None) or str(reason) or type(reason).__name__).split())


def _innermost(error: BaseException) -> BaseException:
    """The exception that was first, of those raised on account of one another."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


# --- unpacking ----------------------------------------------------------------------------------------------


def _prepare(data_set: DataSet, folder: Path) -> Path:
    """The folder to read from: that of the files, or a new one for what is made of them."""
    if not data_set.archive and not data_set.pairs:
        return folder
    # Another version of the set has other hashes, so it gets another folder.
    version = hashlib.sha256("".join(file.sha256 for file in data_set.files).encode()).hexdigest()[:8]
    ready = folder / f"ready-{version}"
    if not ready.is_dir():
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=folder) as scratch:
            made = Path(scratch) / ready.name
            made.mkdir()
            try:
                if data_set.archive:
                    _unpack(folder / data_set.files[0].name, made)
                for name, left, right in data_set.pairs:
                    _paste(folder / left, folder / right, made / name)
            except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
                reason = one_line(str(error))
                raise InputError(f"{folder}: what was downloaded into it cannot be unpacked: {reason}") from None
            made.rename(ready)  # all of it or nothing
    return ready / data_set.folder


def _unpack(archive: Path, folder: Path) -> None:
    """Write the files of a ZIP or tar archive into a folder, and never beside it.

    (Before Python 3.12, pooch.Untar writes wherever the name of a member leads.)
    """
    with closing(_members(archive)) as members:
        for name, opened in members:
            path = PureWindowsPath(name)  # either slash separates, and a drive is seen
            if path.anchor or ".." in path.parts or opened is None:
                raise ValueError(f"the member {name!r} of {archive.name} is no file inside the folder")
            target = folder.joinpath(*path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, target.open("xb") as file:
                copyfileobj(source, file)


def _members(archive: Path) -> Generator[tuple[str, Callable[[], IO[bytes]] | None], None, None]:
    """The name of each member that is no folder, and what opens it; None for a link or a device."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    yield info.filename, partial(packed.open, info)
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if not member.isdir():
                    yield member.name, partial(_extracted, tar, member) if member.isfile() else None


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(member)
    assert source is not None  # it is for links and folders
    return source


def _paste(left: Path, right: Path, target: Path) -> None:
    """Two compressed files of sentences as one of pairs; blanks within a sentence become spaces, tabs too."""
    columns = []
    for path in (left, right):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            columns.append([" ".join(line.split()) for line in file])
    if len(columns[0]) != len(columns[1]):
        raise ValueError(f"{left.name} has {len(columns[0]):,} lines, and {right.name} has {len(columns[1]):,}")
    rows = (f"{a}\t{b}\n" for a, b in zip(*columns, strict=True))
    target.write_text("".join(rows), encoding="utf-8", newline="\n")
