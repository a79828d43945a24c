"""Convolution and pooling as functions: all laws of an op, against sums over windows written out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tests.reference import assert_close
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn.convolution import overlap_add, windows
from tinygrad_rnn.testing import Distinct, Domain, Real, check_gradients, check_op

FEW = examples(dev=15, ci=30, thorough=400).max_examples


# --- by hand ------------------------------------------------------------------------------------------------


def each(value: Any, d: int) -> tuple[int, ...]:
    return (value,) * d if isinstance(value, int) else tuple(value)


def surrounded(x: np.ndarray, d: int, padding: Any, kernel: Any, dilation: Any, value: float = 0.0) -> np.ndarray:
    """x (N, C, *S) with what `padding` puts around it."""
    if padding == "same":
        total = [a * (k - 1) for k, a in zip(kernel, dilation, strict=True)]
        pads = [(n // 2, n - n // 2) for n in total]
    else:
        pads = [(n, n) for n in each(0 if padding == "valid" else padding, d)]
    y = np.full((*x.shape[:2], *(n + a + b for n, (a, b) in zip(x.shape[2:], pads, strict=True))), value, x.dtype)
    y[(..., *(slice(a, a + n) for n, (a, _) in zip(x.shape[2:], pads, strict=True)))] = x
    return y


def patches(x: np.ndarray, kernel: Any, stride: Any, dilation: Any) -> tuple[Any, Iterator[tuple[Any, np.ndarray]]]:
    """How many windows of x (N, C, *S) there are, and each with its place: (N, C, *kernel)."""
    zipped = list(zip(x.shape[2:], kernel, stride, dilation, strict=True))
    out = tuple(len(range(0, n - a * (k - 1), s)) for n, k, s, a in zipped)

    def all_of_them() -> Iterator[tuple[Any, np.ndarray]]:
        for place in itertools.product(*map(range, out)):
            grid = [np.arange(k) * a + s * i for i, (_, k, s, a) in zip(place, zipped, strict=True)]
            yield place, x[(slice(None), slice(None), *np.ix_(*grid))]

    return out, all_of_them()


def conv(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> np.ndarray:
    d = w.ndim - 2
    if x.ndim == d + 1:
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return conv(x[None], w, b, **options)[0]
    kernel, stride, dilation = w.shape[2:], each(stride, d), each(dilation, d)
    x = surrounded(x, d, padding, kernel, dilation)
    out, found = patches(x, kernel, stride, dilation)
    y = np.zeros((x.shape[0], w.shape[0], *out), np.result_type(x, w))
    size = w.shape[0] // groups
    for place, patch in found:
        for o in range(w.shape[0]):
            first = o // size * w.shape[1]
            channels = patch[:, first : first + w.shape[1]]
            y[(slice(None), o, *place)] = np.sum(channels * w[o], axis=tuple(range(1, d + 2)))
    return y if b is None else y + b.reshape(-1, *(1,) * d)


def pooled(
    reduce: Any, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, d: int, value: float
) -> np.ndarray:
    if x.ndim == d + 1:
        return pooled(reduce, x[None], kernel_size, stride, padding, dilation, d, value)[0]
    kernel = each(kernel_size, d)
    x = surrounded(x, d, padding, kernel, (1,) * d, value)
    out, found = patches(x, kernel, each(kernel_size if stride is None else stride, d), each(dilation, d))
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    for place, patch in found:
        y[(slice(None), slice(None), *place)] = reduce(patch, axis=tuple(range(2, d + 2)))
    return y


def max_pooled(d: int) -> Callable[..., np.ndarray]:
    def reference(x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> np.ndarray:
        return pooled(np.max, x, kernel_size, stride, padding, dilation, d, -math.inf)

    return reference


def avg_pooled(d: int) -> Callable[..., np.ndarray]:
    def reference(x: Any, kernel_size: Any, stride: Any, padding: Any, count_include_pad: bool) -> np.ndarray:
        mean = np.mean if count_include_pad else np.nanmean  # zeros that do not count are marked by NaN
        value = 0.0 if count_include_pad else math.nan
        return pooled(mean, x, kernel_size, stride, padding, 1, d, value)

    return reference


# --- all laws, on options of all kinds ----------------------------------------------------------------------


def some(choose: Any, d: int, values: tuple[int, ...]) -> Any:
    """An option: one number, or one for each axis."""
    return choose(values) if choose((True, False)) else tuple(choose(values) for _ in range(d))


def conv_case(d: int, bias: bool) -> Callable[[Any], Any]:
    def draw(choose: Any) -> Any:
        groups = choose((1, 1, 2))
        inputs, outputs = choose((1, 2)), groups * choose((1, 2))
        kernel = tuple(choose((1, 2, 3)) for _ in range(d))
        padding = choose(("number", "number", "same", "valid"))
        options = {
            "stride": 1 if padding == "same" else some(choose, d, (1, 2, 3)),
            "dilation": some(choose, d, (1, 1, 2)),
            "padding": some(choose, d, (0, 1, 2)) if padding == "number" else padding,
            "groups": groups,
        }
        spans = [a * (k - 1) + 1 for k, a in zip(kernel, each(options["dilation"], d), strict=True)]
        sizes = tuple(n + choose((0, 1, 2)) for n in spans)
        lead = choose(((), (1,), (2,), (0,)))
        shapes = [(*lead, inputs * groups, *sizes), (outputs, inputs, *kernel)]
        return tuple([*shapes, (outputs,)] if bias else shapes), options

    return draw


def pool_case(d: int, maximum: bool) -> Callable[[Any], Any]:
    def draw(choose: Any) -> Any:
        kernel = tuple(choose((1, 2, 3)) for _ in range(d))
        options = {
            "kernel_size": kernel[0] if len(set(kernel)) == 1 and choose((True, False)) else kernel,
            "stride": None if choose((True, False)) else some(choose, d, (1, 2)),
            "padding": tuple(choose(range(k // 2 + 1)) for k in kernel),
        }
        spans = kernel
        if maximum:
            dilation = tuple(choose((1, 1, 2)) for _ in range(d))
            options["dilation"] = dilation
            spans = tuple(a * (k - 1) + 1 for k, a in zip(kernel, dilation, strict=True))
        else:
            options["count_include_pad"] = choose((True, False))
        sizes = tuple(n + choose((0, 1, 2)) for n in spans)
        return ((*choose(((), (1,), (2,), (0,))), choose((1, 2)), *sizes),), options

    return draw


def window_case(choose: Any) -> Any:
    d = choose((1, 2))
    kernel, stride, dilation = (tuple(choose((1, 2, 3)) for _ in range(d)) for _ in range(3))
    sizes = tuple(a * (k - 1) + 1 + choose((0, 1, 3)) for k, a in zip(kernel, dilation, strict=True))
    shape = (choose((1, 2)), *sizes, choose((0, 1, 2)))
    return (shape,), {"kernel": kernel, "stride": stride, "dilation": dilation}


def added_case(choose: Any) -> Any:
    (shape,), options = window_case(choose)
    zipped = zip(shape[1:-1], options["kernel"], options["stride"], options["dilation"], strict=True)
    out = tuple(len(range(0, n - a * (k - 1), s)) for n, k, s, a in zipped)
    return ((shape[0], math.prod(options["kernel"]), *out, shape[-1]),), {"shape": shape, **options}


def windows_by_hand(x: np.ndarray, kernel: Any, stride: Any, dilation: Any) -> np.ndarray:
    out, found = patches(np.moveaxis(x, -1, 0), kernel, stride, dilation)
    y = np.zeros((x.shape[0], math.prod(kernel), *out, x.shape[-1]), x.dtype)
    for place, patch in found:
        y[(slice(None), slice(None), *place)] = np.moveaxis(patch.reshape(*patch.shape[:2], math.prod(kernel)), 0, -1)
    return y


def added_by_hand(w: np.ndarray, shape: Any, kernel: Any, stride: Any, dilation: Any) -> np.ndarray:
    """Every entry of x is numbered, and the windows of the numbers say where each entry of w belongs."""
    numbers = windows_by_hand(np.arange(math.prod(shape)).reshape(shape), kernel, stride, dilation)
    return np.bincount(numbers.reshape(-1), w.reshape(-1), math.prod(shape)).astype(w.dtype).reshape(shape)


ROWS = [
    Domain(windows, "", windows_by_hand, draw=window_case, analytic=True),
    Domain(overlap_add, "", added_by_hand, draw=added_case, analytic=True),
    Domain(F.conv1d, "", conv, draw=conv_case(1, True), analytic=True),
    Domain(F.conv2d, "", conv, draw=conv_case(2, True), analytic=True),
    Domain(F.conv2d, "", conv, draw=conv_case(2, False), analytic=True, name="conv2d without bias"),
    Domain(F.max_pool1d, "", max_pooled(1), (Distinct(),), draw=pool_case(1, True)),
    Domain(F.max_pool2d, "", max_pooled(2), (Distinct(),), draw=pool_case(2, True)),
    Domain(F.avg_pool1d, "", avg_pooled(1), draw=pool_case(1, False), analytic=True),
    Domain(F.avg_pool2d, "", avg_pooled(2), draw=pool_case(2, False), analytic=True),
]


WITHOUT_KERNELS = [row for row in ROWS if str(row).startswith("max")]


@pytest.mark.parametrize(
    ("row", "kernels"), [*((r, True) for r in ROWS), *((r, False) for r in WITHOUT_KERNELS)], ids=str
)
def test_all_laws(row: Domain, kernels: bool) -> None:
    tr.enable_fused(kernels)
    try:
        counts = check_op(row.op, row, examples=FEW)
    finally:
        tr.enable_fused(True)
    laws = {"value", "gradient", "second derivative", "linear", "transpose", "zero", "float32", "backend", "layout"}
    assert laws <= set(counts), counts


# --- what the laws do not say -------------------------------------------------------------------------------


@given(st.data())
def test_the_kernel_of_maxima_is_its_definition(data: st.DataObject) -> None:
    """With ties of any number, infinities and NaN, whose gradient nobody gets."""
    d = data.draw(st.sampled_from((1, 2)))
    (shape,), options = pool_case(d, True)(lambda values: data.draw(st.sampled_from(list(values))))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    values = rng.choice([0.0, 1.0, 2.0, -math.inf, math.nan], shape, p=[0.3, 0.3, 0.3, 0.05, 0.05])
    found = []
    for kernels in (True, False):
        tr.enable_fused(kernels)
        try:
            x = tr.Tensor(values, requires_grad=True)
            y = (F.max_pool1d, F.max_pool2d)[d - 1](x, **options)
            found.append((y.numpy(), tr.grad(y, [x], np.random.default_rng(0).standard_normal(y.shape))[0].numpy()))
        finally:
            tr.enable_fused(True)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-14)  # what comes from windows that overlap may cancel


@given(st.integers(0, 2**20), st.integers(1, 2))
@examples(dev=30, ci=50, thorough=300)
def test_equal_maxima_share_the_gradient(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x = tr.Tensor(rng.integers(0, 2, (2, 3, *(5, 6)[:d])).astype(float), requires_grad=True)
    pool = (F.max_pool1d, F.max_pool2d)[d - 1]
    y = pool(x, 3, 2, 1)
    g = rng.standard_normal(y.shape)
    (found,) = tr.grad(y, [x], g)
    expected = np.zeros([n + 2 for n in x.shape[2:]]) + np.zeros((2, 3, *(1,) * d))
    inside = (..., *(slice(1, -1),) * d)
    padded = np.full(expected.shape, -math.inf)
    padded[inside] = x.numpy()
    for place in np.ndindex(y.shape[2:]):
        window = (slice(None), slice(None), *(slice(2 * i, 2 * i + 3) for i in place))
        axes = tuple(range(2, d + 2))
        best = padded[window] == padded[window].max(axes, keepdims=True)
        share = g[(slice(None), slice(None), *place)].reshape(2, 3, *(1,) * d) / best.sum(axes, keepdims=True)
        expected[window] += best * share
    assert_close(found.numpy(), expected[inside], 1e-14)


def test_a_convolution_used_at_every_step_has_one_gradient() -> None:
    """A weight that meets several inputs, and another library's layout of them: the sum of what each pulls back."""
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((2, 1, 2, 2)), rng.standard_normal(2)
    frames = rng.standard_normal((3, 2, 1, 4, 3))

    def f(frames: tr.Tensor, w: tr.Tensor, b: tr.Tensor) -> tr.Tensor:
        h = F.conv2d(frames[0], w, b)
        for frame in (frames[1], frames[2]):
            h = tr.tanh(h) + F.conv2d(frame, w, b)
        return h

    check_gradients(f, frames, w, b, order=2)


