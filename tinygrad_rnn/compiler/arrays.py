"""NumPy arrays by their memory, and what tuples, lists and dictionaries hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygrad_rnn.tensor.backend import HostArray


def root_of(x: HostArray) -> HostArray:
    """The array that owns the memory of `x`.

    >>> x = np.zeros((2, 3))
    >>> root_of(x[1:].T) is x
    True
    """
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def address(x: HostArray) -> int:
    """Where the first element lies in memory."""
    return int(x.__array_interface__["data"][0])


def shares_memory(y: HostArray, args: Any) -> bool:
    """Whether `y` may lie in the memory of an array among `args`."""
    return any(isinstance(a, np.ndarray) and (y is a or np.may_share_memory(y, a)) for a in flat(args))


def same_place(a: HostArray, b: HostArray) -> bool:
    """Whether two arrays are the same view of the same memory."""
    return address(a) == address(b) and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype


def rebuilt(x: Any, leaf: Callable[[Any], Any]) -> Any:
    """`x` with what its tuples, lists and dictionaries hold replaced by `leaf` of it.

    >>> rebuilt((1, [2, {"a": 3}]), lambda v: 10 * v)
    (10, [20, {'a': 30}])
    """
    if isinstance(x, tuple | list):
        values = [rebuilt(v, leaf) for v in x]
        return type(x)(*values) if hasattr(x, "_fields") else type(x)(values)
    return {k: rebuilt(v, leaf) for k, v in x.items()} if type(x) is dict else leaf(x)


def flat(x: Any) -> Iterator[Any]:
    """What tuples, lists and dictionaries hold, in order.

    >>> list(flat((1, [2, {"a": 3}])))
    [1, 2, 3]
    """
    if isinstance(x, tuple | list | dict):
        for v in x.values() if isinstance(x, dict) else x:
            yield from flat(v)
    else:
        yield x


def has_arrays(key: Any) -> bool:
    """Whether an index is more than integers and slices."""
    return any(isinstance(k, np.ndarray | list) for k in (key if isinstance(key, tuple) else (key,)))
