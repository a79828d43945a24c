"""The generic layer, proven without a GPU: every op on array_api_strict, which refuses what NumPy would
forgive."""

from __future__ import annotations

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.testing import DOMAINS
from tinygrad_rnn.testing.strategies import cases

ROWS = {str(domain): domain for domain in DOMAINS}


def flat(y):
    return list(y) if isinstance(y, list | tuple) else [y]


def run(domain, options, arrays, seed):
    """Outputs and gradients of an op on whatever kind of arrays."""
    leaves = [tr.Tensor(x, requires_grad="float" in str(x.dtype)) for x in arrays]
    ys = flat(domain(*leaves, **options))
    inputs = [t for t in leaves if t.requires_grad]
    live = [y for y in ys if y.requires_grad]
    rng = np.random.default_rng(seed)
    # a cotangent is drawn on the host and moved, like everything random
    us = [tr.Tensor(leaves[0]._array.__array_namespace__().asarray(draw(rng, y))) for y in live]
    gs = list(tr.grad(live, inputs, gradient=us)) if live else []
    return ys, gs


def draw(rng, y):
    return rng.standard_normal(y.shape).astype(str(y.dtype).rpartition(".")[2])


@pytest.mark.parametrize("row", ROWS)
@given(data=st.data())
def test_every_op_on_the_strict_backend(row, data):
    domain = ROWS[row]
    case = data.draw(cases(domain, layouts=("C",)))
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 2e-5)):
        arrays = case.arrays(domain, dtype)
        moved = [strict.asarray(x.copy()) for x in arrays]
        raw = flat(domain(*moved, **case.options))
        ys, gs = run(domain, case.options, moved, case.seed)
        expected_ys, expected_gs = run(domain, case.options, arrays, case.seed)
        assert len(ys) == len(expected_ys) == len(raw)
        assert len(gs) == len(expected_gs)
        for ours, expected in zip([*ys, *gs], [*expected_ys, *expected_gs], strict=True):
            assert ours._array.__array_namespace__() is strict
            assert ours.shape == expected.shape
            assert str(ours.dtype).rpartition(".")[2] == str(expected.dtype)
            size = 1 + np.max(abs(expected.numpy()), initial=0)
            np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=rtol, atol=rtol * size)
        for r, y in zip(raw, ys, strict=True):
            assert r.__array_namespace__() is strict
            np.testing.assert_array_equal(np.asarray(r), y.numpy())


@pytest.mark.parametrize("row", [name for name, d in ROWS.items() if not d.constant and d.smooth])
def test_second_order_on_the_strict_backend(row):
    domain = ROWS[row]
    for seed in range(3):
        case = domain.sample(seed)
        arrays = case.arrays(domain)
        results = []
        for move in (np.array, lambda x: strict.asarray(x.copy())):
            leaves = [tr.Tensor(move(x), requires_grad=x.dtype.kind == "f") for x in arrays]
            inputs = [t for t in leaves if t.requires_grad]
            total = sum((tr.sum(y * y) for y in flat(domain(*leaves, **case.options))), 0.0)
            slopes = tr.grad(total, inputs, create_graph=True)
            again = [tr.sum(s * s * s) for s in slopes if s.requires_grad]
            results.append([g.numpy() for g in tr.grad(again, inputs)] if again else [])
        for numpy_g, strict_g in zip(*results, strict=True):
            np.testing.assert_allclose(strict_g, numpy_g, rtol=1e-9, atol=1e-9)


def test_mixing_libraries_is_refused():
    with pytest.raises(tr.errors.BackendMismatchError):
        tr.Tensor(strict.asarray([1.0])) + tr.Tensor(np.array([1.0]))
