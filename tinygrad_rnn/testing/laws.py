"""The laws of a derivative: what must hold of every function of Tensors, whatever it computes.

`check_gradients` compares a derivative with numbers. The other laws need none: they say how values, gradients, dtypes,
layouts and libraries hang together, and each of them has caught bugs that a numeric derivative does not see. Each is
asked about an `Example`. `ops` and `modules` say which of them they ask, in which order, and have a few of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from tinygrad_rnn.tensor.backend import namespace
from tinygrad_rnn.tensor.graph import newest_first
from tinygrad_rnn.testing.calls import Array, Call, brief, frozen, largest
from tinygrad_rnn.testing.errors import Broken, GradientError, LawError
from tinygrad_rnn.testing.example import EPS, ULPS, Example, Spread
from tinygrad_rnn.testing.judge import law
from tinygrad_rnn.testing.values import laid_out

MANY = 12  # subsets of inputs that require a gradient

# --- values -------------------------------------------------------------------------------------------------


@law("no mutation")
def no_mutation(example: Example) -> bool:
    """The inputs have the bytes that they had before everything. Asked first and last."""
    assert example.call is not None  # it is made here, if it is not there yet
    for name, x, before in zip(example.names, example.arrays, example.bytes, strict=True):
        if x.tobytes() != before:
            raise Broken(f"{name} was written to: it is {brief(x)} now")
    return True


@law("dtype")
def outputs(example: Example) -> bool:
    """Outputs are finite, and of the inputs' floating dtype, as all that they are computed from."""
    values = example.call.values
    for k, y in enumerate(values):
        if example.varied and y.dtype.kind == "f" and y.dtype != np.float64:
            raise Broken(f"output {k} is {y.dtype}, but the floating inputs are float64")
    for node in newest_first([y._node for y in example.call.live if y._node is not None]):
        if node.dtype != np.float64:
            name = node.plan.name if node.plan else "a leaf"
            raise Broken(f"{name} of shape {node.shape} is {node.dtype}, between float64 and float64")
    for k, y in enumerate(values):
        if y.dtype.kind == "f" and not np.all(np.isfinite(y)):
            where = "Where the function is defined, `values` of a Domain say"
            raise Broken(f"output {k} is not finite: {brief(y)}. {where}", "value")
    return True


@law("repeats")
def repeats(example: Example) -> bool:
    """Called again, on constants, it gives the very same values."""
    again = Call(example.f, example.arrays, record=False)
    for k, (y, z) in enumerate(zip(example.call.values, again.values, strict=True)):
        if not np.array_equal(y, z, equal_nan=True):
            raise Broken(f"output {k} is {brief(z)} when called again, and was {brief(y)}")
    if any(y.requires_grad for y in again.outputs):
        raise Broken("an output of constants requires a gradient", "frozen")
    return True


@law("layout")
def layout(example: Example) -> bool:
    """Inputs and incoming gradients that lie in memory in another way give the same."""
    if example.other_layouts:
        call = Call(example.f, [np.array(x, order="C") for x in example.arrays])
        for k, (y, z) in enumerate(zip(example.call.values, call.values, strict=True)):
            example.agree(f"output {k}", y, z, None, example.value_spread(k))
        if is_pulled_back(example):
            _same_gradients(example, call.pull(example.cotangents), "")
    if not is_pulled_back(example):
        return example.other_layouts
    used = False
    for name in ("F", "strided", "reversed"):
        if any(u.size > 1 and (u.ndim > 1 or name != "F") for u in example.cotangents):
            us = [laid_out(u, name) for u in example.cotangents]
            _same_gradients(example, example.call.pull(us), f" for incoming gradients that lie in memory {name}")
            used = True
    return used or example.other_layouts


@law("layout")
def other_layouts(example: Example) -> bool:
    """The function gives the same of inputs that are laid out in memory in each other way."""
    if not any(x.ndim and x.size > 1 for x in example.arrays):
        return False
    for name in ("F", "strided", "reversed"):
        call = Call(example.f, [laid_out(np.array(x, order="C"), name) for x in example.arrays])
        for k, (y, z) in enumerate(zip(call.values, example.call.values, strict=True)):
            example.agree(f"output {k} of inputs that lie in memory {name}", y, z, None, example.value_spread(k))
        if is_pulled_back(example):
            pulled = call.pull(example.cotangents)
            for j, (what, g, e) in enumerate(zip(example.varied_names, pulled, example.gradients, strict=True)):
                told = f"the gradient of {what} that lies in memory {name}"
                example.agree(told, g, e, None, example.gradient_spread(j))
    return True


def _same_gradients(example: Example, pulled: list[Array], where: str) -> None:
    for j, (name, g, e) in enumerate(zip(example.varied_names, example.gradients, pulled, strict=True)):
        example.agree(f"the gradient of {name}{where}", g, e, None, example.gradient_spread(j))


