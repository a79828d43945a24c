"""Random configurations of every recurrent layer and cell against two others: the float64 reference written out by
hand, and PyTorch where it is installed.

Outputs, final states and all gradients to 1e-10, outputs and gradients of x at each time step relative to their own
size. The weights are drawn as the layers draw them; for up to 32 steps they may be larger. Most sequences are short,
some have up to 512 steps.

The profile says how many: `HYPOTHESIS_PROFILE=thorough` runs 2,500 of each, and `--hypothesis-show-statistics` tells
what they were.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tests.reference import Network, assert_close, assert_steps_close
from tinygrad_rnn.tensor import random
from tinygrad_rnn.testing.strategies import configurations, seeds
from tinygrad_rnn.testing.subject import KINDS, Configuration

RTOL = 1e-10
many = examples(dev=40, ci=80, thorough=2500)
SHORT, MEDIUM, LONG = st.integers(0, 8), st.integers(9, 32), st.integers(33, 512)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A layer or cell, what goes in, and what is pulled back from which of its outputs."""

    configuration: Configuration
    T: int
    B: int
    lengths: tuple[int, ...] | None
    initial: bool  # whether the initial states are given
    pulled: str  # "all" outputs and final states, the "last" output or the final "state"
    scale: float  # of the weights, beside what the layer draws
    seed: int

    @cached_property
    def kind(self) -> str:
        return self.configuration.kind.removesuffix("Cell").lower()

    @cached_property
    def is_cell(self) -> bool:
        return self.configuration.kind.endswith("Cell")

    def option(self, name: str, default: Any) -> Any:
        return self.configuration.options.get(name, default)

    @cached_property
    def layer(self) -> Any:
        layer = self.configuration.make(dtype="float64", generator=np.random.default_rng(self.seed))
        for p in layer.parameters():
            p.assign_(self.scale * p.numpy())
        return layer

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """x, the initial states and the cotangents, time major."""
        rng = np.random.default_rng(self.seed + 1)
        T, B, D = self.T, self.B, 1 + self.option("bidirectional", False)
        L, H = self.option("num_layers", 1) * D, self.configuration.hidden_size
        shapes = {"x": (T, B, self.configuration.input_size), "h0": (L, B, H), "c0": (L, B, H)}
        shapes |= {"dy": (T, B, D * H), "dh": (L, B, H), "dc": (L, B, H)}
        made = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        if not self.initial:
            made["h0"][:], made["c0"][:] = 0, 0
        if self.pulled == "last":
            last = np.reshape([T] * B if self.lengths is None else self.lengths, (1, B, 1)) - 1
            made["dy"][np.broadcast_to(np.arange(T)[:, None, None] != last, made["dy"].shape)] = 0
        if self.pulled == "state":
            made["dy"][:] = 0
        if self.pulled == "last" or self.kind != "lstm":
            made["dc"][:] = 0
        if self.pulled == "last":
            made["dh"][:] = 0
        return made

    @cached_property
    def masks(self) -> list[np.ndarray] | None:
        """What dropout draws after `tr.manual_seed(seed)`: for the longest sequence first."""
        p, D = self.option("dropout", 0.0), 1 + self.option("bidirectional", False)
        if not p:
            return None
        order = list(range(self.B))
        if self.lengths is not None:
            order.sort(key=lambda b: -self.lengths[b])
        shape = (self.T, self.B, D * self.configuration.hidden_size)
        bring_back = random.keep_generator()
        tr.manual_seed(self.seed)
        drawn = [random.kept(shape, p) for _ in range(self.option("num_layers", 1) - 1)]
        bring_back()
        return [mask[:, np.argsort(order)] / (1 - p) for mask in drawn]


@st.composite
def problems(draw: Any, for_torch: bool = False) -> Problem:
    """Mostly short sequences. PyTorch has no sigmoid, no empty sequences and masks of its own, so none for it."""
    configuration = draw(configurations((*KINDS, *KINDS[:3]), min_size=2, max_size=5))  # one number may cancel to any
    T = draw(draw(st.sampled_from([SHORT] * 12 + [MEDIUM] * 4 + [LONG] * 3)))
    B = draw(st.integers(0, 8))
    is_cell = configuration.kind.endswith("Cell")
    if for_torch:
        options = dict(configuration.options)
        if options.get("nonlinearity") == "sigmoid":
            options["nonlinearity"] = "tanh"
        if options.get("num_layers") == 1:
            options["dropout"] = 0.0  # it would warn
        configuration = dataclasses.replace(configuration, options=options)
    T, B = max(T, 1 if for_torch or is_cell else 0), max(B, 1 if for_torch else 0)
    lengths = None
    if T and not is_cell and draw(st.sampled_from([True, True, False])):
        lengths = tuple(draw(st.lists(st.integers(1, T), min_size=B, max_size=B)))
    scale = draw(st.sampled_from([1.0, 1.0, 1.5, 2.0])) if T <= 32 else 1.0
    pulled = draw(st.sampled_from(["all", "last", "state"]))
    return Problem(configuration, T, B, lengths, draw(st.booleans()), pulled, scale, draw(seeds()))


