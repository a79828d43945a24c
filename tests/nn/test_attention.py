"""Attention: against NumPy by hand, numeric derivatives and PyTorch; masks, queries that see nothing, every refusal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tests.reference import assert_close
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn.functional import positional_encoding, scaled_dot_product_attention, sequence_mask
from tinygrad_rnn.testing import check_gradients, check_module

F64 = {"dtype": "float64"}


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis; 0 where all is -inf."""
    e = np.exp(x - np.maximum(x.max(-1, keepdims=True, initial=-np.inf), -1e300))
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300)


def array(rng: np.random.Generator, *shape: int) -> tr.Tensor:
    return tr.Tensor(rng.standard_normal(shape), requires_grad=True)


def hidden(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A mask that hides about a third, and now and then all from one query."""
    mask = rng.random(shape) < 0.3
    return mask | (rng.random(shape[:-1] + (1,)) < 0.2)


def of_weights(layer: tr.nn.Module, call: Any, without: str = "") -> tuple[Any, list[np.ndarray]]:
    """`call` as a function of its inputs and, after them, of the weights of `layer`; and these weights."""
    places = [(m, n) for m in layer.modules() for n, p in vars(m).items() if isinstance(p, tr.nn.Parameter)]
    places = [place for place in places if place[1] != without]
    own = [getattr(module, name) for module, name in places]

    def put(weights: Any) -> None:
        for (module, name), weight in zip(places, weights, strict=True):
            object.__setattr__(module, name, weight)  # which setattr refuses: it is no Parameter

    def f(*xs: tr.Tensor) -> Any:
        try:
            put(xs[len(xs) - len(places) :])
            return call(*xs[: len(xs) - len(places)])
        finally:
            put(own)

    return f, [p.numpy() for p in own]


# The bias of keys adds the same to all scores of a query: its slope is 0, and what rounding makes of it jumps about.
NO_SLOPE = "in_proj_bias"

SIZES = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))  # B, L, S, width


@given(
    sizes=SIZES,
    lead=st.sampled_from([(), (2,)]),
    kind=st.sampled_from(["none", "booleans", "floats"]),
    causal=st.booleans(),
    scale=st.none() | st.just(0.3),
    seed=st.integers(0, 2**20),
)
def test_scaled_dot_product_attention(
    sizes: tuple[int, ...], lead: tuple[int, ...], kind: str, causal: bool, scale: float | None, seed: int
) -> None:
    B, L, S, E = sizes
    rng = np.random.default_rng(seed)
    q, k, v = (array(rng, B, *lead, n, m) for n, m in ((L, E), (S, E), (S, 2)))
    hide = hidden(rng, *((L, S) if seed % 2 else (B, *lead, L, S)))
    mask = {"none": None, "booleans": ~hide, "floats": np.where(hide, -np.inf, rng.standard_normal(hide.shape))}[kind]
    scores = (q.numpy() @ k.numpy().swapaxes(-1, -2)) * (1 / math.sqrt(E) if scale is None else scale)
    if mask is not None:
        scores = np.where(hide, -np.inf, scores if kind == "booleans" else scores + mask)
    if causal:
        scores = np.where(np.tri(L, S, dtype=bool), scores, -np.inf)
    y = scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)
    np.testing.assert_allclose(y.numpy(), softmax(scores) @ v.numpy(), rtol=1e-11, atol=1e-13)
    blind = np.broadcast_to(scores == -np.inf, (B, *lead, L, S)).all(-1)
    assert (y.numpy()[blind] == 0).all()
    slopes = tr.grad(y, [q, k, v], rng.standard_normal(y.shape) * blind[..., None], retain_graph=True)
    assert all((slope.numpy() == 0).all() for slope in slopes)
    assert (tr.grad(y, q, np.ones(y.shape)).numpy()[blind] == 0).all()


@pytest.mark.parametrize("mask", ["none", "booleans", "floats"])
def test_gradients_of_scaled_dot_product_attention(mask: str) -> None:
    """Of a mask of floats too: a bias for positions can be learnt."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 4, 2)), rng.standard_normal((2, 4, 3))
    hide = hidden(rng, 2, 3, 4)
    hide[0, 0] = True
    if mask == "floats":
        bias = rng.standard_normal((3, 4))
        check_gradients(scaled_dot_product_attention, q, k, v, bias, order=2)
        check_gradients(lambda *xs: scaled_dot_product_attention(*xs, is_causal=True), q, k, v, bias, order=2)
    else:
        keep = None if mask == "none" else ~hide
        check_gradients(lambda q, k, v: scaled_dot_product_attention(q, k, v, keep), q, k, v, order=2)


def test_what_scaled_dot_product_attention_refuses_and_keeps() -> None:
    q, k, v = tr.zeros(2, 3, 4), tr.zeros(2, 5, 4), tr.zeros(2, 5, 6)
    with pytest.raises(ShapeError, match=r"got \(2, 3, 4\), \(2, 5, 4\) and \(2, 4, 6\)"):
        scaled_dot_product_attention(q, k, tr.zeros(2, 4, 6))
    with pytest.raises(ShapeError, match=r"got \(2, 3, 4\), \(2, 5, 3\)"):
        scaled_dot_product_attention(q, tr.zeros(2, 5, 3), v)
    with pytest.raises(ShapeError, match=r"a mask \(5, 3\) does not broadcast to the weights, \(2, 3, 5\)"):
        scaled_dot_product_attention(q, k, v, np.ones((5, 3), bool))
    with pytest.raises(ShapeError, match=r"a mask \(1, 2, 3, 5\)"):
        scaled_dot_product_attention(q, k, v, np.ones((1, 2, 3, 5), bool))
    with pytest.raises(DTypeError, match="a mask must be booleans, or floats to add, got int64"):
        scaled_dot_product_attention(q, k, v, np.ones((3, 5), int))
    for dtype in ("float16", "float32"):
        q, k, v = (x.to(dtype) for x in (q, k, v))
        assert scaled_dot_product_attention(q, k, v, np.zeros((3, 5)), is_causal=True).dtype == np.dtype(dtype)
    tr.manual_seed(0)
    y = scaled_dot_product_attention(tr.zeros(400, 1, 2), tr.zeros(400, 1, 2), tr.ones(400, 1, 1), dropout_p=0.25)
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1 / 0.75)}
    strict = pytest.importorskip("array_api_strict")
    x = np.random.default_rng(0).standard_normal((2, 3, 2))
    y = scaled_dot_product_attention(*[tr.Tensor(strict.asarray(x))] * 3, is_causal=True)
    assert_close(y.numpy(), scaled_dot_product_attention(*[tr.Tensor(x)] * 3, is_causal=True).numpy(), 1e-14)


