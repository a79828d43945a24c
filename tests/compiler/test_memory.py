"""Buffers share memory where they are not used at once, and nowhere else."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.compiler.steps import Model, batches, trainer
from tinygrad_rnn.compiler import arrays, memory, traced
from tinygrad_rnn.compiler.tape import Entry


def test_memory_is_reused_and_given_back() -> None:
    model = Model("LSTM", 16)
    step = tr.compile(trainer(model, tr.optim.SGD(model.parameters(), lr=0.1)))
    for ids, targets in batches(12, 4, count=3):
        step(ids, targets)
    ((recording,),) = step.compiled.found.values()
    found = recording.program
    calls = [c for segment in found.segments for c in segment.calls]
    every = {id(arrays.root_of(a)): a for _, args in calls for a in traced.arrays_in(args)}
    assert len(every) < 60  # one block, inputs, leaves, gradients and constants
    gone = [weakref.ref(x) for x in (model, recording, found)]
    gc.collect()
    gc.disable()
    try:
        del model, step, recording, found, calls, every
        assert [ref() for ref in gone] == [None, None, None]  # without the collector: there are no cycles
    finally:
        gc.enable()


def test_a_first_recording_holds_no_arrays_of_the_step() -> None:
    """Two recordings, each with all that the step computes, would take twice that."""
    model, held = Model("LSTM", 16), []

    @tr.compile
    def step(ids: Any, targets: Any) -> tr.Tensor:
        logits = model(ids)
        held.append(weakref.ref(logits._array.raw))
        loss = tr.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        return loss.detach()

    for ids, targets in batches(12, 4, count=4):
        step(ids, targets)
        assert held and all(ref() is None for ref in held)


def test_a_buffer_reused_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    lifetimes = memory.lifetimes
    calls = []

    def early(*args: Any) -> Any:
        first, last = lifetimes(*args)
        calls.append(last)
        return first, first  # free after the first use

    layer, x = tr.nn.LSTM(2, 4), tr.randn(3, 2, 2)  # no ids, which would point anywhere
    step = lambda x: tr.grad(tr.square(layer(x)[0]).sum(), layer.weight_hh_l0)
    monkeypatch.setattr(memory, "lifetimes", early)
    compiled = tr.compile(step)
    assert [compiled(x).tolist() for _ in range(3)][-1] != step(x).tolist() and calls


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.lists(st.sets(st.integers(0, 7)), max_size=12))
def test_buffers_in_use_at_once_share_no_byte(sizes: list[int], uses: list[set[int]]) -> None:
    buffers = [np.zeros(n, np.uint8) for n in sizes]
    used = [[buffers[k] for k in some if k < len(buffers)] for some in uses]
    entries = [Entry(np.copyto, tuple(some), {}, None, False) for some in used]
    offsets, total = memory.offsets_of(entries, buffers)
    first, last = memory.lifetimes(entries, map(id, buffers))
    for a in buffers:
        assert (id(a) in offsets) == any(a is b for some in used for b in some)
        assert id(a) not in offsets or 0 <= offsets[id(a)] <= total - a.nbytes
        for b in buffers:
            together = id(a) in first and id(b) in first and first[id(a)] <= last[id(b)] and first[id(b)] <= last[id(a)]
            if a is not b and together and a.size and b.size:
                x, y = offsets[id(a)], offsets[id(b)]
                assert x + a.nbytes <= y or y + b.nbytes <= x


def test_views_keep_their_place_in_the_block() -> None:
    x = np.zeros((3, 4))
    rows, columns = x[1:], x.T[2]
    block = memory.Block([Entry(np.copyto, (x, rows, columns), {}, None, False)], [x])
    block.place(x)[...] = np.arange(12).reshape(3, 4)
    assert block.place(rows).tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]] and block.place(columns).tolist() == [2, 6, 10]
    assert block.place(x).ctypes.data % memory.ALIGNMENT == 0
    other = np.zeros(2)
    assert block.place(other) is other and block.place(3) == 3