@law("frozen")
def alone(example: Example) -> bool:
    """What requires no gradient takes none from the others: each input as the only one that requires one, and each as
    the only one that does not.
    """
    n = len(example.varied)
    if n < 2 or not example.has_derivative:
        return False
    subsets = [{i} for i in example.varied] + ([set(example.varied) - {i} for i in example.varied] if n > 2 else [])
    for subset in subsets[:MANY]:
        call = Call(example.f, example.arrays, subset)
        for i, g in zip(sorted(subset), call.pull(example.cotangents), strict=True):
            j = example.varied.index(i)
            others = ", ".join(example.names[k] for k in example.varied if k not in subset)
            what = f"the gradient of {example.names[i]} where {others} require{'s' * (n - len(subset) == 1)} none"
            example.agree(what, g, example.gradients[j], None, example.gradient_spread(j))
    return True


# --- what gradients look like -------------------------------------------------------------------------------


def is_pulled_back(example: Example) -> bool:
    """Whether there are gradients to look at: a function that has none may have recorded something all the same."""
    return example.has_derivative or bool(example.varied and example.call.live)


@law("shape")
def shape(example: Example) -> bool:
    """A gradient has the shape of its input."""
    if not is_pulled_back(example):
        return False
    for name, i, g in zip(example.varied_names, example.varied, example.gradients, strict=True):
        if g.shape != example.arrays[i].shape:
            raise Broken(f"the gradient of {name} has shape {g.shape}, the input {example.arrays[i].shape}")
    return True


@law("dtype")
def dtype(example: Example) -> bool:
    """A gradient has the dtype of its input, and is finite."""
    if not is_pulled_back(example):
        return False
    for name, i, g in zip(example.varied_names, example.varied, example.gradients, strict=True):
        if g.dtype != example.arrays[i].dtype:
            raise Broken(f"the gradient of {name} is {g.dtype}, the input {example.arrays[i].dtype}")
        if not np.all(np.isfinite(g)):
            raise GradientError(f"the gradient of {name} is not finite: {brief(g)}")
    return True


@law("no aliasing")
def no_aliasing(example: Example) -> bool:
    """No gradient shares memory with anything."""
    if not is_pulled_back(example):
        return False
    _no_shared_memory(example, example.gradients)
    return True


def _no_shared_memory(example: Example, gradients: list[Array]) -> None:
    """No gradient shares memory with an input, an output, an incoming gradient or another gradient."""
    others = [
        *(("the value of " + name, x) for name, x in zip(example.names, example.arrays, strict=True)),
        *((f"output {k}", y) for k, y in enumerate(example.call.values)),
        *((f"the incoming gradient {k}", u) for k, u in enumerate(example.cotangents)),
    ]
    for name, g in zip(example.varied_names, gradients, strict=True):
        for other, x in others:
            if np.shares_memory(g, x):
                raise Broken(f"the gradient of {name} shares memory with {other}", "no aliasing")
        others.append((f"the gradient of {name}", g))


# --- what gradients are -------------------------------------------------------------------------------------


@law("linear")
def linear(example: Example) -> bool:
    """The vjp is linear in the incoming gradient, large and tiny ones too."""
    if not example.has_derivative:
        return False
    u, pulled_u = example.cotangents, example.gradients
    w = example.call.cotangents(example.rng)
    pulled_w = example.call.pull(w)
    both = example.call.pull([1024 * a - b for a, b in zip(u, w, strict=True)])
    tiny = example.call.pull([a * 2.0**-40 for a in u])
    for i, name in enumerate(example.varied_names):
        size = largest(1024 * abs(pulled_u[i]) + abs(pulled_w[i]))
        spread = example.gradient_spread(i, factor=2048)
        what = f"what the vjp of {name} makes of"
        expected = 1024 * pulled_u[i] - pulled_w[i]
        example.agree(f"{what} 1024 u - w", both[i], expected, size, spread)
        example.agree(f"{what} u / 2^40, times 2^40,", tiny[i] * 2.0**40, pulled_u[i], None, spread)
    return True


@law("gradient")
def gradient(example: Example) -> bool:
    """The first derivative is the numeric one; a function that has none has no gradient, or zeros."""
    if not example.has_derivative:
        if example.order == 0 and example.call.live and any(np.any(g) for g in example.gradients):
            raise Broken("a constant function has a gradient")
        return example.order == 0
    with _inputs_named(example):
        for derivatives in example.derivatives:
            derivatives.check_first()
    return True


