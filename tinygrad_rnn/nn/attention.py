"""Attention: a mean over a sequence, weighted by how well each of its steps fits what is asked for.

`AdditiveAttention` and `DotAttention` are for a decoder that looks at what an encoder has read, `MultiheadAttention`
and `TransformerEncoderLayer` for sequences that look at themselves. All return their weights, which sum to 1 over the
keys, to be drawn. A query that may see no key at all has weights of 0 and gets 0; it sends back a gradient of exactly
0. (PyTorch gives NaN.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn import functional, init
from tinygrad_rnn.nn.checks import as_tensor, check_dtype, check_probability, check_sizes, mask_beside
from tinygrad_rnn.nn.layers import Dropout, LayerNorm, Linear
from tinygrad_rnn.nn.module import Module, Parameter
from tinygrad_rnn.tensor import creation, ops
from tinygrad_rnn.tensor.backend import is_boolean
from tinygrad_rnn.tensor.tensor import Tensor

Memory = tuple[Tensor, Tensor, Tensor | None]


class _Attention(Module):
    """The base of additive and dot attention: shapes, masks, the weighted mean. A subclass has the scores."""

    batch_first: bool

    def _keys(self, keys: Tensor) -> Tensor:
        """The part of the scores that keys (B, S, K) decide alone, before there is a query."""
        raise NotImplementedError

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """How well queries (B, L, Q) fit what `_keys` returned: (B, L, S)."""
        raise NotImplementedError

    def prepare(self, keys: Any, values: Any = None, mask: Any = None) -> Memory:
        """The part that is the same for every query, to be computed once and given to `attend` at each step."""
        name = type(self).__name__
        keys = as_tensor(keys)
        values = keys if values is None else as_tensor(values)
        axes = "(B, S, ...)" if self.batch_first else "(S, B, ...)"
        if keys.ndim != 3 or values.ndim != 3 or keys.shape[:2] != values.shape[:2]:
            raise ShapeError(f"{name}: keys and values must be {axes}, got {keys.shape} and {values.shape}")
        if mask is not None:
            mask = mask_beside(keys, mask)
            if not is_boolean(mask.dtype):
                raise DTypeError(f"{name}: mask must be booleans (True: to be seen), got {mask.dtype}")
            if mask.shape != keys.shape[:2]:
                raise ShapeError(f"{name}: keys {keys.shape} need a mask {keys.shape[:2]}, got {mask.shape}")
            shown = ops.expand_dims(mask, 2)
            both_are_one = values is keys
            keys = ops.where(shown, keys, 0.0)
            values = keys if both_are_one else ops.where(shown, values, 0.0)
        if not self.batch_first:
            keys, values = ops.swapaxes(keys, 0, 1), ops.swapaxes(values, 0, 1)
            mask = None if mask is None else ops.swapaxes(mask, 0, 1)
        return self._keys(keys), values, None if mask is None else ops.expand_dims(mask, 1)

    def attend(self, query: Any, memory: Memory) -> tuple[Tensor, Tensor]:
        """`context, weights` of queries (L, B, Q) or of one step of them (B, Q), given what `prepare` returned."""
        query = as_tensor(query)
        keys, values, mask = memory
        step, B, given = query.ndim == 2, values.shape[0], query.shape
        if step:
            query = ops.expand_dims(query, 1)
        elif query.ndim == 3 and not self.batch_first:
            query = ops.swapaxes(query, 0, 1)
        if query.ndim != 3 or query.shape[0] != B:
            axes = f"({B}, L, Q)" if self.batch_first else f"(L, {B}, Q)"
            raise ShapeError(
                f"{type(self).__name__}: queries must be {axes}, or ({B}, Q) for one step, with the batch of the keys, "
                f"got {given}"
            )
        scores = self._scores(query, keys)
        weights = ops.softmax(scores if mask is None else ops.where(mask, scores, -math.inf))
        context = weights @ values
        if step:
            return context[:, 0], weights[:, 0]
        return (context if self.batch_first else ops.swapaxes(context, 0, 1)), weights

    def forward(self, query: Any, keys: Any, values: Any = None, mask: Any = None) -> tuple[Tensor, Tensor]:
        """`context, weights`; see the class."""
        return self.attend(query, self.prepare(keys, values, mask))


class AdditiveAttention(_Attention):
    """Attention of Bahdanau, Cho and Bengio (2015, arXiv:1409.0473): how well a query fits a key is the output of a
    small network that is given both.

        score(q, k) = v · tanh(W q + U k + b),   weights = softmax of the scores,   context = Σ weight · value

    `forward(query, keys, values=None, mask=None)` returns `context, weights`:

        query     (L, B, query_size)   states of a decoder; (B, query_size) for one step of it
        keys      (S, B, key_size)     outputs of an encoder
        values    (S, B, V)            what the mean is of; the keys if omitted
        mask      (S, B)               booleans, True where a key may be seen: `functional.sequence_mask(lengths, S)`
        context   (L, B, V)            (B, V) for one step
        weights   (B, L, S)            (B, S) for one step

    With `batch_first` the batch is the first axis of all of them. A decoder that is fed its own words takes one step at
    a time: `memory = attention.prepare(keys, values, mask)` once, then `attention.attend(query, memory)` at each step,
    which returns the same. What the mask hides is never read, NaN included, and gets a gradient of exactly 0; if it
    hides all of a sequence, the context is 0.

    Parameters: `query_layer.weight` W (hidden_size, query_size), `key_layer.weight` U (hidden_size, key_size),
    `key_layer.bias` b (hidden_size,), `score.weight` v (1, hidden_size). Raises `ShapeError` and `DTypeError` naming
    what does not fit.

    >>> import tinygrad_rnn as tr
    >>> attention = tr.nn.AdditiveAttention(query_size=5, key_size=4, hidden_size=8)
    >>> mask = tr.nn.functional.sequence_mask([7, 3], 7)
    >>> context, weights = attention(tr.randn(6, 2, 5), tr.randn(7, 2, 4), mask=mask)
    >>> context.shape, weights.shape, weights[1, 0, 3:].tolist()
    ((6, 2, 4), (2, 6, 7), [0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        hidden_size: int,
        *,
        batch_first: bool = False,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        options: dict[str, Any] = {"dtype": dtype, "device": device, "generator": generator}
        query_size, key_size, hidden_size = check_sizes(
            "AdditiveAttention", query_size=query_size, key_size=key_size, hidden_size=hidden_size
        )
        self.batch_first = batch_first
        self.query_layer = Linear(query_size, hidden_size, bias=False, **options)
        self.key_layer = Linear(key_size, hidden_size, **options)
        self.score = Linear(hidden_size, 1, bias=False, **options)

    def extra_repr(self) -> str:
        return "batch_first=True" if self.batch_first else ""

    def _keys(self, keys: Tensor) -> Tensor:
        keys = self.key_layer(keys)
        return ops.expand_dims(keys, 1)

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        scores: Tensor = self.score(ops.tanh(ops.expand_dims(self.query_layer(query), 2) + keys))
        return scores[..., 0]


class DotAttention(_Attention):
    """Attention of Luong, Pham and Manning (2015, arXiv:1508.04025): a query q fits a key k by their product.

        DotAttention()                        score(q, k) = q · k     "dot", for queries and keys of one size
        DotAttention(query_size, key_size)    score(q, k) = q · W k   "general", with `key_layer.weight` W
                                                                      (query_size, key_size)

    Arguments, shapes, masks and returns are those of `AdditiveAttention`.

    >>> import tinygrad_rnn as tr
    >>> context, weights = tr.nn.DotAttention()(tr.randn(2, 4), tr.randn(7, 2, 4))  # one step of a decoder
    >>> context.shape, weights.shape
    ((2, 4), (2, 7))
    """

    def __init__(
        self,
        query_size: int | None = None,
        key_size: int | None = None,
        *,
        batch_first: bool = False,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        self.batch_first = batch_first
        self.key_layer: Linear | None = None
        if (query_size is None) != (key_size is None):
            raise ValueError("DotAttention: give both sizes for a weight between queries and keys, or neither")
        if query_size is not None and key_size is not None:
            query_size, key_size = check_sizes("DotAttention", query_size=query_size, key_size=key_size)
            self.key_layer = Linear(key_size, query_size, bias=False, dtype=dtype, device=device, generator=generator)

    def extra_repr(self) -> str:
        return "batch_first=True" if self.batch_first else ""

    def _keys(self, keys: Tensor) -> Tensor:
        return (keys if self.key_layer is None else self.key_layer(keys)).mT

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        if query.shape[-1] != keys.shape[1]:
            raise ShapeError(
                f"DotAttention: queries of {query.shape[-1]} and keys of {keys.shape[1]} numbers have no product"
            )
        return query @ keys


class MultiheadAttention(Module):
    """Attention with several heads (Vaswani et al. 2017, arXiv:1706.03762): each has its own projections of query, key
    and value, E / num_heads wide, and its own weights, softmax(q kᵀ / √(E / num_heads)); their means, side by side,
    are projected once more.

    `forward(query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None, average_attn_weights=True,
    is_causal=False)` returns `output, weights`, as PyTorch does:

        query              (L, B, E)        (B, L, E) with batch_first, (L, E) without a batch; so the others
        key                (S, B, kdim)
        value              (S, B, vdim)
        key_padding_mask   (B, S)           booleans, True for keys to ignore; or floats to add to the scores
        attn_mask          (L, S)           the same for each pair; (B * num_heads, L, S) for each head
        output             (L, B, E)
        weights            (B, L, S)        the mean over the heads; (B, num_heads, L, S) without
                                            `average_attn_weights`; None without `need_weights`

    In these two masks True means *not* to look: the padding mask of `lengths` is
    `tr.equal(sequence_mask(lengths, S, batch_first=True), False)`. With `is_causal` a query sees no key after it, and
    needs no attn_mask. What is ignored must be finite. A query that may see nothing gets 0 from the heads, so that the
    output there is the output bias, and its weights are 0. `dropout` drops weights while training; the weights
    returned are those that were used.

    Parameters: `in_proj_weight` (3E, E), or `q_proj_weight` (E, E), `k_proj_weight` (E, kdim), `v_proj_weight`
    (E, vdim) where kdim or vdim differ from E; `in_proj_bias` (3E,), `out_proj.weight` (E, E), `out_proj.bias` (E,);
    drawn as PyTorch draws them (Glorot uniform, biases 0).

    Raises `ShapeError`, `DTypeError` naming what does not fit, `ValueError` if the heads do not divide E.

    >>> import tinygrad_rnn as tr
    >>> attention = tr.nn.MultiheadAttention(8, num_heads=2)
    >>> x = tr.randn(5, 3, 8)
    >>> output, weights = attention(x, x, x, is_causal=True)
    >>> output.shape, weights.shape, weights[0, 0].tolist()
    ((5, 3, 8), (3, 5, 5), [1.0, 0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        kdim, vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        embed_dim, num_heads, kdim, vdim = check_sizes(
            "MultiheadAttention", embed_dim=embed_dim, num_heads=num_heads, kdim=kdim, vdim=vdim
        )
        if embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: {num_heads} heads do not divide embed_dim {embed_dim}")
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.dropout = check_probability("MultiheadAttention: dropout", dropout)
        self.kdim, self.vdim, self.batch_first = kdim, vdim, batch_first

        def weight(out: int, size: int) -> Parameter:
            p = Parameter(creation.zeros(out, size), dtype or "float32", device)
            return init.xavier_uniform_(p, generator=generator)

        self.in_proj_weight: Parameter | None = None
        if kdim == vdim == embed_dim:
            self.in_proj_weight = weight(3 * embed_dim, embed_dim)
        else:
            self.q_proj_weight = weight(embed_dim, embed_dim)
            self.k_proj_weight = weight(embed_dim, kdim)
            self.v_proj_weight = weight(embed_dim, vdim)
        self.in_proj_bias: Parameter | None = None
        if bias:
            self.in_proj_bias = Parameter(creation.zeros(3 * embed_dim), dtype or "float32", device)
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype, device=device, generator=generator)
        if self.out_proj.bias is not None:
            init.constant_(self.out_proj.bias, 0.0)

    def extra_repr(self) -> str:
        options = {"kdim": self.embed_dim, "vdim": self.embed_dim, "dropout": 0.0, "batch_first": False}
        changed = [f"{k}={getattr(self, k)}" for k, default in options.items() if getattr(self, k) != default]
        return ", ".join([str(self.embed_dim), str(self.num_heads), *changed])

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`output, weights`; see the class."""
        q, k, v = self._projected(*self._checked(query, key, value))
        single, batch_first = q.ndim == 2, self.batch_first or q.ndim == 2
        if single:
            q, k, v = (ops.expand_dims(x, 0) for x in (q, k, v))
        width = self.embed_dim // self.num_heads
        apart, together = ((0, 2, 1, 3), (0, 2, 1, 3)) if batch_first else ((1, 2, 0, 3), (2, 0, 1, 3))
        q, k, v = (  # (B, heads, L or S, width)
            ops.transpose(ops.reshape(x, (*x.shape[:2], self.num_heads, width)), apart) for x in (q, k, v)
        )
        scores = self._masked((q * (1 / math.sqrt(width))) @ k.mT, key_padding_mask, attn_mask, single)
        if is_causal:
            scores = functional.causal_scores(scores)
        weights = functional.dropout(ops.softmax(scores), self.dropout, self.is_training())
        means = ops.transpose(weights @ v, together)
        output = self.out_proj(ops.reshape(means, (*means.shape[:2], self.embed_dim)))
        shown = None
        if need_weights:
            shown = ops.mean(weights, axis=1) if average_attn_weights else weights
            shown = shown[0] if single else shown
        return output[0] if single else output, shown

    def _masked(self, scores: Tensor, key_padding_mask: Any, attn_mask: Any, single: bool) -> Tensor:
        """Scores (B, heads, L, S) with both masks."""
        name = "MultiheadAttention"
        B, H, L, S = scores.shape
        if key_padding_mask is not None:
            mask = as_tensor(key_padding_mask)
            if mask.shape != (one_each := (S,) if single else (B, S)):
                raise ShapeError(f"{name}: key_padding_mask must be {one_each}, got {mask.shape}")
            scores = functional.masked_scores(name, scores, ops.reshape(mask, (B, 1, 1, S)), seen=False)
        if attn_mask is not None:
            mask = as_tensor(attn_mask)
            if mask.shape not in {(L, S), (B * H, L, S)}:
                raise ShapeError(f"{name}: attn_mask must be {(L, S)} or {(B * H, L, S)}, got {mask.shape}")
            mask = mask if mask.ndim == 2 else ops.reshape(mask, (B, H, L, S))
            scores = functional.masked_scores(name, scores, mask, seen=False)
        return scores

    def _checked(self, query: Any, key: Any, value: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The three as Tensors (one that is given thrice stays one), or an error that names what does not fit."""
        q = as_tensor(query)
        k = q if key is query else as_tensor(key)
        v = k if value is key else as_tensor(value)
        batch = 0 if self.batch_first else 1
        sizes = self.embed_dim, self.kdim, self.vdim
        good = q.ndim in (2, 3) and q.ndim == k.ndim == v.ndim and k.shape[:-1] == v.shape[:-1]
        good = good and (q.shape[-1], k.shape[-1], v.shape[-1]) == sizes
        if not good or (q.ndim == 3 and q.shape[batch] != k.shape[batch]):
            axes = ("(B, L, {})", "(B, S, {})") if self.batch_first else ("(L, B, {})", "(S, B, {})")
            wanted = [(axes[i > 0]).format(n) for i, n in enumerate(sizes)]
            raise ShapeError(
                f"MultiheadAttention: query, key and value must be {wanted[0]}, {wanted[1]} and {wanted[2]}, or all "
                f"without the axis B, got {q.shape}, {k.shape} and {v.shape}"
            )
        for name, x in (("the query", q), ("the key", k), ("the value", v)):
            check_dtype("MultiheadAttention", name, x, self.out_proj.weight)
        return q, k, v

    def _projected(self, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        """Query, key and value in the spaces of all heads: of one tensor, or of key and value alike, as one product."""
        W, b = self.in_proj_weight, self.in_proj_bias
        if W is not None and q is k is v:
            return ops.split(ops.linear(q, W, b), 3, axis=-1)
        biases = [None] * 3 if b is None else ops.split(b, 3)
        weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight] if W is None else ops.split(W, 3)
        return [ops.linear(x, w, c) for x, w, c in zip((q, k, v), weights, biases, strict=True)]


class TransformerEncoderLayer(Module):
    """A layer of a Transformer's encoder (Vaswani et al. 2017, arXiv:1706.03762): attention of a sequence to itself,
    then two linear layers at each step, each with a residual connection and layer normalisation.

        x = norm1(x + attention(x)),   x = norm2(x + linear2(f(linear1(x))))             as published
        x = x + attention(norm1(x)),   x = x + linear2(f(linear1(norm2(x))))             with `norm_first`

    `forward(src, src_mask=None, src_key_padding_mask=None, is_causal=False)` takes and returns (T, B, d_model),
    (B, T, d_model) with `batch_first`; the masks are those of `MultiheadAttention` (True: not to look). `activation` f
    is "relu", "gelu" (the form with tanh) or a function of a Tensor. It has no sense of order: add a
    `functional.positional_encoding` to what it reads.

    Parameters are PyTorch's: `self_attn`, `linear1`, `linear2`, `norm1`, `norm2`. Raises as its parts do, and
    `ValueError` for another activation.

    >>> import tinygrad_rnn as tr
    >>> layer = tr.nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16)
    >>> x = tr.randn(5, 3, 8) + tr.nn.functional.positional_encoding(5, 8)[:, None]
    >>> layer(x, is_causal=True).shape
    (5, 3, 8)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        functions: dict[Any, Callable[[Tensor], Tensor]] = {"relu": ops.relu, "gelu": ops.gelu}
        if not callable(activation) and activation not in functions:
            raise ValueError(
                f'TransformerEncoderLayer: activation must be "relu", "gelu" or a function, got {activation!r}'
            )
        options: dict[str, Any] = {"dtype": dtype, "device": device}
        drawn = options | {"generator": generator}
        self.activation = activation if callable(activation) else functions[activation]
        self.norm_first = norm_first
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **drawn)
        self.linear1 = Linear(d_model, dim_feedforward, bias, **drawn)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **drawn)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **options)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **options)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)

    def extra_repr(self) -> str:
        return "norm_first=True" if self.norm_first else ""

    def forward(
        self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Tensor:
        """The layer; see the class."""

        def attend(x: Tensor) -> Any:
            y, _ = self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)
            return self.dropout1(y)

        def feed(x: Tensor) -> Any:
            return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))

        x: Tensor = as_tensor(src)
        if self.norm_first:
            x = x + attend(self.norm1(x))
            x = x + feed(self.norm2(x))
        else:
            x = self.norm1(x + attend(x))
            x = self.norm2(x + feed(x))
        return x
