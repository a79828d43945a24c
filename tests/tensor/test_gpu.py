"""Every op, its gradient and its second derivative on a device beside the same on the host.

Without a GPU the device is the host, so that at least the comparison itself has been run.
"""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.testing import DOMAINS

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
ROWS = {str(domain): domain for domain in DOMAINS}


def flat(y):
    return list(y) if isinstance(y, list | tuple) else [y]


def run(domain, case, arrays, device):
    """Outputs, gradients and, where they exist, second derivatives, as NumPy arrays."""
    leaves = [tr.Tensor(x, device=device, requires_grad=x.dtype.kind == "f") for x in arrays]
    ys = flat(domain(*leaves, **case.options))
    inputs, live = [t for t in leaves if t.requires_grad], [y for y in ys if y.requires_grad]
    results = list(ys)
    if live:
        rng = np.random.default_rng(case.seed)
        us = [tr.Tensor(rng.standard_normal(y.shape), dtype=y.dtype, device=device) for y in live]
        results += tr.grad(live, inputs, gradient=us, retain_graph=True)
        if domain.smooth:
            slopes = tr.grad(live, inputs, gradient=us, create_graph=True)
            again = [tr.sum(s * s) for s in slopes if s.requires_grad]
            results += tr.grad(again, inputs) if again else []
    assert all(t.device.partition(":")[0] == device for t in results)
    return [t.numpy() for t in results]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("row", ROWS)
def test_every_op_on_the_device_and_on_the_host(row, device):
    domain = ROWS[row]
    for seed in range(10):
        case = domain.sample(seed)
        for dtype, rtol in ((np.float64, 1e-9), (np.float32, 1e-4)):
            arrays = case.arrays(domain, dtype)
            there, here = (run(domain, case, arrays, d) for d in (device, "cpu"))
            for a, b in zip(there, here, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * (1 + np.max(np.abs(b), initial=0)))


@pytest.mark.gpu
def test_nothing_crosses_devices_by_itself():
    with pytest.raises(tr.errors.BackendMismatchError, match="cuda:0"):
        tr.zeros(2, device="cuda") + tr.zeros(2)
    x = tr.ones(2, requires_grad=True)
    (x.to("cuda") * 2.0).sum().backward()
    assert x.grad.device == "cpu"
    assert x.grad.tolist() == [2, 2]
