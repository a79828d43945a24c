"""Which memory an entry reads and writes: by its declared effects, or all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.compiler.numpy_calls import assign, choose
from tinygrad_rnn.compiler.tape import Entry
from tinygrad_rnn.compiler.uses import Spans, touched
from tinygrad_rnn.tensor.effects import effects

A, B, C, M, OUT = (np.full((2, 2), float(k)) for k in range(5))
AT = np.array([1, 0])


@effects(writes=["y"], updates=["z"])
def stage(x: Any, y: Any, z: Any) -> None:
    """Writes y, adds to z."""


@pytest.mark.parametrize(
    ("f", "args", "kwargs", "read", "written"),
    [
        (stage, (A, B, C), {}, [A, C], [B, C]),
        (stage, (A, B), {"z": C}, [A, B, C], [A, B, C]),  # by name: not understood
        (np.copyto, (OUT, A), {}, [A], [OUT]),
        (np.copyto, (OUT, A), {"where": M}, [A, M, OUT], [A, M, OUT]),
        (np.copyto, (OUT, A, "unsafe"), {}, [A], [OUT]),
        (np.copyto, (OUT, A, "unsafe", M), {}, [A, M, OUT], [A, M, OUT]),
        (np.ndarray.fill, (OUT, 1.0), {}, [], [OUT]),
        (np.add.at, (A, AT, B), {}, [A, AT, B], [A, AT, B]),
        (np.add.reduceat, (A, AT, 0, None, OUT), {}, [A, AT, OUT], [A, AT, OUT]),
        (np.modf, (A, B, C), {}, [A, B, C], [A, B, C]),
        (np.add, (A, B, OUT), {}, [A, B], [OUT]),
        (np.maximum, (A, B), {"out": OUT}, [A, B], [OUT]),
        (np.add, (A, B), {"out": OUT, "where": M}, [A, B, M, OUT], [A, B, M, OUT]),
        (np.add.reduce, (A, 0, None, OUT, False), {}, [A], [OUT]),
        (np.concatenate, ([A, B], 0, OUT), {}, [A, B], [OUT]),
        (np.concatenate, ([A, B],), {"out": OUT}, [A, B], [OUT]),
        (assign, (np.linalg.inv, OUT, (A,), {"b": B}), {}, [A, B], [OUT]),
        (choose, (M, A, B, OUT), {}, [A, B, M], [OUT]),
        (np.ndarray.__setitem__, (A, AT, B), {}, [A, AT, B], [A, AT, B]),
        (np.ndarray.sort, (A,), {}, [A], [A]),
    ],
)
def test_what_an_entry_touches(f: Any, args: Any, kwargs: Any, read: list[Any], written: list[Any]) -> None:
    found = touched(Entry(f, args, kwargs, None, False))
    assert [sorted(map(id, some)) for some in found] == [sorted(map(id, some)) for some in (read, written)]


def test_an_entry_of_state_touches_all_that_it_is_given() -> None:
    read, written = touched(Entry(stage, (A, B, C), {}, None, True))
    assert [*map(id, read)] == [*map(id, written)] == [*map(id, (A, B, C))]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(1, 8)), max_size=12))
def test_spans_are_sets_of_bytes(changes: list[tuple[bool, int, int]]) -> None:
    spans, expected = Spans(), set()
    for add, low, size in changes:
        (spans.add if add else spans.remove)(low, low + size)
        expected = (expected.union if add else expected.difference)(range(low, low + size))
    assert {x for a, b in spans.parts for x in range(a, b)} == expected
    assert all(a < b < c for (a, b), (c, _) in zip(spans.parts, spans.parts[1:], strict=False))
    assert [spans.covers(k, k + 1) for k in range(30)] == [k in expected for k in range(30)]
