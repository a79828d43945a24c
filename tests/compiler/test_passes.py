"""What the passes over a recording leave out changes nothing: random programs, with and without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.profiles import examples
from tinygrad_rnn.compiler.passes import simplified
from tinygrad_rnn.compiler.tape import Entry

ROWS = {
    "a": 2,
    "b": 2,
    "c": 2,
    "d": 2,
    "home": 8,
    "other": 8,
    "third": 8,
    "kept": 8,
}  # buffers and their rows of 3 numbers


@st.composite
def views(draw: st.DrawFn, rows: int) -> tuple[str, int, int]:
    """So many rows of a buffer: its name, the first row, the end. Few places, so that steps get in each other's way."""
    name = draw(st.sampled_from([n for n in ROWS if ROWS[n] >= rows]))
    start = draw(st.sampled_from([0, 0, 0, 2, 1, 5]))
    return (name, start, start + rows) if start + rows <= ROWS[name] else (name, 0, rows)


@st.composite
def steps(draw: st.DrawFn) -> tuple[Any, ...]:
    kind = draw(st.sampled_from(["fill", "copy", "copy", "add", "add", "multiply", "multiply", "join"]))
    rows = draw(st.sampled_from([1, 2, 2, 2, 8]))
    if kind == "fill":
        return kind, draw(views(rows)), draw(st.sampled_from([0.0, 0.0, -0.0, 1.5]))
    if kind == "join":
        whole, n = draw(views(8)), draw(st.sampled_from([2, 2, 4]))
        name = draw(st.sampled_from(["home", "other", ""]))
        return kind, whole, *[(name, k, k + n) if name else draw(views(n)) for k in range(0, 8, n)]
    if kind == "multiply":
        return kind, draw(views(rows)), draw(views(rows)), draw(views(rows))
    return kind, draw(views(rows)), draw(views(rows))


def overlap(a: tuple[str, int, int], b: tuple[str, int, int]) -> bool:
    return a[0] == b[0] and a != b and a[1] < b[2] and b[1] < a[2]


def read_too_early(program: list[tuple[Any, ...]]) -> list[str]:
    """The buffers of which a row is read before it is written: they are filled first, as in every recording."""
    written: set[tuple[str, int]] = set()
    early = []
    for kind, target, *sources in program:
        read = [v for v in (target, *sources) if not isinstance(v, float) and (v is not target or kind == "add")]
        early += [name for name, low, high in read if not written.issuperset((name, k) for k in range(low, high))]
        written.update((target[0], k) for k in range(*target[1:]))
    return [name for name in ROWS if name in early or name == "kept"]


def entries_of(program: list[tuple[Any, ...]], buffers: dict[str, Any]) -> list[Entry]:
    """The program on these buffers."""
    at = lambda view: buffers[view[0]][view[1] : view[2]]
    numbers = np.arange(24.0).reshape(8, 3) * np.tile([1, -0.0, -1], 8).reshape(8, 3)
    some = list(enumerate(read_too_early(program), 1))
    found = [(np.multiply, (numbers[: ROWS[name]], np.asarray(100.0 * k), buffers[name]), {}) for k, name in some]
    for kind, target, *sources in program:
        if kind == "fill":
            found.append((np.ndarray.fill, (at(target), sources[0]), {}))
        elif kind == "copy":
            found.append((np.copyto, (at(target), at(sources[0])), {}))
        elif kind == "add":
            found.append((np.add, (at(target), at(sources[0]), at(target)), {}))
        elif kind == "multiply":
            found.append((np.multiply, (at(sources[0]), at(sources[1]), at(target)), {}))
        else:
            found.append((np.concatenate, ([at(v) for v in sources],), {"out": at(target)}))
    return [Entry(*call, None, False) for call in found]


def assert_same_bits(found: Any, expected: Any) -> None:
    """Zeros have a sign; NaNs are equal."""
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found) | np.isnan(found), np.signbit(expected) | np.isnan(expected))


def run(program: list[tuple[Any, ...]], simplify: bool) -> tuple[Any, int]:
    """What is in the buffer that somebody else may read, and the number of calls."""
    buffers = {name: np.full((rows, 3), np.nan) for name, rows in ROWS.items()}
    entries = entries_of(program, buffers)
    if simplify:
        entries = simplified(entries, map(id, buffers.values()), [id(buffers["kept"])])
    for e in entries:
        e.f(*e.args, **e.kwargs)
    return buffers["kept"], len(entries)


A, B, C, D = (("a", 0, 2), ("b", 0, 2), ("c", 0, 2), ("d", 0, 2))
HOME, OTHER, KEPT = ("home", 2, 4), ("other", 0, 8), ("kept", 0, 2)
ALL, PIECES = ("kept", 0, 8), [("home", k, k + 2) for k in range(0, 8, 2)]
THIRD, OTHERS = ("third", 0, 8), [("other", k, k + 4) for k in (0, 4)]
MADE = [("multiply", A, B, B), ("copy", HOME, A)]  # A is made in HOME


