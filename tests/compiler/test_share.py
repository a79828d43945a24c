"""Several threads do what one does: no thread touches what another one writes, and the bits are those of one thread
that does the same parts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import tinygrad_rnn as tr
from tests.compiler.steps import Model, batches, run, trainer
from tinygrad_rnn.compiler import cut, products, share
from tinygrad_rnn.compiler.arrays import address
from tinygrad_rnn.compiler.lower import Code
from tinygrad_rnn.errors import NonFiniteError
from tinygrad_rnn.kernels import threads
from tinygrad_rnn.tensor import backend

pytest.importorskip("numba")
KINDS = ["RNN", "LSTM", "GRU"]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sharing pays, however little there is to do."""
    before = backend.stages
    tr.enable_numba()
    monkeypatch.setattr(share, "WAKING", 0)
    monkeypatch.setattr(share, "MEETING", 0)
    monkeypatch.setattr(share.Pace, "FIRST", 0)
    with threadpool_limits(2):
        if threads.allowed() == 1:
            pytest.skip("NumPy has no OpenBLAS whose threads are its own")
        yield
    backend.use_stages(before)


# --- bytes ------------------------------------------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(0, 4), max_size=3),
    steps=st.lists(st.sampled_from([1, 2, -1, -2]), min_size=3, max_size=3),
    order=st.permutations(range(3)),
    size=st.sampled_from([1, 4]),
)
def test_stretches_are_the_bytes_of_an_array(shape: list[int], steps: list[int], order: list[int], size: int) -> None:
    base = np.zeros([2 * n for n in shape], f"i{size}")
    x = base[(*(slice(None, None, step) for step in steps[: len(shape)]), ...)]
    x = x.transpose([k for k in order if k < x.ndim])
    x[...] = -1
    marked = np.flatnonzero(base.reshape(-1).view(np.int8)) + address(base)
    assert sorted(k for low, high in share.stretches(x) for k in range(low, high)) == marked.tolist()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10), st.integers(0, 2)), max_size=20))
def test_whom_bytes_belong_to(gifts: list[tuple[int, int, int]]) -> None:
    owned, expected = share.Owned(), dict[int, set[int]]()
    for low, size, who in gifts:
        for x in range(3):
            alone = all(expected.get(k, {x}) == {x} for k in range(low, low + size))
            assert owned.only(low, low + size, x) == alone
        owned.give(low, low + size, who)
        for k in range(low, low + size):
            expected.setdefault(k, set()).add(who)
    found = {k: whose for low, high, whose in owned.parts for k in range(low, high)}
    assert found == {k: whose.copy().pop() if len(whose) == 1 else owned.SEVERAL for k, whose in expected.items()}


# --- programs ---------------------------------------------------------------------------------------------------------


def step_of(kind: str, T: int, B: int, H: int, lengths: Any = None, **options: Any) -> Any:
    """A step that has been replayed once."""
    tr.manual_seed(3)
    model = Model(kind, H, **options)
    step = tr.compile(trainer(model, tr.optim.Adam(model.parameters())))
    for ids, targets in batches(T, B, count=3):
        step(ids, targets, lengths)
    return step


def codes_of(step: Any) -> list[Code]:
    *_, (recording,) = step.compiled.found.values()  # the last one
    return [part for part in recording.program.lowered if isinstance(part, Code)]


def meetings(step: Any) -> int:
    """How often the threads meet in a step."""
    return sum(code.shared.count for code in codes_of(step) if code.shared)


OPTIONS: list[dict[str, Any]] = [{}, {"bidirectional": True}, {"num_layers": 2}, {"dropout": 0.2}]


