"""The modes of the engine, which each thread and each async task has for itself.

- `grad_mode`: whether ops record a graph. `no_grad` and `record` set it, and `detect_anomaly`: then
  ops note the user's line, and a backward stops at the first NaN that a derivative makes.
- `active_tape`: the tape of `tr.compile` while it records what is done to arrays, else None. A
  function marked `replayed` is one call on that tape, run again as it is at each replay.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])

OFF, ON, ANOMALY = 0, 1, 2
grad_mode: ContextVar[int] = ContextVar("grad_mode", default=ON)
active_tape: ContextVar[Any] = ContextVar("active_tape", default=None)


def is_recording() -> bool:
    """Whether operations are recorded here: False inside `no_grad`."""
    return grad_mode.get() != OFF


@overload
def replayed(f: F, /) -> F: ...
@overload
def replayed(*, changes: str) -> Callable[[F], F]: ...
def replayed(f: Any = None, /, *, changes: str = "leaves") -> Any:
    """`f` as one call on the tape of `tr.compile`: each replay runs it again, on its own arrays.

    For what changes the state of the engine, or looks at values: nothing inside `f` is recorded.
    `changes` tells how far that goes: `"leaves"` may get other arrays, or `"itself"` alone, the
    first argument; or `"gradients"` are changed; or `"options"`, which are neither. `"reads"` asks
    for an option, and `"nothing"` depends on its arguments alone.
    """
    if f is None:
        return lambda f: replayed_as(f, changes)
    return replayed_as(f, changes)


def replayed_as(f: F, changes: str) -> F:
    """`f` marked `replayed`."""

    @wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        tape = active_tape.get()
        return f(*args, **kwargs) if tape is None else tape.call(f, args, kwargs)

    call.replayed = f.changes = changes  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def as_it_is(f: F) -> F:
    """`f`, a function of arrays that a user has written, as one call on the tape of `tr.compile`.

    Whatever it does in Python, each replay does. Of Tensors it is a function like any other.
    """

    @wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        tape = active_tape.get()
        return f(*args, **kwargs) if tape is None else tape.run_as_it_is(f, args, kwargs)

    return call  # type: ignore[return-value]


def replay_overrides(kind: type, names: Iterable[str]) -> None:
    """Mark what a subclass defines under these names, whatever it does: each replay runs it."""
    for name in names:
        own = vars(kind).get(name)
        if inspect.isfunction(own) and not hasattr(own, "replayed"):
            setattr(kind, name, replayed(own))


class Changes:
    """How often modules, hooks and `requires_grad` were changed: a guard asks whether any was."""

    count = 0


class _GradMode:
    """Set the recording mode for a block or for a function."""

    mode = ON

    def __init__(self, *wrong: Any) -> None:
        if wrong:
            raise TypeError(f"write @{type(self).__name__}(), with parentheses")
        self._tokens: list[Token[int]] = []

    def __enter__(self) -> None:
        caller = sys._getframe(1)
        if caller.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
            # Between two yields the mode would hold for whoever iterates, too.
            mode = f"{type(self).__name__}()"
            raise RuntimeError(
                f"`with {mode}` inside the generator {caller.f_code.co_name!r} would leak to its "
                f"caller at every yield: decorate the generator with @{mode} instead"
            )
        self._tokens.append(grad_mode.set(self._wanted()))

    def _wanted(self) -> int:
        return self.mode

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        grad_mode.reset(self._tokens.pop())

    def __call__(self, f: F) -> F:
        """`f` run in this mode; of a generator function only what is inside it, not its caller."""
        mode = type(self)

        @wraps(f)
        def run(*args: Any, **kwargs: Any) -> Any:
            with mode():
                return f(*args, **kwargs)

        @wraps(f)
        async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
            with mode():  # of this task alone
                return await f(*args, **kwargs)

        @wraps(f)
        def run_generator(*args: Any, **kwargs: Any) -> Any:
            inner = f(*args, **kwargs)
            send, throw, close = (mode()(way) for way in (inner.send, inner.throw, inner.close))
            go_on, given = send, None
            try:
                while True:
                    made = go_on(given)
                    try:
                        go_on, given = send, (yield made)
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 (it is for the generator)
                        go_on, given = throw, error
            except StopIteration as stop:
                return stop.value
            finally:
                close()

        if inspect.isasyncgenfunction(f):
            raise TypeError(
                f"{mode.__name__} would leak from the async generator {f.__name__} at every yield"
            )
        if inspect.iscoroutinefunction(f):
            return run_coroutine  # type: ignore[return-value]
        return run_generator if inspect.isgeneratorfunction(f) else run  # type: ignore[return-value]


class no_grad(_GradMode):
    """Compute without recording: a context manager and a decorator.

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([1.0], requires_grad=True)
    >>> with tr.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    mode = OFF


class record(_GradMode):
    """Compute with recording, inside `no_grad` too; directly in `detect_anomaly` that stays on.

    What a checkpoint recomputes is recorded whatever the mode of the backward.
    """

    def _wanted(self) -> int:
        return max(ON, grad_mode.get())


class detect_anomaly(_GradMode):
    """Find where a NaN is born: forward and backward inside name the op and the line at fault.

    It is slow, for debugging.
    Raises `NonFiniteError` at the first derivative that makes a NaN of a gradient that had none.

    >>> import tinygrad_rnn as tr
    >>> with tr.detect_anomaly():
    ...     tr.Tensor([2.0], requires_grad=True).sum().backward()
    """

    mode = ANOMALY


def users_line() -> str:
    """The innermost line outside this package: where the user called."""
    import traceback

    package = __name__.partition(".")[0]
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame = frame.f_back
    return "".join(traceback.format_stack(frame, limit=1)).strip().replace("\n", ":")
