"""Microseconds per time step of a plain unrolled loop, forward and backward: eager overhead and little else.

A recurrent layer is written as a Python loop in each library's own ops, in float32 on the same numbers; the loss is
the mean square of what all steps put out less a fixed array, differentiated with respect to weights and biases, and
there is no optimiser. `unroll` has the equations, so all split, sum and multiply alike. Each library has its best
form: the input of all steps is projected in one product, PyTorch's addmm adds a product to a sum, and ours is the
layer with `fused=False`. Two more forms are the same line of code for ours and PyTorch, x_t W_ih + b + h W_hh.
`loops` has every layer at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from benchmarks.processes import contest

Made = tuple[Callable[[], object], dict[str, list[float]]]

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


class Ops(NamedTuple):
    """What a loop needs of a library."""

    tanh: Callable[[Any], Any]
    sigmoid: Callable[[Any], Any]
    split: Callable[[Any, int], Any]  # into so many blocks of columns
    add_product: Callable[[Any, Any], Any]  # x_t + h W_hh
    product: Callable[[Any], Any]  # h W_hh


def unroll(kind: str, inputs: Iterable[Any], h: Any, b_n: Any, ops: Ops) -> list[Any]:
    """The state (B, H) after every step, from the projected `inputs` x_t W_ih + b and the first state, which is 0."""
    c, states = h, []
    for x_t in inputs:
        if kind == "RNN":
            h = ops.tanh(ops.add_product(x_t, h))
        elif kind == "LSTM":
            i, f, g, o = ops.split(ops.add_product(x_t, h), 4)
            c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
        else:
            (r, z, n), (h_r, h_z, h_n) = ops.split(x_t, 3), ops.split(ops.product(h), 3)
            r, z = ops.sigmoid(r + h_r), ops.sigmoid(z + h_z)
            n = ops.tanh(n + r * (h_n + b_n))
            h = n + z * (h - n)
        states.append(h)
    return states


def numbers(kind: str, T: int, B: int, H: int) -> tuple[Any, ...]:
    """x and the target (T, B, H); then W_ih and W_hh (H, G H) for h W, b (G H,) and a GRU's b_n (H,)."""
    import numpy as np

    rng, G = np.random.default_rng(0), GATES[kind]
    shapes = ((T, B, H), (T, B, H), (H, G * H), (H, G * H), (G * H,), (H,))
    x, target, W_ih, W_hh, b, b_n = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return x, target, W_ih / np.float32(H**0.5), W_hh / np.float32(H**0.5), b, b_n


def summary(kind: str, loss: float, *gradients: Any) -> dict[str, list[float]]:
    """The loss, and of each gradient its norm and its product with a fixed random array."""
    import numpy as np

    rng = np.random.default_rng(1)
    result = {"loss": [float(loss)]}
    for name, gradient in zip(("W_ih", "W_hh", "b", "b_n")[: len(gradients)], gradients, strict=True):
        if name != "b_n" or kind == "GRU":  # the others have no such bias
            g = np.asarray(gradient, np.float64)
            result[name] = [float(np.linalg.norm(g)), float(np.sum(g * rng.standard_normal(g.shape)))]
    return result


def ours(T: int, B: int, H: int, kind: str = "RNN") -> Made:
    import tinygrad_rnn as tr

    x, target, *arrays = numbers(kind, T, B, H)
    x, target = tr.Tensor(x), tr.Tensor(target)
    parameters = [tr.Tensor(p, requires_grad=True) for p in arrays[: 4 if kind == "GRU" else 3]]
    W_ih, W_hh, b, *rest = parameters
    h_0 = tr.zeros((B, H))
    split = lambda a, blocks: tr.split(a, blocks, axis=1)
    ops = Ops(tr.tanh, tr.sigmoid, split, lambda x_t, h: x_t + h @ W_hh, lambda h: h @ W_hh)

    def step() -> tr.Tensor:
        for p in parameters:
            p.grad = None
        states = unroll(kind, (x_t @ W_ih + b for x_t in x), h_0, rest[0] if rest else None, ops)
        loss = tr.square(tr.stack(states) - target).mean()
        loss.backward()
        return loss

    return step, summary(kind, step().item(), *(p.grad.numpy() for p in parameters))


