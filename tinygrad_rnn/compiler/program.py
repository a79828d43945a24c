"""A program: the calls of a recording on buffers of their own, and how they are run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.arrays import copied, flat, rebuilt, root_of
from tinygrad_rnn.compiler.boundary import Given, held, mapped, outside, overlapping
from tinygrad_rnn.compiler.engine import (
    Deviation,
    expect_grad,
    expect_none,
    expect_value,
    forget,
    refresh_grad,
    refresh_leaf,
    returned,
)
from tinygrad_rnn.compiler.lower import Calls, lowered, only_warned_of
from tinygrad_rnn.compiler.memory import Block
from tinygrad_rnn.compiler.numpy_calls import assign
from tinygrad_rnn.compiler.passes import simplified
from tinygrad_rnn.compiler.tape import Entry, Tape, is_by_node
from tinygrad_rnn.compiler.traced import Traced, arrays_in
from tinygrad_rnn.compiler.undo import Undo
from tinygrad_rnn.compiler.users import call_as_it_is
from tinygrad_rnn.compiler.uses import touched
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import AnyArray, HostArray
from tinygrad_rnn.tensor.tensor import Tensor

DEVIATE = (refresh_grad, expect_grad, expect_none, expect_value, call_as_it_is)


def program_of(tape: Tape, given: Sequence[Any], written: Iterable[int], made_inside: frozenset[int]) -> Program:
    """The program of a finished recording: what is needed, through the passes, in one block of memory."""
    entries = needed([e for e in tape.entries if e.f is not returned], held(tape.result))
    state = [(e.args, e.kwargs) for e in entries if e.state or e.f is call_as_it_is]
    first = [leaf.first for leaf in tape.found.leaves.values()]
    kept = {id(root_of(a)): root_of(a) for a in arrays_in([first, tape.inputs, held(tape.result), state])}
    entries = simplified(entries, tape.numbers, kept)
    block = Block(entries, [a for a in tape.buffers if id(a) not in kept])
    return Program(tape, entries, block, kept, given, list(written), made_inside)


class Program:
    """What is repeated: calls on buffers.

    `inputs` are the buffers that the arguments are copied into, and `kept` those that leaves, arguments, the result or
    Python functions refer to.
    """

    def __init__(
        self,
        tape: Tape,
        entries: Sequence[Entry],
        block: Block,
        kept: dict[int, HostArray],
        given: Sequence[Any],
        written: list[int],
        made_inside: frozenset[int],
    ) -> None:
        places = {id(x): k for k, x in enumerate(given)}
        self.given: list[Any] = []  # the arguments of this call
        first = {k: leaf.first for k, leaf in ((places.get(i), leaf) for i, leaf in tape.found.leaves.items())}
        arrays = input_buffers(tape, given)
        self.inputs: list[Any] = [first.get(k) if isinstance(x, Tensor) else arrays[k] for k, x in enumerate(given)]
        self.held: list[AnyArray] = [None] * len(self.inputs)  # arguments whose values the buffers hold
        self.written = written
        leaves = tape.found.leaves.items()
        self.leaves = [(x.tensor, x.first) for i, x in leaves if i not in places and x.first is not None]
        self.current: list[HostArray | None] = [None] * len(self.leaves)  # the arrays whose values the buffers hold
        self.watches = list(tape.found.written)
        self.result = mapped(tape.result, lambda v: placeholder(v, places, arrays))
        self.made_inside = made_inside
        self.shared = overlapping(self.result)
        self.kept = kept
        self.nbytes = block.nbytes
        self.segments: list[Calls] = []
        self.risk = Risk(entries)
        for e in entries:
            args, kwargs = (e.args, e.kwargs) if e.state else rebuilt((e.args, e.kwargs), block.place)
            f = partial(e.f, **kwargs) if kwargs else e.f
            if any(isinstance(v, Tensor) and id(v) in places for v in flat((args, kwargs))):
                f, args = self.with_given, rebuilt((e.f, args, kwargs), lambda v: placeholder(v, places, ()))
            if not self.segments or self.segments[-1].quiet != e.quiet:
                self.segments.append(Calls(e.quiet, []))
            self.segments[-1].calls.append((f, args))
            if e is self.risk.last:
                self.segments[-1].calls.append((self.end_of_risk, ()))
        self.lowered = lowered(self.segments, tape.threads)

    def with_given(self, f: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Call `f` on the arguments of this call, where the recording was given others."""
        args, kwargs = rebuilt((args, kwargs), lambda v: self.given[v.k] if isinstance(v, Given) else v)
        f(*args, **kwargs)

    def replay(self, given: Sequence[Any]) -> Any:
        """Run the calls on new arguments. `Deviation`, with the state as it was, if the step must run as it is."""
        self.given[:] = given
        self.refresh()
        self.take(given)
        undo = self.risk.undo() if self.risk.any else None
        written: Iterable[int] = self.written
        self.at_risk = True
        try:
            self.run()
            return outside(self.result, self.made_inside, given, self.shared)
        except Exception as error:
            if undo is not None and self.at_risk and (self.risk.caught or isinstance(error, Deviation)):
                undo.restore()
                written = ()
                raise Deviation from None
            raise
        finally:
            for k in written:
                put_back(given[k], self.inputs[k])
            self.settle()
            self.given.clear()

    def end_of_risk(self) -> None:
        """Note that what may have to be undone has gone well."""
        self.at_risk = False

    def refresh(self) -> None:
        """Copy the arrays that leaves have been given since the last time."""
        current = self.current
        for k, (tensor, buffer) in enumerate(self.leaves):
            a = tensor._array
            if a is not current[k]:
                np.copyto(buffer, a)
                current[k] = a

    def take(self, given: Sequence[Any]) -> None:
        """Copy the arguments."""
        for k, x in enumerate(given):
            a = x._array if isinstance(x, Tensor) else x
            if a is not self.held[k] and (buffer := self.inputs[k]) is not None:
                np.copyto(buffer, a)
                self.held[k] = a if a is not x else None  # nobody can write into the array of a tensor

    def run(self) -> None:
        """Make the calls."""
        for part in self.lowered if only_warned_of() else self.segments:
            part()

    def settle(self) -> None:
        """Copy the gradients that lie in buffers: what somebody can hold is never written again."""
        for watch in self.watches:
            g = watch.grad
            if g is not None and id(root_of(g)) in self.kept:
                watch.grad = copied(g)


