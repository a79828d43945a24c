"""check_module is itself checked: right modules pass, and each kind of broken one is refused, by the law it breaks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn import nn
from tinygrad_rnn.tensor.random import generator
from tinygrad_rnn.testing import GradientError, Integer, KinkError, LawError, check_module
from tinygrad_rnn.testing.modules import check_case
from tinygrad_rnn.testing.strategies import arrays, shapes

LAWS = {
    "state", "repeats", "shape", "dtype", "no mutation", "no aliasing", "layout", "linear", "reached", "gradient",
    "second derivative", "zero", "transpose", "backward", "frozen", "modes", "float32", "backend",
}  # fmt: skip


class Affine(nn.Module):
    """x W + b, the base of everything that is broken below."""

    def __init__(self):
        self.weight = nn.Parameter(tr.randn(3, 2))
        self.bias = nn.Parameter(tr.zeros(2))

    def forward(self, x):
        return x @ self.weight + self.bias


# --- right modules pass -------------------------------------------------------------------------------------


def test_a_right_module_passes_every_law():
    counts = check_module(Affine, "*3", order=2, examples=20)
    assert counts == dict.fromkeys(LAWS, 20)


class TwoInputs(nn.Module):
    def __init__(self):
        self.gate = nn.Parameter(tr.zeros(2))

    def forward(self, x, state, steps, mask, scale=1.0):
        h, (c,) = state
        y = tr.where(mask, x * tr.sigmoid(self.gate) * scale, h)
        return y, {"c": c * float(steps.sum().item())}


class Tied(nn.Module):
    def __init__(self):
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.layers = [nn.Parameter(tr.ones(3)), nn.Parameter(tr.ones(3), requires_grad=False)]

    def forward(self, x):
        return self.b(tr.tanh(self.a(x))) * self.layers[0] * self.layers[1]


class Averaged(nn.Module):
    """Takes off the running average, which is the buffer `average`."""

    def __init__(self):
        self.register_buffer("average", tr.zeros(3))
        self.register_buffer("calls", 0)
        self.scale = nn.Parameter(tr.ones(3))

    def forward(self, x):
        """Moves the average in train mode, and counts in `calls`."""
        before = self.average
        if self.is_training() and x.size:
            self.average = (0.9 * before + 0.1 * tr.mean(tr.reshape(x, (-1, 3)), axis=0)).detach()
            self.calls.assign_(self.calls + 1)
        return (x - before) * self.scale


class Unused(Affine):
    def __init__(self):
        super().__init__()
        self.for_later = nn.Parameter(tr.ones(2))


class ReturnsItsWeight(Affine):
    def forward(self, x):
        return self.weight, super().forward(x)


@pytest.mark.parametrize(
    ("factory", "inputs"),
    [
        (TwoInputs, st.tuples(arrays((4, 2)), st.tuples(arrays((4, 2)), st.lists(arrays((2,)), min_size=1, max_size=1)),
                              arrays((3,), Integer(1, 4)), st.just(np.array([[True], [False], [True], [True]])))),
        (Tied, "*3"),
        (Averaged, "*3"),
        (Unused, "*3"),
        (ReturnsItsWeight, "2 3"),
        (lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)), "n3"),
        (lambda: nn.Embedding(5, 2), arrays(shapes(max_dims=2), Integer(0, 5))),
        (Affine, np.ones((4, 3), np.float32)),  # one example of one argument
        (Affine, (np.ones((4, 3)),)),  # of a tuple of them
        (Affine, tr.ones(4, 3)),
    ],
)  # fmt: skip
def test_right_modules_pass(factory, inputs):
    counts = check_module(factory, inputs, examples=20)
    assert counts["gradient"] == counts["frozen"] == counts["reached"] == counts["state"] > 0
    assert set(counts) >= LAWS - {"second derivative", "layout", "backend"}


class Tabled(Affine):
    """Keeps a table of positions for as many rows as it has seen, and one a dtype in a dict."""

    def __init__(self):
        super().__init__()
        self.positions, self.ones = np.zeros((0, 1)), {}

    def forward(self, x):
        if len(self.positions) < x.shape[0]:
            self.positions = np.arange(float(x.shape[0]))[:, None]
        one = self.ones.setdefault(str(x.dtype), tr.ones(2, dtype=x.dtype))
        return super().forward(x) + one * self.positions[: x.shape[0]].astype(x.dtype)


class Checkpointed(Affine):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(2), nn.Dropout(0.4)

    def forward(self, x):
        return tr.checkpoint(lambda v: self.drop(self.norm(tr.checkpoint(super(Checkpointed, self).forward, v))), x)


@pytest.mark.parametrize("factory", [Tabled, Checkpointed, lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_tables_checkpoints_and_derivatives_of_zero_are_right(factory, scale):
    x = scale * np.random.default_rng(0).standard_normal((4, 3))
    assert check_module(factory, x, order=2, examples=6)["modes"] == 6


def test_a_module_without_parameters_has_none_to_reach():
    counts = check_module(nn.Tanh, "*", examples=10)
    assert "reached" not in counts
    assert "frozen" not in counts
    assert counts["gradient"] == 10


# --- wrong ones do not --------------------------------------------------------------------------------------


def module(forward, **parameters):
    """A module of these parameters, in a function that makes it."""

    def made():
        new = type("Broken", (nn.Module,), {"forward": forward})()
        for name, shape in parameters.items():
            setattr(new, name, nn.Parameter(tr.randn(*shape)))
        return new

    return made


@tr.op(lambda g: g, lambda g, b_shape: tr.mean(g, axis=tuple(range(len(g.shape) - 1))) if len(g.shape) > 1 else g)
def add_bias_of_means(a, b):
    return a + b


def mask_of(shape):
    return (generator().random(shape) > 0.5) * 2.0


@tr.op(lambda g, x_shape: g * mask_of(x_shape), None)
def drop(x, mask):
    return x * mask


def cached(self, x):
    if not hasattr(self, "transposed"):
        self.transposed = self.w.mT
    return x @ self.transposed


def remembers(self, x):
    self.last = x
    return x * self.w


def counts_calls(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return x * self.w


def undocumented():
    class Broken(Averaged):
        pass

    Broken.__doc__ = ""
    made = Broken()
    made.register_buffer("silent", tr.zeros(3))
    made.forward = lambda x: (made.silent.assign_(tr.ones(3)), x * made.scale)[1]
    return made


def wanders():
    """A buffer that moves in eval mode, too."""
    made = Averaged()
    made.forward = lambda x: (made.average.assign_(tr.ones(3)), x * made.scale)[1]
    return made


def shares_one_use(self, x):
    return (x @ self.w) @ self.w.detach()


def through_numpy(self, x):
    return x * tr.Tensor(np.array(self.w.detach().numpy()))


def wide(self, x):
    return x * self.w + tr.zeros(3, dtype="float64")


def narrow(self, x):
    return (x * self.w).to("float32").to("float64")


def unfrozen(self, x):
    self.w.requires_grad = True
    return x * self.w


def own_numbers(self, x):
    return x * self.w * float(np.random.default_rng().random())


def writes(self, x):
    if isinstance(x._array, np.ndarray):
        x._array *= 1.0
    return x * self.w


@tr.op(lambda g, y: g * (1 - y * y))
def tanh_as_it_lies(x):
    return np.tanh(np.ravel(x, order="K").reshape(x.shape))


def largest_so_far(self, x):
    self.largest = max(getattr(self, "largest", 0.0), float(np.max(abs(x._array), initial=0.0)))
    return x * self.w


@tr.op(lambda g, y: g * tr.where(tr.abs(y) > 0.9999, 0.0, 1 - y * y))
def stiff(x):
    return np.tanh(x)


@tr.op(lambda g: g * (np.arange(len(g)) < 64).reshape(-1, 1) if isinstance(g, np.ndarray) else g)
def first_rows(x):
    return x * 1.0


@tr.op(lambda g, b: tr.clip(g, -3.0, 3.0) * b, lambda g, a: g * a)
def clipped(a, b):
    return a * b


@tr.op(lambda g, b: g * b, lambda g, a: g * a + 1e-300)
def never_zero(a, b):
    return a * b


@tr.op(lambda g, b: g * b, lambda g, a: g * a * (2.0 if isinstance(g, tr.Tensor) else 1.0))
def wrong_twice(a, b):
    return a * b


SABOTAGED = {
    "the mean for the sum": ("gradient", module(lambda self, x: add_bias_of_means(x, self.b), b=(3,)), "*3"),
    "a detached weight": ("reached", module(lambda self, x: x * self.w.detach(), w=(3,)), "*3"),
    "a weight through NumPy": ("reached", module(through_numpy, w=(3,)), "*3"),
    "one use of two detached": ("gradient", module(shares_one_use, w=(3, 3)), "*3"),
    "a detached input": ("gradient", module(lambda self, x: x.detach() * self.w, w=(3,)), "*3"),
    "another mask in the backward": (
        "gradient",
        module(lambda self, x: drop(x * self.w, mask_of(x.shape)), w=(3,)),
        "*3",
    ),
    "a stale cache": ("state", module(cached, w=(3, 3)), "*3"),
    "keeps its input": ("state", module(remembers, w=(3,)), "*3"),
    "counts its calls": ("state", module(counts_calls, w=(3,)), "*3"),
    "an undocumented buffer": ("state", undocumented, "*3"),
    "a buffer that moves in eval mode": ("state", wanders, "*3"),
    "draws numbers of its own": ("repeats", module(own_numbers, w=(3,)), "*3"),
    "writes to its input": ("no mutation", module(writes, w=(3,)), "*3"),
    "reads memory in its order": (
        "layout",
        module(lambda self, x: tanh_as_it_lies(x) * self.w, w=(3,)),
        arrays((2, 2, 3)),
    ),
    "float64 inside": ("dtype", module(wide, w=(3,)), "*3"),
    "float32 inside": ("dtype", module(narrow, w=(3,)), "*3"),
    "gives itself a gradient": ("frozen", module(unfrozen, w=(3,)), "*3"),
    "a table of what it has seen": ("state", module(largest_so_far, w=(3,)), "*3"),
    "dropout in evaluation": ("modes", module(lambda self, x: nn.functional.dropout(x * self.w, 0.5), w=(3,)), "*3"),
    "cut in training alone": (
        "modes",
        module(lambda self, x: x * (self.w.detach() + 0 * self.w if self.training else self.w), w=(3,)),
        "*3",
    ),
    "a frozen weight stops another": (
        "frozen",
        module(lambda self, x: (x @ self.w) * (self.v if self.w.requires_grad else self.v.detach()), w=(3, 2), v=(2,)),
        "n3",
    ),
    "wrong without gradients of its input": (
        "frozen",
        module(lambda self, x: x * (self.w if x.requires_grad else 0.5 * self.w + 0.5 * self.w.detach()), w=(3,)),
        "*3",
    ),
    "nothing where it saturates": ("gradient", module(lambda self, x: stiff(x * self.w), w=(3,)), np.ones((4, 3))),
    "wrong past 64 rows": ("gradient", module(lambda self, x: first_rows(x * self.w), w=(3,)), np.ones((4, 3))),
    "clips gradients": ("linear", module(lambda self, x: clipped(x, self.w), w=(3,)), "*3"),
    "something for nothing": ("zero", module(lambda self, x: never_zero(x, self.w), w=(3,)), "*3"),
    "wrong on Tensors only": ("transpose", module(lambda self, x: wrong_twice(x, self.w), w=(3,)), "*3"),
    "not finite": ("value", module(lambda self, x: tr.log(x * self.w), w=(3,)), "*3"),
}


@pytest.mark.parametrize("name", SABOTAGED)
def test_refuses_what_is_broken(name):
    law, factory, inputs = SABOTAGED[name]
    with pytest.raises(LawError) as caught:
        check_module(factory, inputs, examples=60)
    assert caught.value.law == law or (name.startswith("another mask") and caught.value.law in ("linear", "layout"))
    assert "mode, seed=" in str(caught.value)


# --- what it says -------------------------------------------------------------------------------------------


def test_the_parameter_is_named():
    class Broken(nn.Module):
        def __init__(self):
            self.cells = nn.ModuleList([Affine(), Affine()])

        def forward(self, x):
            x = self.cells[0](x)
            return x @ self.cells[1].weight[:2] + self.cells[1].bias.detach() + 0.5 * self.cells[1].bias

    with pytest.raises(GradientError, match=r"of input 4 \(cells\.1\.bias\)"):
        check_module(Broken, "*3", examples=10)


def test_a_network_that_meets_a_kink_is_moved_off_it_by_its_parameters():
    """The first hidden unit is exactly 0 at this input, until the weights have moved."""

    class Kinked(nn.Module):
        def __init__(self):
            self.bias = nn.Parameter(tr.zeros(3))

        def forward(self, x):
            return tr.relu(x + self.bias)

    for seed in range(20):
        assert check_case(Kinked, np.zeros((1, 3)), seed=seed)["gradient"] == 1


def test_an_input_on_a_kink_is_named_as_such():
    with pytest.raises(KinkError):
        check_case(nn.ReLU, np.zeros(3))


def test_random_layers_leave_the_users_generator_alone():
    tr.manual_seed(3)
    check_module(lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), "*3", examples=3)
    drawn = tr.randn(3).tolist()
    tr.manual_seed(3)
    assert tr.randn(3).tolist() == drawn


def test_a_module_is_made_for_each_example_and_left_to_itself():
    made = []

    def factory():
        made.append(nn.Linear(3, 2))
        return made[-1]

    check_module(factory, "*3", examples=5)
    assert len(made) >= 5
    for layer in made:
        assert layer.weight.dtype == np.float64
        assert layer.weight.grad is None
        assert layer.weight.requires_grad


def test_refuses_nonsense():
    with pytest.raises(TypeError, match="made a list"):
        check_case(list, np.ones(3))
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        check_module(Affine, "*3", order=0)
    with pytest.raises(tr.errors.ShapeError, match="do not fit"):
        check_module(Affine, "*2", examples=5)


def test_without_hypothesis_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match="pip install hypothesis"):
        check_module(Affine, "*3")


def test_a_softmax_that_is_nearly_one_is_no_mistake() -> None:
    """Its gradient is small, since terms cancel, and float32 has only the digits that they leave: found by a seed."""
    query = np.array([[1.89949737, -1.35005761, -0.29749368], [1.27539593, 1.63199181, -1.97027833]])
    keys = [
        [[0.54784675, -0.92085314, -1.8361059], [-1.93388946, 1.25308096, 1.65102231]],
        [[0.4265431, 0.91798624, 0.17449997], [1.7402897, 1.26341422, -1.989046]],
        [[1.42961711, -1.8656577, 0.91862179], [-1.29737752, 1.45271569, 0.16584488]],
    ]
    assert check_case(nn.DotAttention, (query, np.array(keys)), training=False)["float32"]