def layer_state(kind: str, H: int, arrays: list[Any]) -> dict[str, Any]:
    """The parameters as a layer of ours or PyTorch's has them."""
    import numpy as np

    W_ih, W_hh, b, b_n = arrays
    b_hh = np.zeros_like(b)
    if kind == "GRU":
        b_hh[2 * H :] = b_n
    arrays = [np.ascontiguousarray(W_ih.T), np.ascontiguousarray(W_hh.T), b, b_hh]
    return dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), arrays, strict=True))


def layer_summary(kind: str, H: int, loss: float, layer: Any) -> dict[str, list[float]]:
    """The summary of a layer whose parameters have their gradients."""
    import numpy as np

    W_ih, W_hh, b_ih, b_hh = (np.asarray(p.grad) for p in layer.parameters())
    return summary(kind, loss, W_ih.T, W_hh.T, b_ih, b_hh[2 * H :])


def ours_layer(fused: bool, compiled: bool = False) -> Callable[..., Made]:
    def make(T: int, B: int, H: int, kind: str = "RNN") -> Made:
        import tinygrad_rnn as tr

        tr.keep_freed_memory()  # as `tinygrad-rnn train` does
        x, target, *arrays = numbers(kind, T, B, H)
        layer = getattr(tr.nn, kind)(H, H, fused=fused)
        layer.load_state_dict(layer_state(kind, H, arrays))
        x, target = tr.Tensor(x), tr.Tensor(target)

        def step() -> tr.Tensor:
            layer.zero_grad()
            output, _ = layer(x)
            loss = tr.square(output - target).mean()
            loss.backward()
            return loss

        if compiled:
            step = tr.compile(step)
        return step, layer_summary(kind, H, step().item(), layer)

    return make


def in_torch(form: str) -> Callable[..., Made]:
    def make(T: int, B: int, H: int, kind: str = "RNN") -> Made:
        import torch

        x, target, *arrays = map(torch.from_numpy, numbers(kind, T, B, H))
        parameters = [p.requires_grad_() for p in arrays[: 4 if kind == "GRU" else 3]]
        W_ih, W_hh, b, *rest = parameters
        h_0, rows = torch.zeros(B, H), x.reshape(T * B, H)
        split = lambda a, blocks: a.chunk(blocks, 1)
        if form == "addmm":
            add_product = lambda x_t, h: torch.addmm(x_t, h, W_hh)
        else:
            add_product = lambda x_t, h: x_t + h @ W_hh
        ops = Ops(torch.tanh, torch.sigmoid, split, add_product, lambda h: h @ W_hh)

        def projected() -> Any:
            if form == "addmm":
                return torch.addmm(b, rows, W_ih).view(T, B, -1).unbind(0)
            return (x_t @ W_ih + b for x_t in x)

        def step() -> Any:
            for p in parameters:
                p.grad = None
            states = unroll(kind, projected(), h_0, rest[0] if rest else None, ops)
            loss = torch.square(torch.stack(states) - target).mean()
            loss.backward()
            return loss

        return step, summary(kind, step().item(), *(p.grad for p in parameters))

    return make


def torch_layer(T: int, B: int, H: int, kind: str = "RNN") -> Made:
    import torch

    x, target, *arrays = numbers(kind, T, B, H)
    layer = getattr(torch.nn, kind)(H, H)
    layer.load_state_dict({name: torch.from_numpy(p) for name, p in layer_state(kind, H, arrays).items()})
    x, target = torch.from_numpy(x), torch.from_numpy(target)

    def step() -> Any:
        layer.zero_grad()
        output, _ = layer(x)
        loss = torch.square(output - target).mean()
        loss.backward()
        return loss

    return step, layer_summary(kind, H, step().item(), layer)


