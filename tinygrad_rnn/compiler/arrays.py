"""NumPy arrays by their memory, and what tuples, lists and dictionaries hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import HostArray

BASIC = {int, slice, type(...), type(None)}


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


def layout(x: HostArray) -> tuple[int, ...] | None:
    """How an array lies in memory, as far as NumPy's loops go by it, in strides; None if in C order without gaps.

    Which axis lies innermost, and which two are one stretch, decides in which order a sum is taken, and so its last
    bits. How wide a gap is does not: here it is one element.

    >>> layout(np.zeros((2, 3))), layout(np.zeros((2, 3)).T), layout(np.zeros((2, 9))[:, 2:5])
    (None, (8, 24), (32, 8))
    """
    if x.flags.c_contiguous:
        return None
    strides = [0] * x.ndim
    dense = found = x.itemsize  # the strides that the next axis has if it continues the stretch: in x, and here
    for k in sorted(range(x.ndim), key=lambda k: abs(x.strides[k])):
        stride, n = x.strides[k], x.shape[k]
        if n > 1 and stride:
            width = found if abs(stride) == dense else found + x.itemsize
            strides[k] = width if stride > 0 else -width
            dense, found = abs(stride) * n, width * n
    return tuple(strides)


def copied(x: HostArray) -> HostArray:
    """A copy of an array that lies in memory as the array itself: what is computed with it has the same bits."""
    strides = layout(x)
    if strides is None:
        return x.copy()
    if (dense := x.copy(order="K")).strides == strides:
        return dense
    reach = [s * (n - 1) for s, n in zip(strides, x.shape, strict=True)]
    memory = np.empty(sum(map(abs, reach)) + x.itemsize, np.uint8)
    copy: HostArray = np.ndarray(x.shape, x.dtype, memory, -sum(r for r in reach if r < 0), strides)
    np.copyto(copy, x)
    return copy


def on_host(x: Any) -> Any:
    """`x`, or `CompileError` if it is an array on a GPU."""
    if type(x).__module__.partition(".")[0] == "cupy":
        raise CompileError(
            "tr.compile records on the CPU only, and this is an array on a GPU: tr.compile(step, graph=True) captures "
            "the step as a CUDA graph"
        )
    return x


def rebuilt(x: Any, leaf: Callable[[Any], Any]) -> Any:
    """`x` with what its tuples, lists and dictionaries hold replaced by `leaf` of it.

    >>> rebuilt((1, [2, {"a": 3}]), lambda v: 10 * v)
    (10, [20, {'a': 30}])
    """
    kind = type(x)
    if kind is tuple or kind is list:
        return kind([rebuilt(v, leaf) for v in x])
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return kind(*[rebuilt(v, leaf) for v in x])
    return {k: rebuilt(v, leaf) for k, v in x.items()} if kind is dict else leaf(x)


def refill(container: Any, items: Sequence[Any]) -> None:
    """Have a container hold what it held; `items` of a dictionary are its keys, then its values.

    >>> held = {"a": 1}
    >>> refill(held, ["b", "c", 2, 3])
    >>> held
    {'b': 2, 'c': 3}
    """
    if isinstance(container, dict):
        half = len(items) // 2
        dict.clear(container)
        dict.update(container, zip(items[:half], items[half:], strict=True))
    elif isinstance(container, list | bytearray):
        container[:] = items
    elif isinstance(container, set | deque):
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(items)


def flat(x: Any) -> Iterator[Any]:
    """What tuples, lists and dictionaries hold, in order.

    >>> list(flat((1, [2, {"a": 3}])))
    [1, 2, 3]
    """
    kind = type(x)
    if kind is dict or kind is list or isinstance(x, tuple):
        for v in x.values() if kind is dict else x:
            yield from flat(v)
    else:
        yield x


def is_basic(key: Any) -> bool:
    """Whether an index is integers, slices, `...` and None alone: it takes a view. True, a range or (0, 1) inside of
    a tuple, which NumPy reads as arrays, takes a copy.

    >>> is_basic((0, slice(1), ...)), is_basic([0]), is_basic(True), is_basic(((0, 1),))
    (True, False, False, False)
    """
    keys = key if isinstance(key, tuple) else (key,)
    return all(type(k) in BASIC or isinstance(k, np.integer) for k in keys)
