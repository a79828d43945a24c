"""The same weights in PyTorch give the same results; skipped where it is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
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
@examples(dev=15, ci=30, thorough=300)
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


@given(data=st.data())
@examples(dev=25, ci=50, thorough=500)
def test_layer_norm(data: Any) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
    lead = data.draw(st.lists(st.integers(1, 3), max_size=2))
    options = {"eps": data.draw(st.sampled_from([1e-5, 0.1]))}
    options |= {"elementwise_affine": data.draw(st.booleans()), "bias": data.draw(st.booleans())}
    ours, theirs = pair("LayerNorm", shape, **options)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.assign_(rng.standard_normal(p.shape))
        q.data = torch.tensor(p.numpy())
    x = rng.standard_normal((*lead, *shape))
    a, b = tr.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-11, atol=1e-13)
    g = rng.standard_normal(y.shape)
    (y * g).sum().backward()
    (z * torch.tensor(g)).sum().backward()
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-8, atol=1e-11)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding_idx", [0, -1])
def test_embedding_with_a_padding_row(padding_idx: int) -> None:
    ours, theirs = pair("Embedding", 5, 3, padding_idx=padding_idx)
    ids = np.array([[0, 4, 4], [1, 2, 0]])
    y, z = ours(ids), theirs(torch.tensor(ids))
    assert_close(y.numpy(), z.detach().numpy())
    g = np.random.default_rng(0).standard_normal(y.shape)
    (y * g).sum().backward()
    (z * torch.tensor(g)).sum().backward()
    compare_gradients(ours, theirs)


TWO_ARRAYS = ["mse_loss", "l1_loss", "huber_loss", "binary_cross_entropy_with_logits"]


@pytest.mark.parametrize("name", [*TWO_ARRAYS, "nll_loss"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses(name: str, reduction: str) -> None:
    rng = np.random.default_rng(0)
    x = 2 * rng.standard_normal((4, 5))
    target = rng.random((4, 5)) if name in TWO_ARRAYS else np.array([1, -100, 4, 0])
    options: dict[str, Any] = {"reduction": reduction} | ({"delta": 0.7} if name == "huber_loss" else {})
    a, b = tr.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    ours = getattr(tr.nn.functional, name)(a, target, **options)
    theirs = getattr(torch.nn.functional, name)(b, torch.tensor(target), **options)
    assert_close(ours.numpy(), theirs.detach().numpy(), 1e-13)
    ours.sum().backward()
    theirs.sum().backward()
    assert a.grad is not None
    assert_close(a.grad.numpy(), b.grad.numpy(), 1e-13)


CROSSING: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("RNN", (3, 4), {"num_layers": 2, "nonlinearity": "relu"}),
    ("LSTM", (3, 4), {"num_layers": 2, "bidirectional": True}),
    ("GRU", (3, 4), {"bidirectional": True, "batch_first": True}),
    ("GRU", (3, 4), {"bias": False}),
    ("Linear", (3, 4), {}),
    ("Embedding", (5, 3), {"padding_idx": 2}),
    ("LayerNorm", (3,), {}),
]


@pytest.mark.parametrize(("name", "sizes", "options"), CROSSING)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_cross_in_files(name: str, sizes: Any, options: dict[str, Any], dtype: str, tmp_path: Any) -> None:
    """A `state_dict` that PyTorch saved as safetensors is loaded here, and the reverse: outputs equal."""
    numpy_files, torch_files = (pytest.importorskip(f"safetensors.{of}") for of in ("numpy", "torch"))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (6, 2)) if name == "Embedding" else rng.standard_normal((6, 2, 3)).astype(dtype)
    rtol = 1e-5 if dtype == "float32" else 1e-12

    def both() -> tuple[Any, Any]:
        theirs = getattr(torch.nn, name)(*sizes, dtype=getattr(torch, dtype), **options)
        return getattr(tr.nn, name)(*sizes, dtype=dtype, **options), theirs

    def check(ours: Any, theirs: Any) -> None:
        y, z = ours(tr.Tensor(x)), theirs(torch.tensor(x))
        y, z = ((y[0], z[0]) if isinstance(y, tuple) else (y, z)) if name != "LSTM" else (y[1][1], z[1][1])
        assert str(y.dtype) == dtype
        assert_close(y.numpy(), z.detach().numpy(), rtol)

    ours, theirs = both()
    torch_files.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours.load_state_dict(numpy_files.load_file(tmp_path / "theirs.safetensors"))
    check(ours, theirs)

    ours, theirs = both()
    values = {key: value.numpy() for key, value in ours.state_dict().items()}
    numpy_files.save_file(values, tmp_path / "ours.safetensors")
    theirs.load_state_dict(torch_files.load_file(tmp_path / "ours.safetensors"))
    check(ours, theirs)


def test_tied_weights_cross(tmp_path: Any) -> None:
    numpy_files, torch_files = (pytest.importorskip(f"safetensors.{of}") for of in ("numpy", "torch"))

    def model(nn: Any) -> Any:
        class Tied(nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.embedding = nn.Embedding(5, 3)
                self.output = nn.Linear(3, 5, bias=False)
                self.output.weight = self.embedding.weight

            def forward(self, ids: Any) -> Any:
                return self.output(self.embedding(ids))

        return Tied()

    ids = np.array([0, 3, 4])
    ours, theirs = model(tr.nn), model(torch.nn)
    torch_files.save_model(theirs, str(tmp_path / "theirs.safetensors"))
    ours.load_state_dict(numpy_files.load_file(tmp_path / "theirs.safetensors"))
    assert_close(ours(ids).numpy(), theirs(torch.tensor(ids)).detach().numpy(), 1e-5)
    ours, theirs = model(tr.nn), model(torch.nn)
    numpy_files.save_file({k: v.numpy() for k, v in ours.state_dict().items()}, tmp_path / "ours.safetensors")
    theirs.load_state_dict(torch_files.load_file(tmp_path / "ours.safetensors"), strict=False)
    assert_close(ours(ids).numpy(), theirs(torch.tensor(ids)).detach().numpy(), 1e-5)


def test_gains_and_activations() -> None:
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert tr.nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-12)
    x = np.linspace(-3, 3, 12).reshape(3, 4)
    for name in ("Tanh", "Sigmoid", "ReLU", "LeakyReLU", "ELU", "SiLU", "Softplus"):
        y, z = getattr(tr.nn, name)()(tr.Tensor(x)), getattr(torch.nn, name)()(torch.tensor(x))
        np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-11, atol=1e-14)
    for name in ("Softmax", "LogSoftmax"):
        y, z = getattr(tr.nn, name)(0)(tr.Tensor(x)), getattr(torch.nn, name)(0)(torch.tensor(x))
        assert_close(y.numpy(), z.numpy(), 1e-12)
