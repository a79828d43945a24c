"""What the passes over a recording leave out changes nothing: random programs, with and without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.profiles import examples
from tinygrad_rnn.replay.passes import Spans, simplified
from tinygrad_rnn.replay.tape import Entry

ROWS = {"a": 2, "b": 2, "c": 2, "d": 2, "home": 8, "other": 8, "kept": 8}  # buffers and their rows of 3 numbers


@st.composite
def views(draw: st.DrawFn, rows: int) -> tuple[str, int, int]:
    """So many rows of a buffer: its name, the first row, the end. Few places, so that the steps get in each other's way."""
    name = draw(st.sampled_from([n for n in ROWS if ROWS[n] >= rows]))
    start = draw(st.sampled_from([0, 0, 0, 2, 1, 5]))
    return (name, start, start + rows) if start + rows <= ROWS[name] else (name, 0, rows)


@st.composite
def steps(draw: st.DrawFn) -> tuple[Any, ...]:
    kind = draw(st.sampled_from(["fill", "copy", "copy", "add", "add", "multiply", "join"]))
    rows = draw(st.sampled_from([1, 2, 2, 2, 8]))
    if kind == "fill":
        return kind, draw(views(rows)), draw(st.sampled_from([0.0, 0.0, 1.5]))
    if kind == "join":
        whole, n = draw(views(8)), draw(st.sampled_from([2, 2, 4]))
        beside = [(draw(st.sampled_from(["home", "other"])), k, k + n) for k in range(0, 8, n)]
        some = (
            [draw(views(n)) for _ in beside] if draw(st.booleans()) else [(beside[0][0], *rows) for _, *rows in beside]
        )
        return kind, whole, some
    if kind == "multiply":
        return kind, draw(views(rows)), draw(views(rows)), draw(views(rows))
    return kind, draw(views(rows)), draw(views(rows))


def overlap(a: tuple[str, int, int], b: tuple[str, int, int]) -> bool:
    return a[0] == b[0] and a != b and a[1] < b[2] and b[1] < a[2]


def entries_of(program: list[tuple[Any, ...]], buffers: dict[str, Any]) -> list[Entry]:
    """The program on these buffers; every one of them is filled first, as a recording never reads what is not there."""
    at = lambda view: buffers[view[0]][view[1] : view[2]]
    found = [(np.copyto, (buffer, np.asarray(1.0 + k)), {}) for k, buffer in enumerate(buffers.values())]
    for kind, *views in program:
        if kind == "fill":
            found.append((np.copyto, (at(views[0]), np.asarray(views[1])), {}))
        elif kind == "copy":
            found.append((np.copyto, (at(views[0]), at(views[1])), {}))
        elif kind == "add":
            found.append((np.add, (at(views[0]), at(views[1]), at(views[0])), {}))
        elif kind == "multiply":
            found.append((np.multiply, (at(views[1]), at(views[2]), at(views[0])), {}))
        else:
            found.append((np.concatenate, ([at(v) for v in views[1]],), {"out": at(views[0])}))
    return [Entry(*call, None, False) for call in found]


def run(program: list[tuple[Any, ...]], simplify: bool) -> tuple[Any, int]:
    """What is in the buffer that somebody else may read, and the number of calls."""
    buffers = {name: np.full((rows, 3), np.nan) for name, rows in ROWS.items()}
    entries = entries_of(program, buffers)
    if simplify:
        entries = simplified(entries, map(id, buffers.values()), [id(buffers["kept"])])
    for e in entries:
        e.f(*e.args, **e.kwargs)
    return buffers["kept"], len(entries)


A, B, HOME, KEPT = ("a", 0, 2), ("b", 0, 2), ("home", 2, 4), ("kept", 0, 2)
OTHER, ALL, PIECES = ("other", 0, 8), ("kept", 0, 8), [("home", k, k + 2) for k in range(0, 8, 2)]


@examples(dev=300, ci=2000, thorough=20_000)
@given(st.lists(steps(), max_size=25))
@example([("copy", HOME, A), ("fill", A, 1.5), ("copy", KEPT, HOME)])  # written after it was copied
@example([("copy", HOME, A), ("fill", HOME, 1.5), ("copy", KEPT, A)])  # the place is written while it is read
@example([("fill", A, 1.5), ("copy", KEPT, HOME), ("copy", HOME, A)])  # the place is read while it is there
@example([("copy", HOME, A), ("copy", HOME, B), ("copy", KEPT, A)])
@example([("copy", A, B), ("copy", HOME, A), ("copy", KEPT, B)])  # a move into what moves
@example([("copy", A, B), ("copy", HOME, A), ("copy", KEPT, HOME)])  # and it would not be there
@example([("join", OTHER, PIECES), ("fill", HOME, 1.5), ("copy", ALL, OTHER)])  # written after it was joined
@example([("fill", ("home", 0, 8), 0.0), ("add", HOME, A), ("copy", ("kept", 0, 8), ("home", 0, 8))])
@example([("join", ("home", 0, 8), [A, A, B, A]), ("copy", ("kept", 0, 8), ("home", 0, 8))])  # one buffer twice
def test_a_simplified_program_computes_the_same(program: list[tuple[Any, ...]]) -> None:
    program = [
        step
        for step in program
        if step[0] in ("fill", "join") or not any(overlap(step[1], v) for v in step[2:])  # NumPy's own business
    ]
    program = [step for step in program if step[0] != "join" or all(v[0] != step[1][0] for v in step[2])]
    with np.errstate(over="ignore", invalid="ignore"):
        expected, calls = run(program, False)
        found, fewer = run(program, True)
    np.testing.assert_array_equal(found, expected)
    assert fewer <= calls + len(program)  # a fill may come in parts


@pytest.mark.parametrize(
    ("program", "calls"),
    [
        ([("fill", HOME, 0.0), ("add", HOME, A), ("copy", KEPT, HOME)], 3),  # two fills of what is read, one copy
        ([("fill", HOME, 0.0), ("add", KEPT, HOME)], 1),
        ([("fill", HOME, 1.5), ("fill", HOME, 0.0), ("add", HOME, A), ("copy", KEPT, HOME)], 3),
        ([("multiply", A, B, B), ("copy", HOME, A), ("copy", KEPT, HOME)], 4),
        ([("join", ("home", 0, 8), [A, B, ("c", 0, 2), ("d", 0, 2)]), ("copy", ("kept", 0, 8), ("home", 0, 8))], 6),
        ([("join", ("home", 0, 8), [("other", 2 * k, 2 * k + 2) for k in range(4)]), ("copy", KEPT, HOME)], 3),
    ],
)
def test_what_is_superfluous_goes(program: list[tuple[Any, ...]], calls: int) -> None:
    assert run(program, True)[1] == calls
    np.testing.assert_array_equal(run(program, True)[0], run(program, False)[0])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(1, 8)), max_size=12))
def test_spans_are_sets_of_bytes(changes: list[tuple[bool, int, int]]) -> None:
    spans, expected = Spans(), set()
    for add, low, size in changes:
        (spans.add if add else spans.remove)(low, low + size)
        expected = (expected.union if add else expected.difference)(range(low, low + size))
    assert {x for a, b in spans.parts for x in range(a, b)} == expected
    assert all(a < b < c for (a, b), (c, _) in zip(spans.parts, spans.parts[1:], strict=False))
    assert [spans.covers(k, k + 1) for k in range(30)] == [k in expected for k in range(30)]