# --- a decoder that looks at an encoder -------------------------------------------------------------------


def make(kind: str, Q: int, K: int, **options: Any) -> tr.nn.Module:
    if kind == "additive":
        return tr.nn.AdditiveAttention(Q, K, 5, **F64, **options)
    return tr.nn.DotAttention(Q, K, **F64, **options) if kind == "general" else tr.nn.DotAttention(**options)


def by_hand(
    attention: Any, query: np.ndarray, keys: np.ndarray, values: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Contexts (L, B, V) and weights (B, L, S), a pair of query and key at a time."""
    (L, B, _), S = query.shape, len(keys)
    p = {name: value.numpy() for name, value in attention.named_parameters()}
    scores = np.full((B, L, S), -np.inf)
    for b, i, j in np.ndindex(B, L, S):
        q, k = query[i, b], keys[j, b]
        if mask[j, b] and "score.weight" in p:
            z = p["query_layer.weight"] @ q + p["key_layer.weight"] @ k + p["key_layer.bias"]
            scores[b, i, j] = p["score.weight"][0] @ np.tanh(z)
        elif mask[j, b]:
            scores[b, i, j] = q @ (p["key_layer.weight"] @ k if p else k)
    weights = softmax(scores)
    return np.einsum("bls,sbv->lbv", weights, np.where(mask[..., None], values, 0)), weights


@pytest.mark.parametrize("kind", ["additive", "dot", "general"])
@given(
    sizes=SIZES,
    batch_first=st.booleans(),
    own_values=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_attention_to_an_encoder(
    kind: str, sizes: tuple[int, ...], batch_first: bool, own_values: bool, masked: bool, seed: int
) -> None:
    """Values by hand; all queries at once are the same as one by one; what is hidden may be NaN, and gets 0."""
    B, L, S, Q = sizes
    K = Q if kind == "dot" else 3
    rng = np.random.default_rng(seed)
    attention = make(kind, Q, K, batch_first=batch_first)
    query, keys = rng.standard_normal((L, B, Q)), rng.standard_normal((S, B, K))
    values = rng.standard_normal((S, B, 2)) if own_values else keys
    mask = ~hidden(rng, B, S).T if masked else np.ones((S, B), bool)
    context, weights = by_hand(attention, query, keys, values, mask)
    turn = (lambda x: x.swapaxes(0, 1)) if batch_first else (lambda x: x)
    cut = np.where(mask[..., None], 1, np.nan)
    q, k, v = (tr.Tensor(turn(x), requires_grad=True) for x in (query, keys * cut, values * cut))
    given = (k, v if own_values else None, turn(mask) if masked else None)
    y, w = attention(q, *given)
    np.testing.assert_allclose(y.numpy(), turn(context), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(w.numpy(), weights, rtol=1e-10, atol=1e-13)
    leaves = [q, k, v, *attention.parameters()]
    slopes = tr.grad([y, w], leaves, [rng.standard_normal(y.shape), rng.standard_normal(w.shape)])
    assert all(np.isfinite(slope.numpy()).all() for slope in slopes)
    assert all((slope.numpy()[~turn(mask)] == 0).all() for slope in slopes[1:3])
    memory = attention.prepare(*given)
    for i in range(L):
        one, its_weights = attention.attend(tr.Tensor(query[i]), memory)
        np.testing.assert_allclose(one.numpy(), context[i], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(its_weights.numpy(), weights[:, i], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", ["additive", "dot", "general"])
def test_gradients_of_attention_to_an_encoder(kind: str) -> None:
    rng = np.random.default_rng(0)
    attention = make(kind, 3, 3 if kind == "dot" else 2)
    query, keys, values = rng.standard_normal((2, 3, 3)), rng.standard_normal((4, 3, 3)), rng.standard_normal((4, 3, 2))
    keys = keys if kind == "dot" else keys[..., :2]
    mask = sequence_mask([4, 2, 1], 4).numpy().copy()
    mask[:, 2] = False  # this one sees nothing
    f, weights = of_weights(attention, lambda *xs: attention(*xs, mask))
    check_gradients(f, query, keys, values, *weights, order=2)


@st.composite
def inputs(draw: Any, kind: str) -> tuple[np.ndarray, ...]:
    """Queries, keys, values and a mask for a decoder, or one sequence: of any lengths, 1 too, and of no batch."""
    L, S, B = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    x, k, v = (rng.uniform(-1, 1, (n, B, 4)) for n in (L, S, S))
    return {"decoder": (x, k, v, ~hidden(rng, B, S).T), "three": (x, k, v), "one": (x,)}[kind]


LAYERS: dict[str, tuple[Any, str]] = {
    "additive": (lambda: tr.nn.AdditiveAttention(4, 4, 3), "decoder"),
    "dot": (lambda: tr.nn.DotAttention(), "decoder"),
    "general": (lambda: tr.nn.DotAttention(4, 4), "decoder"),
    "several heads": (lambda: tr.nn.MultiheadAttention(4, 2, dropout=0.3), "three"),
    "encoder": (lambda: tr.nn.TransformerEncoderLayer(4, 2, 6, 0.3), "one"),
    "encoder, norm first": (lambda: tr.nn.TransformerEncoderLayer(4, 2, 3, 0.3, "gelu", norm_first=True), "one"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_laws_of_modules(name: str) -> None:
    make, kind = LAYERS[name]
    counts = check_module(make, inputs(kind), examples=examples(dev=8, ci=12, thorough=200).max_examples)
    assert counts["gradient"] and counts["zero"]


def test_a_sequence_of_which_nothing_is_seen() -> None:
    for kind in ("additive", "dot"):
        attention = make(kind, 2, 2)
        q, k = (tr.ones(3, 2, 2, dtype="float64", requires_grad=True) for _ in range(2))
        context, weights = attention(q, k, mask=[[True, False]] * 3)
        assert (context.numpy()[:, 1] == 0).all() and (weights.numpy()[1] == 0).all()
        slopes = tr.grad(context[:, 1].sum(), [q, k, *attention.parameters()])
        assert all((slope.numpy() == 0).all() for slope in slopes)


def test_what_attention_to_an_encoder_refuses_and_shows() -> None:
    additive, dot = tr.nn.AdditiveAttention(3, 4, 5), tr.nn.DotAttention()
    q, k = tr.zeros(6, 2, 3), tr.zeros(7, 2, 4)
    with pytest.raises(ShapeError, match=r"keys and values must be \(S, B, ...\), got \(7, 2, 4\) and \(6, 2, 4\)"):
        additive(q, k, tr.zeros(6, 2, 4))
    with pytest.raises(ShapeError, match=r"queries must be \(L, 2, Q\), or \(2, Q\) for one step, .* got \(6, 3, 3\)"):
        additive(tr.zeros(6, 3, 3), k)
    with pytest.raises(ShapeError, match=r"queries must be \(2, L, Q\).* got \(3, 3\)"):
        tr.nn.AdditiveAttention(3, 4, 5, batch_first=True)(tr.zeros(3, 3), tr.zeros(2, 7, 4))
    with pytest.raises(ShapeError, match=r"keys \(7, 2, 4\) need a mask \(7, 2\), got \(2, 7\)"):
        additive(q, k, mask=np.ones((2, 7), bool))
    with pytest.raises(DTypeError, match=r"mask must be booleans \(True: to be seen\), got float64"):
        additive(q, k, mask=np.ones((7, 2)))
    with pytest.raises(ShapeError, match="queries of 3 and keys of 4 numbers have no product"):
        dot(q, k)
    with pytest.raises(ValueError, match="both sizes"):
        tr.nn.DotAttention(3)
    with pytest.raises(ValueError, match="hidden_size must be a positive integer, got 0"):
        tr.nn.AdditiveAttention(3, 4, 0)
    assert repr(tr.nn.DotAttention(batch_first=True)) == "DotAttention(batch_first=True)"
    assert [n for n, _ in additive.named_parameters()] == [
        "query_layer.weight",
        "key_layer.weight",
        "key_layer.bias",
        "score.weight",
    ]
    assert additive(q, k)[0].dtype == np.float32


# --- several heads ----------------------------------------------------------------------------------------


def heads_by_hand(
    layer: tr.nn.MultiheadAttention, q: np.ndarray, k: np.ndarray, v: np.ndarray, hide: np.ndarray | bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Output (L, E) and weights (num_heads, L, S) of one sequence, each head with its own slices of the projections."""
    assert layer.in_proj_bias is not None and layer.in_proj_weight is not None and layer.out_proj.bias is not None
    E, width = layer.embed_dim, layer.embed_dim // layer.num_heads
    W, b = layer.in_proj_weight.numpy(), layer.in_proj_bias.numpy()
    hide = np.broadcast_to(hide, (layer.num_heads, len(q), len(k)))
    heads, weights = [], []
    for h in range(layer.num_heads):
        rows = [slice(i * E + h * width, i * E + (h + 1) * width) for i in range(3)]
        a, b_, c = (x @ W[r].T + b[r] for x, r in zip((q, k, v), rows, strict=True))
        weights.append(softmax(np.where(hide[h], -np.inf, a @ b_.T / math.sqrt(width))))
        heads.append(weights[-1] @ c)
    joined = np.concatenate(heads, axis=1)
    return joined @ layer.out_proj.weight.numpy().T + layer.out_proj.bias.numpy(), np.stack(weights)


def shaken(layer: Any, rng: np.random.Generator) -> Any:
    """The layer with all weights drawn anew, biases too."""
    for p in layer.parameters():
        p.assign_(rng.standard_normal(p.shape))
    return layer


@given(
    itself=st.booleans(),
    batch_first=st.booleans(),
    single=st.booleans(),
    average=st.booleans(),
    seed=st.integers(0, 99),
)
def test_several_heads_by_hand(itself: bool, batch_first: bool, single: bool, average: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    E, H, L, S, B = 6, 3, 4, 4 if itself else 5, 1 if single else 2
    layer = shaken(tr.nn.MultiheadAttention(E, H, batch_first=batch_first, **F64), rng)
    query, key, value = rng.standard_normal((L, B, E)), rng.standard_normal((S, B, E)), rng.standard_normal((S, B, E))
    hide, padding = hidden(rng, B * H, L, S), hidden(rng, B, S)

    def turned(x: np.ndarray) -> Any:
        return tr.Tensor(x[:, 0] if single else x.swapaxes(0, 1) if batch_first else x)

    q = turned(query)
    k, v = (q, q) if itself else (turned(key), turned(value))
    key, value = (query, query) if itself else (key, value)
    output, weights = layer(q, k, v, padding[0] if single else padding, True, hide, average)
    for n in range(B):
        both = hide[n * H : n * H + H] | padding[n]
        expected, w = heads_by_hand(layer, query[:, n], key[:, n], value[:, n], both)
        found = output.numpy() if single else output.numpy()[n] if batch_first else output.numpy()[:, n]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
        found = weights.numpy() if single else weights.numpy()[n]
        np.testing.assert_allclose(found, w.mean(0) if average else w, rtol=1e-10, atol=1e-13)


def test_weights_are_drawn_as_documented() -> None:
    for options, top in (({}, math.sqrt(6 / 256)), ({"kdim": 32}, math.sqrt(6 / 128))):
        layer = tr.nn.MultiheadAttention(64, 4, **options)
        weight = layer.q_proj_weight if options else layer.in_proj_weight
        assert 0.98 * top < np.abs(weight.numpy()).max() <= top * (1 + 1e-6)
        assert (layer.in_proj_bias.numpy() == 0).all() and (layer.out_proj.bias.numpy() == 0).all()


def test_gradients_of_several_heads() -> None:
    rng = np.random.default_rng(0)
    layer = tr.nn.MultiheadAttention(4, 2, **F64)
    other = tr.nn.MultiheadAttention(4, 2, kdim=3, vdim=2, **F64)
    x, key, value = rng.standard_normal((3, 2, 4)), rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 2, 2))
    padding = np.array([[False, False, True, True, False], [True] * 5])
    calls: list[tuple[Any, Any, tuple[np.ndarray, ...]]] = [
        (layer, lambda x: layer(x, x, x, is_causal=True), (x,)),
        (layer, lambda q, k: layer(q, k, k, average_attn_weights=False), (x, x[::-1].copy())),
        (other, lambda q, k, v: other(q, k, v, padding), (x, key, value)),
    ]
    for attention, call, inputs in calls:
        f, weights = of_weights(attention, call)
        check_gradients(f, *inputs, *weights)
        f, weights = of_weights(attention, call, NO_SLOPE)
        check_gradients(f, *inputs, *weights, order=2)


