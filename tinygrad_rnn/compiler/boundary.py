"""What crosses the boundary of a compiled step: its arguments on the way in, its result on the way out."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_rnn.compiler.arrays import rebuilt
from tinygrad_rnn.compiler.tape import Tape
from tinygrad_rnn.compiler.traced import Traced, as_given, users_place
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import AnyArray
from tinygrad_rnn.tensor.tensor import Tensor, box

# --- arguments --------------------------------------------------------------------------------------------------------


def signature_of(x: Any, arrays: list[AnyArray], fixed: list[bool]) -> Any:
    """What must be equal in the arguments of two calls for one recording to hold for both.

    The arrays in `x` are appended to `arrays`, and whether nobody can write into them to `fixed`.
    """
    if isinstance(x, Tensor):
        if x._node is not None:
            if not x.is_leaf:
                raise CompileError(
                    f"{users_place()}: an argument of a compiled function was computed from tensors that require a "
                    f"gradient, which could not flow on: pass it as .detach()"
                )
            return Identity(x)
        arrays.append(x._array)
        fixed.append(True)
        return Tensor, on_host(x._array).shape, x._array.dtype
    if isinstance(x, np.ndarray | np.generic):
        arrays.append(x)
        fixed.append(False)
        return np.ndarray, x.shape, x.dtype
    if type(x) is tuple or type(x) is list or hasattr(x, "_fields"):
        return type(x), *[signature_of(v, arrays, fixed) for v in x]
    if type(x) is dict:
        return dict, *[(k, signature_of(v, arrays, fixed)) for k, v in x.items()]
    if x is None or isinstance(x, int | float | str | bytes | complex):
        return type(x), x
    return Identity(on_host(x))


class Identity:
    """Equal to itself alone, whatever the object thinks of equality."""

    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x

    def __hash__(self) -> int:
        return id(self.x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.x is self.x


def on_host(x: Any) -> Any:
    """`x`, or `CompileError` if it is an array on a GPU."""
    if type(x).__module__.partition(".")[0] == "cupy":
        raise CompileError(
            "tr.compile records on the CPU only so far, and this is an array on a GPU: call the function as it is"
        )
    return x


def traced_copy(x: Any, tape: Tape) -> Any:
    """Arguments with traced arrays; each is an input of the tape, in the order of `signature_of`."""

    def traced(v: Any) -> Any:
        if isinstance(v, Tensor) and v._node is None:
            return box(tape.input(v._array), None)
        return tape.input(v) if isinstance(v, np.ndarray | np.generic) else v

    return rebuilt(x, traced)


# --- the result -------------------------------------------------------------------------------------------------------


def checked(result: Any, tape: Tape) -> Any:
    """The result of a step, without graphs. `CompileError` for a tensor whose graph is still there."""

    def one(v: Any) -> Any:
        if not isinstance(v, Tensor) or any(v is leaf for leaf in tape.leaves.tensors):
            return v
        node = v._node
        if node is not None and node.plan is not None and node.sources is not None:
            raise CompileError(
                f"a compiled function returned the output of {node.plan.name}, shape {v.shape}, whose graph is "
                f"still there: a replay builds no graph, so call .backward() inside of the function, or return "
                f".detach() of it"
            )
        array = v._array
        if type(array) is np.ndarray and tape.owns(array):
            array = Traced(array, tape)
        return box(array, None) if isinstance(array, Traced) else v

    return rebuilt(result, one)


def outside(x: Any) -> Any:
    """A result with copies in the place of its traced arrays."""

    def copied(v: Any) -> Any:
        if isinstance(v, Tensor):
            return box(np.array(v._array.raw), None) if isinstance(v._array, Traced) else v
        if isinstance(v, Traced):
            given = as_given(v)
            return np.array(given) if isinstance(given, np.ndarray) else given  # in the same order
        return v

    return rebuilt(x, copied)
