"""No write is lost: to a leaf it is one, to what only looks like the leaf it is an error."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.errors import ImmutableError

nn = tr.nn


def trained():
    p = nn.Parameter([1.0, 2.0])
    (p * 3).sum().backward()
    return p


def test_assign_is_for_leaves_that_were_made():
    for make in (
        lambda: tr.Tensor([1.0, 2.0]),
        lambda: tr.zeros(2),
        lambda: tr.ones_like(tr.zeros(2)),
        lambda: tr.zeros_like(tr.ones(2)),
        lambda: tr.rand(2),
        lambda: tr.arange(2, dtype="float32"),
        lambda: nn.Parameter([1.0, 2.0]),
        lambda: tr.Tensor(trained().detach()),
        lambda: copy.deepcopy(tr.ones(2)),
        lambda: pickle.loads(pickle.dumps(tr.ones(2))),  # noqa: S301 (our own)
    ):
        t = make()
        assert t.assign_([7, 8]) is t and t.tolist() == [7.0, 8.0]
    frozen = nn.Parameter([1.0, 2.0], requires_grad=False)
    assert frozen.assign_([7, 8]).tolist() == [7.0, 8.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: p.detach(),
        lambda p: p.grad,
        lambda p: p.grad.detach(),
        lambda p: p.T,
        lambda p: p.detach()[0:1],
        lambda p: tr.zeros(3)[0],
        lambda p: tr.zeros(6).reshape(2, 3),
        lambda p: next(iter(tr.zeros(3))),
        lambda p: tr.split(tr.zeros(4), 2)[0],
        lambda p: tr.zeros(2) + 1,
        lambda p: nn.Linear(1, 1).state_dict()["weight"],
        lambda p: nn.BatchNorm1d(2).state_dict()["running_mean"],
    ],
)
def test_assign_to_what_nothing_else_would_see_is_an_error(make):
    p = trained()
    t = make(p)
    with pytest.raises(ImmutableError):
        t.assign_(np.full(t.shape, 7.0))
    assert p.tolist() == [1.0, 2.0] and p.grad.tolist() == [3.0, 3.0]


def test_a_tensor_that_is_made_a_leaf_takes_new_values():
    t = trained().detach()
    t.requires_grad = True
    assert t.assign_([5, 6]).tolist() == [5.0, 6.0]
    t.requires_grad = False
    assert t.assign_([7, 8]).tolist() == [7.0, 8.0]
    t *= 2
    assert t.tolist() == [14.0, 16.0]


def test_the_gradient_changes_in_place_where_it_is_set():
    p = trained()
    p.grad *= 0.5
    p.grad += 1.0
    p.grad -= 0.5
    p.grad /= 2
    p.grad **= 2
    assert p.grad.tolist() == [1.0, 1.0]
    model = nn.Sequential(nn.Linear(1, 1))
    model([[2.0]]).sum().backward()
    for q in model.parameters():
        q.grad *= 0.5
    model[0].weight.grad *= 3
    assert model[0].weight.grad.tolist() == [[3.0]] and model[0].bias.grad.tolist() == [0.5]
    exec("p.grad *= 4", {"p": p})
    assert p.grad.tolist() == [4.0, 4.0]


def test_a_gradient_by_another_name_does_not_change_in_place():
    p = trained()
    g, many = p.grad, [p.grad]

    class Own:
        other = p.grad

    with pytest.raises(ImmutableError, match=r"p\.grad \*= 2"):
        g *= 0
    with pytest.raises(ImmutableError, match=r"p\.grad \*= 2"):
        many[0] += 1
    with pytest.raises(ImmutableError, match=r"p\.grad \*= 2"):
        Own.other *= 2
    with pytest.raises(ImmutableError):
        exec("g = p.grad\ng *= 2", {"p": p})
    for h in many:
        with pytest.raises(ImmutableError):
            h -= 1
    own = p.grad * 2
    own *= 2
    assert own.tolist() == [12.0, 12.0] and p.grad.tolist() == [3.0, 3.0]


def test_the_values_of_a_leaf_at_one_time_are_to_read():
    p = trained()
    for values in (p.detach(), p.detach().detach(), nn.Linear(1, 1).state_dict()["bias"], p.grad.detach()):
        with pytest.raises(ImmutableError, match="would not reach the leaf"):
            values *= 0.5
    held = {"w": p.detach()}
    held["w"] *= 2  # the dictionary has it
    assert held["w"].tolist() == [2.0, 4.0] and p.tolist() == [1.0, 2.0]
    state = (p * 2).detach()  # nobody's leaf: carried on, and one's own
    state *= 0.5
    assert state.tolist() == [1.0, 2.0]


def test_a_state_dict_is_edited_and_loaded():
    layer = nn.Linear(1, 1)
    state = layer.state_dict()
    state["weight"] *= 0.0
    layer.load_state_dict(state)
    assert layer.weight.tolist() == [[0.0]]
    with pytest.raises(ImmutableError):
        for value in state.values():
            value += 1


def test_data_is_read():
    p = trained()
    with pytest.raises(ImmutableError, match="assign_"):
        p.data = np.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        p.data *= 2
    for array in (p.data, p.numpy(), np.asarray(p.detach()), p.grad.numpy()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_numpy_writes_nowhere_in_silence():
    t, a = tr.zeros(2), np.zeros(2)
    for write in (
        lambda: np.add(a, 1, out=t),
        lambda: np.add(t, 1, out=a),
        lambda: np.copyto(t, a),
        lambda: np.put(t, 0, 1),
        lambda: np.add.at(t, 0, 1),
        lambda: a.__iadd__(t),
    ):
        with pytest.raises(TypeError):
            write()


# --- buffers --------------------------------------------------------------------------------------------------------


def test_a_buffer_changes_in_place_under_any_name():
    norm = nn.BatchNorm1d(2)
    running = norm.running_var
    running += 2.0
    for buffer in norm.buffers():
        buffer *= 2
    norm.running_mean += 1.0
    assert norm.running_var.tolist() == [6.0, 6.0] and norm.running_mean.tolist() == [1.0, 1.0]
    assert norm.running_var is running and next(norm.named_buffers())[0] == "running_mean"
    norm.running_mean = tr.zeros(2)  # another tensor is the buffer from now on
    other = norm.running_mean
    other += 5.0
    assert norm.running_mean.tolist() == [5.0, 5.0]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301 (our own)
def test_a_buffer_of_a_copy_is_one(clone):
    norm = clone(nn.BatchNorm1d(2))
    running = norm.running_var
    running += 2.0
    assert norm.running_var.tolist() == [3.0, 3.0]


def test_the_moments_of_an_optimisers_state_are_to_read():
    p = trained()
    optimiser = tr.optim.SGD([p], lr=0.1, momentum=0.5)
    optimiser.step()
    state = optimiser.state_dict()
    moments = state["state"]["0"]
    with pytest.raises(ImmutableError):
        moments["momentum_buffer"].assign_([0.0, 0.0])
    moments["momentum_buffer"] *= 0.0  # edited, and loaded
    optimiser.load_state_dict(state)
    assert optimiser.state_dict()["state"]["0"]["momentum_buffer"].tolist() == [0.0, 0.0]


def test_a_computed_buffer_is_one_and_takes_new_values():
    module = nn.Tanh()
    module.register_buffer("mean", tr.ones(2) / 4)
    module.mean.assign_([1, 2])
    assert module.mean.tolist() == [1.0, 2.0]


def test_a_frozen_parameter_stays_one():
    layer = nn.Linear(1, 1)
    layer.weight.requires_grad = False
    with pytest.raises(ImmutableError, match="frozen"):
        layer.weight *= 0.5
    with pytest.raises(ImmutableError, match="would not reach"):
        values = layer.weight.detach()
        values *= 2
    assert len(list(layer.parameters())) == 2


# --- in a hook ------------------------------------------------------------------------------------------------------


def in_place(g):
    g *= 2
    g += 1


def in_place_and_returned(g):
    g *= 2
    g += 1
    return g


def assigned(g):
    g.assign_([7.0, 9.0])


def returned(g):
    g *= 100
    return tr.Tensor([7.0, 9.0])


@pytest.mark.parametrize(
    ("hook", "expected"),
    [(in_place, [7, 9]), (in_place_and_returned, [7, 9]), (assigned, [7, 9]), (returned, [7, 9])],
)
def test_a_write_in_a_hook_is_what_the_hook_makes_of_the_gradient(hook, expected):
    p = nn.Parameter([1.0, 2.0])
    p.register_hook(hook)
    (p * [3.0, 4.0]).sum().backward()
    assert p.grad.tolist() == expected


def test_a_write_in_a_hook_has_a_derivative():
    x = tr.Tensor([1.0, 2.0], requires_grad=True)
    x.register_hook(in_place)
    dx = tr.grad((x * x * x).sum(), x, create_graph=True)
    assert dx.tolist() == [7.0, 25.0]  # 2 * 3 x² + 1
    (twice,) = tr.grad(dx.sum(), [x])
    assert twice.tolist() == [2 * 12.0 + 1, 2 * 24.0 + 1]  # through the hook once more
