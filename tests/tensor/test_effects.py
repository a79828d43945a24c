"""The effects of functions are declared by the names of their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygrad_rnn.tensor.backend import scatter_add
from tinygrad_rnn.tensor.effects import Effects, effects


def test_effects_are_positions() -> None:
    @effects(writes=["z", "x"], updates=["y"], last_rows={"g": 2})
    def stage(x: Any, y: Any, g: Any, z: Any) -> None: ...

    assert stage.effects == Effects((3, 0), (1,), {2: 2})  # type: ignore[attr-defined]


@pytest.mark.parametrize("declared", [{"writes": ["z"]}, {"updates": ["z"]}, {"last_rows": {"z": 1}}])
def test_a_name_that_is_no_parameter_is_an_error(declared: Any) -> None:
    with pytest.raises(TypeError, match="effects of stage: it has no parameter z"):

        @effects(**declared)
        def stage(x: Any) -> None: ...


def test_scatter_add_updates_its_buffer_alone() -> None:
    assert scatter_add.effects == Effects(updates=(0,))  # type: ignore[attr-defined]
    g, index = np.ones((3, 2)), np.array([0, 1, 0])
    g.flags.writeable = index.flags.writeable = False
    assert scatter_add(np.zeros((2, 2)), index, g).tolist() == [[2, 2], [1, 1]]
