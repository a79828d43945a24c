"""Where an error of a forward happened, and what a watch sees of modules and steps."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.nn import recurrent


class Encoder(tr.nn.Module):
    def __init__(self, **options: Any) -> None:
        self.lstm = tr.nn.LSTM(2, 3, **options)

    def forward(self, x: Any, **given: Any) -> Any:
        return self.lstm(x, **given)[0]


class Model(tr.nn.Module):
    def __init__(self, **options: Any) -> None:
        self.encoder, self.heads = Encoder(**options), [tr.nn.Linear(3, 1), tr.nn.Linear(3, 2)]

    def forward(self, x: Any, **given: Any) -> Any:
        return self.heads[1](self.encoder(x, **given))


def notes_of(f: Any) -> list[str]:
    with pytest.raises(RuntimeError, match="the cable is out") as caught:
        f()
    return getattr(caught.value, "__notes__", [])


def failing_at(n: int, real: Any) -> Any:
    """`real`, which fails when it is called for the n-th time, from 0."""
    calls = iter(range(10**6))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == n:
            raise RuntimeError("the cable is out")
        return real(*args, **kwargs)

    return call


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize(
    ("step", "options"),
    [
        ("lstm_step", {}),
        ("lstm_cell", {"fused": False}),
        ("lstm_step", {"bidirectional": True, "num_layers": 2, "dropout": 0.5}),
    ],
)
def test_an_error_says_module_and_step(step: str, options: Any, watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Encoder(**options), tr.randn(20, 1, 2)
    holder = tr.nn.Module()
    holder.encoder = model
    holder.forward = lambda x: holder.encoder(x)
    for n, where in ((0, 0), (17, 17), *(((22, 17), (41, 1)) if options.get("bidirectional") else ())):
        monkeypatch.setattr(recurrent, step, failing_at(n, getattr(tr.nn.cells, step)))
        if watched:
            with tr.explain.watch():
                notes = notes_of(lambda: holder(x))
        else:
            notes = notes_of(lambda: holder(x))
        assert notes == [f"in encoder.lstm, step {where}"]
        monkeypatch.undo()


def test_the_step_is_counted_from_the_beginning_of_a_ragged_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "lstm_step", failing_at(5, recurrent.lstm_step))
    notes = notes_of(lambda: Model()(tr.randn(7, 3, 2), lengths=[7, 2, 4]))
    assert notes == ["in encoder.lstm, step 5"]


def test_an_error_outside_of_steps_says_the_module_alone() -> None:
    model = Model()
    model.heads[1].forward = failing_at(0, None)  # type: ignore[method-assign]
    assert notes_of(lambda: model(tr.randn(2, 1, 2))) == ["in heads.1"]


def test_the_notes_of_others_stay_and_come_first() -> None:
    model = Model()

    def fails(x: Any) -> Any:
        error = RuntimeError("the cable is out")
        error.add_note("a note of its own")
        raise error

    model.heads[1].forward = fails  # type: ignore[method-assign]
    assert notes_of(lambda: model(tr.randn(2, 1, 2))) == ["a note of its own", "in heads.1"]


def test_a_module_by_itself_needs_no_note() -> None:
    with pytest.raises(tr.errors.ShapeError) as caught:
        tr.nn.Linear(2, 3)(tr.ones(4, 5))
    assert not hasattr(caught.value, "__notes__")


def test_a_module_that_nobody_owns_is_named_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "rnn_step", failing_at(2, recurrent.rnn_step))
    assert notes_of(lambda: tr.nn.RNN(2, 3)(tr.randn(4, 1, 2))) == ["in RNN, step 2"]


def test_places() -> None:
    model, other = Model(num_layers=2, bidirectional=False), tr.nn.Linear(2, 2)
    with tr.explain.watch() as seen:
        a = other(tr.randn(5, 3, 2))
        b = model(a, lengths=[5, 3, 3])
        c = model(a)
        d = tr.tanh(c)
    outside = tr.tanh(d)
    assert (str(seen.place(a)), str(seen.place(b))) == ("Linear", "heads.1")
    assert seen.place(b) != seen.place(c) and seen.place(c).call == 1  # type: ignore[union-attr]
    assert seen.place(d) == tr.explain.Place() and seen.place(outside) is None and seen.place(tr.ones(2)) is None
    assert seen.place(other.weight) is None  # nobody computed it
    shown = [(run.steps.name, run.place.call, run.times) for run in seen.runs]
    assert shown[:4] == [("_l0", 0, [0, 1, 2]), ("_l0", 0, [3, 4]), ("_l1", 0, [0, 1, 2]), ("_l1", 0, [3, 4])]
    assert shown[4:] == [("_l0", 1, [5, 6, 7, 8, 9]), ("_l1", 1, [5, 6, 7, 8, 9])]
    for run in seen.runs:
        for t, packed in zip(run.times, run.shown, strict=True):
            assert seen.place(packed) == tr.explain.Place("encoder.lstm", "LSTM", run.place.call, run.steps.name, t)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("options", [{}, {"fused": False}, {"layer_norm": True}])
def test_to_look_changes_nothing_and_shows_the_states(kind: str, options: Any) -> None:
    layer, x = getattr(tr.nn, kind)(2, 3, bidirectional=True, **options), tr.randn(4, 2, 2)
    blind = layer(x)[0].numpy()
    with tr.explain.watch() as seen:
        output, _ = layer(x)
    assert np.array_equal(output.numpy(), blind)
    for d, run in enumerate(seen.runs):
        states = {"RNN": lambda y: y, "LSTM": lambda y: y[4 if len(y) == 6 else -2], "GRU": lambda y: y[-1]}[kind]
        for t, shown in zip(run.times, run.shown, strict=True):
            assert np.array_equal(states(shown).numpy(), blind[t, :, 3 * d : 3 * d + 3])


def test_a_step_by_hand_counts_for_all_that_is_called_in_it() -> None:
    cell, rnn = tr.nn.GRUCell(2, 2), tr.nn.RNN(2, 2)
    with tr.explain.watch() as seen:
        for k in (4, 5):
            with tr.explain.step(k):
                a = cell(tr.randn(1, 2)) * 2
                b, _ = rnn(tr.randn(3, 1, 2))
        c = a + 1
    places = [seen.place(t) for t in (a, b, c)]
    assert [place.step for place in places if place] == [5, 5, None]
    with tr.explain.step(3):  # nobody looks
        assert seen.place(a * 2) is None


def test_looks_may_be_nested_and_end() -> None:
    with tr.explain.watch() as outer:
        a = tr.nn.Linear(1, 1)(tr.ones(1, 1))
        with tr.explain.watch() as inner:
            b = tr.nn.Linear(1, 1)(tr.ones(1, 1))
    assert str(outer.place(a)) == "Linear" and str(inner.place(b)) == "Linear" and inner.place(a) is None


def test_an_error_of_a_module_does_not_keep_itself_and_the_tensors() -> None:
    class Fails(tr.nn.Module):
        def forward(self, x: tr.Tensor) -> tr.Tensor:
            y = x * 2
            held.append(weakref.ref(y._array))
            raise ValueError("no")

    held: list[weakref.ref[object]] = []
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ValueError, match="no"):
            Fails()(tr.ones(2))
        assert held[0]() is None
    finally:
        gc.enable()
