"""Module: what it finds, names, saves, loads, moves and shows."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.errors import DTypeError, ImmutableError, ShapeError
from tinygrad_rnn.nn import Linear, Module, ModuleList, Parameter, Sequential


class Block(Module):
    def __init__(self) -> None:
        self.inner = Linear(2, 3)
        self.scale = Parameter([1.0])
        self.register_buffer("mean", np.zeros(3))
        self.register_buffer("count", np.zeros((), int))
        self.note = tr.zeros(5)  # a tensor, but neither a parameter nor a buffer

    def forward(self, x: Any) -> Any:
        return self.inner(x) * self.scale


class Net(Module):
    def __init__(self) -> None:
        self.blocks = [Block(), Block()]
        self.pair = (Parameter([2.0]), "text")
        self.head = Linear(3, 2, bias=False)


NAMES = [
    "pair.0",
    "blocks.0.scale",
    "blocks.0.inner.weight",
    "blocks.0.inner.bias",
    "blocks.1.scale",
    "blocks.1.inner.weight",
    "blocks.1.inner.bias",
    "head.weight",
]


def test_parameters_are_named_ordered_and_unique() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert len({id(p) for p in net.parameters()}) == len(NAMES)
    assert [name for name, _ in net.named_buffers()] == [
        f"blocks.{i}.{name}" for i in (0, 1) for name in ("mean", "count")
    ]
    names = ["", "blocks.0", "blocks.0.inner", "blocks.1", "blocks.1.inner", "head"]
    assert [name for name, _ in net.named_modules()] == names
    assert next(net.modules()) is net


def test_tied_parameters_are_listed_once_and_load_under_either_name() -> None:
    class Tied(Module):
        def __init__(self) -> None:
            self.embedding = tr.nn.Embedding(5, 3)
            self.head = Linear(3, 5)
            self.head.weight = self.embedding.weight

    model = Tied()
    assert [name for name, _ in model.named_parameters()] == ["embedding.weight", "head.bias"]
    assert list(model.state_dict()) == ["embedding.weight", "head.bias"]
    weight = np.ones((5, 3), "float32")
    model.load_state_dict({"head.weight": weight, "head.bias": np.zeros(5)})
    assert (model.embedding.weight.numpy() == 1).all()
    assert model.head.weight is model.embedding.weight


def test_a_module_used_twice_is_one_module() -> None:
    layer = Linear(2, 2)
    net = Sequential(layer, layer)
    assert len(list(net.modules())) == 2 and len(list(net.parameters())) == 2


def test_a_module_may_point_back_to_its_owner() -> None:
    net = Net()
    net.blocks[0].owner = net  # type: ignore[attr-defined]
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert len(list(net.modules())) == 6 and repr(net).count("Net") == 1


def test_a_misspelt_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="hiden"):
        _ = Net().hiden  # type: ignore[attr-defined]


def test_state_dict_is_a_snapshot() -> None:
    layer = Linear(2, 2)
    before = layer.state_dict()
    values = {name: value.numpy().copy() for name, value in before.items()}
    optimiser = tr.optim.SGD(layer.parameters(), lr=1.0)
    layer(tr.ones(1, 2)).sum().backward()
    optimiser.step()
    for name, value in before.items():
        assert not value.requires_grad
        assert (value.numpy() == values[name]).all()
        assert (layer.state_dict()[name].numpy() != values[name]).any()
    layer.load_state_dict(before)
    assert all((layer.state_dict()[name].numpy() == values[name]).all() for name in values)


def test_loading_lists_everything_that_is_wrong_at_once_and_changes_nothing() -> None:
    net = Net()
    state: dict[str, Any] = dict(net.state_dict())
    before = {name: value.numpy().copy() for name, value in state.items()}
    del state["head.weight"], state["blocks.1.mean"]
    state |= {"tail.weight": np.zeros(1), "blocks.0.scale": np.zeros(2), "pair.0": np.zeros((1, 1))}
    with pytest.raises(KeyError) as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    for part in (
        "missing: head.weight, blocks.1.mean",
        "unexpected: tail.weight",
        "blocks.0.scale: (2,) given, (1,) here",
        "pair.0: (1, 1) given, (1,) here",
    ):
        assert part in message
    assert all((value.numpy() == before[name]).all() for name, value in net.state_dict().items())
    with pytest.raises(ShapeError, match=r"pair.0: \(3,\) given, \(1,\) here"):
        net.load_state_dict({**net.state_dict(), "pair.0": np.zeros(3)})
    net.load_state_dict({"pair.0": np.array([7.0]), "other": np.zeros(1)}, strict=False)
    assert net.pair[0].item() == 7.0
    with pytest.raises(ShapeError):
        net.load_state_dict({"pair.0": np.zeros(3)}, strict=False)


class Deep(Module):
    """Modules in lists in modules, and buffers of every kind."""

    def __init__(self) -> None:
        self.register_buffer("count", np.array([3]))
        self.register_buffer("seen", np.array([True, False]))
        self.blocks = ModuleList([Sequential(Linear(2, 2), ModuleList([Linear(2, 1)])), Linear(1, 1)])
        self.half = Parameter(np.ones(2, np.float16))
        self.last = Linear(2, 3)


REFUSED: dict[str, tuple[str, Any]] = {
    "text": ("last.bias", np.array(["1", "2", "3"])),
    "objects": ("last.bias", np.array([{}, 1, 2], object)),
    "None in a list": ("last.bias", [None, 1.0, 2.0]),
    "None": ("last.bias", None),
    "a dict": ("last.bias", {}),
    "complex numbers": ("last.bias", np.array([1j, 2, 3])),
    "dates": ("last.bias", np.array(["2020-01-01"] * 3, "M8[D]")),
    "a ragged list": ("last.bias", [[1], [1, 2], 3]),
    "another shape": ("last.bias", np.zeros(4)),
    "a shape that would broadcast": ("last.bias", np.zeros(1)),
    "a number": ("last.bias", 1.0),
    "a fraction in a count": ("count", [1.5]),
    "NaN in a count": ("count", [np.nan]),
    "a count beyond its type": ("count", np.array([2**63], np.uint64)),
    "2 as a truth": ("seen", [0, 2]),
    "an infinity by the cast": ("last.bias", np.array([1e300, 0, 0])),
    "an infinity in float16": ("half", np.array([7e4, 0], np.float32)),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("strict", [True, False])
def test_a_load_that_fails_in_any_entry_has_changed_nothing(case: str, strict: bool) -> None:
    net = Deep()
    name, value = REFUSED[case]
    before = {key: x.numpy() for key, x in net.state_dict().items()}
    state: dict[str, Any] = {key: np.ones(x.shape, x.dtype) for key, x in before.items()}
    del state[name]
    with pytest.raises((DTypeError, ShapeError), match=re.escape(name)):
        net.load_state_dict({**state, name: value}, strict=strict)
    assert all(np.array_equal(x.numpy(), before[key]) for key, x in net.state_dict().items())


def test_a_load_that_is_broken_off_has_changed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory, Ctrl-C, a buffer that is a computed tensor: whatever it is, in the middle of the assignments."""
    net = Deep()
    before = {key: x.numpy() for key, x in net.state_dict().items()}
    state = {key: np.ones(x.shape, x.dtype) for key, x in before.items()}
    real = tr.Tensor.assign_

    def assign(self: tr.Tensor, value: Any) -> tr.Tensor:
        if self is net.last.bias:
            raise KeyboardInterrupt
        return real(self, value)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tr.Tensor, "assign_", assign)
        net.load_state_dict(state)
    net.register_buffer("tail", net.half * 2)
    with pytest.raises(ImmutableError):
        net.load_state_dict({**state, "tail": np.ones(2)})
    assert all(np.array_equal(net.state_dict()[key].numpy(), before[key]) for key in before)


