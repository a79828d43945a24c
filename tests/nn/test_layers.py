"""Linear, Embedding, LayerNorm, Dropout, activations and the initialisers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tests.reference import assert_close
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn import init
from tinygrad_rnn.nn.functional import layer_norm, layer_norm_rows
from tinygrad_rnn.testing import check_gradients


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(lead: tuple[int, ...], bias: bool) -> None:
    layer = tr.nn.Linear(4, 2, bias, dtype="float64")
    rng = np.random.default_rng(0)
    x = tr.Tensor(rng.standard_normal((*lead, 4)), requires_grad=True)
    y = layer(x)
    W = layer.weight.numpy()
    b = layer.bias.numpy() if layer.bias is not None else np.zeros(2)
    assert_close(y.numpy(), x.numpy() @ W.T + b, 1e-14)
    g = rng.standard_normal(y.shape)
    y.backward(g)
    assert x.grad is not None and layer.weight.grad is not None
    assert_close(x.grad.numpy(), g @ W, 1e-14)
    assert_close(layer.weight.grad.numpy(), g.reshape(-1, 2).T @ x.numpy().reshape(-1, 4), 1e-13)
    if layer.bias is not None:
        assert layer.bias.grad is not None
        assert_close(layer.bias.grad.numpy(), g.reshape(-1, 2).sum(0), 1e-13)


def test_linear_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"in_features is 4, but the input has shape \(2, 3\)"):
        tr.nn.Linear(4, 2)(tr.zeros(2, 3))
    with pytest.raises(ValueError, match="out_features must be a positive integer, got 0"):
        tr.nn.Linear(4, 0)


def test_linear_weights_are_drawn_as_documented() -> None:
    layer = tr.nn.Linear(25, 400)
    assert 0.19 < np.abs(layer.weight.numpy()).max() <= 0.2
    assert layer.bias is not None and 0.19 < np.abs(layer.bias.numpy()).max() <= 0.2


def test_embedding_and_its_gradient() -> None:
    layer = tr.nn.Embedding(6, 3, dtype="float64")
    ids = np.array([[1, 1], [5, 0]])
    y = layer(ids)
    assert (y.numpy() == layer.weight.numpy()[ids]).all()
    g = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(g)
    expected = np.zeros((6, 3))
    np.add.at(expected, ids, g)
    assert layer.weight.grad is not None
    assert_close(layer.weight.grad.numpy(), expected, 1e-14)
    assert layer([]).shape == (0, 3)
    assert layer(tr.Tensor(ids)).shape == (2, 2, 3)
    assert layer(2).shape == (3,)


@pytest.mark.parametrize("bad", [6, -1, 100])
def test_embedding_names_an_id_out_of_range(bad: int) -> None:
    with pytest.raises(ValueError, match=rf"id {bad} \(element 2\) is out of range for 6 classes: 0 to 5"):
        tr.nn.Embedding(6, 3)([[0, 1], [bad, 5]])


def test_embedding_takes_integers_only() -> None:
    with pytest.raises(DTypeError, match="ids must be integers, got float32"):
        tr.nn.Embedding(6, 3)([0.5])
    with pytest.raises(DTypeError, match="bool"):
        tr.nn.Embedding(6, 3)([True])


@pytest.mark.parametrize("V", [4, 9])  # of as many rows as ids, and of more
@pytest.mark.parametrize("padding", [0, 2, -1])
def test_embedding_with_a_padding_row(padding: int, V: int) -> None:
    """As PyTorch has it: zeros at the start, no gradient by lookup, and values that were loaded are looked up."""
    layer = tr.nn.Embedding(V, 3, padding_idx=padding, dtype="float64", generator=np.random.default_rng(0))
    same = tr.nn.Embedding(V, 3, dtype="float64", generator=np.random.default_rng(0))
    row = padding % V
    others = [i for i in range(V) if i != row]
    assert layer.padding_idx == row and f"padding_idx={row}" in repr(layer)
    assert (layer.weight.numpy()[row] == 0).all()
    assert (layer.weight.numpy()[others] == same.weight.numpy()[others]).all()
    ids = np.array([[row, 1], [3, row], [0, 0]])
    y = layer(ids)
    g = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(g)
    expected = np.zeros((V, 3))
    np.add.at(expected, ids, g)
    expected[row] = 0
    assert layer.weight.grad is not None
    assert_close(layer.weight.grad.numpy(), expected, 1e-14)
    layer.weight.assign_(np.ones((V, 3)))
    assert (layer(ids).numpy() == 1).all()
    (first,) = tr.grad(tr.square(layer(ids)).sum(), [layer.weight], create_graph=True)
    (second,) = tr.grad(first.sum(), [layer.weight])
    counts = np.bincount(ids.ravel(), minlength=V) * (np.arange(V) != row)
    assert_close(second.numpy(), 2 * np.repeat(counts[:, None], 3, 1).astype(float), 1e-14)


def test_a_padding_row_stays_while_training_unless_it_is_tied() -> None:
    layer = tr.nn.Embedding(3, 2, padding_idx=1)
    optimiser = tr.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        tr.square(layer([0, 1, 2])).sum().backward()
        optimiser.step()
    assert (layer.weight.numpy()[1] == 0).all() and (layer.weight.numpy() != 0).any()

    class Tied(tr.nn.Module):
        def __init__(self) -> None:
            self.embedding = tr.nn.Embedding(3, 2, padding_idx=1)
            self.output = tr.nn.Linear(2, 3, bias=False)
            self.output.weight = self.embedding.weight

        def forward(self, ids: Any) -> tr.Tensor:
            return self.output(self.embedding(ids))

    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["embedding.weight"]
    W = tied.embedding.weight
    loss = tr.square(tied([0, 2]) + 1).sum()
    (found,) = tr.grad(loss, [W])
    E, U = (tr.Tensor(W.numpy(), requires_grad=True) for _ in range(2))
    parts = tr.grad(tr.square(tr.linear(tr.take(E, [0, 2]), U) + 1).sum(), [E, U])
    assert_close(found.numpy(), parts[0].numpy() + parts[1].numpy(), 1e-6)
    assert (found.numpy()[1] != 0).any()  # from the output layer


@pytest.mark.parametrize("bad", [4, -5, 1.5])
def test_a_padding_row_must_exist(bad: Any) -> None:
    with pytest.raises(ValueError, match=f"padding_idx {bad} is out of range for 4 rows"):
        tr.nn.Embedding(4, 3, padding_idx=bad)


@given(
    lead=st.lists(st.integers(0, 3), max_size=2),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    affine=st.sampled_from(["both", "weight", "none"]),
    eps=st.sampled_from([1e-5, 0.1]),
    seed=st.integers(0, 2**20),
)
@examples(dev=40, ci=100, thorough=500)
def test_layer_norm(lead: list[int], shape: list[int], affine: str, eps: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = tr.nn.LayerNorm(shape, eps, affine != "none", affine == "both", dtype="float64")
    assert [n for n, _ in layer.named_parameters()] == {"both": ["weight", "bias"], "weight": ["weight"], "none": []}[
        affine
    ]
    assert all((p.numpy() == (n == "weight")).all() for n, p in layer.named_parameters())
    for p in layer.parameters():
        p.assign_(rng.standard_normal(p.shape))
    x = tr.Tensor(rng.standard_normal((*lead, *shape)), requires_grad=True)
    axes = tuple(range(-len(shape), 0))
    z = x.numpy() - x.numpy().mean(axes, keepdims=True)
    z = z / np.sqrt((z * z).mean(axes, keepdims=True) + eps)
    w = 1.0 if layer.weight is None else layer.weight.numpy()
    b = 0.0 if layer.bias is None else layer.bias.numpy()
    y = layer(x)
    np.testing.assert_allclose(y.numpy(), z * w + b, rtol=1e-12, atol=1e-14)
    leaves, g = [x, *layer.parameters()], rng.standard_normal(y.shape)
    tr.enable_fused(False)
    try:
        plain = layer(x)
    finally:
        tr.enable_fused(True)
    np.testing.assert_allclose(plain.numpy(), y.numpy(), rtol=1e-12, atol=1e-14)
    for found, expected in zip(tr.grad(y, leaves, g), tr.grad(plain, leaves, g), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-9, atol=1e-12)


def test_gradients_of_layer_norm_are_those_of_a_numeric_derivative() -> None:
    """The kernel's and, for the second order, the definition's; wanted one by one, too."""
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((3, 4)), rng.standard_normal(4), rng.standard_normal(4)
    check_gradients(lambda x, w, b: layer_norm(x, 4, w, b), x, w, b, order=2)
    check_gradients(lambda x: layer_norm_rows(x, None, None, eps=0.01), x)
    check_gradients(lambda w: layer_norm_rows(tr.Tensor(x), w, None, eps=0.01), w)
    check_gradients(lambda b: layer_norm_rows(tr.Tensor(x), tr.Tensor(w), b, eps=0.01), b)


def test_layer_norm_writes_to_no_argument_keeps_the_dtype_and_survives_a_constant_row() -> None:
    for dtype in ("float16", "float32"):
        layer = tr.nn.LayerNorm(4, dtype=dtype)
        x = tr.Tensor([[1.0, 2.0, 3.0, 5.0], [2.0, 2.0, 2.0, 2.0]], dtype=dtype, requires_grad=True)
        for tensor in (x, *layer.parameters()):
            tensor._array.flags.writeable = False
        y = layer(x)
        y._array.flags.writeable = False
        tr.square(y).sum().backward()
        assert y.dtype == x.dtype and x.grad is not None and x.grad.dtype == x.dtype
        assert (y.numpy()[1] == 0).all() and (x.grad.numpy()[1] == 0).all()


def test_layer_norm_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"the last axes must be \(4,\), but the input has shape \(2, 3\)"):
        tr.nn.LayerNorm(4)(tr.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"weight must have shape \(3,\), got \(2,\)"):
        layer_norm(tr.zeros(2, 3), 3, tr.ones(2))
    with pytest.raises(DTypeError, match="the input is float64, but the weight is float32"):
        tr.nn.LayerNorm(3)(tr.zeros(2, 3, dtype="float64"))
    for sizes, message in (((), "at least one axis"), (0, "positive integer"), ((2, -1), "positive integer")):
        with pytest.raises(ValueError, match=message):
            tr.nn.LayerNorm(sizes)
    with pytest.raises(ValueError, match="eps"):
        tr.nn.LayerNorm(3, eps=-1.0)
    assert repr(tr.nn.LayerNorm(3, eps=0.1)).startswith("LayerNorm(3, eps=0.1), 6 parameters")
    assert repr(tr.nn.LayerNorm((2, 3))).startswith("LayerNorm((2, 3)), 12 parameters")


ACTIVATIONS: list[tuple[tr.nn.Module, Any, str]] = [
    (tr.nn.Tanh(), tr.tanh, "Tanh"),
    (tr.nn.Sigmoid(), tr.sigmoid, "Sigmoid"),
    (tr.nn.ReLU(), tr.relu, "ReLU"),
    (tr.nn.LeakyReLU(0.2), lambda x: tr.leaky_relu(x, 0.2), "LeakyReLU(0.2)"),
    (tr.nn.ELU(0.5), lambda x: tr.elu(x, 0.5), "ELU(0.5)"),
    (tr.nn.GELU(), tr.gelu, "GELU"),
    (tr.nn.SiLU(), tr.silu, "SiLU"),
    (tr.nn.Softplus(), tr.softplus, "Softplus"),
    (tr.nn.Softmax(0), lambda x: tr.softmax(x, 0), "Softmax(axis=0)"),
    (tr.nn.LogSoftmax(), tr.log_softmax, "LogSoftmax(axis=-1)"),
]


@pytest.mark.parametrize(("module", "f", "shown"), ACTIVATIONS, ids=[shown for *_, shown in ACTIVATIONS])
def test_activations_as_modules(module: tr.nn.Module, f: Any, shown: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3))
    assert (module(tr.Tensor(x)).numpy() == f(tr.Tensor(x)).numpy()).all()
    assert isinstance(module(x), tr.Tensor) and isinstance(module(x.tolist()), tr.Tensor)
    assert repr(module) == shown and not list(module.parameters())


def test_gelu_has_one_form() -> None:
    with pytest.raises(ValueError, match="'none'"):
        tr.nn.GELU("none")


def test_dropout() -> None:
    x = tr.ones(200, 50, requires_grad=True)
    layer = tr.nn.Dropout(0.25)
    tr.manual_seed(0)
    y = layer(x)
    values = y.numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((values == 0).mean() - 0.25) < 0.02 and abs(values.mean() - 1) < 0.02
    (dx,) = tr.grad(y.sum(), [x])
    assert (dx.numpy() == values).all()
    tr.manual_seed(0)
    assert (layer(x).numpy() == values).all()
    assert (layer(x).numpy() != values).any()
    assert layer.eval()(x) is x
    assert (tr.nn.Dropout(1.0)(x).numpy() == 0).all() and tr.nn.Dropout(0)(x) is x
    assert tr.nn.Dropout(0.5)(tr.ones(3, dtype="float64")).dtype == np.float64


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), "half", True])
def test_dropout_checks_its_probability(p: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        tr.nn.Dropout(p)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        tr.nn.functional.dropout(tr.ones(1), p)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.25, 0.9985])
def test_dropout_has_its_probability_to_more_than_a_byte(p: float) -> None:
    tr.manual_seed(0)
    n = 2_000_000
    dropped = int((tr.nn.functional.dropout(tr.ones(n), p).numpy() == 0).sum())
    assert abs(dropped - n * p) < 4 * (n * p * (1 - p)) ** 0.5


def test_a_recording_drops_out_of_a_constant() -> None:
    drop = tr.nn.Dropout(0.5)
    compiled = tr.compile(lambda x: drop(tr.ones(50)) + x)
    masks = [tuple(compiled(tr.zeros(50)).tolist()) for _ in range(5)]
    assert len(set(masks)) == 5
    assert set().union(*masks) == {0.0, 2.0}


def test_checkpoint_replays_dropout() -> None:
    layer = tr.nn.Dropout(0.5)
    x = tr.ones(100, requires_grad=True)
    tr.manual_seed(1)
    mask = layer(x).numpy()
    tr.manual_seed(1)
    loss = tr.checkpoint(layer, x).sum()
    layer.eval()
    tr.rand(10)
    (dx,) = tr.grad(loss, [x])
    assert (dx.numpy() == mask).all()


def test_initialisers() -> None:
    tr.manual_seed(0)
    p = tr.nn.Parameter(tr.zeros(200, 100))
    assert init.uniform_(p, -2.0, -1.0) is p
    assert p.numpy().min() >= -2 and p.numpy().max() <= -1 and p.requires_grad
    assert abs(init.normal_(p, 3.0, 0.1).numpy().mean() - 3) < 0.01
    assert (init.constant_(p, 1.5).numpy() == 1.5).all()
    bound = np.sqrt(6 / 300)
    assert 0.99 * bound < np.abs(init.xavier_uniform_(p).numpy()).max() <= bound
    for shape in ((5, 3), (3, 5), (4, 4)):
        q = init.orthogonal_(tr.nn.Parameter(tr.zeros(shape, dtype="float64")), gain=2.0).numpy()
        product = q @ q.T if shape[0] < shape[1] else q.T @ q
        assert_close(product, 4 * np.eye(min(shape)), 1e-12)
    generator = np.random.default_rng(3)
    one = init.normal_(tr.nn.Parameter(tr.zeros(3)), generator=np.random.default_rng(3))
    assert (one.numpy() == generator.normal(0, 1, 3).astype("float32")).all()
    with pytest.raises(ShapeError, match="a matrix is needed"):
        init.orthogonal_(tr.nn.Parameter(tr.zeros(3)))


def test_initialising_leaves_what_was_handed_out_as_it_was() -> None:
    p = tr.nn.Parameter(tr.zeros(3))
    before = p.numpy()
    init.constant_(p, 1.0)
    assert (before == 0).all()


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_kaiming(mode: str) -> None:
    rng = np.random.default_rng(0)
    fan = {"fan_in": 50, "fan_out": 200}[mode]
    p = tr.nn.Parameter(tr.zeros(200, 50))
    bound = np.sqrt(6 / fan)
    drawn = init.kaiming_uniform_(p, mode=mode, nonlinearity="relu", generator=rng).numpy()
    assert 0.99 * bound < np.abs(drawn).max() <= bound
    assert abs(init.kaiming_normal_(p, mode=mode, generator=rng).numpy().std() * np.sqrt(fan / 2) - 1) < 0.03
    slope = init.kaiming_normal_(p, a=1.0, mode=mode, generator=rng).numpy()
    assert abs(slope.std() * np.sqrt(fan) - 1) < 0.03
    q = init.kaiming_uniform_(tr.nn.Parameter(tr.zeros(4, 10, 5)), mode="fan_in", generator=rng).numpy()
    assert 0.9 * np.sqrt(6 / 50) < np.abs(q).max() <= np.sqrt(6 / 50)


def test_kaiming_keeps_the_variance_through_layers() -> None:
    rng = np.random.default_rng(0)
    x = tr.Tensor(rng.standard_normal((200, 128)))
    for _ in range(8):
        x = tr.relu(tr.linear(x, init.kaiming_normal_(tr.zeros(128, 128), nonlinearity="relu", generator=rng)))
    assert 0.5 < np.square(x.numpy()).mean() < 2


def test_xavier_normal_and_gains_and_refusals() -> None:
    drawn = init.xavier_normal_(tr.nn.Parameter(tr.zeros(300, 100)), generator=np.random.default_rng(0)).numpy()
    assert abs(drawn.std() * np.sqrt(200) - 1) < 0.03
    assert init.calculate_gain("tanh") == 5 / 3 and init.calculate_gain("leaky_relu", 1.0) == 1.0
    vector = tr.nn.Parameter(tr.zeros(3))
    for draw in (init.kaiming_uniform_, init.kaiming_normal_, init.xavier_uniform_, init.xavier_normal_):
        with pytest.raises(ShapeError, match=draw.__name__):
            draw(vector)
    matrix = tr.nn.Parameter(tr.zeros(2, 2))
    with pytest.raises(ValueError, match="mode"):
        init.kaiming_uniform_(matrix, mode="fan")
    with pytest.raises(ValueError, match="unknown nonlinearity 'swish'"):
        init.kaiming_normal_(matrix, nonlinearity="swish")


def test_the_forget_bias_of_an_lstm() -> None:
    """bias_ih + bias_hh is exactly it in the second quarter; everything else is drawn as without it."""
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    one, other = (
        tr.nn.LSTM(3, 4, forget_bias=value, generator=np.random.default_rng(0), **options) for value in (1.5, None)
    )
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        changed = p.numpy() != q.numpy()
        if name.startswith("bias"):
            assert (p.numpy()[4:8] == (1.5 if "ih" in name else 0)).all() and changed[4:8].all()
            changed[4:8] = False
        assert not changed.any()
    cell = tr.nn.LSTMCell(3, 4, forget_bias=0.0)
    assert (cell.bias_ih.numpy()[4:8] == 0).all() and (cell.bias_hh.numpy()[4:8] == 0).all()
    for make in (tr.nn.LSTM, tr.nn.LSTMCell):
        with pytest.raises(ValueError, match=f"{make.__name__}: forget_bias needs bias=True"):
            make(3, 4, bias=False, forget_bias=1.0)
        with pytest.raises(ValueError, match="finite"):
            make(3, 4, forget_bias=float("inf"))
    with pytest.raises(TypeError):
        tr.nn.GRU(3, 4, forget_bias=1.0)


def test_initial_values_are_for_the_parameter_itself() -> None:
    weight = tr.nn.Linear(2, 2).weight
    before = weight.tolist()
    for name in ("uniform_", "normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
        with pytest.raises(TypeError, match=rf"{name}: give the parameter itself, layer\.weight, not ndarray"):
            getattr(tr.nn.init, name)(weight.data)
    with pytest.raises(TypeError, match="orthogonal_: give the parameter itself"):
        tr.nn.init.orthogonal_(weight.data)
    with pytest.raises(TypeError, match="constant_: give the parameter itself"):
        tr.nn.init.constant_(weight.data, 1.0)
    with pytest.raises(TypeError, match="forget_bias_: give the parameter itself"):
        tr.nn.init.forget_bias_(np.zeros(4), np.zeros(4), 1.0)
    assert weight.tolist() == before