def test_pictures_keep_their_order_in_memory_from_layer_to_layer() -> None:
    """The batch stays last: no layer between two convolutions copies only to change the order."""
    x = tr.randn(5, 3, 8, 8)
    w = tr.randn(4, 3, 3, 3)
    for y in (
        F.conv2d(x, w, padding=1),
        F.max_pool2d(F.conv2d(x, w), 2),
        F.avg_pool2d(tr.relu(F.conv2d(x, w)), 2),
        F.batch_norm(F.conv2d(x, w), training=True),
    ):
        assert np.moveaxis(y.numpy(), 0, -1).flags.c_contiguous


def test_what_has_no_steps_to_go_stays_as_it_is() -> None:
    x = tr.randn(2, 3, 5)
    for y in (F.max_pool1d(x, 1), F.avg_pool1d(x, 1), F.conv1d(x, tr.Tensor(np.eye(3, dtype="f")[:, :, None]))):
        assert (y.numpy() == x.numpy()).all()


def test_a_mask_of_padding_does_not_win_over_what_is_small() -> None:
    x = -tr.ones(1, 1, 3, 3)
    assert F.max_pool2d(x, 3, 1, 1).tolist() == x.tolist()
    low = tr.full((1, 1, 2), -math.inf)
    assert F.max_pool1d(low, 2).tolist() == [[[-math.inf]]]


