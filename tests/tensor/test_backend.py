"""What the array library is asked for."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.tensor import backend


def test_devices_are_checked():
    with pytest.raises(ValueError, match=r'"cpu", "cuda" or "cuda:N"'):
        tr.zeros(2, device="gpu")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_choice_among_many_has_the_bits_of_where(dtype: str) -> None:
    rng = np.random.default_rng(0)
    condition = rng.random((64, 100)) > 0.5
    a, b = (rng.normal(size=condition.shape).astype(dtype) for _ in range(2))
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45], dtype)
    a[0, : len(special)] = b[1, -len(special) :] = special
    for x, y in ((a, b), (a, 0.0), (-0.0, b), (a, float("nan")), (np.asarray(2, dtype), b)):
        expected, out = np.where(condition, x, y), np.empty_like(a)
        found = backend.choose(condition, x, y)
        assert found is not None and found.dtype == expected.dtype and found.tobytes() == expected.tobytes()
        assert backend.choose(condition, x, y, out) is not None and out.tobytes() == expected.tobytes()
        turned = [np.asfortranarray(v) if np.ndim(v) else v for v in (condition, x, y)]
        found = backend.choose(*turned)
        assert found is not None and found.flags.f_contiguous and found.tobytes() == expected.tobytes()


def test_what_is_chosen_as_it_is() -> None:
    """Of few, and of others than floats that lie in memory in the same way, the bits are not taken."""
    condition, a = np.zeros((64, 100), bool), np.ones((64, 100), np.float32)
    others = [a.astype(np.float64), a.astype(np.int64), a.astype(np.complex64), a[:1], np.ones((100, 64), np.float32).T]
    for other in (*others, np.float32(1)):
        assert backend.choose(condition, a, other) is None
    assert backend.choose(condition, 1.0, 2.0) is None
    assert backend.choose(condition.astype(int), a, a) is None
    assert backend.choose(condition[:2], a[:2], a[:2]) is None
    assert backend.choose(condition.T.copy().T, a, 0.0) is None


@pytest.mark.parametrize("lay", [np.ascontiguousarray, np.asfortranarray, lambda x: x[::2, ::-1], np.transpose])
def test_a_sigmoid_lies_in_memory_as_its_input(lay):
    x = lay(np.random.default_rng(0).standard_normal((6, 4)).astype("f"))
    expected = (np.exp(x) / (1 + np.exp(x))).strides
    assert backend.namespace(x) is np and tr.sigmoid(x).strides == tr.sigmoid(tr.Tensor(x)).data.strides == expected
