"""Elsewhere: other values and other sizes than a function was given, wherever it takes them.

A rule may be wrong only where a function saturates, for negative numbers, for one row, an odd number of them, or more than
a block of a kernel. What a function refuses, or is not finite or smooth at, is passed over: nothing is said of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.testing.calls import Array, values_of
from tinygrad_rnn.testing.derivatives import Derivatives
from tinygrad_rnn.testing.errors import GradientError, KinkError
from tinygrad_rnn.testing.example import SLACK, Example

__all__ = ["check_elsewhere", "variants"]

LARGE = 67  # rows: more than a block, a vector or a tile of a kernel, and nothing divides it
LENGTHS = 2  # so many different lengths of an axis are changed
ROUGH = 1e-5  # what a difference is off by, far from where its step was meant for

Changed = Callable[[Array], Array]


def variants(arguments: tuple[Any, ...], rng: np.random.Generator) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Other arguments of the same function, nested alike, and what they are, in words.

    >>> x, ids = np.ones((4, 2)), np.arange(4)
    >>> [told for told, _ in variants((x, ids), np.random.default_rng(0))][:4]
    ['values times 4', 'values times 16', 'values times -1', 'axis 0 of 4 cut to 1']
    """
    for factor in (4.0, 16.0, -1.0):
        yield f"values times {factor:g}", _changed(arguments, lambda x, by=factor: x * by if x.dtype.kind == "f" else x)
    arrays: list[Array] = []
    _changed(arguments, lambda x: arrays.append(x) or x)  # type: ignore[func-returns-value]
    for axis in (0, 1):
        lengths = dict.fromkeys(x.shape[axis] for x in arrays if x.ndim > axis and x.shape[axis])
        for n in list(lengths)[:LENGTHS]:
            for to in sorted({1, n - 1 + n % 2 + 1 if n % 2 else n - 1, LARGE} - {n, 0}):
                told = f"axis {axis} of {n} " + (f"cut to {to}" if to < n else f"repeated to {to}")
                yield told, _changed(arguments, lambda x, a=axis, n=n, to=to: _resized(x, a, n, to, rng))


def _changed(value: Any, change: Changed) -> Any:
    """Arguments with every array in them changed."""
    if isinstance(value, tuple | list):
        parts = [_changed(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {k: _changed(v, change) for k, v in value.items()}
    if isinstance(value, Tensor):
        return change(np.asarray(value.detach().numpy()))
    return change(value) if isinstance(value, np.ndarray) else value


def _resized(x: Array, axis: int, n: int, to: int, rng: np.random.Generator) -> Array:
    """`x` with `to` entries along an axis of `n`; repeated ones differ, so that there are no ties."""
    if x.ndim <= axis or x.shape[axis] != n:
        return x
    x = np.take(x, np.arange(to) % n, axis)
    return x * (1 + 0.3 * rng.uniform(-1, 1, x.shape)) if to > n and x.dtype.kind == "f" else x


@contextmanager
def _silent() -> Iterator[None]:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_elsewhere(
    make: Callable[[tuple[Any, ...]], Example], arguments: tuple[Any, ...], rng: np.random.Generator
) -> None:
    """Compare the derivative with numbers for other arguments of what `make` makes an example of; raise GradientError."""
    for told, other in variants(arguments, rng):
        with _silent():
            try:
                example = make(other)
                if not example.varied:
                    continue
                values = values_of(example.f, example.arrays)
            except Exception:  # noqa: BLE001 (whatever a function says to what it does not take)
                continue
            if values and all(y.dtype == np.float64 and np.all(np.isfinite(y)) for y in values):
                _check(example, told)


def _check(example: Example, told: str) -> None:
    """Raise GradientError if the derivative is wrong; not at a kink, nor where a difference is too rough to tell. Far from
    where it was meant for a complex step may be off, too: a difference must agree that something is wrong.
    """

    def derivatives(analytic: bool | None = example.analytic, rtol: float | None = None) -> Derivatives:
        return Derivatives(example.f, example.arrays, analytic, rtol, example.seed, slack=SLACK)

    try:
        if derivatives().agree_together():
            return
        try:
            derivatives().check_first()
        except GradientError:
            derivatives(False, ROUGH).check_first()
    except KinkError:
        return
    except GradientError as error:
        if not error.rough:
            error.args = (f"{told}: {error}",)
            raise
    except ValueError as error:
        if "other values when it is called again" not in str(error):
            raise
