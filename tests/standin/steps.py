"""What a device would be asked to do, as JSON: `python -m tests.standin.steps`, with the stand-in on PYTHONPATH.

For a training step, which ends by reading its loss: how many kernels, products, memsets, uploads, and each line where
the host waits. For every op and layer, forward and backward: the lines where the host waits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cupy
import numpy as np

import tinygrad_rnn as tr
from tinygrad_rnn import nn
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.testing import DOMAINS

ROOT = f"{Path(tr.__file__).parents[1]}/"
SIZES = {"LSTM": (16, 32, 32), "GRU": (16, 32, 32), "RNN": (16, 32, 32)}


def counted(step: Callable[[], Any]) -> dict[str, Any]:
    """How many calls of each kind a step makes, and where it waits."""
    cupy.standin.calls.clear()
    step()
    waits = {line.removeprefix(ROOT): n for line, n in cupy.standin.lines("synchronisation").items()}
    return {**cupy.standin.totals(), "waits": waits}


def training_step(kind: str, B: int, T: int, H: int, graph: bool = False) -> Callable[[], float]:
    """The step of `benchmarks.train_step`, and a dropout."""
    from benchmarks.train_step import V, numbers

    weights, tokens = numbers(kind, B, T, H)
    embed, rnn, linear = nn.Embedding(V, H), getattr(nn, kind)(H, H), nn.Linear(H, V)
    parts = {"embed": embed, "rnn": rnn, "linear": linear}
    for name, part in parts.items():
        part.load_state_dict({k.partition(".")[2]: w for k, w in weights.items() if k.startswith(f"{name}.")})
        part.to("cuda")
    inputs, targets = (tr.Tensor(x, device="cuda") for x in (tokens[:-1], tokens[1:]))
    parameters = [p for part in parts.values() for p in part.parameters()]
    optimizer = tr.optim.Adam(parameters)

    def update() -> tr.Tensor:
        logits = linear(F.dropout(rnn(embed(inputs))[0], 0.1))
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        tr.optim.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    step = tr.compile(update, graph=True) if graph else update
    return lambda: float(step().item())


def calls_around(kind: str) -> int:
    """How many calls a training step makes that do not grow with the number of time steps."""
    counts = []
    for T in (16, 32):
        step = training_step(kind, 8, T, 16)
        step()
        found = counted(step)
        counts.append(sum(found.get(what, 0) for what in ("kernel", "product", "memset", "upload")))
    return 2 * counts[0] - counts[1]


def layer_calls(kind: str, T: int) -> dict[str, Any]:
    """What one layer makes, forward and backward, of a sequence and of all that it is given."""
    layer = getattr(nn, kind)(3, 8, device="cuda")
    x = tr.Tensor(np.ones((T, 2, 3)), dtype="float32", device="cuda", requires_grad=True)
    ones = tr.ones(T, 2, 8, device="cuda")
    return counted(lambda: layer(x)[0].backward(ones))


def op_waits(domain: Any) -> list[str]:
    """The lines at which an op, or its derivative, waits for the device."""
    lines: set[str] = set()
    for seed in range(4):
        case = domain.sample(seed)
        leaves = [tr.Tensor(x, device="cuda", requires_grad=x.dtype.kind == "f") for x in case.arrays(domain)]

        def both(case: Any = case, leaves: Any = leaves) -> None:
            ys = domain(*leaves, **case.options)
            for y in ys if isinstance(ys, list | tuple) else [ys]:
                if y.requires_grad:
                    y.backward(tr.ones_like(y), retain_graph=True)

        lines |= counted(both)["waits"].keys()
    return sorted(lines)


def layer_waits() -> dict[str, list[str]]:
    """The same of layers."""
    x = tr.Tensor(
        np.random.default_rng(0).standard_normal((5, 3, 4)), dtype="float32", device="cuda", requires_grad=True
    )
    image = tr.Tensor(np.ones((2, 4, 6, 6)), dtype="float32", device="cuda", requires_grad=True)
    ids = tr.Tensor([[1, 2, 0], [2, 1, 1]], device="cuda")
    made: dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = {
        "Linear": (nn.Linear(4, 2), (x,), {}),
        "Embedding": (nn.Embedding(3, 2, padding_idx=0), (ids,), {}),
        "Dropout": (nn.Dropout(0.5), (x,), {}),
        "LayerNorm": (nn.LayerNorm(4), (x,), {}),
        "BatchNorm2d": (nn.BatchNorm2d(4), (image,), {}),
        "Conv2d": (nn.Conv2d(4, 2, 3), (image,), {}),
        "MultiheadAttention": (nn.MultiheadAttention(4, 2), (x, x, x), {}),
        "TransformerEncoderLayer": (nn.TransformerEncoderLayer(4, 2, 8), (x,), {}),
    }
    for kind in ("RNN", "LSTM", "GRU"):
        layer = getattr(nn, kind)
        made[kind] = layer(4, 3, num_layers=2, bidirectional=True, dropout=0.2), (x,), {"lengths": [5, 2, 3]}
        made[f"{kind} with options"] = layer(4, 3, layer_norm=True, recurrent_dropout=0.2), (x,), {}
        made[f"{kind} plain"] = layer(4, 3, fused=False), (x,), {}
    found = {}
    for name, (layer, args, options) in made.items():
        layer.to("cuda")

        def both(layer: Any = layer, args: Any = args, options: Any = options) -> None:
            y = layer(*args, **options)
            tr.sum((y[0] if isinstance(y, tuple) else y) * 2).backward()

        found[name] = sorted(counted(both)["waits"])
    return found


def main() -> None:
    steps = {}
    for kind, size in SIZES.items():
        step = training_step(kind, *size)
        step()
        steps[kind] = counted(step)
    captured = {}
    for kind, size in SIZES.items():
        step = training_step(kind, *size, graph=True)
        for _ in range(3):
            step()
        captured[kind] = counted(step)
    around = {kind: calls_around(kind) for kind in SIZES}
    ops = {str(domain): waits for domain in DOMAINS if (waits := op_waits(domain))}
    layers = {k: v for k, v in layer_waits().items() if v}
    calls = {kind: {T: layer_calls(kind, T) for T in (16, 128)} for kind in SIZES}
    found = {"steps": steps, "captured": captured, "around": around, "ops": ops, "layers": layers, "calls": calls}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