def test_what_fits_is_loaded_whatever_it_came_as() -> None:
    net = Deep()
    given = {"count": [7.0], "seen": [1, 0], "half": [0.1, float("inf")], "last.bias": np.arange(3, dtype=">i2")}
    net.load_state_dict(given, strict=False)
    assert net.count.tolist() == [7] and net.seen.tolist() == [True, False] and net.last.bias.tolist() == [0, 1, 2]
    assert net.half.tolist() == [float(np.float16(0.1)), float("inf")]


def test_a_tied_parameter_has_one_value() -> None:
    net = Sequential(Linear(2, 2, bias=False), Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    one, two = np.ones((2, 2)), np.full((2, 2), 2.0)
    before = net[0].weight.numpy()
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight are one parameter, but two values are given"):
        net.load_state_dict({"0.weight": one, "1.weight": two})
    assert np.array_equal(net[0].weight.numpy(), before)
    net.load_state_dict({"0.weight": two, "1.weight": two})
    assert net[1].weight.tolist() == two.tolist()


def test_loading_casts_to_the_dtype_of_the_module_and_copies() -> None:
    layer = Linear(1, 1, bias=False)
    value = np.array([[0.1]])
    layer.load_state_dict({"weight": value})
    value[:] = 5
    assert layer.weight.dtype == np.float32 and layer.weight.numpy()[0, 0] == np.float32(0.1)


def test_modes_reach_everything() -> None:
    net = Net()
    assert net.training and net.blocks[0].inner.training
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())


