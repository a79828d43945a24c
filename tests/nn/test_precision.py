"""The precision of products: of a module, on a GPU alone, and never of the process; here on the stand-in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.reference import assert_close
from tests.standin.cupy import _blas
from tinygrad_rnn import nn
from tinygrad_rnn.nn.precision import linear

RNG = np.random.default_rng(0)
MAKERS: dict[str, Any] = {
    "Linear": lambda **options: nn.Linear(6, 5, **options),
    **{kind: lambda kind=kind, **options: getattr(nn, kind)(6, 5, 2, **options) for kind in ("RNN", "LSTM", "GRU")},
}


def results(make: Any, precision: str, device: str, dtype: str = "float32") -> list[Any]:
    """What a module gives, and all gradients."""
    layer = make(precision=precision, dtype=dtype, generator=np.random.default_rng(1)).to(device)
    x = tr.Tensor(np.random.default_rng(2).standard_normal((7, 3, 6)), dtype=dtype, device=device, requires_grad=True)
    y = layer(x)
    y = y[0] if isinstance(y, tuple) else y
    tr.square(y).sum().backward()
    return [t.numpy() for t in (y, x.grad, *(p.grad for p in layer.parameters())) if t is not None]


@pytest.mark.parametrize("name", MAKERS)
def test_tf32_is_asked_for_by_a_module(standin: Any, name: str) -> None:
    exact = results(MAKERS[name], "float32", "cpu")
    rounded = results(MAKERS[name], "tf32", "cuda")
    for ours, theirs in zip(rounded, exact, strict=True):
        assert_close(ours, theirs, 1e-2)
    off = [abs(a - b).max() / abs(b).max() for a, b in zip(rounded[:2], exact[:2], strict=True)]
    assert min(off) > 1e-5, "nothing was rounded"
    for ours, theirs in zip(results(MAKERS[name], "float32", "cuda"), exact, strict=True):
        assert_close(ours, theirs, 1e-5)  # after it nothing is rounded any more


@pytest.mark.parametrize("name", MAKERS)
def test_elsewhere_it_changes_nothing(standin: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, of float64, and on a GPU that has no TF32."""
    cases = [("cpu", "float32"), ("cuda", "float64")]
    monkeypatch.setenv("STANDIN_CAPABILITY", "75")
    for device, dtype in [*cases, ("cuda", "float32")]:
        found, exact = (results(MAKERS[name], precision, device, dtype) for precision in ("tf32", "float32"))
        for ours, theirs in zip(found, exact, strict=True):
            if device == "cpu":
                assert np.array_equal(ours, theirs)
            else:
                assert_close(ours, theirs, 1e-6 if dtype == "float32" else 1e-13)


def test_the_products_are_those_of_rounded_factors(standin: Any) -> None:
    x, W, b = (RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 9), (3, 9), (3,)))
    y = linear(*(tr.Tensor(v, device="cuda") for v in (x, W, b)), "tf32")
    assert_close(y.numpy(), _blas.rounded(x) @ _blas.rounded(W).T + b, 1e-6)
    assert abs(_blas.rounded(x) / x - 1).max() < 2**-11
    assert linear(tr.zeros(0, 9, device="cuda"), tr.Tensor(W, device="cuda"), None, "tf32").shape == (0, 3)
    with pytest.raises(tr.errors.ShapeError, match=r"linear: x \(4, 9\), W \(3, 8\)"):
        linear(tr.Tensor(x, device="cuda"), tr.zeros(3, 8, device="cuda"), None, "tf32")


def test_it_may_be_differentiated_twice(standin: Any) -> None:
    x, W = (tr.Tensor(RNG.standard_normal((2, 2)), dtype="float32", device="cuda", requires_grad=True) for _ in "xW")
    slopes = tr.grad(tr.square(linear(x, W, None, "tf32")).sum(), x, create_graph=True)
    assert tr.grad(slopes.sum(), W).shape == (2, 2)


@pytest.mark.parametrize("name", MAKERS)
def test_another_precision_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf'{name}: precision must be "float32" or "tf32", got .bfloat16.'):
        MAKERS[name](precision="bfloat16")
    assert "precision='tf32'" in repr(MAKERS[name](precision="tf32")) and "precision" not in repr(MAKERS[name]())