@law("second derivative")
def second_derivative(example: Example) -> bool:
    """The derivatives of the gradient, by the inputs and by the incoming gradient, are the numeric ones."""
    if not example.varied or example.order < 2:
        return False
    with _inputs_named(example):
        for derivatives in example.derivatives:
            derivatives.check_second()
    return True


@contextmanager
def _inputs_named(example: Example) -> Iterator[None]:
    """What is raised inside of "input 1" says its name, too, if the example has names."""

    def named(match: re.Match[str]) -> str:
        i = int(match[2])
        return f"{match[1]} ({example.names[i] if i < len(example.names) else 'an incoming gradient'})"

    try:
        yield
    except LawError as error:
        if example.named:
            error.args = (re.sub(r"((?:of|by) input (\d+))(?=[ ,:])", named, str(error)), *error.args[1:])
        raise


@law("zero")
def zero(example: Example) -> bool:
    """A zero gradient pulls back to exact zeros."""
    if not example.has_derivative:
        return False
    zeros = [np.zeros(u.shape) for u in example.cotangents]
    for name, g in zip(example.varied_names, example.call.pull(zeros), strict=True):
        if np.any(g):
            raise Broken(f"a zero gradient pulls back to {brief(g)} for {name}")
    return True


@law("transpose")
def transpose(example: Example) -> bool:
    """⟨Jv, u⟩ = ⟨v, Jᵀu⟩, where Jv is the derivative of the vjp, computed on Tensors, by the incoming gradient."""
    if not example.has_derivative:
        return False
    vs = [example.rng.standard_normal(example.arrays[i].shape) for i in example.varied]
    along = example.call.push(vs)
    left = [a * b for a, b in zip(along, example.cotangents, strict=True)]
    right = [v * g for v, g in zip(vs, example.gradients, strict=True)]
    allowed = 16 * ULPS * EPS * sum(float(np.sum(abs(t))) for t in (*left, *right))
    difference = abs(sum(float(np.sum(t)) for t in left) - sum(float(np.sum(t)) for t in right))
    if not difference <= allowed:
        spread = example.spread(np.float64)[1]
        slack = sum(float(np.sum(abs(v) * s)) for v, s in zip(vs, spread, strict=True))
        if not difference <= allowed + slack:
            raise Broken(f"<Jv, u> is {sum(map(np.sum, left)):.12g}, and <v, Jᵀu> {sum(map(np.sum, right)):.12g}")
    return True


@law("backward")
def backward(example: Example) -> bool:
    """`backward` gives what `grad` gives, once for each use, and owns what it gives."""
    if not (example.has_derivative and example.call.live):
        return False
    inputs = example.call.inputs
    for times in (1, 2):
        example.call.backward(example.cotangents)
        for name, t, expected in zip(example.varied_names, inputs, example.gradients, strict=True):
            if t.grad is None:
                if np.any(expected):
                    raise Broken(f"{name} has no .grad after a backward")
                continue
            if t.grad.dtype != t.dtype:
                raise Broken(f".grad of {name} is {t.grad.dtype}, the input {t.dtype}", "dtype")
            what = f".grad of {name} after {times} backward{'s' * (times - 1)}"
            example.agree(what, t.grad._array, times * expected)
        if times == 1:
            _no_shared_memory(example, [np.empty(0) if t.grad is None else t.grad._array for t in inputs])
    for t in inputs:
        t.grad = None
    return True


# --- other dtypes and libraries -----------------------------------------------------------------------------


@law("float32")
def low_precision(example: Example) -> bool:
    """float16 and float32 stay what they are, forward and backward, and near float64 of the same graph."""
    if not example.varied:
        return False
    for dtype in example.low_dtypes:
        _near_float64(example, np.dtype(dtype))
    return bool(example.low_dtypes)


def _near_float64(example: Example, dtype: np.dtype[Any]) -> None:
    low = [frozen(x.astype(dtype)) if x.dtype.kind == "f" else x for x in example.arrays]
    high = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in low]
    with np.errstate(all="ignore"):  # float16 overflows soon
        call, exact = Call(example.f, low), Call(example.f, high)
        us = [u.astype(dtype) for u in example.cotangents]
        pulled, exact_pulled = call.pull(us), exact.pull([u.astype(np.float64) for u in us])
    for k, (y, e) in enumerate(zip(call.values, exact.values, strict=True)):
        if y.dtype != (dtype if e.dtype.kind == "f" else e.dtype):
            raise Broken(f"output {k} is {y.dtype} for {dtype} inputs", "dtype")
        _near(example, f"output {k}", y, e, dtype, example.value_spread(k, 4, dtype))
    for j, (name, g, e) in enumerate(zip(example.varied_names, pulled, exact_pulled, strict=True)):
        if g.dtype != dtype:
            raise Broken(f"the gradient of {name} is {g.dtype} for {dtype} inputs", "dtype")
        _near(example, f"the gradient of {name}", g, e, dtype, example.gradient_spread(j, 4, dtype))


