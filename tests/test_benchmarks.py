"""The benchmarks run, and what they compare is the same work."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import tinygrad_rnn as tr
from benchmarks import __main__, grid, processes, rnn_step, train_step


@pytest.mark.parametrize(
    ("module", "size"),
    [(rnn_step, {"T": 5, "B": 2, "H": 4}), *((train_step, cell) for cell in grid.cells([(2, 5, 8)]))],
)
def test_our_contenders_agree_with_each_other(module, size):
    ours = {name: make for name, make in module.CONTENDERS.items() if name.startswith("tinygrad_rnn")}
    if not find_spec("numba"):
        ours.pop("tinygrad_rnn, fast and compiled", None)
    try:
        made = {name: make(**size) for name, make in ours.items()}
        assert len(made) >= 2
        processes.agree({name: result for name, (_, result) in made.items()})
        for step, _ in made.values():
            assert processes.time_step(step, 0) > 0
    finally:
        tr.nn.enable_fast(False)


def test_contenders_that_differ_are_refused():
    with pytest.raises(RuntimeError, match="b and a differ in loss"):
        processes.agree({"a": {"loss": [1.0]}, "b": {"loss": [1.01]}})


def test_a_contest_runs_in_processes_of_its_own():
    names = [name for name in rnn_step.CONTENDERS if name.startswith("tinygrad_rnn")][:2]
    times = processes.contest("benchmarks.rnn_step", names, {"T": 2, "B": 1, "H": 2}, rounds=2, seconds=0)
    assert list(times) == names


def test_a_peer_that_is_not_installed_is_skipped(capsys):
    assert processes.contest("tests.test_benchmarks", ["absent"], {}, rounds=1, seconds=0) == {}
    assert "absent: skipped, no_such_peer is not installed" in capsys.readouterr().out


def absent():
    import no_such_peer

    return no_such_peer


CONTENDERS = {"absent": absent}


def test_the_grid_makes_a_page_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "NAMES", ["tinygrad_rnn", "tinygrad_rnn, fused=False", "products alone"])
    found = grid.measure([(1, 2, 3)], rounds=1, seconds=0)
    assert [grid.label(cell) for cell in found] == ["RNN 1,2,3", "LSTM 1,2,3", "GRU 1,2,3"]
    monkeypatch.setattr(grid, "NAMES", ["tinygrad_rnn", "tinygrad_rnn, fused=False", "PyTorch"])
    for cell in found:
        cell["seconds"] = {"tinygrad_rnn": 1e-3, "tinygrad_rnn, fused=False": 2e-3, "PyTorch": 4e-3}
    text = grid.page(found, ["a machine"], "grid.png")
    assert "ours is at least as fast as PyTorch in 3 of 3 cells, and 4.00 times as fast" in text
    assert "| RNN 1,2,3 | 1 | 2 | 4.00 | 2.00 |" in text
    grid.draw(found, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_nothing_is_left_after_training_steps():
    row = processes.call("benchmarks.leaks:train", steps=300)
    assert row["objects left"] == row["of them in cycles"] == 0
    assert row["memory grown, MB"] < 2


def test_the_other_measurements_run():
    assert processes.call("benchmarks.graph:chain", length=1000, backward=True)["total, s"] > 0
    assert processes.call("benchmarks.graph:chain", length=1000, backward=False)["drop, s"] > 0
    assert processes.call("benchmarks.slices:ours", T=50, H=2) > 0


def test_a_geometric_mean():
    assert grid.mean([0.5, 2.0, 1.0]) == pytest.approx(1)


def test_the_table(capsys):
    __main__.show([{"name": "a", "ms": 1.5}, {"name": "bb", "ms": 1234567.0, "of": 3}])
    assert capsys.readouterr().out.splitlines() == [
        "  name          ms   of",
        "  a            1.5    -",
        "  bb     1,234,567    3",
    ]