@pytest.mark.usefixtures("all_products")
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_threads_compute_what_one_thread_computes_of_the_same_parts(
    n: int, kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with threadpool_limits(n):
        several, again = (run(True, kind, 6, 24, 32, **options) for _ in range(2))
        monkeypatch.setattr(threads, "together", lambda run, codes, meeting, here, alone: alone())
        assert run(True, kind, 6, 24, 32, **options) == several == again


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [None, [6, 1, 3] * 8])
def test_where_no_product_is_large_the_bits_are_those_of_the_step(
    kind: str, lengths: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LARGE", 2**30)
    found = run(True, kind, 6, 24, 32, lengths=lengths)
    with threadpool_limits(1):
        assert found == run(False, kind, 6, 24, 32, lengths=lengths)


@pytest.fixture
def all_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """All products are made in parts."""
    monkeypatch.setattr(products, "LARGE", 0)


@pytest.mark.usefixtures("all_products")
@pytest.mark.parametrize("kind", KINDS)
def test_products_in_parts_differ_in_rounding_alone(kind: str) -> None:
    losses, norms, parameters, *_ = run(True, kind, 6, 24, 32)
    losses1, norms1, parameters1, *_ = run(False, kind, 6, 24, 32)
    np.testing.assert_allclose([*losses, *norms], [*losses1, *norms1], rtol=1e-5)
    for p, q in zip(parameters, parameters1, strict=True):
        np.testing.assert_allclose(np.frombuffer(p, "f"), np.frombuffer(q, "f"), rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("all_products")
@pytest.mark.parametrize("kind", KINDS)
def test_calls_that_are_recorded_have_the_bits_of_replays(kind: str) -> None:
    """So a run that goes on in another process has the bits that it would have had."""
    model = Model(kind, 32)
    step = tr.compile(trainer(model, tr.optim.SGD(model.parameters(), lr=0)))
    (ids, targets), *_ = batches(6, 24)
    found = []
    for _ in range(5):
        loss = step(ids, targets)["loss"].item()
        found.append((loss, *(p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None)))
    assert meetings(step) and len(set(found)) == 1


def regions(code: Code, n: int = 2) -> list[share.Region]:
    rows = [code.lowering.rows(*call) for call in code.calls]
    return share.regions_of(list(share.Sharing(n, code.lowering).tasks(code.calls, rows)), n)


def recurrent(step: Any) -> int:
    """In how many regions there are stages of recurrent layers, which all threads share."""
    found = 0
    stages = {getattr(backend.stages, name) for name in share.STAGES}
    for code in codes_of(step):
        for region in regions(code):
            counts = [sum(code.calls[number][0] in stages for number, _ in some) for some in region.rows]
            assert counts[0] == counts[1]
            found += counts[0] > 0
    return found


LAYOUTS: list[tuple[dict[str, Any], int]] = [
    ({}, 1),
    ({"lengths": [9, 1, 3] * 8}, 3),  # as many as there are lengths
    ({"bidirectional": True}, 2),
    ({"num_layers": 2}, 2),
]


@pytest.mark.usefixtures("all_products")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("options", "count"), LAYOUTS, ids=str)
def test_with_many_rows_no_step_of_a_sequence_waits(
    kind: str, options: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer is one region forwards, and two backwards: its weight is put into panels before the second."""
    monkeypatch.setattr(products, "MANY", 4)
    monkeypatch.setattr(cut, "FEW", 4)
    assert recurrent(step_of(kind, 9, 24, 32, **options)) <= 3 * count


@pytest.mark.usefixtures("all_products")
@pytest.mark.parametrize("kind", KINDS)
def test_with_few_rows_each_step_of_a_sequence_is_a_region(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "FEW", 13)
    assert recurrent(step_of(kind, 9, 24, 32)) == 2 * 9


@pytest.mark.parametrize("kind", KINDS)
def test_no_thread_touches_what_another_one_writes_in_a_region(kind: str) -> None:
    """Byte by byte, for all the parts in a region."""
    for code in codes_of(step_of(kind, 4, 24, 32)):
        rows = [code.lowering.rows(*call) for call in code.calls]
        tasks = list(share.Sharing(3, code.lowering).tasks(code.calls, rows))
        of = {id(row): touched for task in tasks for rows, touched in task.parts or [] for row in rows}
        of |= {id(row): task.touched for task in tasks for row in task.rows}
        for region in share.regions_of(tasks, 3):
            read, written = [set[int]() for _ in range(3)], [set[int]() for _ in range(3)]
            for who, some in enumerate(region.rows):
                for _, row in some:
                    read[who].update(k for x in of[id(row)][0] for k in range(*x))
                    written[who].update(k for x in of[id(row)][1] for k in range(*x))
            for i, j in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]:
                assert not written[i] & (read[j] | written[j])


def test_a_wrong_region_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparison with one thread would prove nothing: here it takes the parts of a region in another order."""
    expected = run(True, "LSTM", 6, 24, 32)
    monkeypatch.setattr(share.Claims, "allow", lambda *args: True)
    monkeypatch.setattr(threads, "together", lambda run, codes, meeting, here, alone: alone())
    try:
        found = run(True, "LSTM", 6, 24, 32)
    except (ValueError, NonFiniteError) as error:  # what was looked at too early
        found = error
    assert found != expected


def test_one_thread_of_blas_is_one_thread_here() -> None:
    with threadpool_limits(1):
        step = step_of("LSTM", 6, 24, 32)
        assert not any(code.shared for code in codes_of(step))
        assert run(True, "LSTM", 6, 24, 32) == run(False, "LSTM", 6, 24, 32)
    (ids, targets), *_ = batches(6, 24)
    for _ in range(3):
        step(ids, targets, None)
    assert meetings(step)


def test_what_takes_less_than_to_wake_a_thread_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with threadpool_limits(2):
        assert not meetings(step_of("LSTM", 6, 8, 16))
        assert meetings(step_of("LSTM", 6, 32, 128))


def test_threads_are_let_be_until_what_they_lost_is_paid_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pace, spent = share.Pace(), 0.0
    shared = []
    for k in range(2000):
        together = pace.together
        seconds = (0.05 if 400 <= k < 1200 else 0.0005) if together else 0.001  # others run from 400 to 1200
        pace.note(together, seconds)
        shared.append(together)
        spent += seconds if 400 <= k < 1200 else 0
    assert not any(shared[:2]) and all(shared[2:400])
    assert 0 < sum(shared[400:1200]) < 10 and spent < 800 * 0.001 * 1.2
    assert all(shared[1800:])


def test_ids_out_of_range_are_told_by_the_call_and_nothing_later_has_been_done() -> None:
    table = tr.nn.Embedding(5, 32)

    @tr.compile
    def step(x: Any, ids: Any) -> Any:
        x += 1
        y = table(ids).detach()
        x *= 2
        return y * 2

    x, ids = np.zeros((16, 32), np.float32), np.arange(16) % 5
    for _ in range(3):
        step(x, ids)
    assert codes_of(step)[-1].shared
    x[...] = 0
    with pytest.raises(ValueError, match=r"Embedding: id 5 \(element 2\) is out of range") as error:
        step(x, np.where(np.arange(16) == 2, 5, 0))
    assert error.value.__context__ is None
    assert (x == 1).all()
    assert step(x, ids).shape == (16, 32) and (x == 4).all()


def test_programs_in_several_threads_at_once() -> None:
    """One of them has the workers; the others do all parts by themselves, and get the same bits."""
    steps = [step_of("LSTM", 6, 24, 32) for _ in range(3)]
    (ids, targets), *_ = batches(6, 24)
    losses: list[list[float]] = [[] for _ in steps]

    def work(k: int) -> None:
        losses[k] = [steps[k](ids, targets)["loss"].item() for _ in range(30)]

    some = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in some:
        thread.start()
    for thread in some:
        thread.join()
    assert len(losses[0]) == 30 and losses[0] == losses[1] == losses[2]
    assert threads.allowed() == 2
