"""The same weights in PyTorch give the same results; skipped where it is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.reference import assert_close, assert_steps_close

torch = pytest.importorskip("torch")


def pair(name: str, *sizes: int, **options: Any) -> tuple[Any, Any]:
    """One of our modules and PyTorch's of the same name, with PyTorch's weights, in float64."""
    theirs = getattr(torch.nn, name)(*sizes, dtype=torch.float64, **options)
    ours = getattr(tr.nn, name)(*sizes, dtype="float64", **options)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    ours.load_state_dict({n: p.detach().numpy() for n, p in theirs.named_parameters()})
    theirs.load_state_dict({n: torch.tensor(p.numpy()) for n, p in ours.state_dict().items()})
    return ours, theirs


def compare_gradients(ours: Any, theirs: Any) -> None:
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None, name
        assert_close(p.grad.numpy(), q.grad.numpy(), 1e-10)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@given(data=st.data())
@settings(max_examples=15)
def test_recurrent_layers(name: str, data: Any) -> None:
    draw = data.draw
    options = {
        "num_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }
    if name == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    I, H, T, B = (draw(st.integers(1, 4)) for _ in range(4))  # noqa: E741
    ours, theirs = pair(name, I, H, **options)
    ours.fused = draw(st.booleans())
    single = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    L = options["num_layers"] * (1 + options["bidirectional"])
    x = rng.standard_normal((T, I) if single else (B, T, I) if options["batch_first"] else (T, B, I))
    states = [rng.standard_normal((L, H) if single else (L, B, H)) for _ in range(2)]
    xs = tr.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    hs = [
        [make(s, requires_grad=True) for s in states] for make in (tr.Tensor, torch.tensor)
    ]  # h_0 and c_0, ours and theirs
    with_state = draw(st.booleans())
    results = []
    for layer, v, h in zip((ours, theirs), xs, hs, strict=True):
        hx = None if not with_state else tuple(h) if name == "LSTM" else h[0]
        output, final = layer(v, hx)
        results.append([output, *(final if name == "LSTM" else (final,))])
    loss, their_loss = tr.Tensor(0.0, dtype="float64"), torch.zeros((), dtype=torch.float64)
    for a, b in zip(*results, strict=True):
        assert a.shape == tuple(b.shape)
        assert_close(a.numpy(), b.detach().numpy())
        g = rng.standard_normal(a.shape)
        loss, their_loss = loss + (a * g).sum(), their_loss + (b * torch.tensor(g)).sum()
    loss.backward()
    their_loss.backward()
    compare_gradients(ours, theirs)
    assert xs[0].grad is not None
    assert_steps_close(xs[0].grad.numpy(), xs[1].grad.numpy())
    if with_state:
        for s, t in zip(*hs, strict=True):
            assert (s.grad is None) == (t.grad is None)
            if s.grad is not None:
                assert_close(s.grad.numpy(), t.grad.numpy())


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(name: str, bias: bool) -> None:
    ours, theirs = pair(name, 3, 4, bias=bias)
    x = np.random.default_rng(0).standard_normal((2, 3))
    a, b = ours(tr.Tensor(x)), theirs(torch.tensor(x))
    a, b = (a if isinstance(a, tuple) else (a,)), (b if isinstance(b, tuple) else (b,))
    for s, t in zip(a, b, strict=True):
        assert_close(s.numpy(), t.detach().numpy())


def test_linear_and_embedding() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    ours, theirs = pair("Linear", 3, 4)
    assert_close(ours(tr.Tensor(x)).numpy(), theirs(torch.tensor(x)).detach().numpy())
    ours, theirs = pair("Embedding", 7, 3)
    ids = np.array([[0, 6, 6], [1, 2, 3]])
    y, z = ours(ids), theirs(torch.tensor(ids))
    (y * y).sum().backward()
    (z * z).sum().backward()
    assert_close(y.numpy(), z.detach().numpy())
    compare_gradients(ours, theirs)


@given(data=st.data())
def test_cross_entropy(data: Any) -> None:
    N, C = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    x, ids = rng.standard_normal((N, C)), rng.integers(0, C, N)
    ids[1:][rng.random(N - 1) < 0.4] = -100  # PyTorch gives NaN if all are ignored
    options = {
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none"])),
        "label_smoothing": data.draw(st.sampled_from([0.0, 0.2])),
    }
    a, b = tr.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    ours = tr.nn.functional.cross_entropy(a, ids, **options)
    theirs = torch.nn.functional.cross_entropy(b, torch.tensor(ids), **options)
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-12, atol=1e-14)
    ours.sum().backward()
    theirs.sum().backward()
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-11, atol=1e-14)
