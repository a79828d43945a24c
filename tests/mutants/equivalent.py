"""Mutants that survive because they compute the same: why, and which (file, what stood there and what stands there)."""

# ruff: noqa: E501 (a line of code, twice)

from __future__ import annotations

EQUIVALENT: dict[str, list[str]] = {
    "0 times anything is 0": [
        "tensor/ops/elementwise.py: @op(lambda g: 0 * g)  ->  @op(lambda g: 0 * (-g))",
        "tensor/ops/elementwise.py: @op(lambda g: 0 * g)  ->  @op(lambda g: 0 * (0 * g))",
        "tensor/ops/elementwise.py: @op(lambda g: 0 * g)  ->  @op(lambda g: 0 * (2 * g))",
        "tensor/ops/elementwise.py: @op(lambda g, x, p: times(g, p * _power(x, p - 1)) if p else 0 * g)  ->  @op(lambda g, x, p: times(g, p * _power(x, p - 1)) if p else 0 * (-g))",
        "tensor/ops/elementwise.py: @op(lambda g, x, p: times(g, p * _power(x, p - 1)) if p else 0 * g)  ->  @op(lambda g, x, p: times(g, p * _power(x, p - 1)) if p else 0 * (0 * g))",
        "tensor/ops/elementwise.py: @op(lambda g, x, p: times(g, p * _power(x, p - 1)) if p else 0 * g)  ->  @op(lambda g, x, p: times(g, p * _power(x, p - 1)) if p else 0 * (2 * g))",
    ],
    "where x is above 0 `where` takes the other branch, and this one need only be finite": [
        "tensor/ops/elementwise.py: @op(lambda g, x, alpha: where(x > 0, g, g * (alpha * exp(minimum(x, 0.0)))))  ->  @op(lambda g, x, alpha: where(x > 0, g, g * (alpha * exp(minimum(x, 1.0)))))",
    ],
    "any large bound will do: the sigmoid beside it is 0 by then": [
        "tensor/ops/elementwise.py: @op(lambda g, x, y: g * (sigmoid(x) + minimum(y, 1000.0) * sigmoid(-x)))  # inf * 0 would be NaN; 1000 * 0 is 0  ->  @op(lambda g, x, y: g * (sigmoid(x) + minimum(y, 1001.0) * sigmoid(-x)))  # inf * 0 would be NaN; 1000 * 0 is 0",
        "tensor/ops/elementwise.py: @op(lambda g, x, y: g * (sigmoid(x) + minimum(y, 1000.0) * sigmoid(-x)))  # inf * 0 would be NaN; 1000 * 0 is 0  ->  @op(lambda g, x, y: g * (sigmoid(x) + minimum(y, 999.0) * sigmoid(-x)))  # inf * 0 would be NaN; 1000 * 0 is 0",
    ],
    "from 9 on the tanh is 1 to the last digit, so it does not matter where it is clipped": [
        "tensor/ops/elementwise.py: @op(lambda g, x: g * _gelu_slope(clip(x, -10.0, 10.0)))  ->  @op(lambda g, x: g * _gelu_slope(clip(x, - 11.0, 10.0)))",
        "tensor/ops/elementwise.py: @op(lambda g, x: g * _gelu_slope(clip(x, -10.0, 10.0)))  ->  @op(lambda g, x: g * _gelu_slope(clip(x, - 9.0, 10.0)))",
        "tensor/ops/elementwise.py: @op(lambda g, x: g * _gelu_slope(clip(x, -10.0, 10.0)))  ->  @op(lambda g, x: g * _gelu_slope(clip(x, -10.0, 11.0)))",
        "tensor/ops/elementwise.py: @op(lambda g, x: g * _gelu_slope(clip(x, -10.0, 10.0)))  ->  @op(lambda g, x: g * _gelu_slope(clip(x, -10.0, 9.0)))",
    ],
    "a basic index scattered as any other: the same sum, more slowly": [
        "tensor/ops/indexing.py: @op(lambda g, index: Part(g, index, basic=True))  ->  @op(lambda g, index: Part(g, index, basic=False))",
        "nn/kernels.py: d if t is None else Part(d, t, basic=True),  ->  d if t is None else Part(d, t, basic=False),",
    ],
    "NumPy takes any negative length for the rest": [
        "tensor/ops/indexing.py: places = (xp.reshape(xp.arange(n), (-1,) + (1,) * (len(shape) - 1 - i)) for i, n in enumerate(shape))  ->  places = (xp.reshape(xp.arange(n), (- 2,) + (1,) * (len(shape) - 1 - i)) for i, n in enumerate(shape))",
    ],
    "another line computes the same product, more slowly: operands are folded to 2-D for speed alone": [
        "tensor/ops/linalg.py: if b.ndim > 2 and len(a_shape) == 1:  # (I,) @ (..., I, K)  ->  if b.ndim > 1 and len(a_shape) == 1:  # (I,) @ (..., I, K)",
        "tensor/ops/linalg.py: return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 1 else matmul(g, b.mT)  ->  return _rows(g, b.mT) if b.ndim == 1 and g.ndim > 1 else matmul(g, b.mT)",
        "tensor/ops/linalg.py: return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 1 else matmul(g, b.mT)  ->  return _rows(g, b.mT) if b.ndim == 2 and g.ndim <= 1 else matmul(g, b.mT)",
        "tensor/ops/linalg.py: return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 1 else matmul(g, b.mT)  ->  return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 0 else matmul(g, b.mT)",
        "tensor/ops/linalg.py: return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 1 else matmul(g, b.mT)  ->  return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 2 else matmul(g, b.mT)",
        "tensor/ops/linalg.py: return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 1 else matmul(g, b.mT)  ->  return _rows(g, b.mT) if b.ndim == 2 and g.ndim >= 1 else matmul(g, b.mT)",
        "tensor/ops/linalg.py: if b.ndim > 2 and len(a_shape) == 1:  # (I,) @ (..., I, K)  ->  if b.ndim >= 2 and len(a_shape) == 1:  # (I,) @ (..., I, K)",
        "tensor/ops/linalg.py: if b.ndim > 2 and len(a_shape) == 1:  # (I,) @ (..., I, K)  ->  if (len(a_shape) == 1):  # (I,) @ (..., I, K)",
        "tensor/ops/linalg.py: return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 1 else matmul(g, b.mT)  ->  return (matmul(g, b.mT))",
        "tensor/ops/linalg.py: return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 1 else matmul(g, b.mT)  ->  return _rows(g, b.mT) if (b.ndim == 2) else matmul(g, b.mT)",
        "tensor/ops/linalg.py: if len(b_shape) == 2:  # (..., I) @ (I, K)  ->  if False:  # (..., I) @ (I, K)",
        "tensor/ops/linalg.py: return dot(x, W) if x.ndim == 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))  ->  return dot(x, W) if not x.ndim == 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))",
        "tensor/ops/linalg.py: return dot(x, W) if x.ndim == 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))  ->  return dot(x, W) if x.ndim != 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))",
        "tensor/ops/linalg.py: return dot(x, W) if x.ndim == 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))  ->  return dot(x, W) if x.ndim == 1 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))",
        "tensor/ops/linalg.py: return dot(x, W) if x.ndim == 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))  ->  return dot(x, W) if x.ndim == 3 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))",
        "tensor/ops/linalg.py: return dot(x, W) if x.ndim == 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))  ->  return (dot(x, W))",
        "tensor/ops/linalg.py: return dot(x, W) if x.ndim == 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))  ->  return (reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1])))",
        "tensor/ops/linalg.py: return dot(x, W) if x.ndim == 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))  ->  return dot(x, W) if x.ndim == 2 else reshape(dot((x), W), (*x.shape[:-1], W.shape[1]))",
        "tensor/ops/linalg.py: return Product(x, g) if x.ndim == 2 == g.ndim else Product(fold(x), fold(g))  ->  return Product(x, g) if x.ndim != 2 == g.ndim else Product(fold(x), fold(g))",
        "tensor/ops/linalg.py: return Product(x, g) if x.ndim == 2 == g.ndim else Product(fold(x), fold(g))  ->  return Product(x, g) if x.ndim == 2 != g.ndim else Product(fold(x), fold(g))",
        "tensor/ops/linalg.py: return Product(x, g) if x.ndim == 2 == g.ndim else Product(fold(x), fold(g))  ->  return (Product(fold(x), fold(g)))",
        "tensor/ops/linalg.py: return x if x.ndim == 2 else reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))  ->  return (reshape(x, (math.prod(x.shape[:-1]), x.shape[-1])))",
    ],
    "the axis has length 1, or is the only one": [
        "tensor/ops/linalg.py: return (b @ expand_dims(g, -1))[..., 0]  ->  return (b @ expand_dims(g, -1))[..., -1]",
        "tensor/ops/linalg.py: return expand_dims(a, -1) * expand_dims(g, -2)  ->  return expand_dims(a, 1) * expand_dims(g, -2)",
    ],
    "a mean of nothing has a gradient without elements": [
        "tensor/ops/reduction.py: @op(lambda g, x_shape, axis: spread(g * (1 / (count(x_shape, axis) or 1)), x_shape, axis))  ->  @op(lambda g, x_shape, axis: spread(g * (1 / (count(x_shape, axis) or 2)), x_shape, axis))",
    ],
    "the common type of two does not depend on their order": [
        "tensor/ops/reduction.py: wide = xp.result_type(x.dtype, xp.float32)  # float16 could not count beyond 2048  ->  wide = xp.result_type(xp.float32, x.dtype)  # float16 could not count beyond 2048",
    ],
    "0 divided by 2 is 0, too": [
        "tensor/ops/reduction.py: return where(zero, 0.0, x) / where(zero, 1.0, y)  ->  return where(zero, 0.0, x) / where(zero, 2.0, y)",
    ],
    "only the number of its axes is asked for": [
        "tensor/ops/shape.py: @op(joint=lambda g, axis: [g[along(g, axis, t)] for t in range(g.shape[axis])], promote=True)  ->  @op(joint=lambda g, axis: [g[along((-g), axis, t)] for t in range(g.shape[axis])], promote=True)",
        "tensor/ops/shape.py: @op(joint=lambda g, axis: [g[along(g, axis, t)] for t in range(g.shape[axis])], promote=True)  ->  @op(joint=lambda g, axis: [g[along((0 * g), axis, t)] for t in range(g.shape[axis])], promote=True)",
        "tensor/ops/shape.py: @op(joint=lambda g, axis: [g[along(g, axis, t)] for t in range(g.shape[axis])], promote=True)  ->  @op(joint=lambda g, axis: [g[along((2 * g), axis, t)] for t in range(g.shape[axis])], promote=True)",
    ],
    "both have one entry for each axis: `_pairs` has made sure": [
        "tensor/ops/shape.py: return tuple(slice(before, before + n) for n, (before, _) in zip(shape, _pairs(widths, len(shape)), strict=True))  ->  return tuple(slice(before, before + n) for n, (before, _) in zip(shape, _pairs(widths, len(shape)), strict=False))",
    ],
}
