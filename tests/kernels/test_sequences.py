"""A stretch of a sequence on a GPU, as kernels and products, beside the plain definition on the CPU.

Where a device is, `make gpu-check` runs these; elsewhere they run on the stand-in for CuPy, whose kernels are the same
source by a C++ compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn import nn
from tinygrad_rnn.kernels import cuda
from tinygrad_rnn.kernels.cuda import cublas
from tinygrad_rnn.kernels.sequences import Saved
from tinygrad_rnn.nn import sequences

pytestmark = pytest.mark.gpu
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "GRU without biases": ("GRU", {"bias": False}),
    "RNN": ("RNN", {}),
    "RNN of relu": ("RNN", {"nonlinearity": "relu"}),
    "RNN of sigmoid": ("RNN", {"nonlinearity": "sigmoid"}),
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
# (T, B, I, H), with odd sizes, one row, one step, and rows that fill more than one block of threads
SIZES = [(5, 3, 4, 7), (1, 1, 1, 1), (4, 1, 3, 33), (2, 2, 3, 300)]


def assert_near(ours: Sequence[Any], theirs: Sequence[Any], dtype: str) -> None:
    """Equal but for so many digits of the largest number."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        size = max(1.0, float(np.max(np.abs(b), initial=0)))
        np.testing.assert_allclose(a, b, 0, size * TOLERANCE[dtype])


def layers(kind: str, inputs: int, H: int, dtype: str, **options: Any) -> tuple[Any, Any]:
    """A layer on the device, and the plain one on the CPU, in float64, of the same weights."""
    name, more = KINDS[kind]
    make = getattr(nn, name)
    ours = make(inputs, H, dtype=dtype, **more, **options)
    theirs = make(inputs, H, dtype="float64", fused=False, **more, **options)
    theirs.load_state_dict({k: v.numpy().astype(np.float64) for k, v in ours.state_dict().items()})
    return ours.to("cuda"), theirs


def run(layer: Any, x: Any, states: Any, cotangents: Sequence[Any], **named: Any) -> list[Any]:
    """Output and final states, and the gradients of the input, of the states and of all weights."""
    dtype, device = layer.weight_hh_l0.dtype, layer.weight_hh_l0.device
    leaves = [tr.Tensor(v, dtype=dtype, device=device, requires_grad=True) for v in (x, *states)]
    given = None if not states else tuple(leaves[1:]) if len(states) == 2 else leaves[1]
    y, last = layer(leaves[0], given, **named)
    results = [y, *(last if isinstance(last, tuple) else (last,))]
    weights = [tr.Tensor(v, dtype=dtype, device=device) for v in cotangents[: len(results)]]
    sum((tr.sum(a * w) for a, w in zip(results, weights, strict=True)), tr.zeros(dtype=dtype, device=device)).backward()
    gradients = [tr.zeros_like(v) if v.grad is None else v.grad for v in (*leaves, *layer.parameters())]
    return [v.numpy() for v in (*results, *gradients)]


def drawn(kind: str, sizes: tuple[int, int, int, int], rows: int, width: int) -> tuple[Any, Any, Any]:
    """An input, states to begin with, and what weighs the results."""
    T, B, inputs, H = sizes
    rng = np.random.default_rng(1)
    states = [rng.standard_normal((rows, B, H)) for _ in range(2 if kind == "LSTM" else 1)]
    shapes = [(T, B, width * H), (rows, B, H), (rows, B, H)]
    return rng.standard_normal((T, B, inputs)), states, [rng.standard_normal(shape) for shape in shapes]


@each_dtype
@each_kind
@pytest.mark.parametrize("sizes", SIZES)
def test_a_layer_is_the_plain_one(kind: str, sizes: tuple[int, int, int, int], dtype: str) -> None:
    ours, theirs = layers(kind, *sizes[2:], dtype)
    x, states, cotangents = drawn(kind, sizes, 1, 1)
    for begin in (states, ()):
        assert_near(run(ours, x, begin, cotangents), run(theirs, x, begin, cotangents), dtype)