def note(problem: Problem) -> None:
    """For the statistics: what share of the configurations had this."""
    T = problem.T
    event("T " + ("0" if not T else "1 ... 8" if T <= 8 else "9 ... 32" if T <= 32 else "33 ... 512"))
    event(problem.configuration.kind)
    for what in ("lengths", "initial"):
        if getattr(problem, what):
            event(what)
    for what in ("bidirectional", "dropout", "fused"):
        if problem.option(what, False):
            event(what)


def ours(problem: Problem) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values (y, h, c) and gradients by name, time major."""
    layer, a = problem.layer, problem.arrays
    x, h, c = (tr.Tensor(a[n], requires_grad=True) for n in ("x", "h0", "c0"))
    lstm = problem.kind == "lstm"
    tr.manual_seed(problem.seed)
    if problem.is_cell:
        state: Any = None if not problem.initial else (h[0], c[0]) if lstm else h[0]
        outputs = []
        for x_t in x:
            state = layer(x_t, state)
            outputs.append(state[0] if lstm else state)
        y = tr.stack(outputs)
        final = tuple(tr.expand_dims(s, 0) for s in (state if lstm else (state,)))
    else:
        swap = (lambda v: tr.swapaxes(v, 0, 1)) if problem.option("batch_first", False) else (lambda v: v)
        state = None if not problem.initial else (h, c) if lstm else h
        y, final = layer(swap(x), state, lengths=problem.lengths)
        y, final = swap(y), final if lstm else (final,)
    values = [y, *final]
    loss = sum(((v * a[n]).sum() for v, n in zip(values, ("dy", "dh", "dc"), strict=False)), tr.Tensor(0.0))
    layer.zero_grad()
    if loss.requires_grad:  # there is no step without one
        loss.backward()
    leaves = {"x": x, **dict(layer.named_parameters())}
    if problem.initial:
        leaves |= {"h0": h, "c0": c} if lstm else {"h0": h}
    gradients = {n: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for n, p in leaves.items()}
    return dict(zip("yhc", (v.numpy() for v in values), strict=False)), gradients


def by_hand(problem: Problem) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same from the reference."""
    a, tail = problem.arrays, "_l0" if problem.is_cell else ""
    net = Network(
        problem.kind,
        {name + tail: p.numpy() for name, p in problem.layer.named_parameters()},
        problem.option("num_layers", 1),
        problem.option("bidirectional", False),
        problem.option("nonlinearity", "tanh"),
        problem.masks,
        problem.lengths,
    )
    values = net.run(a["x"], a["h0"], a["c0"])
    gradients = net.gradients(a["dy"], a["dh"], a["dc"])
    return dict(zip("yhc", values, strict=True)), {name.removesuffix(tail): g for name, g in gradients.items()}


def by_torch(problem: Problem) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same from PyTorch's layer or cell of that name."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # more would only wait for each other
    a, lstm = problem.arrays, problem.kind == "lstm"
    options = {k: v for k, v in problem.configuration.options.items() if k not in ("fused", "dtype")}
    sizes = problem.configuration.input_size, problem.configuration.hidden_size
    theirs = getattr(torch.nn, problem.configuration.kind)(*sizes, dtype=torch.float64, **options).eval()
    theirs.load_state_dict({n: torch.tensor(p.numpy()) for n, p in problem.layer.named_parameters()})
    x, h, c = (torch.tensor(a[n], requires_grad=True) for n in ("x", "h0", "c0"))
    if problem.is_cell:
        state: Any = None if not problem.initial else (h[0], c[0]) if lstm else h[0]
        outputs = []
        for x_t in x:
            state = theirs(x_t, state)
            outputs.append(state[0] if lstm else state)
        y = torch.stack(outputs)
        final = tuple(s[None] for s in (state if lstm else (state,)))
    else:
        swap = (lambda v: v.transpose(0, 1)) if problem.option("batch_first", False) else (lambda v: v)
        state, inward, rnn = (h, c) if lstm else h, swap(x), torch.nn.utils.rnn
        more = {"batch_first": problem.option("batch_first", False)}
        if problem.lengths is not None:
            inward = rnn.pack_padded_sequence(inward, problem.lengths, enforce_sorted=False, **more)
        y, final = theirs(inward, state if problem.initial else None)
        if problem.lengths is not None:
            y, _ = rnn.pad_packed_sequence(y, total_length=problem.T, **more)
        y, final = swap(y), final if lstm else (final,)
    values = [y, *final]
    loss = sum((v * torch.tensor(a[n])).sum() for v, n in zip(values, ("dy", "dh", "dc"), strict=False))
    loss.backward()
    leaves = {"x": x, "h0": h, "c0": c, **dict(theirs.named_parameters())}
    gradients = {n: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for n, p in leaves.items()}
    return dict(zip("yhc", (v.detach().numpy() for v in values), strict=False)), gradients


def compare(problem: Problem, others: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]) -> None:
    for found, expected in zip(ours(problem), others, strict=True):
        for name, value in found.items():
            try:
                (assert_steps_close if name in "yx" else assert_close)(value, expected[name], RTOL)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None


@many
@given(problems())
def test_values_and_all_gradients_are_those_written_out_by_hand(problem: Problem) -> None:
    note(problem)
    compare(problem, by_hand(problem))


@many
@given(problems(for_torch=True))
def test_values_and_all_gradients_are_those_of_pytorch(problem: Problem) -> None:
    pytest.importorskip("torch")
    note(problem)
    problem.layer.eval()
    compare(problem, by_torch(problem))