def test_queries_that_see_nothing() -> None:
    layer = tr.nn.MultiheadAttention(4, 2, **F64)
    assert layer.out_proj.bias is not None
    layer.out_proj.bias.assign_([1.0, 2.0, 3.0, 4.0])
    x = tr.randn(3, 2, 4, **F64, requires_grad=True)
    output, weights = layer(x, x, x, key_padding_mask=[[True] * 3, [False] * 3])
    assert (output.numpy()[:, 0] == [1, 2, 3, 4]).all() and (weights.numpy()[0] == 0).all()
    slopes = dict(
        zip(["x", *dict(layer.named_parameters())], tr.grad(output[:, 0].sum(), [x, *layer.parameters()]), strict=True)
    )
    assert [name for name, slope in slopes.items() if (slope.numpy() != 0).any()] == ["out_proj.bias"]


def test_causal_is_the_mask_of_all_that_comes_later() -> None:
    layer = tr.nn.MultiheadAttention(4, 2, **F64)
    x = tr.randn(5, 2, 4, **F64)
    y, weights = layer(x, x, x, is_causal=True)
    z, same = layer(x, x, x, attn_mask=np.triu(np.ones((5, 5), bool), 1))
    assert (y.numpy() == z.numpy()).all() and (weights.numpy() == same.numpy()).all()
    past, _ = layer(x[:3], x[:3], x[:3], is_causal=True)
    np.testing.assert_allclose(y.numpy()[:3], past.numpy(), rtol=1e-12)
    assert layer(x, x, x, need_weights=False)[1] is None


