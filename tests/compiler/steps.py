"""Training steps for the tests of `tr.compile`, plain and compiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_rnn as tr
from tinygrad_rnn.compiler.program import Program

V = 7
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: tr.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "RMSprop": lambda p: tr.optim.RMSprop(p, lr=0.01),
    "Adam": lambda p: tr.optim.Adam(p, lr=0.01),
    "AdamW": lambda p: tr.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


class Model(tr.nn.Module):
    """Embedding, dropout, a recurrent layer, linear."""

    def __init__(self, kind: str, H: int, dropout: float = 0.0, **options: Any) -> None:
        rng = np.random.default_rng(0)
        self.embed = tr.nn.Embedding(V, H, generator=rng)
        self.drop = tr.nn.Dropout(dropout)
        self.rnn = getattr(tr.nn, kind)(H, H, generator=rng, **options)
        self.head = tr.nn.Linear(H * (2 if options.get("bidirectional") else 1), V, generator=rng)

    def forward(self, ids: Any, lengths: Any = None) -> tr.Tensor:
        output, _ = self.rnn(self.drop(self.embed(ids)), lengths=lengths)
        return self.head(output)


def trainer(model: Any, optimizer: Any, schedule: Any = None) -> Callable[..., Any]:
    def step(ids: Any, targets: Any, lengths: Any = None) -> Any:
        loss = tr.nn.functional.cross_entropy(model(ids, lengths), targets)
        optimizer.zero_grad()
        loss.backward()
        norm = tr.optim.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        return {"loss": loss, "norm": norm}

    return step


def batches(T: int, B: int, count: int = 6, seed: int = 1) -> list[tuple[Any, Any]]:
    """Ids and targets, of which some do not count."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        targets = rng.integers(0, V, (T, B))
        targets[rng.random((T, B)) < 0.2] = -100
        found.append((rng.integers(0, V, (T, B)), targets))
    return found


def run(
    compiled: bool, kind: str, T: int, B: int, H: int, rule: str = "Adam", lengths: Any = None, **options: Any
) -> Any:
    """Losses, norms, parameters and gradients after six steps."""
    tr.manual_seed(3)
    model = Model(kind, H, **options)
    optimizer = OPTIMIZERS[rule](model.parameters())
    step = trainer(model, optimizer, tr.optim.CosineAnnealingLR(optimizer, T_max=5, warmup=2))
    if compiled:
        step = tr.compile(step)
    outcomes = [step(ids, targets, lengths) for ids, targets in batches(T, B)]
    if compiled:
        ((found,),) = step.compiled.found.values()
        assert type(found.program) is Program
    return (
        [o["loss"].item() for o in outcomes],
        [o["norm"] for o in outcomes],
        [p.numpy().tobytes() for p in model.parameters()],
        [p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None],
        tr.rand(2).tolist(),
    )


def counted(f: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """`f` compiled, and a list that grows whenever `f` itself runs."""
    ran: list[int] = []

    def step(*args: Any, **kwargs: Any) -> Any:
        ran.append(1)
        return f(*args, **kwargs)

    return tr.compile(step), ran


def line_of(f: Callable[..., Any], mark: str) -> str:
    lines, first = inspect.getsourcelines(f)
    (at,) = (i for i, line in enumerate(lines) if mark in line)
    return f"line {first + at}"
