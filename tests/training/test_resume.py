"""A run that was stopped, or killed at any moment, goes on as if it had never stopped: bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.errors import CheckpointError, InputError
from tinygrad_rnn.language.task import NextCharacter
from tinygrad_rnn.tensor.random import use_generator
from tinygrad_rnn.training import Checkpoint, LoopState, RunFolder, load_checkpoint, read_metrics, restore, snapshot

TEXT = "".join(f"the {a} of the {b} is {(7 * i) % 11}.\n" for i in range(12) for a in "abc" for b in ("sun", "moon"))
SMALL = ["--hidden=12", "--embedding=6", "--seq-len=12", "--batch=3", "--threads=1", "--layers=2", "--dropout=0.3"]
SMALL += ["--save-every=7"]
TIMES = {"chars_per_second", "seconds"}


@pytest.fixture(autouse=True)
def without_the_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends with a picture and a sample of text, which take longer than all its steps and leave nothing that is
    compared here; `tests/cli` looks at them.
    """
    monkeypatch.setattr("tinygrad_rnn.cli.report.plot_loss", lambda *_, **__: None)
    monkeypatch.setattr("tinygrad_rnn.cli.report.generate", lambda *_, **__: iter(()))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def train(*args: object) -> int:
    return main(["train", *map(str, args)])


def timeless(value: Any) -> Any:
    """Without what depends on the clock: times, and the digest of a manifest that holds them."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES | {"sha256"}}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def everything(run: Path) -> dict[str, Any]:
    """All that a run has left that is no time: every bit of every tensor, every manifest, every logged field."""
    found: dict[str, Any] = {"metrics": [timeless(r) for r in read_metrics(run / "metrics.jsonl")]}
    for name in ("best", "last", "previous"):
        checkpoint = load_checkpoint(run / "checkpoints", name)
        tensors = {key: (x.dtype.name, x.shape, x.tobytes()) for key, x in checkpoint.tensors.items()}
        manifest = {k: v for k, v in timeless(checkpoint.manifest).items() if k != "training"}
        found[name] = (tensors, manifest)
    found["files"] = sorted(path.name for path in (run / "checkpoints").iterdir())
    return found


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Let the next training be asked to stop while step number `step` is computed."""
    real = NextCharacter.batch

    def batch(self: NextCharacter, n: int) -> tuple[Any, int]:
        if n == step:
            os.kill(os.getpid(), number)
        return real(self, n)

    monkeypatch.setattr(NextCharacter, "batch", batch)


@pytest.mark.parametrize(
    ("model", "stops"),
    [("lstm", (3, 30)), ("gru", (0, 27)), ("rnn --schedule plateau --lr 0.5 --patience 9", (13, 41))],
)
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, stops: tuple[int, ...]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--text", text, "--model", *model.split(), "--steps", 44, *SMALL]
    assert train(*options, "--out", whole) == 0
    begin: list[object] = [*options, "--out", parts]
    for stop in stops:
        with monkeypatch.context() as patched:
            stop_at(stop, patched)
            assert train(*begin) == 130
        assert len(read_metrics(parts / "metrics.jsonl")) == stop + 1
        tr.manual_seed(99)  # whatever else the process draws is no part of the run
        begin = ["--resume", parts]
    assert train("--resume", parts) == 0
    assert everything(parts) == everything(whole)
    assert train("--resume", parts) == 0  # finished: there is nothing left to do
    assert everything(parts) == everything(whole)


