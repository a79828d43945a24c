"""Next characters: the state that is carried from chunk to chunk, and bits per character."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn import data, nn
from tinygrad_rnn.compiler.compile import Compiled
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.model import CharModel, CharModelConfig
from tinygrad_rnn.language.task import NextCharacter, bits_per_char
from tinygrad_rnn.training import Budget, Checkpoint, Session, snapshot
from tinygrad_rnn.training.steps import make_step


def loss_of(task: NextCharacter, step: int) -> tr.Tensor:
    """The loss of a step, after which the state is kept."""
    arguments, _ = task.batch(step)
    loss, state = task.loss(*arguments)
    task.keep(state)
    return loss


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_state_is_carried_and_cut(cell: str) -> None:
    """A chunk's loss is that within the whole text; its graph reaches back to the chunk's beginning only."""
    tr.manual_seed(0)
    ids = np.random.default_rng(0).integers(5, size=41).astype(np.int32)
    model = CharModel(CharModelConfig(5, cell, embedding=4, hidden=6)).to("float64")
    streams = data.Streams(ids, batch=2, steps=5)
    task = NextCharacter(model, streams, data.passage(ids[:30], ids[30:], 1))
    losses = [loss_of(task, n) for n in range(4)]
    x = np.concatenate([streams[n].x for n in range(4)])
    y = np.concatenate([streams[n].y for n in range(4)])
    scores, _ = model(x, None)
    for n in range(4):
        part = scores[5 * n : 5 * n + 5].reshape(-1, 5)
        whole = nn.functional.cross_entropy(part, y[5 * n : 5 * n + 5].reshape(-1))
        assert losses[n].item() == pytest.approx(whole.item(), rel=1e-12)
    for loss in losses:  # none needs the graph of another
        loss.backward()


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_carried_state_that_does_not_fit_is_refused_and_changes_nothing(cell: str) -> None:
    ids = np.random.default_rng(0).integers(5, size=41).astype(np.int32)
    model = CharModel(CharModelConfig(5, cell, embedding=4, hidden=6, dropout=0.5))
    task = NextCharacter(model, data.Streams(ids, batch=2, steps=5), data.passage(ids[:30], ids[30:], 1))
    loss_of(task, 0)
    before = {key: x.tolist() for key, x in task.state_dict().items()}
    good = {key: np.ones((1, 2, 6), np.float32) for key in before}
    last = str(len(before) - 1)
    wrong = [{**good, last: np.ones(shape, np.float32)} for shape in ((1, 2, 5), (1, 1, 6), (2, 6))]
    wrong += [{**good, last: np.array([["a"]])}, {**good, "9": good["0"]}, {"1": good["0"]}]
    for state in wrong:
        with pytest.raises((KeyError, TypeError, ValueError)):
            task.load_state_dict(state)
        assert {key: x.tolist() for key, x in task.state_dict().items()} == before and model.training
    task.load_state_dict(good)
    assert {key: x.tolist() for key, x in task.state_dict().items()} == {k: x.tolist() for k, x in good.items()}
    task.load_state_dict({})
    assert task.state_dict() == {}


def test_bits_per_char_is_the_mean_over_the_counted_targets() -> None:
    tr.manual_seed(1)
    ids = np.random.default_rng(1).integers(5, size=60).astype(np.int32)
    model = CharModel(CharModelConfig(5, "lstm", embedding=4, hidden=6)).to("float64")
    one = data.passage(ids[:40], ids[40:], batch=1, warm_up=39)
    scores, _ = model(ids[:-1, None], None)
    p = tr.softmax(scores, axis=-1).numpy()[np.arange(59), 0, ids[1:]]
    assert bits_per_char(model, one) == pytest.approx(-np.log2(p[39:]).mean(), rel=1e-12)
    assert bits_per_char(model, one, chunk=7) == pytest.approx(bits_per_char(model, one), rel=1e-12)
    # Streams that are led by all that stands before them measure the same.
    several = data.passage(ids[:40], ids[40:], batch=4, warm_up=59)
    assert several.counted.sum() == 20


def test_dropout_acts_in_training_only() -> None:
    ids = np.random.default_rng(2).integers(5, size=100).astype(np.int32)
    model = CharModel(CharModelConfig(5, "gru", embedding=4, hidden=6, dropout=0.5))
    task = NextCharacter(model, data.Streams(ids, 2, 10), data.passage(ids[:80], ids[80:], 2))
    assert task.evaluate() == task.evaluate()
    assert model.training
    first, second = (loss_of(NextCharacter(model, task.streams, task.held_out), 0).item() for _ in range(2))
    assert first != second


def test_a_recorded_step_sees_what_becomes_of_the_model_of_a_task() -> None:
    """Its mode, and another parameter or layer in the place of one."""

    def losses(record: bool) -> list[float]:
        tr.manual_seed(0)
        ids = np.random.default_rng(2).integers(5, size=400).astype(np.int32)
        model = CharModel(CharModelConfig(5, "gru", embedding=4, hidden=6, dropout=0.5))
        task = NextCharacter(model, data.Streams(ids, 2, 5), data.passage(ids[:80], ids[80:], 2))
        sgd = tr.optim.SGD(model.named_parameters(), lr=0.1)
        step = partial(make_step, task.loss, sgd, list(model.named_parameters()), 1.0)
        step = Compiled(step) if record else step

        def made(n: int) -> float:
            arguments, _ = task.batch(n)
            task.keep(None)
            loss, state = step(*arguments)
            task.keep(state)
            return float(loss)

        found = [made(n) for n in range(5)]
        model.eval()
        found += [made(n) for n in range(5, 10)]
        model.dropout = nn.Dropout(0.9)
        found += [made(n) for n in range(10, 15)]
        model.output.bias = None
        return [*found, *map(made, range(15, 20))]

    assert losses(True) == losses(False)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("record", [False, True])
def test_a_batch_in_parts_is_the_larger_batch(cell: str, record: bool) -> None:
    """Losses, weights and carried states, over an epoch and its end; and it goes on from what it has saved."""

    def trained(parts: int, steps: int, saved: dict[str, Any] | None = None) -> tuple[Any, ...]:
        tr.manual_seed(0)
        ids = np.random.default_rng(2).integers(5, size=320).astype(np.int32)
        model = CharModel(CharModelConfig(5, cell, embedding=4, hidden=6, layers=2)).to("float64")
        task = NextCharacter(model, data.Streams(ids, 6, 5), data.passage(ids[:80], ids[80:], 2), parts=parts)
        adam = tr.optim.Adam(model.named_parameters(), lr=0.01)
        session = Session(model, adam, task, tr.optim.BudgetLR(adam, tr.optim.warmup_constant))
        if saved:
            session.restore(Checkpoint(saved["tensors"], saved["manifest"], Path("saved")))
        log: list[float] = []
        real = task.describe
        task.describe = lambda loss: log.append(loss) or real(loss)  # type: ignore[method-assign]
        session.train(Budget(steps=steps), plain=not record, evaluations=0, clip=0.5)
        tensors, manifest = snapshot(model, adam, task, session.state, session.schedule)
        return log, {"tensors": tensors, "manifest": manifest}

    whole, of_whole = trained(1, 14)
    losses, of_parts = trained(3, 14)
    np.testing.assert_allclose(losses, whole, rtol=1e-12)
    for name, array in of_whole["tensors"].items():
        if not name.startswith("carried/"):
            np.testing.assert_allclose(of_parts["tensors"][name], array, rtol=0, atol=1e-12)
    carried = [of_parts["tensors"][name] for name in sorted(of_parts["tensors"]) if name.startswith("carried/")]
    each = 2 if cell == "lstm" else 1
    for k in range(each):
        joined = np.concatenate(carried[k::each], axis=1)
        np.testing.assert_allclose(joined, of_whole["tensors"][f"carried/{k}"], rtol=0, atol=1e-12)
    first, saved = trained(3, 5)
    rest, again = trained(3, 14, saved)
    assert first + rest == losses
    assert all(again["tensors"][name].tobytes() == a.tobytes() for name, a in of_parts["tensors"].items())


def test_streams_that_cannot_be_divided() -> None:
    ids = np.arange(100, dtype=np.int32) % 5
    with pytest.raises(InputError, match="4 streams cannot be divided into 3 equal parts"):
        NextCharacter(CharModel(CharModelConfig(5)), data.Streams(ids, 4, 5), data.passage(ids, ids, 2), parts=3)