def test_dropout_of_weights() -> None:
    layer = tr.nn.MultiheadAttention(4, 2, dropout=0.5)
    x = tr.randn(6, 3, 4)
    assert (layer(x, x, x)[0].numpy() != layer(x, x, x)[0].numpy()).any()
    _, weights = layer(x, x, x, average_attn_weights=False)
    assert 0.2 < (weights.numpy() == 0).mean() < 0.8
    layer.eval()
    assert (layer(x, x, x)[0].numpy() == layer(x, x, x)[0].numpy()).all()
    tr.manual_seed(3)
    encoder = tr.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5)
    assert (encoder(x).numpy() != encoder(x).numpy()).any()
    assert (encoder.eval()(x).numpy() == encoder(x).numpy()).all()


def test_what_several_heads_refuse_and_show() -> None:
    layer = tr.nn.MultiheadAttention(4, 2, kdim=3)
    x, k, v = tr.zeros(5, 2, 4), tr.zeros(6, 2, 3), tr.zeros(6, 2, 4)
    shapes = r"must be \(L, B, 4\), \(S, B, 3\) and \(S, B, 4\), or all without the axis B, got "
    for xs, shown in (
        ((x, v, v), r"\(5, 2, 4\), \(6, 2, 4\) and \(6, 2, 4\)"),
        ((x, k, tr.zeros(5, 2, 4)), r"\(5, 2, 4\), \(6, 2, 3\) and \(5, 2, 4\)"),
        ((tr.zeros(5, 1, 4), k, v), r"\(5, 1, 4\), \(6, 2, 3\)"),
        ((x[:, 0], k, v), r"\(5, 4\), \(6, 2, 3\)"),
    ):
        with pytest.raises(ShapeError, match=shapes + shown):
            layer(*xs)
    with pytest.raises(ShapeError, match=r"\(B, L, 4\), \(B, S, 4\)"):
        tr.nn.MultiheadAttention(4, 2, batch_first=True)(x, v, v[:1])
    with pytest.raises(ShapeError, match=r"key_padding_mask must be \(2, 6\), got \(6, 2\)"):
        layer(x, k, v, np.zeros((6, 2), bool))
    with pytest.raises(ShapeError, match=r"key_padding_mask must be \(6,\), got \(1, 6\)"):
        layer(x[:, 0], k[:, 0], v[:, 0], np.zeros((1, 6), bool))
    with pytest.raises(ShapeError, match=r"attn_mask must be \(5, 6\) or \(4, 5, 6\), got \(6, 5\)"):
        layer(x, k, v, attn_mask=np.zeros((6, 5), bool))
    with pytest.raises(DTypeError, match="MultiheadAttention: a mask must be booleans, or floats to add, got int64"):
        layer(x, k, v, attn_mask=np.zeros((5, 6), int))
    with pytest.raises(DTypeError, match="the key is float64, but the weights are float32"):
        layer(x, k.to("float64"), v)
    with pytest.raises(ValueError, match="3 heads do not divide embed_dim 4"):
        tr.nn.MultiheadAttention(4, 3)
    with pytest.raises(ValueError, match=r"dropout: the probability must lie in \[0, 1\]"):
        tr.nn.MultiheadAttention(4, 2, dropout=2.0)
    assert repr(layer).startswith("MultiheadAttention(4, 2, kdim=3), ")
    assert [n for n, _ in tr.nn.MultiheadAttention(4, 2, bias=False).named_parameters()] == [
        "in_proj_weight",
        "out_proj.weight",
    ]
    for dtype in ("float16", "float32"):
        x = x.to(dtype)
        y, w = tr.nn.MultiheadAttention(4, 2, dtype=dtype)(x, x, x)
        assert y.dtype == w.dtype == np.dtype(dtype)


