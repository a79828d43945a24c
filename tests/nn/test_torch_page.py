"""docs/pytorch.md is true: its names exist in both libraries, and all of it runs where PyTorch is installed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import tinygrad_rnn as tr
from tests.test_docs import blocks

PAGE = Path(__file__).parents[2] / "docs" / "pytorch.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `torch.")
]


def look_up(root: Any, name: str) -> Any:
    for part in name.split(".")[1:]:
        root = getattr(root, part)
    return root


def test_every_name_of_ours_exists_and_every_public_class_of_nn_and_optim_is_on_the_page() -> None:
    assert len(ROWS) > 70 and all(len(row) == 3 for row in ROWS)
    for _, ours, _ in ROWS:
        assert ours == "none" or look_up(tr, ours.strip("`")) is not None
    text = PAGE.read_text(encoding="utf-8")
    helpers = {"rnn_cell", "lstm_cell", "gru_cell", "functional", "init", "BaseSchedule", "Schedule"}
    for module in (tr.nn, tr.optim):
        missing = [name for name in set(module.__all__) - helpers if not re.search(rf"\b{name}\b", text)]
        assert not missing


def test_every_name_of_pytorch_exists() -> None:
    torch = pytest.importorskip("torch")
    importlib.import_module("torch.utils.checkpoint")
    for theirs, _, _ in ROWS:
        assert look_up(torch, theirs.strip("`")) is not None


def test_the_page_runs_with_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    lines: list[str] = []
    for language, first, text in blocks(PAGE):
        assert language in {"python", "py"}
        lines += [""] * (first - 1 - len(lines)) + text
    assert lines.count("import torch") == 1
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(lines), str(PAGE), "exec"), {})


def test_the_differences_that_the_page_tells_of_are_pytorchs() -> None:
    """What it says of the other side, where that can be seen in a line."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    v = torch.tensor([1.0, 2.0, 4.0])
    assert [len(piece) for piece in torch.split(torch.arange(6), 3)] == [3, 3]
    assert torch.var(v).item() == pytest.approx(7 / 3)
    assert not isinstance(torch.max(v, dim=0), torch.Tensor)
    assert F.gelu(torch.ones(1)).item() != pytest.approx(tr.gelu(tr.ones(1)).item(), abs=1e-5)
    assert F.gelu(torch.ones(1), approximate="tanh").item() == pytest.approx(tr.gelu(tr.ones(1)).item(), abs=1e-6)
    assert F.cross_entropy(torch.zeros(1, 2), torch.tensor([-100])).isnan()
    with pytest.raises(ValueError, match="sigmoid"):
        torch.nn.RNN(1, 1, nonlinearity="sigmoid")
    optimiser = torch.optim.SGD([torch.nn.Parameter(v)], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 4)
    for _ in range(6):
        optimiser.step()
        schedule.step()
    assert schedule.get_last_lr()[0] > 0.1  # it rises again
    used, unused = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(used.sum(), [used, unused])
