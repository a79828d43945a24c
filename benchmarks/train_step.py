"""Milliseconds per training step of a character model: embedding, RNN, linear, cross-entropy, clip, Adam.

All start from the same weights and must reach the same three first losses, so the backward, the clipping and
Adam are checked with them. PyTorch uses its `nn.RNN`, `nn.LSTM` and `nn.GRU`, JAX one jitted step over
`lax.scan` that owns its state (donated). Every step ends by reading its loss, so that a GPU is waited for.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.processes import contest
from benchmarks.rnn_step import GATES

Made = tuple[Callable[[], object], dict[str, list[float]]]

V, LR, CLIP = 65, 1e-3, 1.0
QUICK = [(1, 25, 100), (16, 32, 32), (32, 64, 128)]
FULL = [*QUICK, (64, 64, 256)]


def numbers(kind: str, B: int, T: int, H: int) -> tuple[dict[str, Any], Any]:
    """PyTorch's names and layouts for the parameters, and token ids (T + 1, B)."""
    import numpy as np

    rng, G = np.random.default_rng(0), GATES[kind]
    shapes = {
        "embed.weight": (V, H),
        "rnn.weight_ih_l0": (G * H, H),
        "rnn.weight_hh_l0": (G * H, H),
        "rnn.bias_ih_l0": (G * H,),
        "rnn.bias_hh_l0": (G * H,),
        "linear.weight": (V, H),
        "linear.bias": (V,),
    }
    weights = {name: rng.uniform(-1, 1, shape).astype(np.float32) / H**0.5 for name, shape in shapes.items()}
    return weights, rng.integers(0, V, (T + 1, B))


def first_losses(step: Callable[[], float]) -> dict[str, list[float]]:
    return {"losses": [step() for _ in range(3)]}


def ours(
    fused: bool = True,
    device: str = "cpu",
    keep_freed_memory: bool = True,
    compiled: bool = False,
    numba: bool = False,
    inside: bool = False,
    precision: str = "float32",
) -> Callable[..., Made]:
    """Ours, as people write it, or with the lookup `inside` of the layer."""

    def make(B: int, T: int, H: int, kind: str = "LSTM") -> Made:
        import tinygrad_rnn as tr

        if numba:
            importlib.import_module("numba")  # whose absence the contest understands
            tr.enable_numba()

        if keep_freed_memory:  # as `tinygrad-rnn train` does
            tr.keep_freed_memory()

        class Model(tr.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = tr.nn.Embedding(V, H)
                self.rnn = getattr(tr.nn, kind)(H, H, fused=fused, precision=precision)
                self.linear = tr.nn.Linear(H, V, precision=precision)

        weights, tokens = numbers(kind, B, T, H)
        model = Model()
        model.load_state_dict(weights)
        model.to(device)
        inputs, targets = (tr.Tensor(part, device=device) for part in (tokens[:-1], tokens[1:].reshape(-1)))
        parameters = list(model.parameters())
        optimizer = tr.optim.Adam(parameters, lr=LR)

        def update() -> Any:
            output, _ = model.rnn(inputs, embedding=model.embed) if inside else model.rnn(model.embed(inputs))
            logits = model.linear(output).reshape((-1, V))
            loss = tr.nn.functional.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            tr.optim.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            return loss

        if compiled:
            update = tr.compile(update, graph=device != "cpu")

        def step() -> float:
            return update().item()

        return step, first_losses(step)

    return make


def in_torch(device: str = "cpu") -> Callable[..., Made]:
    def make(B: int, T: int, H: int, kind: str = "LSTM") -> Made:
        import torch

        torch.backends.cudnn.allow_tf32 = False  # float32 means float32 for both

        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = torch.nn.Embedding(V, H)
                self.rnn = getattr(torch.nn, kind)(H, H)
                self.linear = torch.nn.Linear(H, V)

        weights, tokens = numbers(kind, B, T, H)
        tokens = torch.from_numpy(tokens).to(device)
        inputs, targets = tokens[:-1], tokens[1:].reshape(-1)
        model = Model()
        model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
        model.to(device)
        parameters = list(model.parameters())
        optimizer = torch.optim.Adam(parameters, lr=LR)

        def step() -> float:
            output, _ = model.rnn(model.embed(inputs))
            logits = model.linear(output).reshape(-1, V)
            loss = torch.nn.functional.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            return loss.item()

        return step, first_losses(step)

    return make


def in_jax(B: int, T: int, H: int, kind: str = "LSTM") -> Made:
    import jax
    import jax.numpy as jnp

    weights, tokens = numbers(kind, B, T, H)
    tokens = jnp.asarray(tokens)

    def cell(p: Any, state: Any, x_t: Any) -> Any:
        """One step from the input's part of the gates; both biases are in it, but for the GRU's second."""
        h, across = state[0], state[0] @ p["rnn.weight_hh_l0"].T
        if kind == "RNN":
            return (jnp.tanh(x_t + across),)
        if kind == "LSTM":
            i, f, g, o = jnp.split(x_t + across, 4, axis=1)
            c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
            return jax.nn.sigmoid(o) * jnp.tanh(c), c
        (r, z, n), (hr, hz, hn) = jnp.split(x_t, 3, axis=1), jnp.split(across + p["rnn.bias_hh_l0"], 3, axis=1)
        z = jax.nn.sigmoid(z + hz)
        return ((1 - z) * jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn) + z * h,)

    def loss_of(p: Any) -> Any:
        projected = p["embed.weight"][tokens[:-1]] @ p["rnn.weight_ih_l0"].T + p["rnn.bias_ih_l0"]
        if kind != "GRU":
            projected = projected + p["rnn.bias_hh_l0"]

        def step(state: Any, x_t: Any) -> Any:
            state = cell(p, state, x_t)
            return state, state[0]

        _, output = jax.lax.scan(step, (jnp.zeros((B, H)),) * (2 if kind == "LSTM" else 1), projected)
        logits = jax.nn.log_softmax(output @ p["linear.weight"].T + p["linear.bias"])
        return -jnp.take_along_axis(logits, tokens[1:][..., None], axis=-1).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p)
        norm = jnp.sqrt(sum((x * x).sum() for x in g.values()))
        scale = jnp.minimum(1.0, CLIP / (norm + 1e-6))
        t = t + 1
        g = {k: scale * g[k] for k in g}
        m = {k: 0.9 * m[k] + 0.1 * g[k] for k in g}
        v = {k: 0.999 * v[k] + 0.001 * g[k] ** 2 for k in g}
        p = {k: p[k] - LR * (m[k] / (1 - 0.9**t)) / (jnp.sqrt(v[k] / (1 - 0.999**t)) + 1e-8) for k in g}
        return loss, (p, m, v, t)

    p = {name: jnp.asarray(weight) for name, weight in weights.items()}
    m, v = ({name: jnp.zeros_like(weight) for name, weight in p.items()} for _ in range(2))
    state = (p, m, v, jnp.zeros(()))

    def step() -> float:
        nonlocal state
        loss, state = update(state)
        return loss.item()

    return step, first_losses(step)


