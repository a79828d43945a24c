"""SGD, RMSprop, Adam and AdamW against the rules written out by hand, and what flat buffers must not change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.reference import assert_close
from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.nn import Parameter

Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any], dict[str, Any]], np.ndarray]


def sgd(p: np.ndarray, g: np.ndarray, state: dict[str, Any], o: dict[str, Any]) -> np.ndarray:
    g = g + o.get("weight_decay", 0) * p
    if o.get("momentum"):
        state["v"] = o["momentum"] * state.get("v", 0) + g
        g = g + o["momentum"] * state["v"] if o.get("nesterov") else state["v"]
    return p - o["lr"] * g


def rmsprop(p: np.ndarray, g: np.ndarray, state: dict[str, Any], o: dict[str, Any]) -> np.ndarray:
    alpha = o.get("alpha", 0.99)
    g = g + o.get("weight_decay", 0) * p
    v = state["v"] = alpha * state.get("v", 0) + (1 - alpha) * g * g
    if o.get("centered"):
        m = state["m"] = alpha * state.get("m", 0) + (1 - alpha) * g
        v = v - m * m
    d = g / (np.sqrt(v) + o.get("eps", 1e-8))
    if o.get("momentum"):
        d = state["b"] = o["momentum"] * state.get("b", 0) + d
    return p - o["lr"] * d


def adam(p: np.ndarray, g: np.ndarray, state: dict[str, Any], o: dict[str, Any]) -> np.ndarray:
    b1, b2 = o.get("betas", (0.9, 0.999))
    g = g + o.get("weight_decay", 0) * p
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    v = state["v"] = b2 * state.get("v", 0) + (1 - b2) * g * g
    return p - o["lr"] * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + o.get("eps", 1e-8))


def adamw(p: np.ndarray, g: np.ndarray, state: dict[str, Any], o: dict[str, Any]) -> np.ndarray:
    p = p * (1 - o["lr"] * o.get("weight_decay", 1e-2))
    return adam(p, g, state, {**o, "weight_decay": 0})


RULES: dict[str, Rule] = {"SGD": sgd, "RMSprop": rmsprop, "Adam": adam, "AdamW": adamw}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.1}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.5, "eps": 1e-3, "weight_decay": 0.2, "momentum": 0.8}),
    ("RMSprop", {"lr": 0.1, "centered": True}),
    ("RMSprop", {"lr": 0.1, "centered": True, "alpha": 0.9, "momentum": 0.5}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.2}),
    ("AdamW", {"lr": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.5}),
]
SHAPES: list[tuple[int, ...]] = [(2, 3), (), (4,), (0,)]
each_rule = pytest.mark.parametrize(("name", "options"), OPTIONS)


def parameters(dtype: str = "float64") -> list[Parameter]:
    rng = np.random.default_rng(0)
    return [Parameter(rng.standard_normal(shape), dtype=dtype) for shape in SHAPES]


def give_gradients(ps: list[Parameter], rng: np.random.Generator, skip: tuple[int, ...] = ()) -> None:
    for i, p in enumerate(ps):
        g = rng.standard_normal(p.shape)
        p.grad = None if i in skip else tr.Tensor(g, dtype=p.dtype)


@each_rule
@given(skipped=st.lists(st.sets(st.integers(0, 2)), min_size=1, max_size=6))
def test_is_the_rule_written_out(name: str, options: dict[str, Any], skipped: list[set[int]]) -> None:
    """Whichever parameters have a gradient at each step: the others do not move, nor do their moments."""
    ps = parameters()
    values = [p.numpy().copy() for p in ps]
    states: list[dict[str, Any]] = [{} for _ in ps]
    optimiser = getattr(tr.optim, name)(ps, **options)
    rng = np.random.default_rng(1)
    for skip in skipped:
        give_gradients(ps, rng, tuple(skip))
        for i, p in enumerate(ps):
            if p.grad is not None:
                values[i] = RULES[name](values[i], p.grad.numpy(), states[i], options)
        optimiser.step()
        for p, value in zip(ps, values, strict=True):
            assert_close(p.numpy(), np.asarray(value), 1e-12)


@each_rule
def test_is_what_pytorch_does(name: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    ps = parameters()
    qs = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in ps]
    ours, theirs = getattr(tr.optim, name)(ps, **options), getattr(torch.optim, name)(qs, **options)
    rng = np.random.default_rng(1)
    for step in range(5):
        give_gradients(ps, rng, (0,) if step == 2 else ())
        for p, q in zip(ps, qs, strict=True):
            q.grad = None if p.grad is None else torch.tensor(p.grad.numpy())
        ours.step()
        theirs.step()
        for p, q in zip(ps, qs, strict=True):
            assert_close(p.numpy(), q.detach().numpy(), 1e-12)


@each_rule
def test_values_handed_out_never_change(name: str, options: dict[str, Any]) -> None:
    ps = parameters()
    optimiser = getattr(tr.optim, name)(ps, **options)
    rng = np.random.default_rng(1)
    seen = []
    for _ in range(3):
        seen += [(p.data, p.detach(), p.numpy().copy(), p.grad) for p in ps]
        give_gradients(ps, rng)
        grads = [(p.grad, p.grad.numpy().copy()) for p in ps if p.grad is not None]
        optimiser.step()
        assert all((g.numpy() == before).all() for g, before in grads)
    for view, detached, before, _ in seen:
        assert (view == before).all() and (detached.numpy() == before).all()


def test_a_graph_built_before_a_step_keeps_the_values_it_saw() -> None:
    p = Parameter([3.0], dtype="float64")
    x = tr.Tensor([2.0], dtype="float64", requires_grad=True)
    y = (p * x).sum()
    optimiser = tr.optim.SGD([p], lr=1.0)
    p.grad = tr.Tensor([1.0], dtype="float64")
    optimiser.step()
    assert p.item() == 2.0
    y.backward()
    assert x.grad is not None and x.grad.item() == 3.0


@each_rule
def test_dtypes_are_kept_apart(name: str, options: dict[str, Any]) -> None:
    ps = [*parameters("float32"), *parameters("float64")]
    optimiser = getattr(tr.optim, name)(ps, **options)
    give_gradients(ps, np.random.default_rng(1))
    optimiser.step()
    give_gradients(ps, np.random.default_rng(2))
    optimiser.step()
    assert [p.dtype for p in ps] == [np.dtype("float32")] * 4 + [np.dtype("float64")] * 4
    half = [p.numpy() for p in ps]
    singles = parameters("float32")
    alone = getattr(tr.optim, name)(singles, **options)
    for seed in (1, 2):
        give_gradients(singles, np.random.default_rng(seed))
        alone.step()
    assert all((a == p.numpy()).all() for a, p in zip(half[:4], singles, strict=True))


@each_rule
def test_an_assigned_value_is_where_the_next_step_starts(name: str, options: dict[str, Any]) -> None:
    ps = parameters()
    optimiser = getattr(tr.optim, name)(ps, **options)
    rng = np.random.default_rng(1)
    states: list[dict[str, Any]] = [{} for _ in ps]
    values = [p.numpy().copy() for p in ps]
    for step in range(4):
        if step == 2:
            ps[0].assign_(np.full((2, 3), 9.0))
            values[0] = np.full((2, 3), 9.0)
        give_gradients(ps, rng)
        for i, p in enumerate(ps):
            assert p.grad is not None
            values[i] = RULES[name](values[i], p.grad.numpy(), states[i], options)
        optimiser.step()
    for p, value in zip(ps, values, strict=True):
        assert_close(p.numpy(), np.asarray(value), 1e-12)


@each_rule
def test_resuming_from_a_state_dict_is_bitwise_the_same(name: str, options: dict[str, Any]) -> None:
    ps = parameters("float32")
    named = [(f"p{i}", p) for i, p in enumerate(ps)]
    one = getattr(tr.optim, name)(named, **options)
    rng = np.random.default_rng(1)
    for step in range(3):
        give_gradients(ps, rng, (1,) if step == 1 else ())
        one.step()
    saved, values = one.state_dict(), [p.numpy().copy() for p in ps]
    assert saved["groups"][0]["params"] == ["p0", "p1", "p2", "p3"]
    assert saved["state"]["p0"]["step"] == 3 and saved["state"]["p1"]["step"] == 2
    qs = [Parameter(v) for v in values]
    other = getattr(tr.optim, name)([(f"p{i}", q) for i, q in enumerate(qs)], lr=99.0)
    other.load_state_dict(saved)
    states = (rng.bit_generator.state, np.random.default_rng())
    for optimiser, members in ((one, ps), (other, qs)):
        states[1].bit_generator.state = states[0]
        for step in range(3):
            give_gradients(members, states[1], (0,) if step == 1 else ())
            optimiser.step()
    assert all((p.numpy() == q.numpy()).all() for p, q in zip(ps, qs, strict=True))
    again = saved["state"]["p0"]
    assert all((again[m].numpy() == saved["state"]["p0"][m].numpy()).all() for m in again if m != "step")


def test_groups_have_options_of_their_own() -> None:
    a, b = Parameter([1.0]), Parameter([1.0])
    optimiser = tr.optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.25)
    a.grad = b.grad = tr.Tensor([1.0])
    optimiser.step()
    assert (a.item(), b.item()) == (0.75, 0.5)
    optimiser.param_groups[0]["lr"] = 0.5
    optimiser.add_param_group({"params": [c := Parameter([1.0])], "lr": 1.0})
    c.grad = tr.Tensor([1.0])
    optimiser.step()
    assert (a.item(), b.item(), c.item()) == (0.25, 0.0, 0.0)
    optimiser.zero_grad()
    assert a.grad is b.grad is c.grad is None
    optimiser.step()
    assert "lr=0.5" in repr(optimiser)


def test_momentum_switched_on_later_starts_from_nothing() -> None:
    p = Parameter([1.0])
    optimiser = tr.optim.SGD([p], lr=0.5)
    p.grad = tr.Tensor([1.0])
    optimiser.step()
    optimiser.param_groups[0]["momentum"] = 0.5
    optimiser.step()
    optimiser.step()
    assert p.item() == 1 - 0.5 - 0.5 - 0.75


def test_a_module_moved_to_another_dtype_goes_on_training() -> None:
    layer = tr.nn.Linear(2, 2)
    optimiser = tr.optim.Adam(layer.named_parameters(), lr=0.1)
    for dtype in ("float32", "float64"):
        layer.to(dtype)
        layer(tr.ones(1, 2, dtype=dtype)).sum().backward()
        optimiser.step()
    assert layer.weight.dtype == np.float64
    assert optimiser.state_dict()["state"]["weight"]["step"] == 2


def test_it_learns() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3))
    y = x @ [[1.0], [-2.0], [0.5]] + 0.3
    for name, lr in (("SGD", 0.1), ("RMSprop", 0.01), ("Adam", 0.05), ("AdamW", 0.05)):
        layer = tr.nn.Linear(3, 1, dtype="float64")
        optimiser = getattr(tr.optim, name)(layer.parameters(), lr=lr)
        for _ in range(600):
            optimiser.zero_grad()
            loss = tr.nn.functional.mse_loss(layer(tr.Tensor(x)), y)
            loss.backward()
            optimiser.step()
        assert loss.item() < 1e-3, name


def test_wrong_use_is_refused_by_name() -> None:
    p = Parameter([1.0])
    for make, message in (
        (lambda: tr.optim.SGD([]), "no parameters"),
        (lambda: tr.optim.SGD([p], lr=-1), "lr must be finite and at least 0, got -1"),
        (lambda: tr.optim.SGD([p], lr=float("nan")), "lr"),
        (lambda: tr.optim.SGD([p], momentum=2), "momentum"),
        (lambda: tr.optim.SGD([p], nesterov=True), "nesterov needs a momentum"),
        (lambda: tr.optim.RMSprop([p], alpha=1.5), r"RMSprop: alpha must lie in \[0, 1\], got 1.5"),
        (lambda: tr.optim.RMSprop([p], momentum=-1), "momentum"),
        (lambda: tr.optim.RMSprop([p], eps=-1e-8), "eps"),
        (lambda: tr.optim.Adam([p], betas=(1.0, 0.9)), "betas"),
        (lambda: tr.optim.Adam([p], weight_decay=-1), "weight_decay"),
        (lambda: tr.optim.Adam([p, p]), "given twice"),
        (lambda: tr.optim.Adam([("a", p), ("a", Parameter([2.0]))]), "named 'a'"),
        (lambda: tr.optim.Adam([tr.zeros(1)]), "parameter 0 must be a leaf tensor that requires a gradient"),
        (lambda: tr.optim.Adam([p * 2]), "leaf"),
        (lambda: tr.optim.Adam([{"params": []}]), "no parameters"),
        (lambda: tr.optim.Adam([{"lr": 1.0}]), "needs 'params'"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match=r"pass Linear.parameters\(\), not the module"):
        tr.optim.SGD(tr.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"unknown option\(s\) speed"):
        tr.optim.Adam([{"params": [p], "speed": 1}])


def test_a_state_is_a_copy_unless_views_are_asked_for() -> None:
    ps = parameters()
    optimiser = tr.optim.Adam([(f"p{i}", p) for i, p in enumerate(ps)])
    for _ in range(2):
        give_gradients(ps, np.random.default_rng(0))
        optimiser.step()
    copied, seen = (optimiser.state_dict(copy=copy)["state"]["p0"]["exp_avg"] for copy in (True, False))
    before = copied.numpy().copy()
    assert np.array_equal(seen.numpy(), before)
    give_gradients(ps, np.random.default_rng(1))
    optimiser.step()
    assert np.array_equal(copied.numpy(), before) and not np.array_equal(seen.numpy(), before)


def test_loading_lists_what_does_not_fit() -> None:
    ps = parameters()
    optimiser = tr.optim.Adam([(f"p{i}", p) for i, p in enumerate(ps)])
    give_gradients(ps, np.random.default_rng(0))
    optimiser.step()
    saved = optimiser.state_dict()
    other = tr.optim.Adam([("p0", Parameter(np.zeros((2, 3)))), ("q", Parameter([0.0]))])
    with pytest.raises(KeyError, match=r"missing: \['q'\], unexpected: \['p1', 'p2', 'p3'\]"):
        other.load_state_dict(saved)
    wrong = tr.optim.Adam([(f"p{i}", Parameter(np.zeros(3))) for i in range(4)])
    with pytest.raises(ShapeError, match=r"p0.exp_avg, p0.exp_avg_sq, p1.exp_avg"):
        wrong.load_state_dict(saved)
    with pytest.raises(ValueError, match="2 parameter groups given, 1 here"):
        optimiser.load_state_dict({**saved, "groups": saved["groups"] * 2})
    with pytest.raises(ValueError, match="options"):
        tr.optim.SGD([(f"p{i}", p) for i, p in enumerate(ps)]).load_state_dict(saved)


def test_loading_is_all_or_nothing() -> None:
    """Options that bring moments the state lacks, or that are out of range, leave the optimiser as it was."""
    p = Parameter([1.0])
    optimiser = tr.optim.SGD([p], lr=0.5)
    p.grad = tr.Tensor([1.0])
    optimiser.step()
    saved = optimiser.state_dict()
    for change, message in (({"momentum": 0.9}, "0.momentum_buffer"), ({"lr": -1.0}, "lr must be finite")):
        with pytest.raises(ValueError, match=message):
            optimiser.load_state_dict({**saved, "groups": [{**saved["groups"][0], **change}]})
        group = {**optimiser.param_groups[0], "params": ["0"]}
        assert group == saved["groups"][0]
    with pytest.raises(TypeError):
        optimiser.load_state_dict({**saved, "groups": [{**saved["groups"][0], "lr": "fast"}]})
    assert optimiser.param_groups[0]["lr"] == 0.5
    optimiser.load_state_dict(saved)


KINDS: dict[str, Any] = {
    "SGD": lambda ps: tr.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda ps: tr.optim.RMSprop(ps, momentum=0.5, centered=True),
    "Adam": tr.optim.Adam,
    "AdamW": tr.optim.AdamW,
}
# What is done to the last group, or to the last parameter's entry with one of its moments, of a state.
BREAKAGES: dict[str, Any] = {
    "lr NaN": lambda group, entry, m: group.update(lr=float("nan")),
    "lr infinite": lambda group, entry, m: group.update(lr=float("inf")),
    "lr in words": lambda group, entry, m: group.update(lr="0.1"),
    "lr None": lambda group, entry, m: group.update(lr=None),
    "lr complex": lambda group, entry, m: group.update(lr=1j),
    "two rates": lambda group, entry, m: group.update(lr=np.array([0.1, 0.2])),
    "decay below 0": lambda group, entry, m: group.update(weight_decay=-1),
    "an option missing": lambda group, entry, m: group.pop("weight_decay"),
    "an option more": lambda group, entry, m: group.update(amsgrad=True),
    "params missing": lambda group, entry, m: group.pop("params"),
    "another name": lambda group, entry, m: group.update(params=["a", "x"]),
    "a name less": lambda group, entry, m: group["params"].pop(),
    "step missing": lambda group, entry, m: entry.pop("step"),
    "step None": lambda group, entry, m: entry.update(step=None),
    "step in words": lambda group, entry, m: entry.update(step="three"),
    "half a step": lambda group, entry, m: entry.update(step=1.5),
    "step below 0": lambda group, entry, m: entry.update(step=-1),
    "step NaN": lambda group, entry, m: entry.update(step=float("nan")),
    "steps": lambda group, entry, m: entry.update(step=np.array([1, 2])),
    "moment missing": lambda group, entry, m: entry.pop(m),
    "moment None": lambda group, entry, m: entry.update({m: None}),
    "moment of text": lambda group, entry, m: entry.update({m: np.array(["1", "2"])}),
    "moment of objects": lambda group, entry, m: entry.update({m: np.array([{}, {}], object)}),
    "moment complex": lambda group, entry, m: entry.update({m: np.array([1j, 2])}),
    "moment of another shape": lambda group, entry, m: entry.update({m: np.zeros(3)}),
    "moment that would broadcast": lambda group, entry, m: entry.update({m: np.zeros(1)}),
    "moment of another kind": lambda group, entry, m: entry.update(max_exp_avg_sq=np.zeros(2)),
}


def trained(kind: str) -> Any:
    ps = [("a", Parameter([1.0, 2.0, 3.0])), ("b", Parameter([4.0, 5.0]))]
    optimiser = KINDS[kind]([{"params": ps[:1], "lr": 0.5}, {"params": ps[1:]}])
    for _ in range(3):
        for _, p in ps:
            p.grad = tr.Tensor(np.full(p.shape, 0.25, np.float32))
        optimiser.step()
    return optimiser


def everything(optimiser: Any) -> str:
    state = optimiser.state_dict()
    return repr(
        (state["groups"], {k: {m: np.asarray(v).tolist() for m, v in e.items()} for k, e in state["state"].items()})
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", BREAKAGES)
def test_a_load_that_fails_anywhere_has_changed_nothing(kind: str, case: str) -> None:
    """All that comes before the entry at fault differs from what is there, and would be seen."""
    optimiser, other = trained(kind), trained(kind)
    before = everything(optimiser)
    state = other.state_dict()
    state["groups"][0]["lr"] = 0.75
    for entry in state["state"].values():
        entry["step"] = 9
        entry |= {m: np.full(entry[m].shape, 7.0, np.float32) for m in entry if m != "step"}
    good = {**state, "groups": [dict(group) for group in state["groups"]]}
    good["state"] = {name: dict(entry) for name, entry in state["state"].items()}
    state["groups"][1]["params"] = list(state["groups"][1]["params"])
    BREAKAGES[case](state["groups"][1], state["state"]["b"], optimiser.moments[-1])
    with pytest.raises((KeyError, ValueError, TypeError)):
        optimiser.load_state_dict(state)
    assert everything(optimiser) == before
    optimiser.load_state_dict(good)
    assert everything(optimiser) != before and optimiser.state_dict()["state"]["b"]["step"] == 9


@pytest.mark.parametrize(
    "state", [None, {}, {"groups": []}, {"groups": None, "state": {}}, {"groups": [1], "state": 3}]
)
def test_what_is_no_state_is_refused(state: Any) -> None:
    optimiser = trained("Adam")
    before = everything(optimiser)
    with pytest.raises((KeyError, ValueError, TypeError, AttributeError)):
        optimiser.load_state_dict(state)
    assert everything(optimiser) == before


def test_a_state_shares_nothing_with_its_optimiser() -> None:
    rate = np.array(0.5)
    optimiser = tr.optim.Adam([Parameter([1.0])], lr=rate, betas=(np.float32(0.5), 0.75))
    saved = optimiser.state_dict()
    rate *= 2
    assert saved["groups"][0]["lr"] == 0.5 and type(saved["groups"][0]["lr"]) is float
    given = {**saved, "groups": [{**saved["groups"][0], "betas": [0.25, 0.5], "lr": rate}]}
    optimiser.load_state_dict(given)
    given["groups"][0]["betas"][0] = 2.0
    rate *= 2
    assert optimiser.param_groups[0]["betas"] == [0.25, 0.5] and optimiser.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize(("option", "value"), [("nesterov", "no"), ("momentum", "0.9"), ("lr", None), ("lr", [0.1])])
def test_an_option_that_is_no_number_is_named(option: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"SGD: {option} must be "):
        tr.optim.SGD([Parameter([1.0])], **{"momentum": 0.9, option: value})


def test_a_centred_variance_that_rounds_below_zero_is_zero() -> None:
    """In float32 the mean of g² may come out below the square of the mean of g; PyTorch then takes a root of it."""
    p = Parameter(np.zeros(200, np.float32))
    optimiser = tr.optim.RMSprop([p], alpha=0.5, eps=1e-3, centered=True)
    for _ in range(40):
        p.grad = tr.Tensor(np.linspace(0.1, 3.0, 200, dtype=np.float32))
        optimiser.step()
    assert np.isfinite(p.numpy()).all()


@pytest.mark.parametrize("make", [tr.optim.SGD, tr.optim.RMSprop, tr.optim.Adam, tr.optim.AdamW])
def test_an_option_that_is_a_numpy_or_tensor_scalar_keeps_float32(make: Any) -> None:
    results = []
    for rate in (0.5, np.float64(0.5), np.array(0.5), tr.Tensor(0.5)):
        p = tr.nn.Parameter([1.0, 2.0])
        optimiser = make([p], lr=0.1, weight_decay=np.float64(0.01))
        optimiser.param_groups[0]["lr"] = rate
        for _ in range(2):
            optimiser.zero_grad()
            (p * p).sum().backward()
            optimiser.step()
        assert p.dtype == np.float32
        results.append(p.tolist())
    assert all(result == results[0] for result in results)


# --- float16: the moments and the step are float32 ----------------------------------------------------------------

HALVES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.5}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "weight_decay": 1e-3}),
    ("AdamW", {"lr": 0.01}),
]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-4, 1e-2, 1.0, 3e4])
@pytest.mark.parametrize(("name", "options"), HALVES)
def test_steps_of_float16_are_those_of_float32(
    name: str, options: dict[str, Any], scale: float, compiled: bool
) -> None:
    """At a gradient of 0, at those whose squares are no float16, and at those whose squares are too large."""
    options = {**options, "lr": options["lr"] / max(scale, 1)} if name == "SGD" else options
    rng = np.random.default_rng(0)
    p = Parameter(rng.uniform(0.5, 2, 8).astype("float16"))
    optimiser = getattr(tr.optim, name)([p], **options)
    expected, state = p.numpy().astype(float), {}
    still = expected

    def step(g: Any) -> None:
        p.grad = g
        optimiser.step()

    called = tr.compile(step) if compiled else step
    for _ in range(6):
        g = (rng.uniform(0.3, 1, 8) * np.array([1, -1] * 4) * scale).astype("float16")
        g[:2] = 0  # never looked up
        called(tr.Tensor(g))
        expected = RULES[name](expected, g.astype(float), state, {"lr": 0.01, **options})
        assert p.dtype == "float16"
        np.testing.assert_allclose(p.numpy().astype(float), expected, atol=1.5e-3)
        expected = p.numpy().astype(float)  # what is left of a step in float16 is rounded, once
    if scale and name != "SGD":
        assert np.all(abs(expected - still)[2:] > 0.02)
    moments = optimiser.state_dict()["state"]["0"]
    assert all(moments[m].dtype == "float32" for m in optimiser.moments)


def test_a_row_of_float16_that_is_not_looked_up_stays() -> None:
    tr.manual_seed(0)
    table = tr.nn.Embedding(3, 2, dtype="float16")
    before = table.weight.tolist()
    optimiser = tr.optim.Adam(table.parameters())
    tr.square(table([0, 1])).sum().backward()
    optimiser.step()
    assert table.weight.tolist()[2] == before[2] and table.weight.tolist()[0] != before[0]


def test_moments_of_float16_are_saved_and_loaded_as_float32() -> None:
    p, q = (Parameter(np.ones(3, "float16")) for _ in range(2))
    first, second = tr.optim.Adam([p], lr=0.01), tr.optim.Adam([q], lr=0.01)
    for k in range(3):
        p.grad = tr.Tensor(np.full(3, 1e-4 * (k + 1), "float16"))
        first.step()
    q.assign_(p)
    second.load_state_dict(first.state_dict())
    for optimiser, parameter in ((first, p), (second, q)):
        parameter.grad = tr.Tensor(np.full(3, 1e-4, "float16"))
        optimiser.step()
    assert p.tolist() == q.tolist()
    old = {"step": 1, "exp_avg": np.full(3, 0.1, "float16"), "exp_avg_sq": np.full(3, 0.1, "float16")}
    second.load_state_dict({**first.state_dict(), "state": {"0": old}})
    assert second.state_dict()["state"]["0"]["exp_avg"].dtype == "float32"
    module = tr.nn.Linear(2, 2)
    optimiser = tr.optim.Adam(module.parameters())
    for dtype in ("float32", "float16", "float64"):  # on the way the moments follow
        module.to(dtype)
        module(tr.ones(1, 2, dtype=dtype)).sum().backward()
        optimiser.step()
        kept = optimiser.state_dict()["state"]["0"]["exp_avg"].dtype
        assert kept == ("float64" if dtype == "float64" else "float32")
        optimiser.zero_grad()


def test_an_option_that_is_set_where_nobody_looks_is_refused() -> None:
    optimizer = tr.optim.Adam([tr.nn.Parameter([1.0])])
    with pytest.raises(AttributeError, match=r"Adam has 'lr' in each of its groups: .*group\['lr'\] = "):
        optimizer.lr = 0.1
    optimizer.note = "mine"

    class Own(tr.optim.SGD):
        """Reads an attribute of its own."""

    own = Own([tr.nn.Parameter([1.0])], lr=0.1)
    own.lr = 0.2
    assert own.lr == 0.2 and own.param_groups[0]["lr"] == 0.1


def test_the_parameters_of_a_group_stay() -> None:
    """The optimiser goes by its own list, so that another one in the group would give options to the wrong ones."""
    a, b, c = (tr.nn.Parameter([1.0]) for _ in range(3))
    optimizer = tr.optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.5}], lr=0.1)
    group = optimizer.param_groups[0]
    for write in (
        lambda: group.__setitem__("params", [a, c]),
        lambda: group.update(params=[c]),
        lambda: group.update({"lr": 2.0, "params": ()}),
        lambda: group.__ior__({"params": [c]}),
        lambda: group.pop("params"),
        lambda: group.__delitem__("params"),
        lambda: group.clear(),
        lambda: group.popitem(),
        lambda: group["params"].append(c),
        lambda: group["params"].remove(a),
    ):
        with pytest.raises(AttributeError):
            write()
        assert group["params"] == (a,) and group["lr"] == 1.0
    group.update(group)
    group["params"] = group["params"]
    optimizer.load_state_dict(copy.deepcopy(optimizer).state_dict())
    for p in (a, b, c):
        p.grad = tr.ones(1)
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == [0.0, 0.5, 1.0]


def test_what_is_no_state_is_refused_by_its_form() -> None:
    p = tr.nn.Parameter([1.0])
    optimizer = tr.optim.Adam([p])
    p.grad = tr.ones(1)
    optimizer.step()
    good = optimizer.state_dict()
    assert good["state"]
    for wrong in (
        None, [], 5, "state", {}, {"groups": good["groups"]}, {**good, "groups": None}, {**good, "groups": 1.5},
        {**good, "groups": {}}, {**good, "groups": [None]}, {**good, "groups": [{}]}, {**good, "groups": ["ab"]},
        {**good, "groups": [{**good["groups"][0], "params": None}]}, {**good, "state": []}, {**good, "state": None},
        {**good, "state": {"0": None}}, {**good, "state": {"0": 3}}, {**good, "state": np.zeros(2)},
    ):  # fmt: skip
        with pytest.raises(TypeError, match="load_state_dict of Adam: a state is"):
            optimizer.load_state_dict(wrong)  # type: ignore[arg-type]
    optimizer.load_state_dict(good)
