"""The command's answers to what goes wrong: wrong input, no memory, no space, no permission, a closed pipe."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tinygrad_rnn as tr
from tests.cli.command import SMALL, TEXT, Trained, command
from tests.permissions import can_obey
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.cli.options import quoted
from tinygrad_rnn.training import read_metrics

WRONG = {
    "no command": ([], "required"),
    "unknown command": (["trian"], "invalid choice"),
    "unknown option": (["train", "--hiden", "3"], "unrecognized arguments"),
    "missing file": (["train", "--text", "none.txt"], "none.txt: no such file"),
    "one of two files missing": (["train", "--text", "text.txt", "none.txt"], "none.txt: no such file"),
    "a folder as text": (["train", "--text", "."], "is a folder"),
    "empty file": (["train", "--text", "empty.txt"], "the file is empty"),
    "binary file": (["train", "--text", "binary"], "binary"),
    "undecodable file": (["train", "--text", "latin.txt"], "not utf-8: invalid"),
    "unknown encoding": (["train", "--text", "text.txt", "--encoding", "klingon"], "unknown encoding"),
    "short text": (["train", "--text", "short.txt"], "the text is too short"),
    "no hidden units": (["train", "--hidden", "0"], "--hidden: must be a whole number from 1"),
    "half a hidden unit": (["train", "--hidden", "0.5"], "--hidden: must be a whole number"),
    "no layers": (["train", "--layers", "0"], "--layers: must be"),
    "no embedding": (["train", "--embedding", "-3"], "--embedding: must be"),
    "negative steps": (["train", "--steps", "-1"], "--steps: must be a whole number from 1"),
    "no steps": (["train", "--steps", "0"], "--steps: must be a whole number from 1"),
    "no minutes": (["train", "--minutes", "0"], "--minutes: must be a number above 0"),
    "endless minutes": (["train", "--minutes", "inf"], "--minutes: must be a number above 0"),
    "NaN rate": (["train", "--lr", "nan"], "--lr: must be a number above 0, up to 1,000, not 'nan'"),
    "negative rate": (["train", "--lr", "-0.1"], "--lr: must be a number above 0"),
    "no clip": (["train", "--clip", "0"], "--clip: must be a number above 0"),
    "all dropped": (["train", "--dropout", "1.5"], "--dropout: must be a number from 0 to 0.99"),
    "no batch": (["train", "--batch", "0"], "--batch: must be"),
    "no sequence": (["train", "--seq-len", "0"], "--seq-len: must be"),
    "negative seed": (["train", "--seed", "-1"], "--seed: must be"),
    "no threads": (["train", "--threads", "0"], "--threads: must be"),
    "unknown cell": (["train", "--model", "transformer"], "invalid choice"),
    "unknown device": (["train", "--device", "tpu"], "unknown device 'tpu': cpu, cuda or cuda:N"),
    "CuPy absent": (["train", "--text", "text.txt", "--device", "cuda"], 'device "cuda" needs CuPy: python -m pip'),
    "no patience": (["train", "--patience", "0"], "--patience: must be"),
    "never saved": (["train", "--save-every", "0"], "--save-every: must be"),
    "unknown schedule": (["train", "--schedule", "magic"], "invalid choice"),
    "folder of another": (["train", "--text", "text.txt", "--out", "full"], "holds no run"),
    "folder of another, replacing": (
        ["train", "--text", "text.txt", "--out", "full", "--replace"],
        "holds no run",
    ),
    "out is a file": (["train", "--text", "text.txt", "--out", "text.txt"], "is a file"),
    "out below a file": (["train", "--text", "text.txt", "--out", "text.txt/run"], "is not a folder"),
    "no run to resume": (["train", "--resume", "none"], "none: no such folder"),
    "resume what is no run": (["train", "--resume", "full"], "full: is no run"),
    "resume as another network": (["train", "--resume", "run", "--hidden", "3"], "--hidden cannot be changed"),
    "resume into another folder": (["train", "--resume", "run", "--out", "new"], "--out cannot be changed"),
    "resume with fewer steps": (["train", "--resume", "run", "--steps", "3"], "has done 60 steps already"),
    "resume on another text": (
        ["train", "--resume", "run", "--text", "latin.txt", "--encoding", "latin-1"],
        "another text",
    ),
    "resume a damaged run": (["train", "--resume", "damaged"], "is damaged: its SHA-256 differs"),
    "no run to evaluate": (["evaluate", "none", "--text", "text.txt"], "none: no such folder"),
    "evaluate on nothing": (["evaluate", "run"], "required: --text"),
    "evaluate on a missing file": (["evaluate", "run", "--text", "none.txt"], "none.txt: no such file"),
    "evaluate on an empty file": (["evaluate", "run", "--text", "empty.txt"], "the file is empty"),
    "evaluate on a binary file": (["evaluate", "run", "--text", "binary"], "binary"),
    "evaluate on unseen characters": (
        ["evaluate", "run", "--text", "unseen.txt"],
        "unseen.txt: the model has never seen '§' (character 9 of it)",
    ),
    "evaluate a damaged run": (["evaluate", "damaged", "--text", "text.txt"], "is damaged: its SHA-256 differs"),
    "no run to generate from": (["generate", "none"], "none: no such folder"),
    "generate from no run": (["generate", "full"], "is no run"),
    "generate from a run without a model": (["generate", "unfinished"], "there is no checkpoint here"),
    "generate from a damaged run": (["generate", "damaged"], "is damaged: its SHA-256 differs"),
    "unseen characters": (["generate", "run", "--prompt", "the §"], "has never seen the character '§'"),
    "temperature below 0": (
        ["generate", "run", "--temperature", "-1"],
        "--temperature: must be a number from 0",
    ),
    "NaN temperature": (
        ["generate", "run", "--temperature", "nan"],
        "--temperature: must be a number from 0",
    ),
    "no top k": (["generate", "run", "--top-k", "0"], "--top-k: must be"),
    "negative length": (["generate", "run", "--length", "-5"], "--length: must be"),
}


@pytest.fixture(scope="module")
def wrong_folder(trained: Trained) -> Path:
    folder = trained[0]
    (folder / "empty.txt").write_bytes(b"")
    (folder / "binary").write_bytes(bytes(range(256)) * 40)
    (folder / "latin.txt").write_bytes("café ".encode("latin-1") * 2000)
    (folder / "short.txt").write_text("too short")
    (folder / "unseen.txt").write_text("the sun\n§", encoding="utf-8")
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    for name in ("unfinished", "damaged"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text((folder / "run" / "config.json").read_text())
    (folder / "damaged" / "checkpoints").mkdir()
    for path in (folder / "run" / "checkpoints").iterdir():
        raw = bytearray(path.read_bytes())
        if path.suffix == ".safetensors":
            raw[-9] ^= 4
        (folder / "damaged" / "checkpoints" / path.name).write_bytes(raw)
    return folder


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(
    wrong_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    args, message = WRONG[case]
    if case == "CuPy absent":
        monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.chdir(wrong_folder)
    before = {path: path.stat().st_mtime_ns for path in wrong_folder.rglob("*")}
    status = main(args)
    said = capsys.readouterr()
    assert status == 2
    assert said.err.startswith("tinygrad-rnn: ") and said.err.count("\n") == 1 and message in said.err
    assert said.out == ""
    assert before == {path: path.stat().st_mtime_ns for path in wrong_folder.rglob("*")}


def test_wrong_input_in_a_process_of_its_own(wrong_folder: Path) -> None:
    done = command("train", "--text", "none.txt", "--out", "new", cwd=wrong_folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not (wrong_folder / "new").exists()


def test_any_name_of_a_file_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    name = b"[bold]x[.] $a$ a:smile:b  caf\xe9"
    folder = tmp_path / os.fsdecode(name)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "40")
    text, run = os.fsdecode(name + b".txt"), os.fsdecode(name + b"-run")
    Path(text).write_text(TEXT.replace("sun", ":x:"))

    def said(*args: str, status: int = 0) -> bytes:
        assert main(args) == status
        done = capfdbinary.readouterr()
        return done.err if status else done.out

    out = said("train", "--text", text, "--out", run, "--steps", "2", *SMALL)
    assert b"held out: " + name + b".txt\n" in out and b"Written to " + name + b"-run: config.json" in out
    assert b" generate " + os.fsencode(quoted(run)) + b"\n" in out
    assert Path(run, "loss.png").exists() == (b"loss.png" in out)
    sample = re.split("\n?─+\n", out.decode(errors="surrogateescape"))[1]
    assert sample == said("generate", run, "--length", "600").decode().removesuffix("\n").removesuffix("\n")
    out = said("train", "--resume", run, "--steps", "3")
    assert b"Going on after step 2 of " + name + b"-run\n" in out
    assert b" of " + name + b".txt, by the model" in said("evaluate", run, "--text", text)
    for args in (["--text", f"{text}x"], ["--text", text, "--out", run], ["--resume", f"{run}x"], [f"{text}x"]):
        assert name in said("train", *args, status=2)


def test_a_network_too_large_for_the_memory_is_one_line(trained: Trained, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    args = [
        "train",
        "--text",
        trained[0] / "text.txt",
        "--out",
        "new",
        "--steps",
        1,
        *SMALL,
        "--hidden",
        "65536",
    ]
    limit = 3 * 2**30

    def small_machine() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = command(*args, cwd=tmp_path, preexec_fn=small_machine)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("tinygrad-rnn: not enough memory") and done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def small_files(limit: int) -> Callable[[], None]:
    """What makes a process fail as on a full disk once a file of its grows beyond `limit` bytes."""
    resource = pytest.importorskip("resource")
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.parametrize("limit", [0, 3000])
def test_no_space_is_one_line_and_leaves_nothing(trained: Trained, tmp_path: Path, limit: int) -> None:
    args = ["train", "--text", trained[0] / "text.txt", "--steps", 50, *SMALL]
    done = command(*args, cwd=tmp_path, preexec_fn=small_files(limit))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr and str(Path("runs", "lstm-1")) in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_space_in_the_middle_keeps_the_last_checkpoint(trained: Trained, tmp_path: Path) -> None:
    args = ["train", "--text", trained[0] / "text.txt", "--out", "run", "--steps", 3000, "--save-every", 20, *SMALL]
    done = command(*args, cwd=tmp_path, preexec_fn=small_files(60_000))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "metrics.jsonl: File too large" in done.stderr
    assert re.search(r"to go on from the last checkpoint: \S+ .*train --resume run", done.stderr)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert not list((tmp_path / "run").rglob("*.tmp"))
    step = json.loads((tmp_path / "run" / "checkpoints" / "last.json").read_text())["step"]
    assert command("train", "--resume", "run", "--steps", step + 1, cwd=tmp_path).returncode == 0


@pytest.mark.skipif(not can_obey(), reason="this user may write everywhere")
def test_no_permission_is_one_line_and_leaves_nothing(trained: Trained, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from tests.permissions import obey_permissions\n"
        "from tinygrad_rnn.cli.main import main\n"
        "obey_permissions()\n"
        "sys.exit(main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(tr.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    folder = tmp_path / "folder"
    shutil.copytree(trained[0] / "run", folder / "run")
    (folder / "closed").mkdir()
    for name in ("text.txt", "secret.txt"):
        (folder / name).write_text(TEXT)
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0 if path.name == "secret.txt" else 0o555 if path.is_dir() else 0o444)
    try:
        start = ["train", "--steps", "1", *SMALL, "--text"]
        for args, message in (
            ([*start, "text.txt"], "no permission to write in"),
            ([*start, "text.txt", "--out", "closed"], "closed: no permission to write here"),
            (["evaluate", "run", "--text", "secret.txt"], "secret.txt: cannot be read: Permission denied"),
            (["train", "--resume", "run", "--steps", "90"], "run: no permission to write here"),
        ):
            done = subprocess.run(
                [sys.executable, "-c", program, *args], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
            assert message in done.stderr and done.stdout == ""
            assert not list((folder / "closed").iterdir()) and not (folder / "runs").exists()
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_goes_away_is_no_error(trained: Trained) -> None:
    root = str(Path(tr.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygrad_rnn", "generate", "run", "--length", "100000"],
        cwd=trained[0],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 141
    process.stderr.close()


CLOSED = """
import os, sys
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.cli.options import quoted
from tinygrad_rnn.training import read_metrics
run, text, out = sys.argv[1:]
statuses = [main(["generate", run, "--length", "5"]), main(["evaluate", run, "--text", text]), main(["doctor"])]
statuses.append(main(["train", "--text", text, "--steps", "2", "--hidden", "8", "--batch", "4", "--out", out]))
lowest = os.open(os.devnull, os.O_RDONLY)
os.write(3, f"{statuses} {lowest > 3}".encode())
"""


@pytest.mark.skipif(os.name == "nt", reason="descriptors of POSIX")
def test_closed_standard_streams_are_no_traceback(trained: Trained, tmp_path: Path) -> None:
    """What only writes says so; a training has its folder. No file gets the number of a closed stream."""

    def close() -> None:
        os.dup2(os.open(tmp_path / "statuses", os.O_CREAT | os.O_WRONLY), 3)
        os.close(0)
        os.close(1)

    arguments = [trained[0] / "run", trained[0] / "text.txt", tmp_path / "new"]
    environment = {**os.environ, "PYTHONPATH": str(Path(tr.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CLOSED, *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        preexec_fn=close,
        close_fds=False,
        text=True,
    )
    assert done.returncode == 0 and (tmp_path / "statuses").read_text() == "[2, 2, 2, 0] True", done.stderr
    said = "tinygrad-rnn: the standard output is closed, and there is nowhere else to write to\n"
    assert done.stderr == 3 * said
    assert [r["step"] for r in read_metrics(tmp_path / "new" / "metrics.jsonl")] == [1, 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_outputs_that_take_nothing_in_a_process_of_its_own(trained: Trained) -> None:
    """The interpreter has nothing left to write, which it would answer with a status of its own, 120."""
    root = str(Path(tr.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "", "OPENBLAS_NUM_THREADS": "1"}
    args = [sys.executable, "-m", "tinygrad_rnn", "train", "--help"]
    for err in (subprocess.PIPE, subprocess.STDOUT):
        with open("/dev/full", "w") as full:
            done = subprocess.run(args, cwd=trained[0], env=environment, stdout=full, stderr=err, text=True)
        assert done.returncode == 2
        assert done.stderr in (None, "tinygrad-rnn: the standard output: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("args", [["evaluate", "run", "--text", "text.txt"], ["generate", "run", "--length", "3"]])
def test_an_output_that_takes_nothing_is_one_line(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], args: list[str]
) -> None:
    monkeypatch.chdir(trained[0])
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(args) == 2
        full.flush()  # as the interpreter does when it ends
    assert capfd.readouterr().err == "tinygrad-rnn: the standard output: No space left on device\n"


def test_a_message_keeps_the_blanks_of_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--text", "two  blanks\u00a0x.txt"]) == 2
    assert "two  blanks\u00a0x.txt: no such file" in capsys.readouterr().err
    assert main(["train", "--text", "two\nlines.txt"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
