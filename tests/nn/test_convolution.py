"""Conv1d, Conv2d and poolings as layers: parameters, options, PyTorch's weights, a network that learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.reference import assert_close
from tinygrad_rnn.nn import functional as F

CONVOLUTIONS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv1d", (4, 6, 3), {}, (2, 4, 9)),
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, (4, 9)),
    ("Conv1d", (4, 4, 3), {"padding": "same", "dilation": 2, "groups": 4, "bias": False}, (1, 4, 9)),
    ("Conv2d", (3, 5, 3), {}, (2, 3, 8, 7)),
    ("Conv2d", (3, 5, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}, (2, 3, 8, 7)),
    ("Conv2d", (2, 4, 3), {"padding": "valid", "groups": 2, "bias": False}, (2, 8, 7)),
]
POOLINGS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("MaxPool1d", (3,), {}, (2, 4, 9)),
    ("MaxPool1d", (3, 1), {"padding": 1, "dilation": 2}, (4, 9)),
    ("MaxPool2d", (2,), {}, (2, 3, 8, 7)),
    ("MaxPool2d", ((3, 2), (2, 1)), {"padding": (1, 0)}, (3, 8, 7)),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1}, (2, 4, 9)),
    ("AvgPool2d", (2,), {}, (2, 3, 8, 7)),
    ("AvgPool2d", (3, 2, 1), {"count_include_pad": False}, (3, 8, 7)),
]
LAYERS = CONVOLUTIONS + POOLINGS
NAMES = [f"{name}-{i}" for i, (name, *_) in enumerate(LAYERS)]


@pytest.mark.parametrize(("name", "sizes", "options", "shape"), LAYERS, ids=NAMES)
def test_weights_and_results_are_pytorchs(name: str, sizes: Any, options: Any, shape: Any) -> None:
    torch = pytest.importorskip("torch")
    dtypes = ({"dtype": "float64"}, {"dtype": torch.float64}) if name.startswith("Conv") else ({}, {})
    ours = getattr(tr.nn, name)(*sizes, **options, **dtypes[0])
    theirs = getattr(torch.nn, name)(*sizes, **options, **dtypes[1])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    theirs.load_state_dict({key: torch.tensor(value.numpy()) for key, value in ours.state_dict().items()})
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    xs = tr.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(xs[0]), theirs(xs[1])
    assert_close(y.numpy(), z.detach().numpy(), 1e-12)
    g = rng.standard_normal(y.shape)
    y.backward(g)
    z.backward(torch.tensor(g))
    for a, b in zip((xs[0], *ours.parameters()), (xs[1], *theirs.parameters()), strict=True):
        assert a.grad is not None
        assert_close(a.grad.numpy(), b.grad.numpy(), 1e-12)


@pytest.mark.parametrize(("name", "sizes", "options", "shape"), LAYERS, ids=NAMES)
def test_a_layer_is_its_function(name: str, sizes: Any, options: Any, shape: Any) -> None:
    """In float32, whose dtype it keeps, and on lists, too."""
    layer = getattr(tr.nn, name)(*sizes, **options)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    function = {"C": "conv", "M": "max_pool", "A": "avg_pool"}[name[0]] + name[-2:]
    if name.startswith("Conv"):
        given = {k: v for k, v in options.items() if k != "bias"}
        expected = getattr(F, function)(tr.Tensor(x), layer.weight, layer.bias, **given)
    else:
        expected = getattr(F, function)(tr.Tensor(x), *sizes, **options)
    for y in (layer(tr.Tensor(x)), layer(x), layer(x.tolist())):
        assert y.dtype == np.float32 and (y.numpy() == expected.numpy()).all()


@pytest.mark.parametrize("layer", [tr.nn.Conv1d, tr.nn.Conv2d])
def test_parameters_are_drawn_as_documented(layer: Any) -> None:
    d = 1 if layer is tr.nn.Conv1d else 2
    conv = layer(8, 400, 5, groups=2, generator=np.random.default_rng(0))
    assert conv.weight.shape == (400, 4, *(5,) * d) and conv.bias.shape == (400,)
    bound = 1 / math.sqrt(4 * 5**d)
    for p in conv.parameters():
        assert 0.99 * bound < np.abs(p.numpy()).max() <= bound
    again = layer(8, 400, 5, groups=2, generator=np.random.default_rng(0))
    assert (again.weight.numpy() == conv.weight.numpy()).all()
    assert [n for n, _ in layer(2, 2, 3, bias=False).named_parameters()] == ["weight"]
    assert layer(2, 2, 3, dtype="float64").weight.dtype == np.float64


def test_repr_shows_what_is_not_usual() -> None:
    lines = {
        "Conv2d(1, 8, 3), 80 parameters": tr.nn.Conv2d(1, 8, 3),
        "Conv1d(2, 4, 3, stride=2, padding=1, dilation=2, groups=2, bias=False), 12 parameters": tr.nn.Conv1d(
            2, 4, 3, 2, 1, 2, 2, False
        ),
        "Conv1d(2, 4, 3, padding='same'), 28 parameters": tr.nn.Conv1d(2, 4, 3, padding="same"),
        "Conv2d(1, 1, (3, 2), padding=(1, 0)), 7 parameters": tr.nn.Conv2d(1, 1, (3, 2), padding=(1, 0)),
        "MaxPool2d(2)": tr.nn.MaxPool2d(2),
        "MaxPool1d(3, stride=1, padding=1, dilation=2)": tr.nn.MaxPool1d(3, 1, 1, 2),
        "AvgPool2d((2, 3), padding=1, count_include_pad=False)": tr.nn.AvgPool2d(
            (2, 3), None, 1, count_include_pad=False
        ),
    }
    for line, layer in lines.items():
        assert repr(layer).splitlines()[0] == line


def test_wrong_options_are_refused_when_the_layer_is_made() -> None:
    for make, message in (
        (lambda: tr.nn.Conv2d(0, 4, 3), "Conv2d: in_channels must be a positive integer, got 0"),
        (lambda: tr.nn.Conv2d(3, 4, 3, groups=2), "Conv2d: 3 and 4 channels do not fall into 2 groups"),
        (lambda: tr.nn.Conv1d(2, 4, (3, 3)), r"Conv1d: kernel_size must be an integer of at least 1, got \(3, 3\)"),
        (lambda: tr.nn.Conv1d(2, 4, 3, stride=2, padding="same"), 'Conv1d: padding="same" needs a stride of 1'),
        (lambda: tr.nn.Conv1d(2, 4, 3, padding="some"), "Conv1d: padding must be"),
        (lambda: tr.nn.MaxPool2d(2, padding=2), "MaxPool2d: padding .* is more than half of a window"),
        (lambda: tr.nn.AvgPool1d(2, 0), "AvgPool1d: stride must be an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_a_network_learns_which_way_lines_run() -> None:
    """Convolution, normalisation, pooling and a linear layer together: pictures of rows and of columns, with noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    x = rng.standard_normal((64, 1, 6, 6)) * 0.3
    at = rng.integers(0, 6, 64)
    for n, (label, k) in enumerate(zip(labels, at, strict=True)):
        x[n, 0, k, :] += label
        x[n, 0, :, k] += 1 - label
    net = tr.nn.Sequential(
        tr.nn.Conv2d(1, 4, 3, padding="same", generator=rng),
        tr.nn.BatchNorm2d(4),
        tr.relu,
        tr.nn.MaxPool2d(2),
        lambda h: h.reshape(-1, 36),
        tr.nn.Linear(36, 2, generator=rng),
    )
    optimiser = tr.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(60):
        loss = F.cross_entropy(net(tr.Tensor(x, "float32")), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval()
    assert (net(tr.Tensor(x, "float32")).numpy().argmax(-1) == labels).mean() == 1