@each_dtype
@each_kind
@pytest.mark.parametrize("lengths", [None, [2, 5, 1], np.array([2, 5, 1])], ids=["none", "looked at", "in an array"])
def test_both_directions_and_lengths(kind: str, lengths: Any, dtype: str) -> None:
    sizes = (5, 3, 4, 6)
    ours, theirs = layers(kind, 4, 6, dtype, num_layers=2, bidirectional=True)
    x, states, cotangents = drawn(kind, sizes, 4, 2)
    if lengths is not None:
        x[2:, 0] = np.nan  # past an end, where nobody reads
    assert_near(
        run(ours, x, states, cotangents, lengths=lengths), run(theirs, x, states, cotangents, lengths=lengths), dtype
    )


@each_kind
@pytest.mark.parametrize(("T", "B"), [(0, 2), (3, 0), (0, 0)])
def test_of_nothing(kind: str, T: int, B: int) -> None:
    ours, theirs = layers(kind, 2, 3, "float64")
    x, states, cotangents = drawn(kind, (T, B, 2, 3), 1, 1)
    assert_near(run(ours, x, states, cotangents), run(theirs, x, states, cotangents), "float64")


@each_kind
def test_pre_activations_of_any_size(kind: str) -> None:
    ours, theirs = layers(kind, 4, 6, "float32")
    x, states, cotangents = drawn(kind, (5, 3, 4, 6), 1, 1)
    x *= 10.0 ** np.arange(-3, 2)[:, None, None] * (1 if "relu" in kind else 1000)
    results = run(ours, x, states, cotangents)
    assert_near(results[: len(states)], run(theirs, x, states, cotangents)[: len(states)], "float32")
    assert all(np.isfinite(v).all() for v in results)


# --- the ops ------------------------------------------------------------------------------------------------


def operands(kind: str, T: int = 4, B: int = 3, H: int = 5) -> tuple[Any, list[Any], dict[str, Any]]:
    """An op of `sequences`, arrays for it, and options that it needs."""
    G = {"lstm": 4, "gru": 3, "rnn": 1}[kind]
    rng = np.random.default_rng(2)
    shapes = [(T, B, G * H), (B, H), *[(B, H)] * (kind == "lstm"), (G * H, H), *[(H,)] * (kind == "gru")]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    options = {"nonlinearity": "tanh"} if kind == "rnn" else {}
    return getattr(sequences, f"{kind}_sequence"), arrays, options


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("T", [0, 1, 4])
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_whatever_needs_a_gradient(kind: str, T: int, masked: bool, reverse: bool) -> None:
    """Each argument alone, and all: the others get none, and the numbers are those of the plain definition."""
    op, arrays, options = operands(kind, T=T)
    runs = np.random.default_rng(3).integers(0, 2, (T, 3, 1)) * 1.0 if masked else None
    options |= {"reverse": reverse}
    for needs in [*np.eye(len(arrays), dtype=bool), [True] * len(arrays)]:
        found = []
        for device in ("cuda", "cpu"):
            xs = [tr.Tensor(a, device=device, requires_grad=bool(n)) for a, n in zip(arrays, needs, strict=True)]
            mask = None if runs is None else tr.Tensor(runs, device=device)._array
            saved = {} if kind == "rnn" else {"saved": Saved()}
            y = op(*xs, runs=mask, **options, **saved)
            as_one = y._node is not None and y._node.plan.name == f"{kind}_sequence"
            assert as_one == (device == "cuda")
            weights = tr.Tensor(np.random.default_rng(4).standard_normal(y.shape), device=device)
            # the plain graph of no steps does not reach what steps would read
            sum((tr.sum(x * 0) for x in xs), tr.sum(y * weights)).backward()
            assert [x.grad is not None for x in xs] == list(needs)
            found.append([y.numpy(), *(x.grad.numpy() for x in xs if x.grad is not None)])
        assert_near(*found, "float64")


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_twice_through_one_graph_and_the_second_order(kind: str) -> None:
    op, arrays, options = operands(kind)
    found = []
    for device in ("cuda", "cpu"):
        xs = [tr.Tensor(a, device=device, requires_grad=True) for a in arrays]
        y = tr.sum(op(*xs, **options, **({} if kind == "rnn" else {"saved": sequences.to_save()})) ** 2)
        first = [g.numpy() for g in tr.grad(y, xs, retain_graph=True)]
        again = [g.numpy() for g in tr.grad(y, xs, retain_graph=True)]
        assert all((a == b).all() for a, b in zip(first, again, strict=True))
        firsts = tr.grad(y, xs, create_graph=True)
        second = tr.grad(sum((tr.sum(g * g) for g in firsts), tr.zeros(dtype="float64", device=device)), xs)
        found.append([*first, *(g.numpy() for g in (*firsts, *second))])
    assert_near(*found, "float64")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_two_runs_have_the_same_bits_and_write_to_no_argument(kind: str) -> None:
    ours, _ = layers(kind, 4, 6, "float32")
    x, states, cotangents = drawn(kind, (5, 3, 4, 6), 1, 1)
    first = run(ours, x, states, cotangents)
    ours.zero_grad()
    assert all((a == b).all() for a, b in zip(first, run(ours, x, states, cotangents), strict=True))
    op, arrays, options = operands(kind.lower())
    xs = [tr.Tensor(a, device="cuda", requires_grad=True) for a in arrays]
    tr.sum(op(*xs, **options, **({} if kind == "RNN" else {"saved": Saved()}))).backward()
    assert all((x.numpy() == a).all() for x, a in zip(xs, arrays, strict=True))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_operands_in_any_layout(kind: str) -> None:
    """Transposed and repeated arrays are copied, row by row, before a kernel or a product reads them."""
    op, arrays, options = operands(kind.lower())
    plain = [tr.Tensor(a, device="cuda") for a in arrays]
    other = [tr.Tensor(np.ascontiguousarray(a.T), device="cuda").T for a in arrays]
    assert (op(*plain, **options).numpy() == op(*other, **options).numpy()).all()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_where_the_steps_stay_single(kind: str) -> None:
    """With the switch off, without `fused`, for whoever looks on, and of float16: the same, step by step."""
    ours, theirs = layers(kind, 4, 6, "float64")
    x, states, cotangents = drawn(kind, (5, 3, 4, 6), 1, 1)
    expected = run(theirs, x, states, cotangents)

    def name() -> str:
        y, _ = ours(tr.Tensor(x, device="cuda"))
        return str(y._node.plan.name)

    as_one = name()
    tr.enable_cuda_kernels(False)
    try:
        assert name() != as_one
        assert_near(run(ours, x, states, cotangents), expected, "float64")
    finally:
        tr.enable_cuda_kernels()
    assert name() == as_one
    with tr.explain.watch() as seen:
        assert name() != as_one
    assert seen is not None
    tr.enable_fused(False)
    try:
        assert name() != as_one
    finally:
        tr.enable_fused(True)
    half = getattr(nn, kind)(4, 6, dtype="float16", device="cuda")
    assert half(tr.Tensor(x, dtype="float16", device="cuda"))[0].dtype == np.float16


