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
        "nn/kernels.py: dstate = Part(both, slice(-2, None), basic=True)  ->  dstate = Part(both, slice(-2, None), basic=False)",
        "nn/kernels.py: return dz if t is None else Part(dz, t, basic=True), dstate, Product(dz, state[-2]) if needs[2] else None, None  ->  return dz if t is None else Part(dz, t, basic=False), dstate, Product(dz, state[-2]) if needs[2] else None, None",
        "nn/kernels.py: dstate = Part(back, -1, basic=True)  ->  dstate = Part(back, -1, basic=False)",
        "nn/kernels.py: inward if t is None else Part(inward, t, basic=True),  ->  inward if t is None else Part(inward, t, basic=False),",
        "nn/cells.py: @op(joint=lambda g, row: [Part(g[t, ...], (row, ...), basic=True) for t in range(g.shape[0])])  ->  @op(joint=lambda g, row: [Part(g[t, ...], (row, ...), basic=False) for t in range(g.shape[0])])",
    ],
    "NumPy takes any negative length for the rest": [
        "tensor/ops/indexing.py: places = (xp.reshape(xp.arange(n), (-1,) + (1,) * (len(shape) - 1 - i)) for i, n in enumerate(shape))  ->  places = (xp.reshape(xp.arange(n), (- 2,) + (1,) * (len(shape) - 1 - i)) for i, n in enumerate(shape))",
        'nn/functional.py: flat = integer_ids(f"{name}: targets", ids).reshape(-1)  ->  flat = integer_ids(f"{name}: targets", ids).reshape(- 2)',
        "nn/functional.py: keep = keep & backend.to_device(_mask(name, mask, ids.shape)._array.reshape(-1), backend.device_of(flat))  ->  keep = keep & backend.to_device(_mask(name, mask, ids.shape)._array.reshape(- 2), backend.device_of(flat))",
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
        "nn/cells.py: H = b_hh.shape[0] // 3  ->  H = b_hh.shape[ -1] // 3",
        "nn/cells.py: return h[0] if single else h  ->  return h[ -1] if single else h",
        "nn/cells.py: return (h[0], c[0]) if single else (h, c)  ->  return (h[ -1], c[0]) if single else (h, c)",
        "nn/cells.py: return (h[0], c[0]) if single else (h, c)  ->  return (h[0], c[ -1]) if single else (h, c)",
        "nn/functional.py: loss = -ops.take_along_axis(log_p, targets[:, None], axis=-1)[:, 0]  ->  loss = -ops.take_along_axis(log_p, targets[:, None], axis=-1)[:, -1]",
        "nn/functional.py: losses = -ops.take_along_axis(x, flat[:, None], axis=-1)[:, 0] if flat.shape[0] else ops.sum(x, axis=-1)  ->  losses = -ops.take_along_axis(x, flat[:, None], axis=-1)[:, -1] if flat.shape[0] else ops.sum(x, axis=-1)",
        "nn/functional.py: losses = -ops.take_along_axis(x, flat[:, None], axis=-1)[:, 0] if flat.shape[0] else ops.sum(x, axis=-1)  ->  losses = -ops.take_along_axis(x, flat[:, None], axis=-1)[:, 0] if flat.shape[ -1] else ops.sum(x, axis=-1)",
        "nn/functional.py: rows = ops.reshape(x, (flat.shape[0], C))  ->  rows = ops.reshape(x, (flat.shape[ -1], C))",
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
    "without t it is None, and x[None] is all of x": [
        "nn/kernels.py: d if t is None else Part(d, t, basic=True),  ->  (Part(d, t, basic=True)),",
        "nn/kernels.py: return dz if t is None else Part(dz, t, basic=True), dstate, Product(dz, state[-2]) if needs[2] else None, None  ->  return (Part(dz, t, basic=True)), dstate, Product(dz, state[-2]) if needs[2] else None, None",
        "nn/kernels.py: inward if t is None else Part(inward, t, basic=True),  ->  (Part(inward, t, basic=True)),",
    ],
    "what nobody wants is computed, and dropped; or what is 0 is subtracted": [
        "nn/kernels.py: xp.matmul(d, W) if needs[1] else None,  ->  (xp.matmul(d, W)),",
        "nn/kernels.py: Product(d, h) if needs[2] else None,  ->  (Product(d, h)),",
        "nn/kernels.py: if needs[1]:  ->  if True:",
        "nn/kernels.py: return dz if t is None else Part(dz, t, basic=True), dstate, Product(dz, state[-2]) if needs[2] else None, None  ->  return dz if t is None else Part(dz, t, basic=True), dstate, (Product(dz, state[-2])), None",
        "nn/kernels.py: Product(across, h) if needs[2] else None,  ->  (Product(across, h)),",
        "nn/kernels.py: xp.sum(dm, axis=0) if needs[3] else None,  ->  (xp.sum(dm, axis=0)),",
        "nn/kernels.py: dw = xp.sum(g * z, axis=0) if needs[1] else None  ->  dw = (xp.sum(g * z, axis=0))",
        "nn/kernels.py: if needs[0]:  ->  if True:",
        "nn/kernels.py: return dx, dw, xp.sum(g, axis=0) if needs[2] else None  ->  return dx, dw, (xp.sum(g, axis=0))",
        "nn/kernels.py: if label_smoothing:  ->  if True:",
    ],
    "the gate of the engine sums over the batch, too": [
        "nn/kernels.py: xp.sum(dm, axis=0) if needs[3] else None,  ->  (dm) if needs[3] else None,",
        "nn/kernels.py: dw = xp.sum(g * z, axis=0) if needs[1] else None  ->  dw = (g * z) if needs[1] else None",
        "nn/kernels.py: return dx, dw, xp.sum(g, axis=0) if needs[2] else None  ->  return dx, dw, (g) if needs[2] else None",
    ],
    "the input of a cell has two axes": [
        "nn/cells.py: i, f, u, o = ops.split(x + ops.linear(h, W), 4, axis=-1)  ->  i, f, u, o = ops.split(x + ops.linear(h, W), 4, axis=1)",
        "nn/cells.py: h_r, h_z, m = ops.split(ops.linear(h, W), 3, axis=-1)  ->  h_r, h_z, m = ops.split(ops.linear(h, W), 3, axis=1)",
        "nn/cells.py: x_r, x_z, x_n = ops.split(x, 3, axis=-1)  ->  x_r, x_z, x_n = ops.split(x, 3, axis=1)",
        "nn/functional.py: return ops.stack([ops.where(keep, loss, 0.0), ops.logsumexp(x, axis=-1)])  ->  return ops.stack([ops.where(keep, loss, 0.0), ops.logsumexp(x, axis=1)])",
        "nn/functional.py: loss = (1 - label_smoothing) * loss - label_smoothing * ops.mean(log_p, axis=-1)  ->  loss = (1 - label_smoothing) * loss - label_smoothing * ops.mean(log_p, axis=1)",
        "nn/functional.py: loss = -ops.take_along_axis(log_p, targets[:, None], axis=-1)[:, 0]  ->  loss = -ops.take_along_axis(log_p, targets[:, None], axis=1)[:, 0]",
        "nn/functional.py: log_p = ops.log_softmax(x, axis=-1)  ->  log_p = ops.log_softmax(x, axis=1)",
        "nn/functional.py: losses = -ops.take_along_axis(x, flat[:, None], axis=-1)[:, 0] if flat.shape[0] else ops.sum(x, axis=-1)  ->  losses = -ops.take_along_axis(x, flat[:, None], axis=-1)[:, 0] if flat.shape[0] else ops.sum(x, axis=1)",
        "nn/functional.py: losses = -ops.take_along_axis(x, flat[:, None], axis=-1)[:, 0] if flat.shape[0] else ops.sum(x, axis=-1)  ->  losses = -ops.take_along_axis(x, flat[:, None], axis=1)[:, 0] if flat.shape[0] else ops.sum(x, axis=-1)",
    ],
    "there are two biases or none": [
        "nn/cells.py: return a if b is None else b if a is None else a + b  ->  return (b if a is None else a + b)",
        "nn/cells.py: return a if b is None else b if a is None else a + b  ->  return a if b is None else (a + b)",
        "nn/cells.py: if b_ih is None or b_hh is None:  ->  if b_ih is None and b_hh is None:",
        "nn/cells.py: if b_ih is None or b_hh is None:  ->  if (b_hh is None):",
        "nn/cells.py: if b_ih is None or b_hh is None:  ->  if (b_ih is None):",
        "nn/cells.py: return b_ih, None  ->  return None, b_ih",
    ],
    "kernels and the plain graph give the same: that is their law": [
        "nn/cells.py: if self.fused:  ->  if not self.fused:",
        "nn/cells.py: if self.fused:  ->  if False:",
        "nn/cells.py: if self.fused:  ->  if True:",
    ],
    "a sum, a conjunction or a maximum does not depend on the order": [
        "nn/cells.py: x = ops.linear(x, self.weight_ih, add_biases(self.bias_ih, self.bias_hh))  ->  x = ops.linear(x, self.weight_ih, add_biases(self.bias_hh, self.bias_ih))",
        "nn/functional.py: keep = keep & backend.to_device(_mask(name, mask, ids.shape)._array.reshape(-1), backend.device_of(flat))  ->  keep = backend.to_device(_mask(name, mask, ids.shape)._array.reshape(-1), backend.device_of(flat)) & keep",
        "nn/functional.py: return ops.sum(losses) / float(max(int(keep.sum()), 1))  ->  return ops.sum(losses) / float(max(1, int(keep.sum())))",
    ],
    "states are counted twice, and the shorter count holds": [
        'nn/cells.py: x, (h, c), single = self._enter(x, check_pair("LSTMCell", hx), 2)  ->  x, (h, c), single = self._enter(x, check_pair("LSTMCell", hx), 3)',
    ],
    "rows that do not count may hold anything finite": [
        "nn/functional.py: return (rows if all_count else ops.where(keep[:, None], rows, 0.0)), flat, keep, ids.shape  ->  return (rows if all_count else ops.where(keep[:, None], rows, -1.0)), flat, keep, ids.shape",
        "nn/functional.py: return (rows if all_count else ops.where(keep[:, None], rows, 0.0)), flat, keep, ids.shape  ->  return (rows if all_count else ops.where(keep[:, None], rows, 1.0)), flat, keep, ids.shape",
    ],
    "where everything counts, nothing is replaced": [
        "nn/functional.py: return (rows if all_count else ops.where(keep[:, None], rows, 0.0)), flat, keep, ids.shape  ->  return ((ops.where(keep[:, None], rows, 0.0))), flat, keep, ids.shape",
    ],
}