def test_errors_name_what_does_not_fit() -> None:
    x, w = tr.zeros(2, 3, 8, 8), tr.zeros(4, 3, 3, 3)
    shape_errors: list[tuple[Callable[[], Any], str]] = [
        (
            lambda: F.conv2d(tr.zeros(8, 8), w),
            r"conv2d: the input must be \(N, C, H, W\) or \(C, H, W\), got .*\(8, 8\)",
        ),
        (lambda: F.conv1d(x, tr.zeros(4, 3, 3)), r"conv1d: the input must be \(N, C, L\) or \(C, L\)"),
        (lambda: F.conv2d(x, tr.zeros(4, 3, 3)), r"the weight must be \(O, C / groups, KH, KW\), got \(4, 3, 3\)"),
        (lambda: F.conv2d(x, tr.zeros(4, 2, 3, 3)), r"weight \(4, 2, 3, 3\) is for 2 channels, but the input has 3"),
        (lambda: F.conv2d(x, w, groups=2), "is for 2 groups of 3 channels, but the input has 3"),
        (lambda: F.conv2d(x, w, tr.zeros(3)), r"the bias must have shape \(4,\), got \(3,\)"),
        (lambda: F.conv2d(x, w, dilation=4), r"windows of \(9, 9\) do not fit into an input of \(8, 8\)"),
        (lambda: F.conv2d(x, w, padding=1, dilation=(1, 5)), r"windows of \(3, 11\) do not fit into .* \(10, 10\)"),
        (lambda: F.max_pool2d(x, 9), r"max_pool2d: windows of \(9, 9\) do not fit"),
        (
            lambda: F.avg_pool1d(tr.zeros(3), 2),
            r"avg_pool1d: the input must be \(N, C, L\) or \(C, L\), got shape \(3,\)",
        ),
    ]
    for f, message in shape_errors:
        with pytest.raises(ShapeError, match=message):
            f()
    value_errors: list[tuple[Callable[[], Any], str]] = [
        (lambda: F.conv2d(x, w, stride=0), "stride must be an integer of at least 1, or 2 of them, got 0"),
        (lambda: F.conv2d(x, w, stride=(1, 2, 3)), r"stride must be .* got \(1, 2, 3\)"),
        (lambda: F.conv2d(x, w, dilation=1.5), "dilation must be an integer"),  # type: ignore[arg-type]
        (lambda: F.conv2d(x, w, stride=True), "stride must be an integer"),
        (lambda: F.conv2d(x, w, padding=-1), "padding must be an integer of at least 0"),
        (lambda: F.conv2d(x, w, padding="full"), 'padding must be a number, .* "same" or "valid", got \'full\''),
        (lambda: F.conv2d(x, w, padding="same", stride=2), 'padding="same" needs a stride of 1'),
        (lambda: F.conv2d(x, w, groups=3), "groups must be a positive integer that divides the 4 outputs, got 3"),
        (lambda: F.conv2d(x, w, groups=0), "groups must be a positive integer"),
        (
            lambda: F.max_pool2d(x, 2, padding=2),
            r"max_pool2d: padding \(2, 2\) is more than half of a window of \(2, 2\)",
        ),
        (lambda: F.max_pool1d(x, 0), "kernel_size must be an integer of at least 1, got 0"),
    ]
    for g, message in value_errors:
        with pytest.raises(ValueError, match=message):
            g()
    with pytest.raises(DTypeError, match="avg_pool2d: the input must be floats, got int64"):
        F.avg_pool2d(tr.Tensor(np.zeros((1, 2, 2), np.int64)), 2)