def test_float32_is_near_float64() -> None:
    layer = tr.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu")
    x, found = np.random.default_rng(0).standard_normal((6, 2, 8)), []
    for dtype in ("float32", "float64"):
        z = tr.Tensor(x, dtype=dtype, requires_grad=True)
        y = layer.to(dtype)(z)
        slopes = tr.grad(y, [z, *layer.parameters()], np.cos(x.astype(dtype)))
        found.append((y.numpy(), *(slope.numpy() for slope in slopes)))
    for a, b in zip(*found, strict=True):
        assert a.dtype == np.float32
        assert np.abs(a - b).max() <= 1e-4 * max(np.abs(b).max(), 1e-2)


# --- the encoder layer and positions ----------------------------------------------------------------------


@pytest.mark.parametrize("norm_first", [True, False])
def test_gradients_of_an_encoder_layer(norm_first: bool) -> None:
    layer = tr.nn.TransformerEncoderLayer(4, 2, 6, 0.0, "gelu", norm_first=norm_first, **F64)
    x = np.random.default_rng(0).standard_normal((3, 2, 4))
    f, weights = of_weights(layer, lambda x: layer(x, is_causal=True))
    check_gradients(f, x, *weights)
    f, weights = of_weights(layer, lambda x: layer(x, is_causal=True), NO_SLOPE)
    check_gradients(f, x, *weights, order=2)
    padding = np.array([[False, False, True], [False, True, True]])
    check_gradients(lambda x: layer(x, src_key_padding_mask=padding), x)


