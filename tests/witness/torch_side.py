"""PyTorch's sample inputs, and one sample run through both libraries."""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.witness import adapters
from tests.witness.adapters import Refused, refuse_if

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")
if not torch.__version__.startswith("2.13."):
    pytest.skip("the adapters are for the samples of PyTorch 2.13", allow_module_level=True)

PACKAGE = Path(tr.__file__).parent
RTOL = {"float64": 1e-9, "float32": 2e-5, "float16": 2e-3}


@contextlib.contextmanager
def without_hypothesis() -> Iterator[None]:
    """PyTorch's test helpers replace Hypothesis's profiles, "dev" among them, unless it is not installed."""
    held = sys.modules.pop("hypothesis", None)
    sys.modules["hypothesis"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["hypothesis"]
        if held is not None:
            sys.modules["hypothesis"] = held


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Only around PyTorch's own code: what it warns of is not ours to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def databases() -> tuple[dict[str, Any], dict[str, Any]]:
    """PyTorch's tables of ops and of modules with their samples, by name. Imported late: it takes seconds."""
    with quiet(), without_hypothesis():
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
    torch.set_num_threads(1)  # the arrays are small
    ops = {f"{op.name}.{op.variant_test_name}".rstrip("."): op for op in op_db}
    return ops, {module.name: module for module in module_db}


def seed() -> None:
    """Samples are drawn from global generators."""
    from torch.testing._internal.common_utils import set_rng_seed

    set_rng_seed(0)


def samples(op: Any, dtype: str) -> list[Any]:
    seed()
    with quiet():
        return list(op.sample_inputs("cpu", getattr(torch, dtype), requires_grad=op.supports_autograd))


def references(op: Any, dtype: str) -> list[Any]:
    """The reference inputs, if they are others than the samples, with gradients where they can be had."""
    seed()
    with quiet():
        # Some generators draw integers, too, and raise if they shall require a gradient.
        drawn = list(op.reference_inputs("cpu", getattr(torch, dtype), requires_grad=False))
    if op.reference_inputs_func is None and len(drawn) == len(samples(op, dtype)):
        return []
    for sample in drawn if op.supports_autograd else ():
        for t in tensors((sample.input, sample.args, sample.kwargs), torch.Tensor):
            t.requires_grad_(t.is_leaf and t.dtype.is_floating_point)
    return drawn


def tensors(nested: Any, kind: type) -> list[Any]:
    """All tensors of a kind in sequences and dicts."""
    if isinstance(nested, kind):
        return [nested]
    if isinstance(nested, dict):
        nested = nested.values()
    if isinstance(nested, str) or not isinstance(nested, Iterable):
        return []
    return [t for v in nested for t in tensors(v, kind)]


def to_numpy(t: Any) -> np.ndarray:
    return t.detach().numpy(force=True)


def raw(value: Any) -> Any:
    return value.numpy() if isinstance(value, tr.Tensor) else value


Leaves = dict[int, tuple[Any, tr.Tensor]]


def translated(value: Any, leaves: Leaves) -> Any:
    """`value` with our tensors for PyTorch's: one for one, and each with its twin in `leaves`."""
    if isinstance(value, torch.Tensor):
        refuse_if(value.dtype.is_complex, "complex")
        refuse_if(value.dtype == torch.bfloat16, "bfloat16")
        refuse_if(value.ndim > 64, "65 axes")
        if id(value) not in leaves:
            leaves[id(value)] = value, tr.Tensor(to_numpy(value), requires_grad=value.requires_grad)
        return leaves[id(value)][1]
    refuse_if(isinstance(value, complex), "complex")
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, dict):
        return {k: translated(v, leaves) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(translated(v, leaves) for v in value)
    return [translated(v, leaves) for v in value] if isinstance(value, list) else value


def assert_same(what: str, ours: np.ndarray, theirs: np.ndarray, rounding: float = 0) -> None:
    """The same shape, dtype and values: errors of floats relative to the largest, or so many times the epsilon."""
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, PyTorch's {theirs.shape}"
    assert ours.dtype == theirs.dtype, f"{what}: dtype {ours.dtype}, PyTorch's {theirs.dtype}"
    same = (ours == theirs) | ((ours != ours) & (theirs != theirs))
    if ours.dtype.kind == "f":
        finite = np.isfinite(theirs)
        largest = np.abs(theirs[finite], dtype=np.float64).max(initial=0)
        tolerance = max(RTOL[str(ours.dtype)] * largest, rounding * float(np.finfo(ours.dtype).eps))
        with np.errstate(all="ignore"):
            same |= finite & (np.abs(ours - theirs) <= tolerance)
    if not same.all():
        i = tuple(int(k) for k in np.argwhere(~same)[0])
        count = f"{(~same).sum()} of {same.size} differ"
        raise AssertionError(f"{what}{list(i)}: {ours[i]!r}, PyTorch's {theirs[i]!r}; {count}")


def compare(name: str, op: Callable[..., Any], sample: Any, rng: np.random.Generator) -> str:
    """Run one sample through both. What was compared: "gradients", or "values" where there are none to compare."""
    leaves: Leaves = {}
    args = translated((sample.input, *sample.args), leaves)
    options = translated(sample.kwargs, leaves)
    with np.errstate(all="ignore"):
        mine = tensors(adapters.ADAPTERS[name](*args, **options), tr.Tensor)
        kink = adapters.ON_A_KINK[name](*map(raw, args), **options) if name in adapters.ON_A_KINK else None
    refuse_if(not mine, "no tensor")
    with quiet():
        x = sample.input.log_softmax(-1) if name in adapters.AFTER_LOG_SOFTMAX else sample.input
        theirs = tensors(op(x, *sample.args, **sample.kwargs), torch.Tensor)
    refuse_if(not theirs, "no tensor")
    assert len(mine) == len(theirs), f"{len(mine)} results, PyTorch's {len(theirs)}"
    rounding = adapters.ROUNDING.get(name, 0)
    for i, (y, z) in enumerate(zip(mine, theirs, strict=True)):
        assert_same(f"result {i}", y.numpy(), to_numpy(z), rounding)
    if name in adapters.NO_GRADIENT_AT_NAN and not all(np.isfinite(x.numpy()).all() for _, x in leaves.values()):
        return "values"
    return differentiated(name, mine, theirs, leaves, kink, rounding, rng)


def differentiated(
    name: str,
    mine: list[tr.Tensor],
    theirs: list[Any],
    leaves: Leaves,
    kink: Any,
    rounding: float,
    rng: np.random.Generator,
) -> str:
    """Pull random cotangents back through both, and compare what arrives."""
    pairs = [(y, z) for y, z in zip(mine, theirs, strict=True) if z.requires_grad]
    inputs = [(t, x) for t, x in leaves.values() if t.requires_grad]
    if not pairs or not inputs:
        return "values"
    gs = [rng.standard_normal(y.shape).astype(y.dtype) for y, _ in pairs]
    if kink is not None:
        gs = [np.where(kink, 0, g).astype(g.dtype) for g in gs]
    try:
        with quiet():
            ts = [t for t, _ in inputs]
            expected = torch.autograd.grad([z for _, z in pairs], ts, [torch.tensor(g) for g in gs], allow_unused=True)
    except RuntimeError:
        if name in adapters.NO_GRADIENT_THERE:
            return "values"
        raise
    with np.errstate(all="ignore"):
        found = tr.grad([y for y, _ in pairs], [x for _, x in inputs], gs)
    for i, ((t, _), ours, want) in enumerate(zip(inputs, found, expected, strict=True)):
        a, b = ours.numpy(), to_numpy(torch.zeros_like(t) if want is None else want)
        if name in adapters.ZERO_FOR_NAN and a.shape == b.shape:
            b = np.where((a == 0) & np.isnan(b), a, b)
        assert_same(f"gradient {i}", a, b, rounding)
    return "gradients"


def shown(value: Any) -> str:
    """An argument in a message: of a tensor the shape and dtype."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(shown, value))})"
    return f"{value!r:.40}"


def judged(name: str, kind: str, dtype: str) -> dict[str, int]:
    """Compare the "samples" or the "reference inputs" of an op: how many, how many with gradients, how many refused for
    what. Raises for what differs.
    """
    op, counts, wrong = databases()[0][name], Counter[str](), []
    rng = np.random.default_rng(0)
    for sample in (samples if kind == "samples" else references)(op, dtype):
        try:
            compared = compare(name, op.op, sample, rng)
        except Refused as refused:
            counts[f"refused: {refused.reason}"] += 1
        except Exception as error:  # noqa: BLE001  (whatever it is, the others are tried, too)
            arguments = [shown(v) for v in (sample.input, *sample.args)]
            arguments += [f"{k}={shown(v)}" for k, v in sample.kwargs.items()]
            wrong.append(f"{name}({', '.join(arguments)}): {type(error).__name__}: {error}")
        else:
            counts[f"{kind} {dtype}"] += 1
            counts[f"{kind} {dtype} with gradients"] += compared == "gradients"
    if wrong:
        raise AssertionError(f"{len(wrong)} {kind} differ:\n" + "\n".join(wrong[:8]))
    return dict(counts)


def refusal(run: Callable[[], Any], shown: str, accepted: str | None) -> str:
    """What becomes of what PyTorch refuses: "errors", a clear one of ours, or else what ours takes, for what reason."""
    try:
        with np.errstate(all="ignore"):
            run()
    except Refused as refused:
        return f"refused: {refused.reason}"
    except (tr.errors.TinygradRnnError, ValueError, TypeError, IndexError) as error:
        assert str(error).strip(), shown
        files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
        assert any(Path(file).is_relative_to(PACKAGE) for file in files), f"{shown}: the adapter raised {error!r}"
        return "errors"
    assert accepted, f"{shown} raises nothing"
    return f"accepted: {accepted}"
