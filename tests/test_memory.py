"""Memory that runs out: one error, which lets go of what failed."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.errors import GraphFreedError, OutOfMemoryError
from tinygrad_rnn.kernels.cuda import cublas
from tinygrad_rnn.memory import memory_for, out_of_memory
from tinygrad_rnn.tensor import sweep

HELPS = r"choose a smaller batch or shorter sequences, a backward through fewer steps \(k2\), or tr.checkpoint around"


def huge() -> tr.Tensor:
    """A tensor of one number that is seen 2^50 times."""
    return tr.broadcast_to(tr.ones(1, 1, requires_grad=True), (2**25, 2**25))


@tr.op(lambda g, y: (huge() * 2.0) * g)
def needs_much(x: Any) -> Any:
    return x * 2


@pytest.fixture
def by_references_alone() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_an_op_says_which_and_what_helps() -> None:
    with pytest.raises(
        OutOfMemoryError, match=rf"^not enough memory for add of shapes .*Unable to allocate.*: {HELPS}"
    ):
        huge() + 1.0
    with pytest.raises(MemoryError) as caught:
        huge() * huge()
    assert isinstance(caught.value, tr.errors.TinygradRnnError) and caught.value.hint in str(caught.value)


def test_a_backward_that_fails_frees_the_graph(by_references_alone: None) -> None:
    w = tr.ones(2, requires_grad=True)
    w.grad = [5.0, 6.0]  # type: ignore[assignment]
    inner = tr.tanh(w)
    kept = weakref.ref(inner._array)
    y = needs_much(inner)
    loss = tr.exp(y).sum()
    del inner
    try:
        loss.backward()
    except OutOfMemoryError as error:
        assert "not enough memory for multiply of shapes" in str(error)
        assert "in the backward of needs_much (inputs (2,); output (2,))" in error.__notes__[0]
        assert kept() is None  # while the error is there, and the tensors are
    assert w.grad is not None and w.grad.tolist() == [5, 6]
    with pytest.raises(GraphFreedError, match="half freed by a backward that failed in"):
        loss.backward()
    tr.tanh(w).sum().backward()


def test_what_is_to_be_retained_is_not_freed() -> None:
    w = tr.ones(2, requires_grad=True)
    y = tr.tanh(w)
    for _ in range(2):
        with pytest.raises(OutOfMemoryError):
            needs_much(y).backward([1.0, 1.0], retain_graph=True)
    y.sum().backward()
    assert w.grad is not None


def test_an_inner_tensor_that_was_asked_for_keeps_its_graph() -> None:
    w = tr.ones(2, requires_grad=True)
    y = tr.tanh(w)
    with pytest.raises(OutOfMemoryError):
        tr.grad(needs_much(y * 2).sum(), y)
    y.sum().backward()


def test_nobody_holds_what_a_failed_step_has_made(by_references_alone: None) -> None:
    model, held = tr.nn.LSTM(2, 3), []

    def step() -> None:
        y, _ = model(tr.ones(4, 1, 2))
        held.append(weakref.ref(y._array))
        (huge() * y.sum()).sum()

    with pytest.raises(OutOfMemoryError):
        step()
    assert held[0]() is None


def test_memory_for_leaves_other_errors_alone() -> None:
    with pytest.raises(RuntimeError, match=r"^another$"), memory_for("a copy"):
        raise RuntimeError("another")
    with pytest.raises(OutOfMemoryError, match=r"^not enough memory for a copy: choose"), memory_for("a copy"):
        raise MemoryError
    ours = OutOfMemoryError("ours")
    assert out_of_memory(ours, "a copy") is ours


@pytest.mark.parametrize(
    ("said", "limit", "shown"),
    [
        (
            "Out of memory allocating 3,221,225,472 bytes (allocated so far: 512 bytes).",
            0,
            "3.0 GiB asked for, 1.0 GiB",
        ),
        ("Out of memory allocating 1,024 bytes (...)", 2**29, r"1.0 KiB asked for, 128.0 MiB of 512.0 MiB free"),
        ("CUBLAS_STATUS_ALLOC_FAILED", 0, r"CUBLAS_STATUS_ALLOC_FAILED, 1.0 GiB of 8.0 GiB free on cuda:3"),
        (
            "cudaErrorMemoryAllocation: out of memory",
            0,
            r"cudaErrorMemoryAllocation: out of memory, 1.0 GiB of 8.0 GiB",
        ),
    ],
)
def test_what_cupy_says(said: str, limit: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = []
    pool = SimpleNamespace(
        get_limit=lambda: limit, total_bytes=lambda: 3 * 2**27, free_all_blocks=lambda: given_back.append(1)
    )
    device = SimpleNamespace(id=3, mem_info=(2**30, 2**33))
    cupy = SimpleNamespace(get_default_memory_pool=lambda: pool, cuda=SimpleNamespace(Device=lambda: device))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    kind = type("OutOfMemoryError", (MemoryError,), {"__module__": "cupy.cuda.memory"})
    error = RuntimeError(said) if "_" in said or "cuda" in said else kind(said)
    with (
        pytest.raises(OutOfMemoryError, match=f"^not enough memory for a copy: {shown}") as caught,
        memory_for("a copy"),
    ):
        raise error
    assert given_back and caught.value.hint


def test_what_cublas_says() -> None:
    told = r"for a copy: cuBLAS: a product failed with status 3 "
    with pytest.raises(OutOfMemoryError, match=told), memory_for("a copy"):
        cublas._check("a product", cublas.ALLOC_FAILED)
    with pytest.raises(RuntimeError, match="cuBLAS: a product failed with status 13"), memory_for("a copy"):
        cublas._check("a product", 13)


def test_gradients_are_all_written_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = tr.ones(2, requires_grad=True), tr.ones(2, requires_grad=True)
    (a * b).sum().backward()
    loss, gradients, asked = (a * b).sum(), sweep.Gradients(), []
    found = sweep.sweep([loss._node], [np.float32(1)], gradients)  # type: ignore[list-item]

    def asarray(x: Any) -> Any:
        asked.append(x)
        if len(asked) == 2:
            raise MemoryError
        return x

    monkeypatch.setattr(sweep, "namespace", lambda x: SimpleNamespace(asarray=asarray))
    with pytest.raises(MemoryError):
        sweep.write_gradients(found, gradients)
    assert a.grad is not None and b.grad is not None and a.grad.tolist() == b.grad.tolist() == [1, 1]
