"""What would need the values of a traced array is refused, with its line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.steps import line_of
from tinygrad_rnn.errors import CompileError


def test_values_as_python_numbers_are_refused_with_their_line() -> None:
    x = tr.Tensor([3.0])

    def by_float(x: tr.Tensor) -> Any:
        return float(x)  # here

    def by_item(x: tr.Tensor) -> Any:
        return (x + 1).item()  # here

    def by_if(x: tr.Tensor) -> Any:
        return x if x.sum() > 0 else -x  # here

    def by_int(x: tr.Tensor) -> Any:
        return int(x)  # here

    def by_numpy(x: tr.Tensor) -> Any:
        return x.numpy()  # here

    def by_print(x: tr.Tensor) -> Any:
        return f"{x}"  # here

    def by_in(x: tr.Tensor) -> Any:
        return 3.0 in x  # here

    def by_mask(x: tr.Tensor) -> Any:
        return x[x > 0]  # here

    def by_numpy_function(x: tr.Tensor) -> Any:
        return np.unique(x.data)  # here

    for f in (by_float, by_item, by_if, by_int, by_numpy, by_print, by_in, by_mask, by_numpy_function):
        with pytest.raises(CompileError) as caught:
            tr.compile(f)(x)
        assert line_of(f, "# here") in str(caught.value), f
        assert "test_traced.py" in str(caught.value)
    assert (x + 1).item() == 4  # all is usable