def normed(x: np.ndarray, norm: tr.nn.LayerNorm) -> np.ndarray:
    assert norm.weight is not None and norm.bias is not None
    z = x - x.mean(-1, keepdims=True)
    return z / np.sqrt((z * z).mean(-1, keepdims=True) + norm.eps) * norm.weight.numpy() + norm.bias.numpy()


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("dropped", ["", "dropout", "dropout1", "dropout2"])
def test_an_encoder_layer_by_hand(norm_first: bool, dropped: str) -> None:
    """Its dropouts stand where they should: with a probability of 1 a branch is gone."""
    rng = np.random.default_rng(0)
    layer = shaken(tr.nn.TransformerEncoderLayer(4, 2, 6, 0.0, "relu", 1e-3, norm_first=norm_first, **F64), rng)
    x = rng.standard_normal((3, 4))
    if dropped:
        getattr(layer, dropped).p = 1.0

    def attend(x: np.ndarray) -> np.ndarray:
        return heads_by_hand(layer.self_attn, x, x, x, np.triu(np.ones((3, 3), bool), 1))[0] * (dropped != "dropout1")

    def feed(x: np.ndarray) -> np.ndarray:
        (U, b), (W, c) = ((m.weight.numpy(), m.bias.numpy()) for m in (layer.linear1, layer.linear2))
        return (np.maximum(x @ U.T + b, 0) * (dropped != "dropout") @ W.T + c) * (dropped != "dropout2")

    if norm_first:
        y = x + attend(normed(x, layer.norm1))
        y = y + feed(normed(y, layer.norm2))
    else:
        y = normed(x + attend(x), layer.norm1)
        y = normed(y + feed(y), layer.norm2)
    np.testing.assert_allclose(layer(x, is_causal=True).numpy(), y, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(layer(x[:, None], is_causal=True).numpy()[:, 0], y, rtol=1e-9, atol=1e-11)


def test_activations_of_an_encoder_layer() -> None:
    x = tr.randn(3, 2, 4)
    tr.manual_seed(1)
    named = tr.nn.TransformerEncoderLayer(4, 2, 6, 0.0)
    tr.manual_seed(1)
    given = tr.nn.TransformerEncoderLayer(4, 2, 6, 0.0, lambda x: tr.relu(x))
    assert (named(x).numpy() == given(x).numpy()).all()
    with pytest.raises(ValueError, match='activation must be "relu", "gelu" or a function, got \'tanh\''):
        tr.nn.TransformerEncoderLayer(4, 2, 6, 0.0, "tanh")
    assert "norm_first=True" in repr(tr.nn.TransformerEncoderLayer(4, 2, 6, norm_first=True))


@pytest.mark.parametrize(("T", "d"), [(1, 1), (5, 4), (7, 5)])
def test_positional_encoding(T: int, d: int) -> None:
    expected = np.zeros((T, d))
    for t, i in np.ndindex(T, d):
        angle = t / 10000 ** ((i - i % 2) / d)
        expected[t, i] = math.cos(angle) if i % 2 else math.sin(angle)
    found = positional_encoding(T, d, dtype="float64")
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-15)
    assert not found.requires_grad and positional_encoding(T, d).dtype == np.float32
    with pytest.raises(ValueError, match="d_model must be a positive integer, got 0"):
        positional_encoding(3, 0)


