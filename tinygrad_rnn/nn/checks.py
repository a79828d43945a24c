"""Checks of arguments, which layers and losses share: an error names what was given and what was wanted."""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.kernels.cuda.training import check_ids, takes_ids
from tinygrad_rnn.scalars import as_integer, as_integers, as_number
from tinygrad_rnn.tensor import backend, ops
from tinygrad_rnn.tensor.backend import Array, namespace, to_device
from tinygrad_rnn.tensor.device import check_later, is_on_device
from tinygrad_rnn.tensor.mode import replayed
from tinygrad_rnn.tensor.tensor import Tensor, box


def as_tensor(x: Any) -> Tensor:
    """`x` itself if it is a Tensor, else a Tensor of it."""
    return x if isinstance(x, Tensor) else Tensor(x)


def as_optional(x: Any) -> Tensor | None:
    """`as_tensor`, but None stays None."""
    return None if x is None else as_tensor(x)


def mask_beside(x: Tensor, mask: Any) -> Tensor:
    """A mask as a Tensor on the device of `x`: it often comes from the host, where lengths are known."""
    given = as_tensor(mask)
    if given.device == x.device:
        return given
    return given.to(x.device) if "cuda" in x.device + given.device else box(beside(x, given._array), None)


def beside(x: Tensor, host: Array) -> Array:
    """An array of the host in the library and on the device of `x`."""
    return namespace(x._array).asarray(to_device(host, x.device) if "cuda" in x.device else host)


def check_sizes(layer: str, **sizes: Any) -> list[int]:
    """The sizes as Python's integers, NumPy's among them; `ValueError` unless every one is a positive integer."""
    found = []
    for name, size in sizes.items():
        n = as_integer(size)
        if n is None or n < 1:
            raise ValueError(f"{layer}: {name} must be a positive integer, got {size!r}")
        found.append(n)
    return found


def check_size(layer: str, **size: Any) -> int:
    """The one size of `check_sizes`."""
    (found,) = check_sizes(layer, **size)
    return found


def check_shape(layer: str, name: str, given: Any) -> tuple[int, ...]:
    """A number or several as a tuple of positive integers; else a `ValueError`."""
    shape = as_integers(given)
    if shape is None or not shape or min(shape) < 1:
        raise ValueError(f"{layer}: {name} must be a positive integer for each of at least one axis, got {given!r}")
    return shape


def check_probability(name: str, p: Any) -> float:
    """`p` as a Python float; `ValueError` unless it is a number in [0, 1]."""
    found = as_number(p)
    if found is None or isinstance(found, bool) or not 0 <= found <= 1:
        raise ValueError(f"{name}: the probability must lie in [0, 1], got {p!r}")
    return float(found)


def check_recurrent_dropout(layer: str, p: Any) -> float:
    """`p` as a Python float; `ValueError` unless it lies in [0, 1): with 1 no state would be left to scale."""
    found = check_probability(f"{layer}: recurrent_dropout", p)
    if found == 1:
        raise ValueError(
            f"{layer}: recurrent_dropout must be less than 1, got {p!r}: nothing of the state would be left"
        )
    return found


def check_number(name: str, value: Any) -> float:
    """`value` as a Python number; `ValueError` for what is none."""
    found: float | None = as_number(value)
    if found is None:
        raise ValueError(f"{name} must be a number, got {value!r:.60}")
    return found


def check_one_of(name: str, index: Any, count: int, of: str, least: int = 0) -> int:
    """`index` as a Python integer; `ValueError` unless it is one from `least` to `count` - 1."""
    found = as_integer(index)
    if found is None or not least <= found < count:
        raise ValueError(f"{name} {index!r} is out of range for {count} {of}")
    return found


def check_input(layer: str, given: Any, size: int, weight: Tensor, ndims: tuple[int, int], axes: str) -> Tensor:
    """`given` as a Tensor fit for `layer`, or an error that names both sides of what does not fit."""
    x = as_tensor(given)
    if x.ndim not in ndims:
        raise ShapeError(f"{layer}: the input must be {axes}, got shape {x.shape}")
    if x.shape[-1] != size:
        raise ShapeError(f"{layer}: input_size is {size}, but the input's last axis is {x.shape[-1]} (shape {x.shape})")
    check_dtype(layer, "the input", x, weight)
    return x


def check_dtype(layer: str, what: str, x: Tensor, weight: Tensor) -> None:
    """Raise `DTypeError` unless `x` has the dtype of the weights: nothing is cast silently."""
    if x.dtype != weight.dtype:
        raise DTypeError(
            f"{layer}: {what} is {x.dtype}, but the weights are {weight.dtype}; "
            f'use x.to("{weight.dtype}") or module.to("{x.dtype}")'
        )


