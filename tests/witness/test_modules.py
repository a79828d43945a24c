"""PyTorch's own sample inputs judge our modules: recurrent layers and cells, linear, embedding, norm, losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.witness import torch_side
from tests.witness.adapters import AFTER_LOG_SOFTMAX, Refused, refuse_if
from tests.witness.modules import MODULES, RECURRENT, WITH_DTYPE
from tests.witness.torch_side import assert_same, quiet, tensors, to_numpy, torch, translated

Record = Callable[[str, object], None]
Pairs = list[tuple[str, Any, tr.Tensor]]  # a name, PyTorch's tensor, ours
Packed = torch.nn.utils.rnn.PackedSequence
LAYERS = {"nn.RNN", "nn.LSTM", "nn.GRU"}
ACCEPTED = dict.fromkeys(LAYERS, "bias")


def test_every_class_of_ours_that_pytorch_has_samples_for_is_judged() -> None:
    theirs = {name.rpartition(".")[2] for name in torch_side.databases()[1]}
    assert {f"nn.{name}" for name in set(tr.nn.__all__) & theirs} <= set(MODULES)


def drawn(name: str, dtype: str, kind: str = "inputs", **options: Any) -> Iterable[Any]:
    """The samples or the "error_inputs" of a module."""
    info = torch_side.databases()[1][name]
    torch_side.seed()
    options |= {"device": "cpu", "dtype": getattr(torch, dtype), "requires_grad": True, "training": True}
    return getattr(info, f"module_{kind}_func")(info, **options)


def both(name: str, made: Any, dtype: str) -> tuple[Any, Any, Pairs]:
    """PyTorch's module and ours with the same weights, and the pairs of these."""
    kind = {"dtype": getattr(torch, dtype)} if name in WITH_DTYPE else {}
    with quiet():
        theirs = torch_side.databases()[1][name].module_cls(*made.args, **kind, **made.kwargs)
    ours = MODULES[name](*translated(made.args, {}), **translated(kind | made.kwargs, {}))
    if not isinstance(ours, tr.nn.Module):
        return theirs, ours, []
    ours.load_state_dict({key: p.detach().numpy() for key, p in theirs.state_dict().items()})
    parameters = dict(ours.named_parameters())
    return theirs, ours, [(key, p, parameters[key]) for key, p in theirs.named_parameters()]


def compare(name: str, dtype: str, sample: Any, rng: np.random.Generator) -> None:
    theirs, ours, pairs = both(name, sample.constructor_input, dtype)
    given, named = sample.forward_input.args, sample.forward_input.kwargs
    refuse_if("BatchNorm" in name and not given[0].numel(), "empty batch")
    leaves: torch_side.Leaves = {}
    options = {"x" if key == "input" else key: value for key, value in named.items()}
    mine = tensors(ours(*translated(given, leaves), **translated(options, leaves)), tr.Tensor)
    with quiet():
        x = given[0].log_softmax(-1) if name in AFTER_LOG_SOFTMAX else None
        results = tensors(theirs(*given, **named) if x is None else theirs(x, *given[1:], **named), torch.Tensor)
    pairs += [(f"input {i}", t, x) for i, (t, x) in enumerate(leaves.values()) if t.requires_grad]
    assert_all_same(mine, results, pairs, rng, steps=name in LAYERS)


def assert_all_same(mine: list[tr.Tensor], theirs: list[Any], pairs: Pairs, rng: Any, steps: bool) -> None:
    """Results, and in float64 the gradients of all `pairs` for random cotangents of all results; with `steps` those of
    each step of the first input, too, relative to its own size.
    """
    assert len(mine) == len(theirs)
    for i, (y, z) in enumerate(zip(mine, theirs, strict=True)):
        assert_same(f"result {i}", y.numpy(), to_numpy(z))
    if mine[0].dtype == np.float32:  # where tanh saturates its slope has few digits, or none
        return
    gs = [rng.standard_normal(y.shape) for y in mine]
    expected = torch.autograd.grad(theirs, [t for _, t, _ in pairs], [torch.tensor(g) for g in gs])
    found = tr.grad(mine, [x for *_, x in pairs], gs)
    for (name, *_), a, b in zip(pairs, found, expected, strict=True):
        assert_same(f"gradient of {name}", a.numpy(), to_numpy(b))
        if steps and name == "input 0":
            for t in range(a.shape[0]):
                assert_same(f"gradient of step {t}", a.numpy()[t], to_numpy(b)[t])


def judged(name: str, dtype: str, given: Iterable[Any], compare: Callable[..., None]) -> dict[str, int]:
    counts, wrong = Counter[str](), []
    rng = np.random.default_rng(0)
    for sample in given:
        try:
            compare(name, dtype, sample, rng)
        except Refused as refused:
            counts[f"refused: {refused.reason}"] += 1
        except Exception as error:  # noqa: BLE001  (whatever it is, the others are tried, too)
            made = sample.constructor_input
            wrong.append(f"{name}{made.args}{made.kwargs}: {type(error).__name__}: {error}")
        else:
            counts[f"samples {dtype}"] += 1
            counts[f"samples {dtype} with gradients"] += dtype == "float64"
    if wrong:
        raise AssertionError(f"{len(wrong)} samples differ:\n" + "\n".join(wrong[:8]))
    return dict(counts)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", MODULES)
def test_samples(name: str, dtype: str, record_property: Record) -> None:
    record_property("witness", [name, judged(name, dtype, drawn(name, dtype), compare)])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["nn.RNN", "nn.GRU"])
def test_packed_sequences(name: str, dtype: str, record_property: Record) -> None:
    """What PyTorch packs has `lengths=` here. Its samples have these for two layers, on request."""
    given = [s for s in drawn(name, dtype, with_packed_sequence=True) if isinstance(s.forward_input.args[0], Packed)]
    record_property("witness", [name, judged(name, dtype, given, compare_packed)])


def compare_packed(name: str, dtype: str, sample: Any, rng: np.random.Generator) -> None:
    theirs, ours, pairs = both(name, sample.constructor_input, dtype)
    packed, *states = sample.forward_input.args
    first = {"batch_first": ours.batch_first}
    padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(packed, **first)
    padded = padded.detach().requires_grad_()
    again = torch.nn.utils.rnn.pack_padded_sequence(padded, lengths, enforce_sorted=False, **first)
    output, h_n = theirs(again, *states)
    results = [torch.nn.utils.rnn.pad_packed_sequence(output, **first)[0], h_n]
    leaves: torch_side.Leaves = {}
    mine = ours(*translated((padded, *states), leaves), lengths=lengths.tolist())
    pairs += [(f"input {i}", t, x) for i, (t, x) in enumerate(leaves.values()) if t.requires_grad]
    assert_all_same(list(mine), results, pairs, rng, steps=not ours.batch_first)


@pytest.mark.parametrize("name", [name for name in MODULES if name.rpartition(".")[2] in RECURRENT])
def test_error_inputs(name: str, record_property: Record) -> None:
    counts = Counter[str]()
    for sample in drawn(name, "float32", "error_inputs"):
        made, given = sample.module_error_input.constructor_input, sample.module_error_input.forward_input

        def run(made: Any = made, given: Any = given) -> None:
            ours = MODULES[name](*translated(made.args, {}), **translated(made.kwargs, {}))
            if given is not None:  # else the constructor is at fault
                ours(*translated(given.args, {}))

        counts[torch_side.refusal(run, f"{name}{made.args}{made.kwargs}", ACCEPTED.get(name))] += 1
    assert sum(counts.values())
    record_property("witness", [name, dict(counts)])