def test_a_longer_run_goes_on_to_the_new_total(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train("--text", text, "--steps", 10, "--out", run, *SMALL) == 0
    before = read_metrics(run / "metrics.jsonl")
    assert train("--resume", run, "--steps", 20) == 0
    after = read_metrics(run / "metrics.jsonl")
    assert after[:10] == before and [r["step"] for r in after] == list(range(1, 21))
    assert json.loads((run / "config.json").read_text())["training"]["steps"] == 20
    capsys.readouterr()
    assert train("--resume", run, "--steps", 15) == 2
    assert "has done 20 steps already, --steps is the total" in capsys.readouterr().err
    assert train("--resume", run, "--minutes", 0.001, "--lr", 0.001, "--patience", 3) == 0


# Runs the command again and again in forks of itself, which die without a trace, as by kill -9, at the Nth of the
# calls that write. What the last one leaves is compared by the test.
KILLS = """
import os, sys
from tinygrad_rnn import data, decoding, language, optim, training
from tinygrad_rnn.cli import main as cli, train
from tinygrad_rnn.training import checkpoint

def dying(real, counter):
    def call(*args):
        counter[0] -= 1
        if counter[0] == 0:
            os._exit(9)
        return real(*args)
    return call

def attempt(argv, after):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        counter = [after]
        for name in ("fsync", "replace", "close", "truncate"):
            setattr(os, name, dying(getattr(os, name), counter))
        os._exit(cli.main(argv))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

run, *options = sys.argv[1:]
statuses, after = [], 6  # libraries close files of their own first, some more than others
while not os.path.exists(os.path.join(run, "checkpoints", "last.json")) and after < 100:
    statuses.append(attempt(["train", *options, "--out", run, "--replace"], after))
    after += 3
for after in range(1, 40, 3):
    statuses.append(attempt(["train", "--resume", run], after))
statuses.append(attempt(["train", "--resume", run], 0))
print(*statuses)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_any_write_goes_on_as_if_it_had_never_stopped(text: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = [str(part) for part in ("--text", text, "--steps", 30, *SMALL, "--save-every", 2)]
    assert train(*options, "--out", whole) == 0
    environment = {**os.environ, "PYTHONPATH": str(Path(tr.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLS, str(killed), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    statuses = done.stdout.split()
    assert statuses[-1] == "0" and statuses.count("9") > 5, done.stdout + done.stderr
    assert everything(killed) == everything(whole)


def test_a_run_killed_before_its_first_checkpoint_begins_again(text: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train("--text", text, "--steps", 9, "--out", whole, *SMALL) == 0
    run.mkdir()
    (run / "config.json").write_bytes((whole / "config.json").read_bytes())
    (run / "metrics.jsonl").write_text('{"step": 1, "lo')
    assert train("--resume", run) == 0
    assert everything(run) == everything(whole)


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = ["--text", text, "--steps", 20, *SMALL]
    assert train(*options, "--out", whole) == 0
    with monkeypatch.context() as patched:
        stop_at(16, patched)
        assert train(*options, "--out", run) == 130
    last = next((run / "checkpoints").glob("last-000017-*"))
    raw = bytearray(last.read_bytes())
    raw[-3] ^= 1
    last.write_bytes(raw)
    capsys.readouterr()
    assert train("--resume", run) == 0
    said = capsys.readouterr().err
    assert "is damaged: its SHA-256 differs; going on from the one before, that of step 14" in said
    assert everything(run) == everything(whole)


def test_wrong_resumes(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train("--text", text, "--steps", 8, "--out", run, *SMALL) == 0
    config = (run / "config.json").read_text()
    other = tmp_path / "other.txt"
    other.write_text(TEXT + "more")
    capsys.readouterr()

    def refused(message: str, *args: object) -> None:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert train("--resume", run, *args) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    refused("--hidden and --seed cannot be changed when a run is resumed", "--hidden", 3, "--seed", 1)
    refused("was trained on another text than", "--text", other)
    with RunFolder(run).occupied():
        refused("another process is training here")
    (run / "config.json").write_text(config.replace('"hidden": 12', '"hidden": 0'))
    refused("config.json is damaged: argument --hidden: must be a whole number")
    (run / "config.json").write_text(config.replace('"hidden": 12', '"hidden": 13'))
    refused("last.json: does not fit this run: load_state_dict of CharModel")
    (run / "config.json").write_text(config.replace('"sha256"', '"sha"'))
    refused("config.json has no 'sha256'")
    (run / "config.json").write_text(config)
    for path in (run / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    refused("not a whole safetensors file")
    text.unlink()
    refused("no such file")


def test_a_run_in_use_is_not_replaced(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train("--text", text, "--steps", 3, "--out", run, *SMALL) == 0
    before = everything(run)
    capsys.readouterr()
    with RunFolder(run).occupied():
        assert train("--text", text, "--steps", 3, "--out", run, "--replace", *SMALL) == 2
    assert "another process is training here" in capsys.readouterr().err
    assert everything(run) == before


def test_a_checkpoint_of_another_optimiser_is_refused(tmp_path: Path) -> None:
    from tinygrad_rnn import nn, optim
    from tinygrad_rnn.training import save_checkpoint

    model = nn.Linear(2, 3)
    adam = optim.Adam(model.named_parameters(), lr=0.25, betas=(0.5, 0.75))
    (model(tr.ones(4, 2)) ** 2).sum().backward()
    adam.step()
    tensors, manifest = snapshot(model, adam, object(), LoopState(step=7))
    save_checkpoint(tmp_path, "last", tensors, manifest)
    found = load_checkpoint(tmp_path, "last")
    draw = tr.rand(3).tolist()

    other = nn.Linear(2, 3)
    twin = optim.Adam(other.named_parameters())
    assert restore(found, other, twin, object()) == LoopState(step=7)
    assert tr.rand(3).tolist() == draw
    assert repr(twin) == repr(adam) and np.array_equal(other.weight.numpy(), model.weight.numpy())
    with pytest.raises(CheckpointError, match=r"last.json: does not fit this run: its optimiser is Adam, not SGD"):
        restore(found, other, optim.SGD(other.named_parameters()), object())
    with pytest.raises(CheckpointError, match="does not fit this run: load_state_dict of Linear"):
        restore(found, nn.Linear(2, 4), twin, object())


class Carrier:
    """A task that carries a tensor from step to step, and a plateau schedule beside it: all that a checkpoint holds."""

    def __init__(self, fill: float) -> None:
        tr.manual_seed(int(fill))
        self.model = tr.nn.Sequential(tr.nn.Linear(2, 3), tr.nn.BatchNorm1d(3))
        self.optimizer = tr.optim.Adam(self.model.named_parameters(), lr=fill)
        self.schedule = tr.optim.StepLR(self.optimizer, 1, 0.5)
        self.carried = tr.Tensor([fill])
        for _ in range(int(fill)):
            self.optimizer.zero_grad()
            (self.model(tr.randn(4, 2)) ** 2).sum().backward()
            self.optimizer.step()
            self.schedule.step()

    def state_dict(self) -> dict[str, tr.Tensor]:
        return {"x": self.carried}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.carried = tr.Tensor(state["x"])
        if self.carried.shape != (1,):  # too late, as people write it
            raise ValueError("the carried tensor has another shape")

    def all_of_it(self) -> Any:
        tensors, manifest = snapshot(self.model, self.optimizer, self, LoopState(step=1), self.schedule)
        return {key: x.tolist() for key, x in tensors.items()}, manifest

    def restore(self, tensors: dict[str, Any], manifest: dict[str, Any]) -> LoopState:
        return restore(Checkpoint(tensors, manifest, Path("a.json")), self.model, self.optimizer, self, self.schedule)


SPOILT: dict[str, Any] = {
    "a weight missing": lambda tensors, manifest: tensors.pop("1.bias"),
    "a weight more": lambda tensors, manifest: tensors.update({"2.bias": np.ones(3)}),
    "a slash more": lambda tensors, manifest: tensors.update({"2/bias": np.ones(3)}),
    "a buffer of another shape": lambda tensors, manifest: tensors.update({"1.running_var": np.ones(4)}),
    "a moment missing": lambda tensors, manifest: tensors.pop("optimizer/exp_avg_sq/1.bias"),
    "a moment of another shape": lambda tensors, manifest: tensors.update({"optimizer/exp_avg/1.bias": np.ones(4)}),
    "a moment of nobody": lambda tensors, manifest: tensors.update({"optimizer/exp_avg/2.bias": np.ones(3)}),
    "another optimiser": lambda tensors, manifest: manifest["optimizer"].update(kind="SGD"),
    "a NaN rate": lambda tensors, manifest: manifest["optimizer"]["groups"][0].update(lr=float("nan")),
    "a step in words": lambda tensors, manifest: manifest["optimizer"]["steps"].update({"1.bias": "x"}),
    "no optimiser": lambda tensors, manifest: manifest.pop("optimizer"),
    "another schedule": lambda tensors, manifest: manifest["schedule"].update(kind="ConstantLR"),
    "no schedule": lambda tensors, manifest: manifest.update(schedule=None),
    "a schedule in words": lambda tensors, manifest: manifest["schedule"].update(steps="x"),
    "a carried tensor of another shape": lambda tensors, manifest: tensors.update({"carried/x": np.ones(2)}),
    "nothing carried": lambda tensors, manifest: tensors.pop("carried/x"),
    "another generator": lambda tensors, manifest: manifest["random"].update(bit_generator="MT19937"),
    "half a generator": lambda tensors, manifest: manifest["random"].pop("has_uint32"),
    "a generator in words": lambda tensors, manifest: manifest["random"]["state"].update(inc="x"),
    "no generator": lambda tensors, manifest: manifest.pop("random"),
    "half a step": lambda tensors, manifest: manifest["loop"].update(step=0.5),
    "seconds below 0": lambda tensors, manifest: manifest["loop"].update(seconds=-1.0),
    "a best in words": lambda tensors, manifest: manifest["loop"].update(best="x"),
    "a count below 0": lambda tensors, manifest: manifest["loop"].update(unimproved=-1),
    "a loop of more": lambda tensors, manifest: manifest["loop"].update(epoch=1),
    "no loop": lambda tensors, manifest: manifest.pop("loop"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_checkpoint_that_does_not_fit_changes_nothing(case: str) -> None:
    other = Carrier(3.0)
    tensors, manifest = snapshot(other.model, other.optimizer, other, LoopState(step=9), other.schedule)
    good = dict(tensors), json.loads(json.dumps(manifest))
    spoilt = dict(tensors), json.loads(json.dumps(manifest))
    SPOILT[case](*spoilt)
    mine = Carrier(2.0)
    before = mine.all_of_it()
    with pytest.raises(CheckpointError, match=r"a\.json: does not fit this run"):
        mine.restore(*spoilt)
    assert mine.all_of_it() == before
    assert mine.restore(*good) == LoopState(step=9)
    assert mine.all_of_it()[0] == other.all_of_it()[0] and mine.optimizer.param_groups[0]["lr"] == 3.0 * 0.5**3


def test_a_generator_whose_state_does_not_fit_is_left_alone() -> None:
    """NumPy's own Philox has taken a part of a state by the time that it refuses it."""
    mine = Carrier(2.0)
    with use_generator(np.random.Generator(np.random.Philox(1))):
        tensors, manifest = snapshot(mine.model, mine.optimizer, mine, LoopState(step=9), mine.schedule)
        del manifest["random"]["has_uint32"]
        manifest["random"]["state"]["key"] = manifest["random"]["state"]["key"] + 1
        before = tr.tensor.random.generator().bit_generator.state
        with pytest.raises(CheckpointError, match="has_uint32"):
            mine.restore(tensors, manifest)
        assert repr(tr.tensor.random.generator().bit_generator.state) == repr(before)


def test_a_name_with_a_slash_is_a_name() -> None:
    model = tr.nn.Sequential()
    setattr(model, "a/b", tr.nn.Linear(1, 1))
    adam = tr.optim.Adam(model.named_parameters())
    (model(tr.ones(1, 1)) ** 2).sum().backward()
    adam.step()
    tensors, manifest = snapshot(model, adam, object(), LoopState(step=1))
    before = [p.tolist() for p in model.parameters()]
    for p in model.parameters():
        p.assign_(p * 0)
    restore(Checkpoint(tensors, manifest, Path("a.json")), model, adam, object())
    assert [p.tolist() for p in model.parameters()] == before
    setattr(model, "optimizer/x", tr.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"'optimizer/x\.weight' in a checkpoint"):
        snapshot(model, adam, object(), LoopState())


def test_an_occupied_folder_says_so(tmp_path: Path) -> None:
    with RunFolder(tmp_path).occupied(), pytest.raises(InputError, match="another"), RunFolder(tmp_path).occupied():
        pass
    with RunFolder(tmp_path).occupied():
        pass


@pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "thorough", reason="takes a minute: make test-thorough")
def test_runs_killed_at_random_moments() -> None:
    command = [sys.executable, "-m", "benchmarks.kills", "--kills", "30"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