@examples(dev=300, ci=600, thorough=20_000)
@given(st.lists(steps(), max_size=25))
@example([*MADE, ("fill", A, 1.5), ("copy", KEPT, HOME)])  # written after it was copied
@example([*MADE, ("multiply", HOME, B, B), ("copy", KEPT, A), ("copy", KEPT, HOME)])  # its place is, while it is read
@example([MADE[0], ("multiply", KEPT, HOME, B), MADE[1], ("copy", KEPT, HOME)])  # its place is read before
@example([*MADE, ("multiply", C, B, B), ("add", HOME, C), ("copy", HOME, C), ("multiply", KEPT, A, HOME)])
@example([*MADE, ("multiply", C, B, D), ("copy", KEPT, A), ("copy", HOME, C), ("add", KEPT, HOME)])  # one by one
@example([MADE[0], ("copy", C, A), ("copy", HOME, C), ("copy", KEPT, HOME)])  # a move into what moves
@example([MADE[0], ("copy", C, A), ("copy", HOME, C), ("multiply", KEPT, HOME, A)])
@example([("join", OTHER, *PIECES), ("multiply", HOME, B, B), ("copy", ALL, OTHER), ("add", KEPT, HOME)])
@example([("join", OTHER, *(PIECES[k] for k in (0, 2, 1, 3))), ("copy", ALL, OTHER)])  # side by side, not in order
@example([("fill", ("home", 0, 8), 0.0), ("add", HOME, A), ("copy", ALL, ("home", 0, 8))])
@example([("join", OTHER, *PIECES), ("join", THIRD, *OTHERS), ("copy", ALL, THIRD)])  # into what has moved itself
@example([("join", ("home", 0, 8), A, A, B, A), ("copy", ALL, ("home", 0, 8))])  # one buffer twice
def test_a_simplified_program_computes_the_same(program: list[tuple[Any, ...]]) -> None:
    alone = lambda target, v: isinstance(v, float) or not overlap(target, v)
    program = [s for s in program if all(alone(s[1], v) for v in s[2:])]  # what overlaps is NumPy's business
    program = [s for s in program if s[0] != "join" or all(v[0] != s[1][0] for v in s[2:])]
    with np.errstate(over="ignore", invalid="ignore"):
        expected, calls = run(program, False)
        found, fewer = run(program, True)
    assert_same_bits(found, expected)
    assert fewer <= calls + len(program)  # a fill may come in parts


@pytest.mark.parametrize(
    ("program", "superfluous"),
    [
        ([("fill", HOME, 0.0), ("copy", HOME, A), ("copy", KEPT, HOME)], 2),  # A is made there
        ([("fill", HOME, 0.0), ("add", HOME, A), ("copy", KEPT, HOME)], 0),  # which is not A where A is -0.0
        ([("fill", HOME, 0.0), ("add", KEPT, HOME)], 1),  # 0 is added
        ([("fill", HOME, -0.0), ("add", KEPT, HOME)], 0),
        ([("fill", HOME, 1.5), ("fill", HOME, 0.0), ("copy", HOME, A), ("copy", KEPT, HOME)], 3),
        ([*MADE, ("copy", KEPT, HOME)], 1),
        ([*MADE, ("join", OTHER, A, B, C, A)], 1),
        ([("multiply", A, B, B), ("multiply", C, B, B), ("join", ("home", 0, 4), A, C), ("copy", KEPT, HOME)], 1),
        ([("join", OTHER, *PIECES), ("copy", ALL, OTHER)], 1),
        ([("join", OTHER, *PIECES), ("join", THIRD, *OTHERS), ("copy", ALL, THIRD)], 1),
    ],
)
def test_what_is_superfluous_goes(program: list[tuple[Any, ...]], superfluous: int) -> None:
    (expected, calls), (found, fewer) = run(program, False), run(program, True)
    assert calls - fewer == superfluous
    assert_same_bits(found, expected)


def test_bytes_of_a_fill_are_filled_with_their_whole_numbers() -> None:
    a, out = np.full(4, np.nan), np.zeros(3, np.uint8)
    entries = [Entry(np.ndarray.fill, (a, 0.1), {}, None, False)]
    entries += [Entry(np.copyto, (out, a.view(np.uint8)[14:17]), {}, None, False)]
    for e in simplified(entries, [id(a), id(out)], [id(out)]):
        e.f(*e.args)
    assert out.tolist() == np.full(4, 0.1).view(np.uint8)[14:17].tolist()


def test_a_buffer_becomes_no_part_of_one_of_another_dtype() -> None:
    a, home, out = np.zeros(2, np.float64), np.zeros(9, np.float32), np.zeros(4, np.float32)
    entries = [
        Entry(np.ndarray.fill, (home, 2.0), {}, None, False),
        Entry(np.add, (np.ones(2), 1.5, a), {}, None, False),
    ]
    entries += [Entry(np.copyto, (home[1:5], a.view(np.float32)), {}, None, False)]
    entries += [Entry(np.copyto, (out, home[1:5]), {}, None, False)]
    found = simplified(entries, map(id, (a, home, out)), [id(out)])
    assert any(e.args[-1] is a for e in found)  # where numbers of 8 bytes lie as they must
    for e in found:
        e.f(*e.args)
    assert out.view(np.float64).tolist() == [2.5, 2.5]
