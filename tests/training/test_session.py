"""A session: what it saves it goes on from, at the cost of one copy."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.training import (
    Budget,
    RunFolder,
    Session,
    load_checkpoint,
    newest_checkpoint,
    read_metrics,
    save_checkpoint,
)


class Regression:
    """A linear layer that learns to double its inputs."""

    goal, unit = "error", "points"

    def __init__(self, model: nn.Linear) -> None:
        self.model, self.x = model, tr.randn(8, model.in_features)

    def batch(self, step: int) -> tuple[tuple[()], int]:
        return (), 8

    def loss(self) -> tr.Tensor:
        return ((self.model(self.x) - 2 * self.x) ** 2).mean()

    def describe(self, loss: float) -> dict[str, float]:
        return {}

    def evaluate(self) -> dict[str, float]:
        return {"error": float(self.loss())}


def session(schedule: Any = optim.BudgetLR, size: int = 3) -> Session[nn.Linear]:
    tr.manual_seed(0)
    model = nn.Linear(size, size)
    adam = optim.Adam(model.named_parameters(), lr=0.1)
    return Session(model, adam, Regression(model), schedule(adam))


def plateau(optimizer: optim.Optimizer) -> optim.BaseSchedule:
    return optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)


SCHEDULES = [optim.BudgetLR, plateau, lambda o: optim.StepLR(o, 3, 0.5), lambda o: optim.CosineAnnealingLR(o, 12)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_restored_session_goes_on_bit_for_bit(tmp_path: Path, schedule: Any) -> None:
    whole = session(schedule)
    whole.train(Budget(steps=12))

    def stop(state: Any) -> None:
        if state.step == 7:
            first.save(tmp_path, "last", {"mine": 1})

    first = session(schedule)
    first.train(Budget(steps=12), save=stop, save_every=1)
    other = session(schedule)
    found = load_checkpoint(tmp_path, "last")
    other.restore(found)
    assert found.manifest["mine"] == 1 and found.manifest["step"] == other.state.step == 7
    other.train(Budget(steps=12))
    assert np.array_equal(other.model.weight.numpy(), whole.model.weight.numpy())
    assert other.schedule.last_lr == whole.schedule.last_lr and other.state.best == whole.state.best
    with pytest.raises(CheckpointError, match="does not fit this run"):
        session(size=4).restore(found)


def test_a_budget_is_not_in_the_checkpoint_and_another_schedule_is_refused(tmp_path: Path) -> None:
    session().save(tmp_path, "last", {})
    found = load_checkpoint(tmp_path, "last")
    assert found.manifest["schedule"] is None
    session().restore(found)
    with pytest.raises(CheckpointError, match="does not fit this run: load_state_dict of ReduceLROnPlateau"):
        session(plateau).restore(found)
    session(plateau).save(tmp_path, "last", {})
    with pytest.raises(CheckpointError, match="load_state_dict of BudgetLR: this is the state of ReduceLROnPlateau"):
        session().restore(load_checkpoint(tmp_path, "last"))


def test_saving_copies_the_tensors_once(tmp_path: Path) -> None:
    large = session(size=1000)
    large.train(Budget(steps=1), evaluations=1)
    size = 3 * 4 * (1000 * 1000 + 1000)  # the weights and two moments of each
    tracemalloc.start()
    try:
        large.save(tmp_path, "last", {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size < peak < 1.02 * size


def test_the_newest_checkpoint_is_the_last_or_the_one_it_replaced(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) == (None, "")
    for step in (1, 5):
        save_checkpoint(tmp_path, "last", {"x": np.zeros(3)}, {"step": step}, previous="previous")
    found, damage = newest_checkpoint(tmp_path)
    assert found is not None and found.manifest["step"] == 5 and damage == ""
    (tmp_path / "last.json").write_text("{")
    found, damage = newest_checkpoint(tmp_path)
    assert found is not None and found.manifest["step"] == 1
    assert "last.json: damaged" in damage and damage.endswith("; going on from the one before, that of step 1")
    (tmp_path / "previous.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"last\.json: damaged"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_run_is_reopened_after_a_step(tmp_path: Path, damaged: bool) -> None:
    run = RunFolder(tmp_path / "run")
    run.create({"seed": 1})
    run.metrics.write_text("".join(json.dumps({"step": n}) + "\n" for n in range(1, 10)))
    for step in (3, 6):
        save_checkpoint(run.checkpoints, "last", {"x": np.full(2, step)}, {"step": step}, previous="previous")
    (run.checkpoints / "last-000009-0123abcd.safetensors.tmp").write_bytes(b"half")
    run.reopen({"seed": 2}, step=3 if damaged else 6, damaged=damaged)
    assert run.config()["seed"] == 2 and [r["step"] for r in read_metrics(run.metrics)][-1] == (3 if damaged else 6)
    names = sorted(path.name.split("-")[0] for path in run.checkpoints.iterdir())
    assert names == (["last", "last.json"] if damaged else ["last", "last", "last.json", "previous.json"])
    assert load_checkpoint(run.checkpoints, "last").manifest["step"] == (3 if damaged else 6)
