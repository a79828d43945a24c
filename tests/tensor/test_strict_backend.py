"""The generic layer, proven without a GPU: second derivatives on array_api_strict, which refuses what NumPy would
forgive. Values and first derivatives are the law "backend" of `check_op`, in test_ops_table.py."""

from __future__ import annotations

import array_api_strict as strict
import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.testing import DOMAINS

ROWS = {str(domain): domain for domain in DOMAINS}


def flat(y):
    return list(y) if isinstance(y, list | tuple) else [y]


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