@given(st.data())
@examples(dev=30, ci=100, thorough=1000)
def test_values_and_gradients_are_pytorchs(data: st.DataObject) -> None:
    torch = pytest.importorskip("torch")
    choose = lambda values: data.draw(st.sampled_from(list(values)))
    d = choose((1, 2))
    kind = choose(("conv", "max_pool", "avg_pool"))
    if kind == "conv":
        shapes, options = conv_case(d, choose((True, False)))(choose)
        spans = [a * (k - 1) for k, a in zip(shapes[1][2:], each(options["dilation"], d), strict=True)]
        if options["padding"] == "same" and any(n % 2 for n in spans):
            options["padding"] = "valid"  # PyTorch warns where it must put more at the end than at the start
    else:
        shapes, options = pool_case(d, kind == "max_pool")(choose)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    arrays = [rng.standard_normal(shape) for shape in shapes]
    ours = [tr.Tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    name = f"{kind}{d}d"
    y, z = getattr(F, name)(*ours, **options), getattr(torch.nn.functional, name)(*theirs, **options)
    assert_close(y.numpy(), z.detach().numpy(), 1e-12)
    g = rng.standard_normal(y.shape)
    y.backward(g)
    z.backward(torch.tensor(g))
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None
        assert_close(a.grad.numpy(), b.grad.numpy(), 1e-11)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_device_agrees_with_the_host(row: Domain, device: str) -> None:
    for seed in range(5):
        case = row.sample(seed)
        found = []
        for where in (device, "cpu"):
            leaves = [tr.Tensor(x, device=where, requires_grad=True) for x in case.arrays(row)]
            y = row(*leaves, **case.options)
            g = tr.Tensor(np.random.default_rng(seed).standard_normal(y.shape), device=where)
            found.append([t.numpy() for t in (y, *tr.grad(y, leaves, g))])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_values_are_real() -> None:
    """The table draws what a convolution meets: some cases have several groups, a dilation, an empty batch."""
    cases = [ROWS[3].sample(seed) for seed in range(60)]
    assert any(c.options["groups"] == 2 for c in cases) and any(0 in c.shapes[0] for c in cases)
    assert any(c.options["padding"] == "same" for c in cases) and any(len(c.shapes[0]) == 3 for c in cases)
    assert ROWS[3].values == (Real(),)