def products(rows: bool) -> Callable[..., Made]:
    """A floor: the step's matrix products alone, into arrays that are there already, by our BLAS. With `rows` those
    that ours needs, which multiplies the rows of the embedding's table by W_ih, and not what was looked up, where the
    table has fewer.
    """

    def make(B: int, T: int, H: int, kind: str = "LSTM") -> Made:
        import numpy as np

        G, N = GATES[kind] * H, B * T
        M = min(V, N) if rows else N  # rows that meet W_ih
        rng = np.random.default_rng(0)

        def array(*shape: int) -> Any:
            return rng.standard_normal(shape).astype(np.float32)

        x, h, d, logits = array(M, H), array(T, B, H), array(T, B, G), array(N, V)
        d_x = array(M, G)
        W_ih, W_hh, W = array(H, G), array(H, G), array(H, V)
        W_ihT, W_hhT, WT = (np.ascontiguousarray(w.T) for w in (W_ih, W_hh, W))
        to_gates, to_x, to_h, to_logits, to_states = array(M, G), array(M, H), array(B, H), array(N, V), array(N, H)
        across, states, gates, dW, dV = array(B, G), h.reshape(N, H), d.reshape(N, G), array(H, G), array(H, V)

        def step() -> float:
            np.matmul(x, W_ih, out=to_gates)
            for h_t in h:
                np.matmul(h_t, W_hh, out=across)
            np.matmul(states, W, out=to_logits)
            np.matmul(logits, WT, out=to_states)
            np.matmul(states.T, logits, out=dV)
            for d_t in d:
                np.matmul(d_t, W_hhT, out=to_h)
            np.matmul(states.T, gates, out=dW)  # of W_hh
            np.matmul(x.T, d_x, out=dW)  # of W_ih
            np.matmul(d_x, W_ihT, out=to_x)
            return 0.0

        return step, {}

    return make


CONTENDERS: dict[str, Callable[..., Made]] = {
    "tinygrad_rnn": ours(),
    "tinygrad_rnn, fused=False": ours(fused=False),
    "tinygrad_rnn, numba": ours(numba=True),
    "tinygrad_rnn, compiled": ours(compiled=True),
    "tinygrad_rnn, numba and compiled": ours(compiled=True, numba=True),
    "tinygrad_rnn, numba and compiled, embedding=": ours(compiled=True, numba=True, inside=True),
    "tinygrad_rnn, freed memory given back": ours(keep_freed_memory=False),
    "PyTorch": in_torch(),
    "JAX": in_jax,
    "products alone": products(rows=False),
    "products of ours alone": products(rows=True),
}


def measure(full: bool) -> list[dict[str, Any]]:
    """One row a size: milliseconds of every contender with an LSTM, and the ratio to PyTorch; `grid` has them all."""
    return [compare(__name__, list(CONTENDERS), size, full) for size in (FULL if full else QUICK)]


def compare(module: str, names: list[str], size: tuple[int, int, int], full: bool) -> dict[str, Any]:
    """One row: the first of the names is ours, and its ratio is to the first that says PyTorch."""
    arguments = dict(zip("BTH", size, strict=True))
    times = contest(module, names, arguments, rounds=11 if full else 5, seconds=1.0 if full else 0.4)
    row: dict[str, Any] = {"B,T,H": ",".join(map(str, size))}
    row |= {f"{name}, ms": 1e3 * seconds for name, seconds in times.items()}
    peer = next((name for name in times if name.startswith("PyTorch")), None)
    if peer:
        row["of PyTorch"] = times[names[0]] / times[peer]
    return row
