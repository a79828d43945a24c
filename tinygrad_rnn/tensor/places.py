"""Where the values of a tensor stand: what `assign_` and `+=` mean there, so that no write is lost.

The values of a tensor never change, and what looks like a change rebinds a name. For a leaf and for
a result of one's own that is what it says. What `detach()`, `.grad` and `state_dict()` return are
other tensors than the leaf: a write to one of them would not reach it, and is an error.
"""

from __future__ import annotations

import dis
import sys
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any, NoReturn

from tinygrad_rnn.errors import ImmutableError

if TYPE_CHECKING:
    from tinygrad_rnn.tensor.tensor import Tensor


class Place:
    """A leaf that the user made: `assign_` gives it new values, and `y += 1` rebinds y."""

    def assign(self, t: Tensor, value: Any) -> Tensor:
        """What `t.assign_(value)` does."""
        return t._assign(value)

    def write(self, t: Tensor, result: Tensor) -> Tensor:
        """What an in-place operator on `t` returns, of which `result` came."""
        return result


class Snapshot(Place):
    """The values of a leaf at one time, as `detach()` and `state_dict()` return them.

    `state["weight"] *= 2` puts the result into the dictionary; `w *= 2` would be lost.
    """

    def assign(self, t: Tensor, value: Any) -> NoReturn:
        raise ImmutableError(
            "a write to detach() or to a value of state_dict(), the values of a leaf at one time, "
            "would not reach the leaf: use p.assign_(array) or load_state_dict; "
            "tr.Tensor(y) is a copy to work on"
        )

    def write(self, t: Tensor, result: Tensor) -> Tensor:
        if _kept_in()[0] in ("STORE_ATTR", "STORE_SUBSCR"):
            return result
        self.assign(t, result)


class Gradient(Place):
    """What `.grad` returned: `p.grad *= 2` sets it anew, and `g = p.grad; g *= 2` would not."""

    def assign(self, t: Tensor, value: Any) -> NoReturn:
        raise ImmutableError(
            "assign_ on what .grad returned would not reach the leaf: p.grad = tr.Tensor(array)"
        )

    def write(self, t: Tensor, result: Tensor) -> Tensor:
        if _kept_in() == ("STORE_ATTR", "grad"):
            return result
        raise ImmutableError(
            "an in-place operator on what .grad returned would leave the leaf's gradient as it is: "
            "write p.grad *= 2, or g = g * 2 for a tensor of your own"
        )


class InHook(Place):
    """What a hook is given: a write to it is what the hook makes of the gradient."""

    written: Tensor | None = None

    def assign(self, t: Tensor, value: Any) -> Tensor:
        self.written = changed = t.detach()._assign(value)
        t._array, t._node = changed._array, None
        return t

    def write(self, t: Tensor, result: Tensor) -> Tensor:
        result._place = self
        self.written = result
        return result


class Buffer(Place):
    """A buffer of a module: an in-place operator gives it new values, under whatever name."""

    def write(self, t: Tensor, result: Tensor) -> Tensor:
        fits = result.shape == t.shape and result.dtype == t.dtype and not result.requires_grad
        return t.assign_(result) if fits else result


OWN, SNAPSHOT, GRADIENT, BUFFER = Place(), Snapshot(), Gradient(), Buffer()


def _kept_in() -> tuple[str, Any]:
    """Where the code that called an in-place operator puts the result: an instruction and a name.

    `p.grad *= 2` sets an attribute `grad`, `g *= 2` binds a name. Python calls the same methods for
    both, so that the code alone tells.
    """
    frame = sys._getframe(1)
    ours = (__name__, __name__.replace("places", "tensor"))
    while frame.f_back and frame.f_globals.get("__name__") in ours:
        frame = frame.f_back
    return _after(frame.f_code, frame.f_lasti)


@lru_cache(maxsize=256)
def _after(code: CodeType, place: int) -> tuple[str, Any]:
    """The instruction that takes the result of the one at `place`, and its argument."""
    skipped = ("CACHE", "SWAP", "EXTENDED_ARG")
    after = (i for i in dis.get_instructions(code) if i.offset > place and i.opname not in skipped)
    found = next(after, None)
    return ("", None) if found is None else (found.opname, found.argval)
