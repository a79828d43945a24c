"""PyTorch's own sample inputs judge the values and gradients of our ops. `make witness` counts them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest

import tinygrad_rnn as tr
from tests.witness import adapters, torch_side

Record = Callable[[str, object], None]


def test_pytorchs_helpers_leave_the_profiles_of_hypothesis_alone() -> None:
    torch_side.databases()
    assert sys.modules["hypothesis"] is hypothesis
    with pytest.raises(hypothesis.errors.InvalidArgument):
        hypothesis.settings.get_profile("pytorch_ci")


def test_every_op_is_judged_or_not_there() -> None:
    ours = set(tr.tensor.ops.__all__) | set(tr.nn.functional.__all__)
    assert set(adapters.OPS) | set(adapters.NOT_THERE) == ours
    assert all(adapters.OPS.values())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", adapters.ADAPTERS)
def test_samples(name: str, dtype: str, record_property: Record) -> None:
    record_property("witness", [name, torch_side.judged(name, "samples", dtype)])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", adapters.ADAPTERS)
def test_reference_inputs(name: str, dtype: str, record_property: Record) -> None:
    record_property("witness", [name, torch_side.judged(name, "reference inputs", dtype)])


@pytest.mark.parametrize("name", [name for ours in adapters.OPS.values() for name in ours])
def test_error_inputs(name: str, record_property: Record) -> None:
    op = torch_side.databases()[0][name]
    counts = Counter[str]()
    for error in op.error_inputs("cpu") if op.error_inputs_func is not None else ():
        sample = error.sample_input

        def run(sample: Any = sample) -> None:
            adapters.refuse_if("out" in sample.kwargs, "out")
            leaves: torch_side.Leaves = {}
            args = torch_side.translated((sample.input, *sample.args), leaves)
            adapters.ADAPTERS[name](*args, **torch_side.translated(sample.kwargs, leaves))

        given = f"{name}({', '.join(map(torch_side.shown, (sample.input, *sample.args)))})"
        counts[torch_side.refusal(run, given, adapters.ACCEPTED_BY.get(name))] += 1
    record_property("witness", [name, dict(counts)])