def test_an_encoder_layer_learns_what_a_mean_cannot() -> None:
    """To say of each step which sign the first had: only attention with positions can."""
    rng = np.random.default_rng(0)
    tr.manual_seed(0)
    first = tr.nn.Linear(1, 16)
    layer = tr.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0)
    last = tr.nn.Linear(16, 1)
    modules = tr.nn.ModuleList([first, layer, last])
    optimiser = tr.optim.Adam(modules.parameters(), lr=0.01)
    losses = []
    for _ in range(80):
        x = rng.choice([-1.0, 1.0], (6, 32, 1)).astype("float32")
        y = last(layer(first(x) + positional_encoding(6, 16)[:, None]))
        loss = tr.nn.functional.mse_loss(y, np.broadcast_to(x[:1], x.shape))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.5 and np.mean(losses[-5:]) < 0.1


# --- PyTorch ----------------------------------------------------------------------------------------------


@given(data=st.data())
@examples(dev=20, ci=60, thorough=300)
def test_several_heads_as_in_pytorch(data: Any) -> None:
    """Every option and mask; where PyTorch's output is NaN, ours is the output bias."""
    torch = pytest.importorskip("torch")
    draw = data.draw
    H, width = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    E, L, S, B = H * width, draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    batch_first, bias, single = (draw(st.booleans()) for _ in range(3))
    itself = draw(st.booleans())
    options: dict[str, Any] = {"batch_first": batch_first, "bias": bias}
    if not itself and draw(st.booleans()):
        options |= {"kdim": draw(st.integers(1, 3)), "vdim": draw(st.integers(1, 3))}
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    theirs = torch.nn.MultiheadAttention(E, H, dtype=torch.float64, **options)
    ours = tr.nn.MultiheadAttention(E, H, **F64, **options)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [
        (n, tuple(p.shape)) for n, p in theirs.named_parameters()
    ]
    for name, p in ours.named_parameters():
        p.assign_(rng.standard_normal(p.shape))
        theirs.get_parameter(name).data = torch.tensor(p.numpy())
    S = L if itself else S

    def axes(n: int, size: int) -> tuple[int, ...]:
        return (n, size) if single else (B, n, size) if batch_first else (n, B, size)

    query = rng.standard_normal(axes(L, E))
    key = query if itself else rng.standard_normal(axes(S, options.get("kdim", E)))
    value = query if itself else rng.standard_normal(axes(S, options.get("vdim", E)))
    padding = attn = None
    if draw(st.booleans()):
        padding = hidden(rng, S) if single else hidden(rng, B, S)
    if draw(st.booleans()):
        attn = hidden(rng, L, S) if draw(st.booleans()) else hidden(rng, (1 if single else B) * H, L, S)
        if draw(st.booleans()) and padding is None:
            attn = np.where(attn, -np.inf, rng.standard_normal(attn.shape))
    average = draw(st.booleans())
    results = []
    for layer, make in ((ours, tr.Tensor), (theirs, torch.tensor)):
        q = make(query, requires_grad=True)
        k, v = (q, q) if itself else (make(key, requires_grad=True), make(value, requires_grad=True))
        masks = {n: None if m is None else make(m) for n, m in (("key_padding_mask", padding), ("attn_mask", attn))}
        results.append((q, k, v, *layer(q, k, v, average_attn_weights=average, **masks)))
    (q, k, v, y, w), (q2, k2, v2, z, u) = results
    good = ~np.isnan(z.detach().numpy()).any(-1)
    np.testing.assert_allclose(y.numpy()[good], z.detach().numpy()[good], rtol=1e-9, atol=1e-11)
    expected = np.nan_to_num(u.detach().numpy()) if average is False else u.detach().numpy()
    assert w.shape == expected.shape
    seen = ~np.isnan(expected)
    np.testing.assert_allclose(w.numpy()[seen], expected[seen], rtol=1e-9, atol=1e-12)
    if good.all():
        g, h = rng.standard_normal(y.shape), rng.standard_normal(w.shape)
        ((y * g).sum() + (w * h).sum()).backward()
        ((z * torch.tensor(g)).sum() + (u * torch.tensor(h)).sum()).backward()
        pairs = [(q, q2), (k, k2), (v, v2), *((p, theirs.get_parameter(n)) for n, p in ours.named_parameters())]
        for a, b in pairs:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-8, atol=1e-10)