def check_state(layer: str, name: str, given: Any, shape: tuple[int, ...], axes: str, weight: Tensor) -> Tensor:
    """An initial state as a Tensor of `shape`."""
    state = as_tensor(given)
    if state.shape != shape:
        raise ShapeError(f"{layer}: {name} must be {axes} = {shape}, got shape {state.shape}")
    check_dtype(layer, name, state, weight)
    return state


def check_pair(layer: str, hx: Any) -> tuple[Any, Any] | None:
    """The two states of an LSTM, or an error that says that there are two."""
    if hx is None:
        return None
    if not isinstance(hx, tuple | list) or len(hx) != 2:
        raise ShapeError(f"{layer}: hx must be the pair (h_0, c_0), got {type(hx).__name__}")
    return hx[0], hx[1]


def check_lengths(name: str, lengths: Any, T: int, B: int) -> Array:
    """`lengths` of B sequences, integers from 1 to T, as an array on the host; else an error that names the place and
    the value.
    """
    given: Array = backend.recorded_on_host(integer_ids(f"{name}: lengths", as_tensor(lengths)))
    if given.shape != (B,):
        raise ShapeError(f"{name}: a batch of {B} needs {B} lengths, got shape {given.shape}")
    check_steps(name, given, T)
    return given


@replayed(changes="nothing")
def check_steps(name: str, lengths: Array, T: int) -> None:
    """Raise `ValueError` naming the first of `lengths` that is not from 1 to T."""
    for b, n in enumerate(lengths.tolist()):
        if n < 1:
            raise ValueError(f"{name}: lengths[{b}] is {n}, but a sequence has at least one step")
        if n > T:
            raise ValueError(f"{name}: lengths[{b}] is {n}, but the input has {T} steps")


def check_counts(what: str, counts: Array, B: int, most: int, why: str, name: str = "ctc_loss") -> None:
    """Raise unless `counts` is (B,) of numbers from 0 to `most`; the error gives `why` as the reason."""
    if counts.shape != (B,):
        raise ShapeError(f"{name}: a batch of {B} needs {B} {what}, got shape {counts.shape}")
    check_each_count(what, counts, most, why, name)


@replayed(changes="nothing")
def check_each_count(what: str, counts: Array, most: int, why: str, name: str) -> None:
    """Raise `ValueError` naming the first of `counts` that is not from 0 to `most`; the error gives `why`."""
    for b, n in enumerate(counts.tolist()):
        if not 0 <= n <= most:
            raise ValueError(f"{name}: {what}[{b}] is {n}, but {why}")


def integer_ids(what: str, ids: Tensor) -> Array:
    """The array of a tensor of ids, or a `DTypeError`. An empty list, which becomes float32, passes as no ids."""
    array: Array = ids._array
    if backend.is_integer(ids.dtype):
        return array
    if not ids.size:
        return backend.namespace(ids._array).astype(ids._array, int)
    raise DTypeError(f"{what} must be integers, got {ids.dtype}")


@replayed(changes="nothing")
def check_range(what: str, ids: Array, count: int) -> None:
    """Raise `ValueError` naming the first id outside 0 .. count - 1: some libraries would wrap it silently.

    Ids on a GPU are not waited for: the error comes when something is next read from there.
    """
    if is_on_device(ids):
        error = lambda: out_of_range(what, ids, count)  # of a tensor, to which nobody writes
        if takes_ids():
            check_ids(ids, count, error)
        else:
            wide = backend.namespace(ids).astype(ids, "int64", copy=False)
            check_later((wide < 0) | (wide >= count), error)
    elif ids.size and not (int(ids.min()) >= 0 and int(ids.max()) < count):
        raise out_of_range(what, ids, count)


def out_of_range(what: str, ids: Array, count: int) -> ValueError:
    """The error that names the first of `ids` that is none of `count`."""
    wrong = backend.to_host(ids).reshape(-1)
    at = int(((wrong < 0) | (wrong >= count)).argmax())
    return ValueError(f"{what} {int(wrong[at])} (element {at}) is out of range for {count} classes: 0 to {count - 1}")


def loss_mask(name: str, mask: Any, shape: tuple[int, ...]) -> Tensor:
    """`mask` as booleans of `shape`: it may lack the last axes."""
    given = as_tensor(mask)
    if not backend.is_boolean(given.dtype):
        raise DTypeError(f"{name}: mask must be booleans (True: it counts), got {given.dtype}")
    if given.shape != shape[: given.ndim]:
        raise ShapeError(f"{name}: a mask {given.shape} does not fit losses of shape {shape}")
    given = ops.reshape(given, given.shape + (1,) * (len(shape) - given.ndim))
    return ops.broadcast_to(given, shape)
