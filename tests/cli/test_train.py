"""`tinygrad-rnn train`: what it leaves behind and says, and how it ends when it is stopped."""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import tinygrad_rnn as tr
from tests.cli.command import SMALL, TEXT, Trained, command
from tinygrad_rnn import data, language
from tinygrad_rnn.cli import train as cli_train
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.cli.parser import parser
from tinygrad_rnn.cli.reading import Text
from tinygrad_rnn.cli.settings import settings_of
from tinygrad_rnn.kernels.threads import allowed
from tinygrad_rnn.language.model import load_model
from tinygrad_rnn.language.task import NextCharacter, measuring_speed
from tinygrad_rnn.training import load_checkpoint, read_metrics


def test_train_leaves_a_run(trained: Trained) -> None:
    pytest.importorskip("matplotlib")
    run = trained[0] / "run"
    assert sorted(p.name for p in run.iterdir()) == [
        "checkpoints",
        "config.json",
        "loss.png",
        "metrics.jsonl",
        "options.toml",
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


def test_train_says_what_it_does(trained: Trained) -> None:
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


def test_the_same_seed_trains_the_same_model(trained: Trained, tmp_path: Path, capsys) -> None:
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


def test_a_run_is_replaced_when_told_to(trained: Trained, tmp_path: Path) -> None:
    text = trained[0] / "text.txt"
    args = ["train", "--text", text, "--steps", 2, "--out", tmp_path / "run", *SMALL]
    assert command(*args, cwd=tmp_path).returncode == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    refused = command(*args, cwd=tmp_path)
    assert refused.returncode == 2 and "holds a run already" in refused.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert command(*args, "--replace", "--model", "rnn", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["cell"] == "rnn"


def test_without_out_the_run_gets_a_name_of_its_own(trained: Trained, tmp_path: Path) -> None:
    for _ in range(2):
        done = command("train", "--text", trained[0] / "text.txt", "--minutes", 0.001, *SMALL, cwd=tmp_path)
        assert done.returncode == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["lstm-1", "lstm-2"]


def test_a_diverging_run_says_so(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = NextCharacter.batch

    def diverging(self: NextCharacter, step: int) -> tuple[Any, int]:
        if step == 20:
            bias = self.model.output.bias
            bias.assign_(bias.numpy() * float("nan"))
        return real(self, step)

    monkeypatch.setattr(NextCharacter, "batch", diverging)
    out = tmp_path / "run"
    args = ["train", "--text", str(trained[0] / "text.txt"), "--out", str(out), "--steps", "50", *SMALL]
    assert main(args) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the loss is nan at step 21: try a smaller learning rate (--lr)" in said
    assert f"the best model so far is kept in {out}" in said
    assert main(["generate", str(out), "--length", "5"]) == 0


@pytest.mark.parametrize(("error", "said"), [(MemoryError(), ""), (MemoryError("1 TiB"), "1 TiB: ")])
def test_where_memory_runs_out_it_says_what_helps(
    error: MemoryError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(settings: object) -> int:
        raise error  # true, and without a word

    monkeypatch.setattr(cli_train, "_run", fails)
    assert main(["train"]) == 2
    assert capsys.readouterr().err == f"tinygrad-rnn: not enough memory: {said}{cli_train.SMALLER}\n"


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_saved_and_says_how_to_go_on(
    trained: Trained, tmp_path: Path, number: int, status: int
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
def test_a_closed_terminal_stops_and_saves(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    at_step(5, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGHUP))
    out = "a 'b'  c"
    args = ["train", "--text", str(trained[0] / "text.txt"), "--out", out, "--steps", "50", *SMALL]
    assert main(args) == 129
    said = capsys.readouterr()
    assert said.err == "" and said.out.splitlines()[-1].endswith(f" train --resume {shlex.quote(out)}")
    assert json.loads(Path(out, "checkpoints", "last.json").read_text())["step"] == 6


@pytest.mark.skipif(os.name == "nt", reason="files of POSIX, which may be removed while they are open")
def test_a_folder_that_is_removed_ends_the_run_at_the_next_save(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    at_step(5, monkeypatch, lambda: shutil.rmtree(out))
    args = ["train", "--text", str(trained[0] / "text.txt"), "--out", str(out), "--steps", "500", *SMALL]
    assert main([*args, "--save-every", "10"]) == 2
    said = capsys.readouterr().err
    assert said == f"tinygrad-rnn: {out / 'metrics.jsonl'}: was removed or moved while it was written\n"
    assert not list(tmp_path.iterdir())


def test_two_runs_that_start_at_once_take_two_names(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    real = cli_train._session

    def meanwhile(*args: Any) -> Any:
        Path("runs", "lstm-1").mkdir(parents=True)
        return real(*args)

    monkeypatch.setattr(cli_train, "_session", meanwhile)
    assert main(["train", "--text", str(trained[0] / "text.txt"), "--steps", "2", *SMALL]) == 0
    assert not list(Path("runs", "lstm-1").iterdir()) and Path("runs", "lstm-2", "checkpoints", "last.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("terminal", [False, True])
def test_a_reader_that_goes_away_costs_no_steps(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
) -> None:
    """As in `tinygrad-rnn train | head`, or a terminal that is not there any more: all steps so far are saved."""
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    reading, writing = os.pipe()
    at_step(5, monkeypatch, lambda: os.close(reading))
    with open(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        out = str(tmp_path / "run")
        status = main(["train", "--text", str(trained[0] / "text.txt"), "--out", out, "--steps", "20", *SMALL])
    assert status == 141
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "saved, and to go on: " in said and said.endswith(f" train --resume {out}\n")
    assert json.loads(Path(out, "checkpoints", "last.json").read_text())["step"] == 6


def at_step(step: int, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Let the next training do something while step number `step` is computed."""
    real = NextCharacter.batch

    def batch(self: NextCharacter, n: int) -> tuple[Any, int]:
        if n == step:
            do()
        return real(self, n)

    monkeypatch.setattr(NextCharacter, "batch", batch)


@pytest.mark.parametrize(
    ("budget", "measured", "read"),
    [
        (["--steps", 3000], 76_800, 12_288),  # 5 and 0.8 % of the characters to learn from
        (["--steps", 300], 7680, 1229),
        (["--steps", 1], 256, 256),
        (["--steps", 10**6], 10**6, 2_000_000),
        (["--minutes", 2], 100_000, 16_000),  # of a sixth of two minutes, at 100,000 characters a second
        (["--minutes", 1, "--steps", 300], 7680, 1229),
        (["--minutes", 0.03, "--steps", 3000], 1500, 256),
    ],
)
def test_evaluations_get_a_share_of_the_training(
    monkeypatch: pytest.MonkeyPatch, budget: list[object], measured: int, read: int
) -> None:
    monkeypatch.setattr(cli_train, "measuring_speed", lambda model, ids: 1e5)
    settings = settings_of(parser().parse_args(["train", *map(str, budget)]))
    ids = np.arange(3 * 10**6, dtype=np.int32) % 7
    text = Text(language.Corpus.of("abcdefg"), data.Streams(ids[: 2 * 10**6], 16, 32), ids[2 * 10**6 :])
    session = cli_train._session(settings, text)
    assert len(text.measured) == text.whole().counted.sum() == measured
    sample = session.task.held_out
    streams = max(1, min(64, min(measured, read) // 128))
    assert sample.x.shape[1] == streams and (0.9 * read < sample.x.size <= read or sample.x.size >= measured)
    assert sample.counted.sum() == measured if read >= measured + 64 * streams else sample.counted.sum() >= read // 2


def test_a_sample_is_spread_over_all_that_is_measured() -> None:
    ids = np.arange(20_000, dtype=np.int32)
    text = Text(language.Corpus.of("ab"), data.Streams(ids[:2000], 2, 32), ids[2000:], 16_000, 1280)
    sample = text.sample()
    assert sample.x.shape == (128, 10) and sample.counted.sum() == 640
    assert (sample.y[64] == 2000 + 1600 * np.arange(10)).all() and not sample.counted[:64].any()


def test_a_resumed_run_measures_on_what_it_did(trained: Trained, tmp_path: Path, capsys) -> None:
    """Else the figures could not be compared; one of before there was such an entry reads 250,000 characters."""
    (tmp_path / "text.txt").write_text(TEXT * 4)
    run = tmp_path / "run"
    assert main(["train", "--text", str(tmp_path / "text.txt"), "--out", str(run), "--steps", "2", *SMALL]) == 0
    config = json.loads((run / "config.json").read_text())
    assert config["text"]["measured"] == 256 < config["text"]["held_out"]
    assert main(["train", "--resume", str(run), "--steps", "300"]) == 0
    assert "(256 of them measured)" in capsys.readouterr().out
    assert json.loads((run / "config.json").read_text())["text"]["measured"] == 256
    for measured, message in ((None, ""), (0, "config.json is damaged: measured must be a whole number of at least 1")):
        changed = {**config, "text": {**config["text"], "measured": measured}}
        if measured is None:
            del changed["text"]["measured"]
        (run / "config.json").write_text(json.dumps(changed))
        assert main(["train", "--resume", str(run), "--steps", "301"]) == (2 if message else 0)
        said = capsys.readouterr()
        assert message in said.err and "of them measured" not in said.out


def test_the_speed_of_measuring_changes_nothing(trained: Trained) -> None:
    model, _, _ = load_model(trained[0] / "run" / "checkpoints")
    model.train()
    state = tr.tensor.random.generator().bit_generator.state
    assert 0 < measuring_speed(model, np.arange(9, dtype=np.int32), seconds=1e-3) < 1e9
    assert model.training and tr.tensor.random.generator().bit_generator.state == state


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.Signals(1), 129)])
def test_a_run_stopped_before_it_trains_leaves_nothing(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    number: int,
    status: int,
) -> None:
    def obeyed(number: int, frame: object) -> None:
        raise AssertionError("the signal was not heard")

    # A shell has the jobs in its background ignore SIGINT; the others would end pytest.
    request.addfinalizer(functools.partial(signal.signal, number, signal.getsignal(number)))
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else obeyed)
    before = signal.getsignal(number)
    monkeypatch.setattr(language, "measure_baselines", lambda *args: os.kill(os.getpid(), number))
    out = tmp_path / "runs" / "new"
    assert main(["train", "--text", str(trained[0] / "text.txt"), "--out", str(out), *SMALL]) == status
    assert capsys.readouterr().err == "tinygrad-rnn: stopped\n"
    assert not list(tmp_path.iterdir()) and signal.getsignal(number) is before


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)


def trained_on(text: Path, run: Path, *options: object) -> list[str]:
    return ["train", "--text", str(text), "--out", str(run), "--steps", "3", *map(str, options), *SMALL]


@pytest.mark.usefixtures("without_numba")
def test_numba_is_used_where_it_is_and_asked_for_in_one_line(trained: Trained, tmp_path: Path, capsys) -> None:
    text, run = trained[0] / "text.txt", tmp_path / "run"
    assert main(trained_on(text, run, "--numba")) == 2
    said = capsys.readouterr().err
    assert "--numba: numba is not installed: pip install numba" in said and said.count("\n") == 1 and not run.exists()
    assert main(trained_on(text, run, "--numba", "--plain")) == 2
    assert "--plain and --numba exclude each other" in capsys.readouterr().err
    assert main(trained_on(text, run)) == 0
    line = "\nSteps recorded once and replayed, by NumPy alone: numba is not installed: pip install numba\n"
    assert line in capsys.readouterr().out
    assert json.loads((run / "config.json").read_text())["training"]["numba"] is False


@pytest.mark.parametrize(
    ("numba", "threads", "blas", "shares"),
    [(True, 2, 1, 2), (True, 1, 1, 1), (False, 2, 2, 2), (True, 2, 2, None)],
)
def test_threads_share_a_step_or_are_those_of_blas(
    numba: bool, threads: int, blas: int, shares: int | None, monkeypatch
) -> None:
    """Not both at once. None: of a BLAS whose threads cannot be told, which shares nothing."""
    pools = threadpool_info()
    if len(pools) != 1 or (pools[0]["internal_api"], pools[0].get("threading_layer")) != ("openblas", "pthreads"):
        pytest.skip("NumPy has no OpenBLAS whose threads are its own")
    if shares is None:
        monkeypatch.setattr(cli_train, "allowed", lambda: 1)
    with cli_train._on_threads(argparse.Namespace(numba=numba, threads=threads)):
        assert threadpool_info()[0]["num_threads"] == blas
        assert shares is None or allowed() == shares


def test_small_networks_get_one_thread_and_large_ones_no_more_than_there_are_cores(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    sizes = [(16, 64), (16, 256), (64, 256), (64, 1024)]
    for numba, expected in ((True, [1, 2, 6, 6]), (False, [1, 1, 1, None])):
        found = [cli_train._threads(argparse.Namespace(numba=numba, batch=b, hidden=h)) for b, h in sizes]
        assert found == expected


def test_steps_recorded_or_not_are_the_same_to_the_last_bit(trained: Trained, tmp_path: Path, capsys) -> None:
    """And a run goes on as it was begun."""
    plain, recorded = tmp_path / "plain", tmp_path / "recorded"
    assert main(trained_on(trained[0] / "text.txt", plain, "--plain")) == 0
    assert "Steps op by op, by NumPy alone: --plain\n" in capsys.readouterr().out
    assert main(trained_on(trained[0] / "text.txt", recorded, "--no-numba")) == 0
    assert "Steps recorded once and replayed, by NumPy alone: as asked for\n" in capsys.readouterr().out
    for _ in range(2):
        first, second = (load_checkpoint(run / "checkpoints", "last").tensors for run in (plain, recorded))
        assert first.keys() == second.keys()
        assert all(first[key].tobytes() == second[key].tobytes() for key in first)
        for run, line in ((plain, "Steps op by op, by "), (recorded, "Steps recorded once and replayed, by ")):
            assert main(["train", "--resume", str(run), "--steps", "9"]) == 0
            assert line + "NumPy alone" in capsys.readouterr().out
    assert main(["train", "--resume", str(plain), "--no-numba", "--steps", "12"]) == 0
    assert "Steps recorded once and replayed, by NumPy alone" in capsys.readouterr().out


def test_numba_trains_about_the_same_and_resumes(trained: Trained, tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("numba")
    before, run = tr.numba_enabled(), tmp_path / "run"
    assert main([*trained_on(trained[0] / "text.txt", run), "--steps", "60"]) == 0
    assert tr.numba_enabled() == before
    assert "Steps recorded once and replayed, with kernels by numba " in capsys.readouterr().out
    losses = [[r["loss"] for r in read_metrics(folder / "metrics.jsonl")] for folder in (trained[0] / "run", run)]
    assert np.allclose(*losses, rtol=1e-3)
    assert json.loads((run / "config.json").read_text())["training"]["numba"] is True
    monkeypatch.setitem(sys.modules, "numba", None)
    assert main(["train", "--resume", str(run), "--steps", "70"]) == 2
    said = capsys.readouterr().err
    assert f"{run}: was begun with --numba: numba is not installed: pip install numba; or go on with --no-" in said
    assert main(["train", "--resume", str(run), "--steps", "70", "--no-numba"]) == 0


def test_what_a_run_spent_where_is_in_its_last_lines(trained: Trained) -> None:
    line = next(line for line in trained[1].stdout.splitlines() if line.startswith("Where the time went: "))
    parts = dict(re.findall(r"([a-z][a-z ]*) \d+\.\d s \((\d+)%\)", line))
    known = "recording training evaluation checkpoints picture sample baselines reading numba log and display the rest"
    assert "picture" in parts and all(name in known for name in parts), line  # others may take next to no time
    assert sum(map(int, parts.values())) <= 100 + len(parts)
