"""What a type checker knows of ops and of arrays."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import numpy as np
import tinygrad_rnn as tr
from tinygrad_rnn.tensor.backend import Array

def f(x: tr.Tensor, a: Array) -> None:
    reveal_type(tr.tanh(x))
    reveal_type(tr.tanh(a))
    reveal_type(tr.multiply(2.0, x))
    reveal_type(tr.multiply(a, 2.0))
    reveal_type(tr.sum(a, axis=0))
    reveal_type(tr.where(a, x, 0.0))
    a.shpe
    a = np.ones(2)
    tr.sum(x, axs=0)
"""


def test_ops_and_arrays_are_typed(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    config = str(ROOT / "pyproject.toml")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    cache = str(ROOT / ".mypy_cache")
    said, faults, _ = api.run(["--config-file", config, "--cache-dir", cache, str(program)])
    assert not faults
    revealed = [line.split('"')[1].rpartition(".")[2] for line in said.splitlines() if "Revealed" in line]
    assert revealed == ["Tensor", "Array", "Tensor", "Array", "Array", "Tensor"], said
    assert '"Array" has no attribute "shpe"' in said
    assert 'Unexpected keyword argument "axs"' in said
    assert said.count(" error: ") == 3, said  # the misspelt option is told in two ways