def _near(example: Example, what: str, low: Array, exact: Array, dtype: np.dtype[Any], spread: Spread) -> None:
    """Raise Broken unless an array of a low dtype is near the exact one, by the size of its largest entry."""
    if exact.dtype.kind != "f":
        example.agree(f"{what} in {dtype}", low, exact)
        return
    if low.shape != exact.shape:
        raise Broken(f"{what} has shape {low.shape} in {dtype}, {exact.shape} in float64", "shape")
    size = largest(exact)
    if size > float(np.finfo(dtype).max) / 64:
        return  # does not fit
    wrong = ~(abs(low - exact) <= 32 * float(np.finfo(dtype).eps) * size + float(np.finfo(dtype).tiny))
    if np.any(wrong):
        wrong &= ~(abs(low - exact) <= spread())
    if np.any(wrong):
        at = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), wrong.shape)))
        raise Broken(f"{what} in {dtype} is {low[at]:.8g} at {at}, and {exact[at]:.8g} in float64")


@law("float32")
def low_gradients(example: Example) -> bool:
    """Gradients of float32 inputs are float32, and near float64 of the same; the function itself may hold float64."""
    if not example.has_derivative:
        return False
    low = [frozen(x.astype(np.float32)) if x.dtype.kind == "f" else x for x in example.arrays]
    high = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in low]
    with np.errstate(all="ignore"):
        try:
            call = Call(example.f, low)
        except Exception:  # noqa: BLE001 (a function may take float64 alone)
            return False
        exact = Call(example.f, high)
        pairs = zip(call.floats, example.cotangents, strict=True)
        pulled = call.pull([u.astype(y.dtype) for y, u in pairs])
        exact_pulled = exact.pull(
            [u.astype(y.dtype).astype(np.float64) for y, u in zip(call.floats, example.cotangents, strict=True)]
        )
    dtype = np.dtype(np.float32)
    for j, (name, g, e) in enumerate(zip(example.varied_names, pulled, exact_pulled, strict=True)):
        if g.dtype != dtype:
            raise Broken(f"the gradient of {name} is {g.dtype} for {dtype} inputs", "dtype")
        _near(example, f"the gradient of {name}", g, e, dtype, example.gradient_spread(j, 4, dtype))
    return True


@law("backend")
def backend(example: Example) -> bool:
    """array_api_strict, which forgives nothing that NumPy does, agrees: in values, gradients and dtypes.

    A forward that NumPy alone can run has nothing to agree with: then the law does not apply.
    """
    strict = strict_library()
    if strict is None:
        return False
    for dtype in (np.float64, np.float32) if example.varied else (np.float64,):
        here = [x.astype(dtype) if x.dtype.kind == "f" else x for x in example.arrays]
        call = example.call if dtype == np.float64 else Call(example.f, here)
        try:
            other = Call(example.f, [strict.asarray(np.array(x)) for x in here])
        except Exception:  # noqa: BLE001 (whatever a library raises for what it cannot do)
            return False
        if any(namespace(y) is not strict for y in other.values):
            return False
        _same_elsewhere(example, call, other, np.dtype(dtype))
    return True


def _same_elsewhere(example: Example, call: Call, other: Call, dtype: np.dtype[Any]) -> None:
    """Raise Broken unless a call with array_api_strict gives what one with NumPy gives."""
    us = [u.astype(dtype) for u in example.cotangents]
    ours, theirs = call.values, other.values
    names = [f"output {k}" for k in range(len(ours))]
    if call.live:
        names += [f"the gradient of {name}" for name in example.varied_names]
        ours = [*ours, *(example.gradients if call is example.call else call.pull(us))]
        try:
            theirs = [*theirs, *other.pull([strict_library().asarray(u) for u in us])]
        except Exception as error:
            raise Broken(f"the backward fails with array_api_strict: {error}") from error
    eps = float(np.finfo(dtype).eps)
    spreads = [example.value_spread(k, 1, dtype) for k in range(len(call.values))]
    spreads += [example.gradient_spread(j, 1, dtype) for j in range(len(example.varied))]
    for k, (name, a, b) in enumerate(zip(names, ours, theirs, strict=True)):
        b = np.asarray(b)
        if a.dtype != b.dtype:
            raise Broken(f"{name} is {b.dtype} with array_api_strict, {a.dtype} with NumPy")
        example.agree(f"{name} with array_api_strict", b, a, eps / EPS * largest(a), spreads[k])


@cache
def strict_library() -> Any:
    """array_api_strict, or None where it is not installed."""
    try:
        import array_api_strict
    except ImportError:
        return None
    return array_api_strict