@given(
    norm_first=st.booleans(),
    batch_first=st.booleans(),
    activation=st.sampled_from(["relu", "gelu"]),
    bias=st.booleans(),
    masks=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**20),
)
@examples(dev=10, ci=30, thorough=100)
def test_an_encoder_layer_as_in_pytorch(
    norm_first: bool, batch_first: bool, activation: str, bias: bool, masks: tuple[bool, bool], seed: int
) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    f = {"relu": torch.relu, "gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh")}[activation]
    options = {"norm_first": norm_first, "batch_first": batch_first, "bias": bias, "layer_norm_eps": 1e-3}
    theirs = torch.nn.TransformerEncoderLayer(4, 2, 6, 0.0, f, dtype=torch.float64, **options)
    ours = tr.nn.TransformerEncoderLayer(4, 2, 6, 0.0, activation, **F64, **options)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for name, p in ours.named_parameters():
        p.assign_(rng.standard_normal(p.shape))
        theirs.get_parameter(name).data = torch.tensor(p.numpy())
    x = rng.standard_normal((2, 3, 4) if batch_first else (3, 2, 4))
    mask = np.triu(np.ones((3, 3), bool), 1) if masks[0] else None
    padding = np.array([[False, False, True], [False, False, False]]) if masks[1] else None
    results = []
    for layer, make in ((ours, tr.Tensor), (theirs, torch.tensor)):
        z = make(x, requires_grad=True)
        y = layer(z, *(None if m is None else make(m) for m in (mask, padding)))
        (y * make(x)).sum().backward()
        results.append((y, z.grad, [p.grad for p in layer.parameters()]))
    (y, dx, dp), (y2, dx2, dp2) = results
    np.testing.assert_allclose(y.numpy(), y2.detach().numpy(), rtol=1e-9, atol=1e-11)
    for a, b in zip((dx, *dp), (dx2, *dp2), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-7, atol=1e-10)


@given(causal=st.booleans(), kind=st.sampled_from(["none", "booleans", "floats"]), seed=st.integers(0, 2**20))
@examples(dev=10, ci=30, thorough=100)
def test_scaled_dot_product_attention_as_in_pytorch(causal: bool, kind: str, seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal(shape) for shape in ((2, 3, 4, 2), (2, 3, 5, 2), (2, 3, 5, 3)))
    hide = hidden(rng, 4, 5)
    mask = {"none": None, "booleans": ~hide, "floats": np.where(hide, -np.inf, rng.standard_normal(hide.shape))}[kind]
    causal = causal and mask is None  # PyTorch takes one of them
    results = []
    for f, make in (
        (scaled_dot_product_attention, tr.Tensor),
        (torch.nn.functional.scaled_dot_product_attention, torch.tensor),
    ):
        xs = [make(x, requires_grad=True) for x in (q, k, v)]
        y = f(*xs, attn_mask=None if mask is None else make(mask), is_causal=causal)
        (y * make(np.cos(np.arange(y.shape[-1]) + 1.0))).sum().backward()
        results.append([y.detach().numpy(), *(x.grad.numpy() for x in xs)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"kdim": 3, "vdim": 5}, {"bias": False}])
def test_initial_values_are_drawn_as_in_pytorch(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    ours, theirs = tr.nn.MultiheadAttention(64, 4, **options), torch.nn.MultiheadAttention(64, 4, **options)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        top, expected = np.abs(p.numpy()).max(), q.detach().abs().max().item()
        assert top == pytest.approx(expected, rel=0.05), name


def test_layers_on_the_strict_backend() -> None:
    """With masks of its own and from the host."""
    strict = pytest.importorskip("array_api_strict")
    rng = np.random.default_rng(0)
    x, hide, bias = rng.standard_normal((3, 2, 4)), hidden(rng, 2, 3), rng.standard_normal((3, 3))

    def several(layer: Any, z: tr.Tensor, move: Any) -> tr.Tensor:
        return layer(z, src_key_padding_mask=move(hide), src_mask=bias, is_causal=True)

    def encoder(layer: Any, z: tr.Tensor, move: Any) -> tr.Tensor:
        context, weights = layer(z, z, mask=move(~hide.T))
        return context + weights.sum()

    for layer, call in (
        (tr.nn.TransformerEncoderLayer(4, 2, 6, 0.0, **F64), several),
        (tr.nn.AdditiveAttention(4, 4, 3, **F64), encoder),
        (tr.nn.DotAttention(4, 4, **F64), encoder),
    ):
        results = []
        for wrap, move in ((np.array, np.array), (strict.asarray, strict.asarray), (strict.asarray, np.array)):
            f, weights = of_weights(layer, lambda z, layer=layer, call=call, move=move: call(layer, z, move))
            leaves = [tr.Tensor(wrap(a), requires_grad=True) for a in (x, *weights)]
            y = f(*leaves)
            results.append([y.numpy(), *(g.numpy() for g in tr.grad(tr.sin(y).sum(), leaves))])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
def test_attention_on_a_gpu() -> None:
    """With masks from the host, as they come."""
    tr.manual_seed(0)
    layer = tr.nn.TransformerEncoderLayer(8, 2, 16, 0.0)
    additive = tr.nn.AdditiveAttention(8, 8, 5)
    x, results = np.random.default_rng(0).standard_normal((4, 2, 8)).astype("float32"), []
    for device in ("cpu", "cuda"):
        z = tr.Tensor(x, device=device, requires_grad=True)
        mask = sequence_mask([4, 2], 4)
        y = layer.to(device)(z, src_key_padding_mask=tr.equal(tr.transpose(mask), False), is_causal=True)
        y, _ = additive.to(device)(y, z, mask=mask)
        results.append((y.numpy(), tr.grad(tr.square(y).sum(), z).numpy()))
        assert y.device.partition(":")[0] == device
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
