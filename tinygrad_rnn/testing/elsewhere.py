"""Elsewhere: other values and other sizes than a function was given, wherever it takes them.

A rule may be wrong only where a function saturates, for negative numbers, for one row, an odd number of them, or more
than a block of a kernel. What a function refuses, or is not finite or smooth at, is passed over: nothing is said of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.testing.calls import Array, values_of
from tinygrad_rnn.testing.derivatives import Derivatives
from tinygrad_rnn.testing.errors import GradientError, KinkError
from tinygrad_rnn.testing.example import SLACK, Example

__all__ = ["check_elsewhere", "variants"]

LARGE = 67  # rows: more than a block, a vector or a tile of a kernel, and nothing divides it
ROUGH = 1e-5  # what a difference is off by, far from where its step was meant for

Changed = Callable[[Array], Array]


def variants(
    arguments: tuple[Any, ...], takes: Callable[[tuple[Any, ...]], bool], rng: np.random.Generator
) -> Iterator[tuple[str, tuple[Any, ...], int | None]]:
    """Other arguments of the same function, nested alike, what they are, in words, and the axis that is `LARGE` now;
    `takes` says what it takes.

    >>> x, ids = np.ones((4, 2)), np.arange(4)
    >>> [told for told, *_ in variants((x, ids), lambda _: True, np.random.default_rng(0))][3:]
    ['values times -1', 'axis 0 of 4 cut to 1', 'axis 0 of 4 cut to 3', 'axis 0 of 4 repeated to 67']
    """
    for factor in (4.0, 16.0, 64.0, -1.0):
        yield f"values times {factor:g}", _changed(arguments, partial(_scaled, factor)), None
    arrays: list[Array] = []
    _changed(arguments, lambda x: arrays.append(x) or x)  # type: ignore[func-returns-value]
    for axis in range(max(arrays[0].ndim - 1, 1) if arrays else 0):  # the last is features
        n = arrays[0].shape[axis] if arrays[0].ndim else 0
        for count in range(1, len(arrays) + 1 if n else 1):  # arguments that have this axis, the first of them
            if takes(_resized(arguments, axis, count, LARGE, rng)):
                for to in sorted({1, n - 1 if n % 2 == 0 else n + 2, LARGE} - {n}):
                    told = f"axis {axis} of {n} " + (f"cut to {to}" if to < n else f"repeated to {to}")
                    yield told, _resized(arguments, axis, count, to, rng), axis if to == LARGE else None
                break


def _changed(value: Any, change: Changed) -> Any:
    """Arguments with every array in them changed."""
    if isinstance(value, tuple | list):
        parts = [_changed(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {k: _changed(v, change) for k, v in value.items()}
    if isinstance(value, Tensor):
        value = value.detach().numpy()
    return np.asarray(change(value)) if isinstance(value, np.ndarray) else value


def _scaled(factor: float, x: Array) -> Array:
    return x * factor if x.dtype.kind == "f" else x


def _resized(arguments: tuple[Any, ...], axis: int, count: int, to: int, rng: np.random.Generator) -> tuple[Any, ...]:
    """Arguments of which the first `count` arrays that are as long as the first along an axis have `to` entries there;
    repeated ones differ, so that there are no ties.
    """
    lengths: list[int] = []

    def change(x: Array) -> Array:
        lengths[:] = lengths or [x.shape[axis]]
        if x.ndim <= axis or x.shape[axis] != lengths[0] or len(lengths) > count:
            return x
        lengths.append(to)
        n, x = x.shape[axis], np.take(x, np.arange(to) % x.shape[axis], axis)
        return x * (1 + 0.3 * rng.uniform(-1, 1, x.shape)) if to > n and x.dtype.kind == "f" else x

    changed: tuple[Any, ...] = _changed(arguments, change)
    return changed


@contextmanager
def _silent() -> Iterator[None]:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_elsewhere(
    make: Callable[[tuple[Any, ...]], Example], arguments: tuple[Any, ...], rng: np.random.Generator
) -> None:
    """Compare the derivative of what `make` makes an example of with numbers for other arguments than those.

    Raises GradientError.
    """

    def example_of(other: tuple[Any, ...]) -> Example | None:
        with _silent():
            try:
                example = make(other)
                values = values_of(example.f, example.arrays) if example.varied else []
            except Exception:  # noqa: BLE001 (whatever a function says to what it does not take)
                return None
        return example if values and all(y.dtype == np.float64 and np.all(np.isfinite(y)) for y in values) else None

    for told, other, axis in variants(arguments, lambda other: example_of(other) is not None, rng):
        example = example_of(other)
        if example is not None:
            with _silent():
                _check(example, told, axis)


def _check(example: Example, told: str, axis: int | None) -> None:
    """Raise GradientError if the derivative is wrong; not at a kink, nor where a difference is too rough to tell."""

    def derivatives(analytic: bool | None = example.analytic, rtol: float | None = None) -> Derivatives:
        return Derivatives(example.f, example.arrays, analytic, rtol, example.seed, slack=SLACK, locate=False)

    try:
        if derivatives().agree_together():
            if axis is not None and example.arrays[example.varied[0]].ndim > axis:
                derivatives().check_first_of(example.varied[0], axis)
            return
        derivatives(False, ROUGH).check_first()  # which says where, if a difference can
        raise GradientError("the gradient is wrong along a random direction in all inputs")
    except KinkError:
        return
    except GradientError as error:
        if not error.rough:
            error.args = (f"{told}: {error}" + (f"\n  in {example.where}" if example.where else ""),)
            raise
    except ValueError as error:
        if "other values when it is called again" not in str(error):
            raise