def test_nothing_is_saved_where_nobody_goes_back() -> None:
    assert sequences.to_save() is not None
    with tr.no_grad():
        assert sequences.to_save() is None
        lstm = nn.LSTM(4, 6, device="cuda")
        x = tr.Tensor(np.random.default_rng(0).standard_normal((5, 3, 4)), dtype="float32", device="cuda")
        y, _ = lstm(x)
    assert (y.numpy() == lstm(x)[0].numpy()).all()


# --- products -----------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_products(turned: tuple[bool, bool], dtype: str) -> None:
    rng = np.random.default_rng(0)
    m, n, k = 3, 4, 5
    a, b, c = (rng.standard_normal(shape) for shape in ((m, k), (k, n), (m, n)))
    here = [tr.Tensor(v, dtype=dtype, device="cuda")._array for v in (a.T if turned[0] else a, b.T if turned[1] else b)]
    here = [x.copy() if x.flags.c_contiguous else x.copy(order="C") for x in here]
    out = tr.Tensor(c, dtype=dtype, device="cuda")
    products = cublas.Products(dtype)
    for add, expected in ((1, c + a @ b), (0, a @ b)):
        products.multiply(here[0].data.ptr, here[1].data.ptr, out._array.data.ptr, m, n, k, turned, add)
        assert_near([out.numpy()], [expected], dtype)
    with pytest.raises(ValueError, match="cuBLAS counts to 2147483647"):
        products.multiply(0, 0, 0, 2**31, 1, 1)


def test_a_cublas_that_is_not_loaded_is_an_error() -> None:
    with pytest.raises(tr.errors.BackendMismatchError, match=r"CuPy has not loaded .*99.*enable_cuda_kernels\(False\)"):
        cublas._library(99)


def test_a_kernel_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="not found"):
        cuda.kernel("recurrent", "no_such_kernel", "float32")