def test_to_changes_the_dtype_of_floats_in_place() -> None:
    net = Net()
    net.head(tr.ones(1, 3)).sum().backward()
    weight = net.head.weight
    assert net.to("float64") is net
    assert net.head.weight is weight and weight.dtype == np.float64 and weight.grad is None
    assert {p.dtype for p in net.parameters()} == {np.dtype("float64")}
    assert net.blocks[0].mean.dtype == np.float64 and net.blocks[0].count.dtype == np.int64
    net.head(tr.ones(1, 3, dtype="float64")).sum().backward()
    assert weight.grad is not None and weight.grad.dtype == np.float64
    net.to("float64", "cpu")
    assert weight.grad is not None  # nothing moved


def test_zero_grad() -> None:
    layer = Linear(2, 2)
    layer(tr.ones(1, 2)).sum().backward()
    layer.zero_grad()
    assert all(p.grad is None for p in layer.parameters())


def test_repr_shows_shapes_and_counts() -> None:
    net = Sequential(tr.nn.Embedding(10, 4), tr.nn.Dropout(0.5), tr.tanh, Linear(4, 1, bias=False))
    assert repr(net) == (
        "Sequential, 44 parameters\n"
        "  0: Embedding(10, 4), 40 parameters\n"
        "    weight (10, 4)\n"
        "  1: Dropout(0.5)\n"
        "  2: Function(tanh)\n"
        "  3: Linear(4, 1, bias=False), 4 parameters\n"
        "    weight (1, 4)"
    )
    assert repr(tr.nn.LSTM(1, 2, num_layers=2, dropout=0.1, fused=False)).startswith(
        "LSTM(1, 2, num_layers=2, dropout=0.1, fused=False), 88 parameters\n  weight_ih_l0 (8, 1)\n"
    )
    assert repr(tr.nn.RNN(1, 1, nonlinearity="relu")).startswith("RNN(1, 1, nonlinearity='relu'), 4 parameters")
    assert repr(Parameter([1.0])).startswith("Parameter([1.]")


