"""Milliseconds per training step of a character model: embedding, LSTM, linear, cross-entropy, clip, Adam.

All start from the same weights and must reach the same three first losses, so the backward, the clipping and
Adam are checked with them. PyTorch uses its `nn.LSTM`, JAX one jitted step over `lax.scan`. Every step ends
by reading its loss, so that a GPU is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.processes import contest

Made = tuple[Callable[[], object], dict[str, list[float]]]

V, LR, CLIP = 64, 1e-3, 1.0
QUICK = [(1, 25, 100), (16, 32, 32), (32, 64, 128)]
FULL = [*QUICK, (64, 64, 256)]


def numbers(B: int, T: int, H: int) -> tuple[dict[str, Any], Any]:
    """PyTorch's names and layouts for the parameters, and token ids (T + 1, B)."""
    import numpy as np

    rng = np.random.default_rng(0)
    shapes = {
        "embed.weight": (V, H),
        "lstm.weight_ih_l0": (4 * H, H),
        "lstm.weight_hh_l0": (4 * H, H),
        "lstm.bias_ih_l0": (4 * H,),
        "lstm.bias_hh_l0": (4 * H,),
        "linear.weight": (V, H),
        "linear.bias": (V,),
    }
    weights = {name: rng.uniform(-1, 1, shape).astype(np.float32) / H**0.5 for name, shape in shapes.items()}
    return weights, rng.integers(0, V, (T + 1, B))


def first_losses(step: Callable[[], float]) -> dict[str, list[float]]:
    return {"losses": [step() for _ in range(3)]}


def ours(fused: bool = True, device: str = "cpu", keep_freed_memory: bool = True) -> Callable[..., Made]:
    def make(B: int, T: int, H: int) -> Made:
        import tinygrad_rnn as tr

        if keep_freed_memory:  # as `tinygrad-rnn train` does
            tr.keep_freed_memory()

        class Model(tr.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = tr.nn.Embedding(V, H)
                self.lstm = tr.nn.LSTM(H, H, fused=fused)
                self.linear = tr.nn.Linear(H, V)

        weights, tokens = numbers(B, T, H)
        model = Model()
        model.load_state_dict(weights)
        model.to(device)
        inputs, targets = (tr.Tensor(part, device=device) for part in (tokens[:-1], tokens[1:].reshape(-1)))
        parameters = list(model.parameters())
        optimizer = tr.optim.Adam(parameters, lr=LR)

        def step() -> float:
            output, _ = model.lstm(model.embed(inputs))
            logits = model.linear(output).reshape((-1, V))
            loss = tr.nn.functional.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            tr.optim.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            return loss.item()

        return step, first_losses(step)

    return make


def in_torch(device: str = "cpu") -> Callable[..., Made]:
    def make(B: int, T: int, H: int) -> Made:
        import torch

        torch.backends.cudnn.allow_tf32 = False  # float32 means float32 for both

        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = torch.nn.Embedding(V, H)
                self.lstm = torch.nn.LSTM(H, H)
                self.linear = torch.nn.Linear(H, V)

        weights, tokens = numbers(B, T, H)
        tokens = torch.from_numpy(tokens).to(device)
        inputs, targets = tokens[:-1], tokens[1:].reshape(-1)
        model = Model()
        model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
        model.to(device)
        parameters = list(model.parameters())
        optimizer = torch.optim.Adam(parameters, lr=LR)

        def step() -> float:
            output, _ = model.lstm(model.embed(inputs))
            logits = model.linear(output).reshape(-1, V)
            loss = torch.nn.functional.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            return loss.item()

        return step, first_losses(step)

    return make


def in_jax(B: int, T: int, H: int) -> Made:
    import jax
    import jax.numpy as jnp

    weights, tokens = numbers(B, T, H)
    tokens = jnp.asarray(tokens)

    def loss_of(p: Any) -> Any:
        projected = p["embed.weight"][tokens[:-1]] @ p["lstm.weight_ih_l0"].T
        projected = projected + p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"]

        def cell(carry: Any, x_t: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(x_t + h @ p["lstm.weight_hh_l0"].T, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((B, H))
        _, output = jax.lax.scan(cell, (zeros, zeros), projected)
        logits = jax.nn.log_softmax(output @ p["linear.weight"].T + p["linear.bias"])
        return -jnp.take_along_axis(logits, tokens[1:][..., None], axis=-1).mean()

    @jax.jit
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
    zeros = {name: jnp.zeros_like(weight) for name, weight in p.items()}
    state = (p, zeros, zeros, jnp.zeros(()))

    def step() -> float:
        nonlocal state
        loss, state = update(state)
        return loss.item()

    return step, first_losses(step)


CONTENDERS: dict[str, Callable[..., Made]] = {
    "tinygrad_rnn": ours(),
    "tinygrad_rnn, fused=False": ours(fused=False),
    "tinygrad_rnn, freed memory given back": ours(keep_freed_memory=False),
    "PyTorch": in_torch(),
    "JAX": in_jax,
}


def measure(full: bool) -> list[dict[str, Any]]:
    """One row a size: milliseconds of every contender, and the ratio to PyTorch."""
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
