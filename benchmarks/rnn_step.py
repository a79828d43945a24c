"""Microseconds per time step of a plain unrolled RNN, forward and backward: eager overhead and little else.

Everybody writes h = tanh(x_t W_ih + b + h W_hh) in a Python loop, as its own manual would, in float32 on the
same numbers; the loss is the last state's product with a fixed vector, differentiated with respect to the
three parameters. PyTorch is written three ways; ratios are given to the same line of code (matmul) and to the
fastest (addmm, which fuses a sum into a product).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.processes import contest

Made = tuple[Callable[[], object], dict[str, list[float]]]


def numbers(T: int, B: int, H: int) -> tuple[Any, ...]:
    """x (T, B, H), W_ih (H, H) and W_hh (H, H) for h W, b (H,) and v (B, H), the same for everybody."""
    import numpy as np

    rng = np.random.default_rng(0)
    shapes = ((T, B, H), (H, H), (H, H), (H,), (B, H))
    x, W_ih, W_hh, b, v = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return x, W_ih / H**0.5, W_hh / H**0.5, b, v


def summary(loss: float, *gradients: Any) -> dict[str, list[float]]:
    """The loss, and of each gradient its norm and its product with a fixed random array."""
    import numpy as np

    rng = np.random.default_rng(1)
    result = {"loss": [float(loss)]}
    for name, gradient in zip(("W_ih", "W_hh", "b"), gradients, strict=True):
        g = np.asarray(gradient, np.float64)
        result[name] = [float(np.linalg.norm(g)), float(np.sum(g * rng.standard_normal(g.shape)))]
    return result


def ours(T: int, B: int, H: int) -> Made:
    import tinygrad_rnn as tr

    x, W_ih, W_hh, b, v = numbers(T, B, H)
    x, v = tr.Tensor(x), tr.Tensor(v)
    W_ih, W_hh, b = (tr.Tensor(p, requires_grad=True) for p in (W_ih, W_hh, b))
    h_0 = tr.zeros((B, H))

    def step() -> tr.Tensor:
        W_ih.grad = W_hh.grad = b.grad = None
        h = h_0
        for x_t in x:
            h = tr.tanh(x_t @ W_ih + b + h @ W_hh)
        loss = (h * v).sum()
        loss.backward()
        return loss

    return step, summary(step().item(), W_ih.grad.numpy(), W_hh.grad.numpy(), b.grad.numpy())


def ours_linear(T: int, B: int, H: int) -> Made:
    import tinygrad_rnn as tr

    x, W_ih, W_hh, b, v = numbers(T, B, H)
    x, v = tr.Tensor(x), tr.Tensor(v)
    W_ih, W_hh, b = (tr.Tensor(p, requires_grad=True) for p in (W_ih.T, W_hh.T, b))
    h_0 = tr.zeros((B, H))

    def step() -> tr.Tensor:
        W_ih.grad = W_hh.grad = b.grad = None
        h = h_0
        for x_t in x:
            h = tr.tanh(tr.linear(x_t, W_ih, b) + tr.linear(h, W_hh))
        loss = (h * v).sum()
        loss.backward()
        return loss

    return step, summary(step().item(), W_ih.grad.numpy().T, W_hh.grad.numpy().T, b.grad.numpy())


def ours_layer(fused: bool) -> Callable[..., Made]:
    def make(T: int, B: int, H: int) -> Made:
        import tinygrad_rnn as tr

        x, W_ih, W_hh, b, v = numbers(T, B, H)
        layer = tr.nn.RNN(H, H, fused=fused)
        state = {"weight_ih_l0": W_ih.T, "weight_hh_l0": W_hh.T, "bias_ih_l0": b, "bias_hh_l0": 0 * b}
        layer.load_state_dict(state)
        x, v = tr.Tensor(x), tr.Tensor(v)

        def step() -> tr.Tensor:
            layer.zero_grad()
            _, h_n = layer(x)
            loss = (h_n[0] * v).sum()
            loss.backward()
            return loss

        loss = step().item()
        W_ih, W_hh, b = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0
        return step, summary(loss, W_ih.grad.numpy().T, W_hh.grad.numpy().T, b.grad.numpy())

    return make


def in_torch(form: str) -> Callable[..., Made]:
    def make(T: int, B: int, H: int) -> Made:
        import torch
        from torch.nn.functional import linear

        x, W_ih, W_hh, b, v = map(torch.from_numpy, numbers(T, B, H))
        if form == "linear":  # a layer's weight is (out, in)
            W_ih, W_hh = W_ih.T.contiguous(), W_hh.T.contiguous()
        for p in (W_ih, W_hh, b):
            p.requires_grad_()
        h_0 = torch.zeros(B, H)

        def matmul(h: Any) -> Any:
            for x_t in x:
                h = torch.tanh(x_t @ W_ih + b + h @ W_hh)
            return h

        def linears(h: Any) -> Any:
            for x_t in x:
                h = torch.tanh(linear(x_t, W_ih, b) + linear(h, W_hh))
            return h

        def addmm(h: Any) -> Any:
            for x_t in x:
                h = torch.tanh(torch.addmm(torch.addmm(b, x_t, W_ih), h, W_hh))
            return h

        run = {"matmul": matmul, "linear": linears, "addmm": addmm}[form]

        def step() -> Any:
            W_ih.grad = W_hh.grad = b.grad = None
            loss = (run(h_0) * v).sum()
            loss.backward()
            return loss

        loss = step().item()
        W = (W_ih.grad.T, W_hh.grad.T) if form == "linear" else (W_ih.grad, W_hh.grad)
        return step, summary(loss, *W, b.grad)

    return make


def torch_layer(T: int, B: int, H: int) -> Made:
    import torch

    x, W_ih, W_hh, b, v = map(torch.from_numpy, numbers(T, B, H))
    layer = torch.nn.RNN(H, H)
    state = {"weight_ih_l0": W_ih.T, "weight_hh_l0": W_hh.T, "bias_ih_l0": b, "bias_hh_l0": 0 * b}
    layer.load_state_dict(state)

    def step() -> Any:
        layer.zero_grad()
        _, h_n = layer(x)
        loss = (h_n[0] * v).sum()
        loss.backward()
        return loss

    loss = step().item()
    return step, summary(loss, layer.weight_ih_l0.grad.T, layer.weight_hh_l0.grad.T, layer.bias_ih_l0.grad)


def in_mygrad(T: int, B: int, H: int) -> Made:
    import mygrad as mg

    x, W_ih, W_hh, b, v = numbers(T, B, H)
    W_ih, W_hh, b = map(mg.tensor, (W_ih, W_hh, b))
    h_0 = mg.zeros((B, H), dtype="float32", constant=True)

    def step() -> Any:
        W_ih.null_grad(), W_hh.null_grad(), b.null_grad()
        h = h_0
        for x_t in x:
            h = mg.tanh(x_t @ W_ih + b + h @ W_hh)
        loss = (h * v).sum()
        loss.backward()
        return loss

    return step, summary(step().item(), W_ih.grad, W_hh.grad, b.grad)


def in_autograd(T: int, B: int, H: int) -> Made:
    import autograd.numpy as np
    from autograd import value_and_grad

    x, W_ih, W_hh, b, v = numbers(T, B, H)
    h_0 = np.zeros((B, H), "float32")

    def loss(parameters: Any) -> Any:
        W_ih, W_hh, b = parameters
        h = h_0
        for x_t in x:
            h = np.tanh(np.dot(x_t, W_ih) + b + np.dot(h, W_hh))
        return np.sum(h * v)

    both = value_and_grad(loss)
    value, gradients = both((W_ih, W_hh, b))
    return lambda: both((W_ih, W_hh, b)), summary(value, *gradients)


CONTENDERS: dict[str, Callable[..., Made]] = {
    "tinygrad_rnn, ops": ours,
    "tinygrad_rnn, linear": ours_linear,
    "tinygrad_rnn, nn.RNN(fused=False)": ours_layer(fused=False),
    "PyTorch eager, matmul": in_torch("matmul"),
    "PyTorch eager, linear": in_torch("linear"),
    "PyTorch eager, addmm": in_torch("addmm"),
    "MyGrad": in_mygrad,
    "HIPS autograd": in_autograd,
    # Not unrolled in Python: what one call for the whole sequence costs.
    "tinygrad_rnn, nn.RNN": ours_layer(fused=True),
    "PyTorch, nn.RNN": torch_layer,
}


def measure(full: bool) -> list[dict[str, Any]]:
    """One row a contender: microseconds a time step at B=1, H=32, T=100."""
    size = {"T": 100, "B": 1, "H": 32}
    times = contest(__name__, list(CONTENDERS), size, rounds=15 if full else 7, seconds=0.5 if full else 0.25)
    eager = {name: time for name, time in times.items() if name.startswith("PyTorch eager")}
    same, fastest = eager.get("PyTorch eager, matmul"), min(eager.values(), default=None)
    return [
        {
            "contender": name,
            "us a time step": seconds / size["T"] * 1e6,
            "of PyTorch, same line": seconds / same if same else None,
            "of PyTorch, fastest": seconds / fastest if fastest else None,
        }
        for name, seconds in times.items()
    ]