def test_lists_and_sequences_of_modules() -> None:
    layers = ModuleList(Linear(2, 2) for _ in range(3))
    assert len(layers) == 3 and layers[-1] is list(layers)[2] and len(layers[1:]) == 2
    net = Sequential(Linear(2, 3), tr.relu, Linear(3, 1))
    assert net(tr.ones(5, 2)).shape == (5, 1)
    assert isinstance(net[:2], Sequential) and net[:2](tr.ones(5, 2)).shape == (5, 3)
    with pytest.raises(TypeError, match="holds modules"):
        ModuleList([3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="functions"):
        Sequential(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_modules_are_copied_and_pickled(clone: Any) -> None:
    layer = tr.nn.LSTM(2, 3)
    other = clone(layer)
    x = tr.ones(4, 1, 2)
    assert (layer(x)[0].numpy() == other(x)[0].numpy()).all()
    assert all(isinstance(p, Parameter) and p.requires_grad for p in other.parameters())
    other.weight_hh_l0.assign_(np.zeros((12, 3)))
    assert (layer.weight_hh_l0.numpy() != 0).any()


def test_parameters_can_be_frozen() -> None:
    assert not Parameter([1.0], requires_grad=False).requires_grad
    assert Parameter([1.0], dtype="float64").dtype == np.float64


def module_with(name: str, value: Any) -> Any:
    class Made(Module):
        def __init__(self) -> None:
            self.a = Linear(1, 1)
            setattr(self, name, value)

    return Made


@pytest.mark.parametrize(
    "value", [Parameter([1.0]), Linear(1, 1), [Parameter([1.0])], (1, Linear(1, 1)), ModuleList([Linear(1, 1)])]
)
@pytest.mark.parametrize("name", ["a.weight", "b.c", ".", ""])
def test_a_part_of_a_module_has_no_dot_in_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="cannot name a part of a module"):
        module_with(name, value)()
    module_with("a.note", 3)()  # no part of it


@pytest.mark.parametrize("name", ["weight", "inner", "forward", "to", "a.b", ""])
def test_a_buffer_takes_no_name_of_another_part(name: str) -> None:
    class Made(Module):
        def __init__(self) -> None:
            self.weight, self.inner = Parameter([1.0]), Linear(1, 1)
            self.register_buffer(name, np.ones(2))

        def forward(self, x: Any) -> Any:
            return x

    with pytest.raises(ValueError, match="cannot name a"):
        Made()
    block = Block()
    block.register_buffer("mean", np.ones(2))  # its own anew
    assert block.mean.tolist() == [1.0, 1.0] and [n for n, _ in block.named_buffers()] == ["mean", "count"]
    with pytest.raises(ValueError, match="is not trained"):
        block.register_buffer("other", Parameter([1.0]))


@pytest.mark.parametrize("value", [np.zeros((1, 1)), [[0.0]], Linear(1, 1), 0.0])
def test_what_a_module_lists_is_not_replaced_by_what_it_does_not(value: Any) -> None:
    layer, norm = Linear(1, 1), tr.nn.BatchNorm1d(1)
    with pytest.raises(TypeError, match="'weight' is a parameter"):
        layer.weight = value
    with pytest.raises(TypeError, match="'running_mean' is a buffer"):
        norm.running_mean = value
    new = Parameter([[3.0]])
    layer.weight, layer.bias, norm.running_mean = new, None, tr.ones(1)  # a parameter, none, another tensor
    assert [p is new for p in layer.parameters()] == [True] and norm.state_dict()["running_mean"].tolist() == [1.0]
    del layer.weight
    layer.weight = value
    assert not list(layer.parameters()) or isinstance(value, Linear)


def test_two_parameters_of_one_name_are_not_saved() -> None:
    net = Sequential(Linear(1, 1))
    vars(net)["0.weight"] = Parameter([1.0])  # past __setattr__
    with pytest.raises(ValueError, match="two parameters or buffers have one name"):
        net.state_dict()


@pytest.mark.parametrize(
    "name", ["Conv1d", "BatchNorm2d", "MaxPool1d", "AvgPool2d", "LSTMCell", "GRU", "LogSoftmax", "Linear"]
)
def test_a_wrong_option_names_the_layer(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}\.__init__\(\) got an unexpected keyword argument 'strid'"):
        getattr(tr.nn, name)(strid=2)


def test_an_init_of_a_base_is_called_by_super_too() -> None:
    class Mine(tr.nn.Conv1d):
        def __init__(self, channels: int) -> None:
            super().__init__(channels, channels, 1)

    assert Mine(2).weight.shape == (2, 2, 1)


def test_a_mode_is_a_boolean() -> None:
    layer = tr.nn.Sequential(tr.nn.Linear(1, 1), tr.nn.Dropout())
    for wrong in ("no", None, 0, 1.0, tr.nn.Parameter([1.0]), []):
        with pytest.raises(TypeError, match="Sequential: training must be True or False, not"):
            layer.train(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="Dropout: training must be True or False, not"):
            layer[1].training = wrong  # type: ignore[assignment]
    assert layer.training and not layer.train(np.bool_(False)).training


def test_a_module_is_not_frozen_without_effect() -> None:
    layer = tr.nn.Linear(1, 1)
    with pytest.raises(AttributeError, match=r"requires_grad is of parameters, .* p.requires_grad = False"):
        layer.requires_grad = False

    class Own(tr.nn.Module):
        requires_grad: bool = True  # of its own

    own = Own()
    own.requires_grad = False
    assert not own.requires_grad
    for wrong in ("no", 1, 0.0, [True]):
        with pytest.raises(TypeError, match="requires_grad must be True or False, not"):
            layer.weight.requires_grad = wrong  # type: ignore[assignment]
    with pytest.raises(TypeError, match="requires_grad must be True or False, not 'no'"):
        tr.Tensor([1.0], requires_grad="no")  # type: ignore[arg-type]
    layer.weight.requires_grad = np.bool_(False)  # type: ignore[assignment]
    assert not layer.weight.requires_grad


def test_what_is_loaded_has_names() -> None:
    for wrong in ([1.0], None, "weights", tr.ones(1)):
        with pytest.raises(TypeError, match="load_state_dict of Linear: tensors or arrays by name, not"):
            tr.nn.Linear(1, 1).load_state_dict(wrong)  # type: ignore[arg-type]