def in_mygrad(T: int, B: int, H: int, kind: str = "RNN") -> Made:
    import mygrad as mg
    from mygrad.nnet.activations import sigmoid

    x, target, *arrays = numbers(kind, T, B, H)
    parameters = [mg.tensor(p) for p in arrays[: 4 if kind == "GRU" else 3]]
    W_ih, W_hh, b, *rest = parameters
    h_0, rows = mg.zeros((B, H), dtype="float32", constant=True), x.reshape(T * B, H)
    split = lambda a, blocks: [a[:, k * H : (k + 1) * H] for k in range(blocks)]
    ops = Ops(mg.tanh, sigmoid, split, lambda x_t, h: x_t + h @ W_hh, lambda h: h @ W_hh)

    def step() -> Any:
        for p in parameters:
            p.null_grad()
        projected = (rows @ W_ih + b).reshape(T, B, -1)
        states = unroll(kind, projected, h_0, rest[0] if rest else None, ops)
        loss = mg.square(mg.stack(states) - target).mean()
        loss.backward()
        return loss

    return step, summary(kind, step().item(), *(p.grad for p in parameters))


def in_autograd(T: int, B: int, H: int, kind: str = "RNN") -> Made:
    import autograd.numpy as np
    from autograd import value_and_grad

    x, target, *arrays = numbers(kind, T, B, H)
    parameters = tuple(arrays[: 4 if kind == "GRU" else 3])
    h_0, rows = np.zeros((B, H), "float32"), x.reshape(T * B, H)
    sigmoid = lambda a: 0.5 * (np.tanh(0.5 * a) + 1)  # as in its own examples
    split = lambda a, blocks: np.split(a, blocks, axis=1)

    def loss(parameters: Any) -> Any:
        W_ih, W_hh, b, *rest = parameters
        ops = Ops(np.tanh, sigmoid, split, lambda x_t, h: x_t + np.dot(h, W_hh), lambda h: np.dot(h, W_hh))
        projected = np.reshape(np.dot(rows, W_ih) + b, (T, B, -1))
        states = unroll(kind, (projected[t] for t in range(T)), h_0, rest[0] if rest else None, ops)
        return np.mean(np.square(np.stack(states) - target))

    both = value_and_grad(loss)
    value, gradients = both(parameters)
    return lambda: both(parameters), summary(kind, value, *gradients)


CONTENDERS: dict[str, Callable[..., Made]] = {
    "tinygrad_rnn, fused=False": ours_layer(fused=False),
    "tinygrad_rnn, fused=False, compiled": ours_layer(fused=False, compiled=True),
    "tinygrad_rnn, same line": ours,
    "PyTorch eager": in_torch("addmm"),
    "PyTorch eager, same line": in_torch("matmul"),
    "MyGrad": in_mygrad,
    "HIPS autograd": in_autograd,
    # Not unrolled in Python: what a kernel for each step, or one call for the whole sequence, costs.
    "tinygrad_rnn, fused": ours_layer(fused=True),
    "PyTorch, its layer": torch_layer,
}


def measure(full: bool) -> list[dict[str, Any]]:
    """One row a contender: microseconds a time step of an RNN at B=1, H=32, T=100."""
    size = {"T": 100, "B": 1, "H": 32}
    times = contest(__name__, list(CONTENDERS), size, rounds=15 if full else 7, seconds=0.5 if full else 0.25)
    eager, same = times.get("PyTorch eager"), times.get("PyTorch eager, same line")
    return [
        {
            "contender": name,
            "us a time step": seconds / size["T"] * 1e6,
            "of PyTorch, same line": seconds / same if same else None,
            "of PyTorch eager": seconds / eager if eager else None,
        }
        for name, seconds in times.items()
    ]