class Risk:
    """Which calls of a program may have to be undone: those up to the last one that may not go as it was recorded."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        deviates = [e.caught or e.f in DEVIATE for e in entries]
        last = max((k for k, may in enumerate(deviates) if may), default=-1)
        self.caught = any(e.caught for e in entries)
        self.any = last >= 0
        self.last = entries[last] if self.any else None
        self.calls = [(changes_of(e), e.args, e.kwargs) for e in entries[: last + 1] if e.state or e.f is assign]

    def undo(self) -> Undo:
        """How to bring back the state that these calls change."""
        undo = Undo()
        for changes, args, kwargs in self.calls:
            if changes == "gradients":
                undo.save_gradients((args, kwargs))
            elif changes != "reads":
                undo.save([list(x) if is_by_node(x) else x for x in (*flat(args), *kwargs.values())])
        return undo


def changes_of(e: Entry) -> str:
    """What an entry changes, as its function declares it."""
    if e.f is assign:  # of the number or the array that a function of the engine returns
        return getattr(e.args[0], "changes", "reads")
    return "gradients" if e.f in (forget, expect_none, expect_grad) else getattr(e.f, "changes", "leaves")


def input_buffers(tape: Tape, given: Sequence[Any]) -> list[Any]:
    """The buffers of the arguments that are arrays; None in the places of tensors."""
    arrays = iter(tape.inputs)
    return [None if isinstance(x, Tensor) else next(arrays) for x in given]


def put_back(x: HostArray, buffer: HostArray) -> None:
    """Copy what the step may have written into an argument. `ValueError` if it has, and nobody may write there."""
    if x.flags.writeable or x.tobytes() != buffer.tobytes():
        np.copyto(x, buffer)


def written_inputs(tape: Tape, given: Sequence[Any]) -> list[int]:
    """Which arguments, arrays all of them, the step writes into.

    `CompileError` if such a one shares memory with another argument, or with an array that the step finds elsewhere.
    """
    buffers = input_buffers(tape, given)
    roots = {id(root_of(a)) for e in tape.entries for a in touched(e)[1]}
    written = [k for k, buffer in enumerate(buffers) if buffer is not None and id(root_of(buffer)) in roots]
    if written:
        outer = [a for e in tape.entries for a in arrays_in((e.args, e.kwargs)) if not tape.owns(a)]
        others = [x._array if isinstance(x, Tensor) else x for x in given]
        for k in written:
            if any(np.may_share_memory(given[k], a) for a in [*others[:k], *others[k + 1 :], *outer]):
                raise CompileError(
                    f"a function that tr.compile records writes into an argument, an array of shape {given[k].shape}, "
                    f"whose memory is a part of another array that it uses: pass a copy"
                )
    return written


def placeholder(v: Any, places: dict[int, int], inputs: Sequence[Any]) -> Any:
    """An argument of the recording as the argument of any call; anything else as it is."""
    if isinstance(v, Tensor):
        return Given(places[id(v)]) if id(v) in places else v
    if isinstance(v, Traced):
        return next((Given(k) for k, buffer in enumerate(inputs) if buffer is v.raw), v)
    return v


def needed(entries: Sequence[Entry], result: Any) -> list[Entry]:
    """The entries without copies of leaves and gradients that nothing reads."""
    copies = (refresh_leaf, refresh_grad)
    read = {id(root_of(a)) for a in arrays_in(result)}
    for e in entries:
        if e.f not in copies:
            read.update(id(root_of(a)) for a in arrays_in((e.args, e.kwargs)))
    found = []
    for e in entries:
        if e.f not in copies or id(root_of(e.args[1])) in read:
            found.append(e)
        elif e.f is refresh_grad:  # whether there is a gradient was asked
            found.append(e.changed(expect_grad, e.args[:1]))
    return found
