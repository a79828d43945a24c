"""The command as a user runs it: what it leaves behind, what it says, and its answers to wrong input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.permissions import can_obey
from tinygrad_rnn import data, decoding, language
from tinygrad_rnn.cli import main as cli
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.language import task
from tinygrad_rnn.language.model import load_model
from tinygrad_rnn.language.task import NextCharacter
from tinygrad_rnn.training import read_metrics

SMALL = ["--hidden", "16", "--embedding", "8", "--seq-len", "16", "--batch", "4", "--threads", "1"]
TEXT = "".join(f"the {a} of the {b} is {(7 * i) % 11}.\n" for i in range(12) for a in "abc" for b in ("sun", "moon"))


def command(*args: str | Path, cwd: Path, **options) -> subprocess.CompletedProcess[str]:
    """`python -W error -m tinygrad_rnn ARGS`, in a process of its own."""
    root = str(Path(tr.__file__).parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": root,
        "COLUMNS": "100",
        "PYTHONUTF8": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    environment |= options.pop("env", {})
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tinygrad_rnn", *map(str, args)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        **options,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with `text.txt` and the run `run`, and what the command said."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    done = command("train", "--text", "text.txt", "--steps", 60, "--out", "run", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_train_leaves_a_run(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    pytest.importorskip("matplotlib")
    run = trained[0] / "run"
    assert sorted(p.name for p in run.iterdir()) == [
        "checkpoints",
        "config.json",
        "loss.png",
        "metrics.jsonl",
    ]
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["hidden"] == 16 and config["training"]["steps"] == 60
    assert config["text"]["train"] + config["text"]["held_out"] == len(TEXT)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == list(range(1, 61))
    assert {"step", "loss", "bits_per_char", "chars_per_second"} <= records[0].keys()
    assert "held_out_bits_per_char" in records[-1]
    assert records[-1]["loss"] < records[0]["loss"]
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((run / "checkpoints" / "best.json").read_text())
    measured = {r["step"]: r["held_out_bits_per_char"] for r in records if "held_out_bits_per_char" in r}
    assert manifest["step"] == min(measured, key=measured.__getitem__)


def test_train_says_what_it_does(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    said = trained[1].stdout
    assert trained[1].stderr == ""
    for part in (
        "LSTM, 16 hidden units",
        "step 60/60",
        "held-out",
        "chars/s",
        "A sample",
        "3-gram",
        "4-gram",
        "lzma",
    ):
        assert part in said
    assert " win" in said or "beats" in said
    assert "\x1b" not in said  # no terminal, no colours


def test_generate_streams_the_same_text_for_the_same_seed(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder = trained[0]
    first, again, other = (
        command("generate", "run", "--prompt", "the sun", "--length", 80, "--seed", seed, cwd=folder)
        for seed in (1, 1, 2)
    )
    assert first.returncode == 0 and first.stderr == ""
    assert first.stdout == again.stdout != other.stdout
    assert first.stdout.startswith("the sun") and len(first.stdout) == len("the sun") + 80 + 1
    assert set(first.stdout) <= set(TEXT)


def test_options_of_generate(trained: tuple[Path, subprocess.CompletedProcess[str]], capsys) -> None:
    run = str(trained[0] / "run")
    texts = []
    for options in (
        ["--temperature", "0"],
        ["--top-k", "1", "--seed", "5"],
        ["--length", "0", "--prompt", "the"],
    ):
        assert main(["generate", run, "--length", "30", *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and texts[2] == "the\n"


def test_the_same_seed_trains_the_same_model(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, capsys
) -> None:
    text = str(trained[0] / "text.txt")
    runs = []
    for name in ("a", "b"):
        out = tmp_path / name
        assert main(["train", "--text", text, "--steps", "8", "--model", "gru", "--out", str(out), *SMALL]) == 0
        times = {"chars_per_second"}
        lines = (out / "metrics.jsonl").read_text().splitlines()
        logged = [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]
        weights = [path.name for path in sorted((out / "checkpoints").iterdir())]  # their names hold a digest
        runs.append((logged, weights))
    assert runs[0] == runs[1]
    capsys.readouterr()


def test_a_run_is_replaced_when_told_to(trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    text = trained[0] / "text.txt"
    args = ["train", "--text", text, "--steps", 2, "--out", tmp_path / "run", *SMALL]
    assert command(*args, cwd=tmp_path).returncode == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    refused = command(*args, cwd=tmp_path)
    assert refused.returncode == 2 and "holds a run already" in refused.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert command(*args, "--replace", "--model", "rnn", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["cell"] == "rnn"


def test_without_out_the_run_gets_a_name_of_its_own(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for _ in range(2):
        done = command("train", "--text", trained[0] / "text.txt", "--minutes", 0.001, *SMALL, cwd=tmp_path)
        assert done.returncode == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["lstm-1", "lstm-2"]


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
        "unseen.txt: the model has never seen '§' (character 9 of the file)",
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
def wrong_folder(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
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


def test_a_network_too_large_for_the_memory_is_one_line(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
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
def test_no_space_is_one_line_and_leaves_nothing(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, limit: int
) -> None:
    args = ["train", "--text", trained[0] / "text.txt", "--steps", 50, *SMALL]
    done = command(*args, cwd=tmp_path, preexec_fn=small_files(limit))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr and str(Path("runs", "lstm-1")) in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_space_in_the_middle_keeps_the_last_checkpoint(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
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
def test_no_permission_is_one_line_and_leaves_nothing(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
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


def test_evaluate_gives_the_bits_of_a_text(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "the sun of the moon\n\nthe a of"
    (tmp_path / "new.txt").write_text(text)
    args = ["evaluate", str(trained[0] / "run"), "--text", str(tmp_path / "new.txt")]
    assert main(args) == 0
    said = capsys.readouterr().out
    model, vocabulary, manifest = load_model(trained[0] / "run" / "checkpoints")
    ids = vocabulary.encode("\n" + text)
    scores, _ = model(ids[:-1, None])
    p = tr.softmax(scores, axis=-1).numpy()[np.arange(len(text)), 0, ids[1:]]
    bits = -np.log2(p)
    assert said.startswith(f"{bits.mean():.3f} bits per character: {len(text)} of ")
    assert said.endswith(f"new.txt, by the model of step {manifest['step']}\n")
    assert main([*args, "--per-line", "--checkpoint", "last"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ", 1)[1] for line in lines[:3]] == ["the sun of the moon", "", "the a of"]
    assert "by the model of step 60" in lines[3]
    if manifest["step"] == 60:
        assert float(lines[0].split()[0]) == pytest.approx(bits[:20].mean(), abs=6e-4)
        assert float(lines[2].split()[0]) == pytest.approx(bits[21:].mean(), abs=6e-4)


def test_a_long_text_is_evaluated_in_pieces(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "long.txt").write_text(TEXT * 4)
    args = ["evaluate", str(trained[0] / "run"), "--text", str(tmp_path / "long.txt")]
    real = data.read_blocks
    said = []
    for size in (10**6, 700):
        monkeypatch.setattr(task, "read_blocks", lambda path, encoding, size=size: real(path, encoding, size))
        assert main(args) == 0
        said.append(capsys.readouterr().out.split())
    assert said[0][1:] == said[1][1:] and float(said[0][0]) == pytest.approx(float(said[1][0]), rel=0.02)


def test_generate_writes_with_the_last_model_when_asked(
    trained: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(trained[0] / "run")
    assert main(["generate", run, "--length", "9", "--checkpoint", "last", "--temperature", "0"]) == 0
    last, vocabulary, manifest = load_model(Path(run) / "checkpoints", "last")
    assert manifest["step"] == 60
    expected = "".join(decoding.generate(last, vocabulary, length=9, temperature=0))
    assert capsys.readouterr().out == expected + "\n"


def test_a_diverging_run_says_so(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = NextCharacter.loss

    def diverging(self: NextCharacter, step: int) -> tuple[tr.Tensor, int]:
        loss, counted = real(self, step)
        return (loss * float("nan") if step == 20 else loss), counted

    monkeypatch.setattr(NextCharacter, "loss", diverging)
    out = tmp_path / "run"
    args = ["train", "--text", str(trained[0] / "text.txt"), "--out", str(out), "--steps", "50", *SMALL]
    assert main(args) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the loss is nan at step 21: try a smaller learning rate (--lr)" in said
    assert f"the best model so far is kept in {out}" in said
    assert main(["generate", str(out), "--length", "5"]) == 0


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_saved_and_says_how_to_go_on(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, number: int, status: int
) -> None:
    args = ["train", "--text", trained[0] / "text.txt", "--out", "run", "--steps", 10**6, *SMALL]
    root = str(Path(tr.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygrad_rnn", *map(str, args)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root, "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    for _ in range(600):
        if metrics.exists() and metrics.stat().st_size:
            break
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert err == "" and "Stopped after step" in out and re.search(r"To go on: .*train --resume run\n", out)
    assert command("generate", "run", "--length", 5, cwd=tmp_path).returncode == 0  # with the last, as no best is known
    step = json.loads((tmp_path / "run" / "checkpoints" / "last.json").read_text())["step"]
    again = command("train", "--resume", "run", "--steps", step + 5, cwd=tmp_path)
    assert again.returncode == 0 and f"Going on after step {step:,} of run" in again.stdout, again.stderr
    assert json.loads(metrics.read_text().splitlines()[-1])["step"] == step + 5


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_stopped_before_it_trains_leaves_nothing(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    status: int,
) -> None:
    if number == signal.SIGINT:  # a shell has the jobs in its background ignore it
        signal.signal(number, signal.default_int_handler)
    before = signal.getsignal(number)
    monkeypatch.setattr(language, "measure_baselines", lambda *args: os.kill(os.getpid(), number))
    out = tmp_path / "runs" / "new"
    assert main(["train", "--text", str(trained[0] / "text.txt"), "--out", str(out), *SMALL]) == status
    assert capsys.readouterr().err == "tinygrad-rnn: stopped\n"
    assert not list(tmp_path.iterdir()) and signal.getsignal(number) is before


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_goes_away_is_no_error(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
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


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for args, part in [
        (["--version"], f"tinygrad-rnn {tr.__version__}"),
        (["--help"], "COMMAND --help"),
        (["train", "--help"], "examples:"),
        (["train", "--help"], "--resume RUN"),
        (["generate", "--help"], "examples:"),
        (["evaluate", "--help"], "examples:"),
        (["doctor", "--help"], "GPUs or what to install"),
    ]:
        with pytest.raises(SystemExit) as exit_:
            main(args)
        assert exit_.value.code == 0
        said = capsys.readouterr().out
        assert part in said and max(map(len, said.splitlines())) <= 110


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom tinygrad_rnn.cli.main import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'rich', 'matplotlib', 'safetensors'} & set(sys.modules)"
    )
    root = str(Path(tr.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": root}, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_text_without_its_option_is_recognised(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("yours.txt").write_text("some text")
    assert main(["train", "yours.txt"]) == 2
    assert "did you mean --text yours.txt? (see tinygrad-rnn train --help)" in capsys.readouterr().err


def test_the_command_is_named_as_it_can_be_called(monkeypatch, tmp_path):
    monkeypatch.setattr(cli.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert cli._command() == "tinygrad-rnn"
    monkeypatch.setattr(cli.shutil, "which", lambda name: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "tinygrad-rnn")])
    assert cli._command() == ".venv/bin/tinygrad-rnn"
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert cli._command() == "/usr/bin/python3 -m tinygrad_rnn"


def test_fast_without_numba_is_one_line(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "tinygrad_rnn.kernels.numba_stages", raising=False)
    text = str(trained[0] / "text.txt")
    assert main(["train", "--text", text, "--out", str(tmp_path / "run"), "--steps", "3", "--numba", *SMALL]) == 2
    assert "--numba: numba is not installed: pip install" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_fast_trains_about_the_same_and_resumes(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    pytest.importorskip("numba")
    train = "train", "--text", trained[0] / "text.txt", "--out", tmp_path / "run", "--numba", *SMALL
    done = command(*train, "--steps", 60, cwd=tmp_path)
    assert done.returncode == 0 and "Compiled kernels, ready in " in done.stdout, done.stderr
    plain, fast = (
        [r["loss"] for r in read_metrics(folder / "run" / "metrics.jsonl")] for folder in (trained[0], tmp_path)
    )
    assert np.allclose(plain, fast, rtol=1e-3)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["training"]["numba"] is True
    more = command("train", "--resume", "run", "--steps", 70, cwd=tmp_path)
    assert more.returncode == 0 and "Compiled kernels" in more.stdout, more.stderr
