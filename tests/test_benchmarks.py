"""The benchmarks run, and what they compare is the same work."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import tinygrad_rnn as tr
from benchmarks import __main__, grid, processes, rnn_step, scale, train_step


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


@pytest.mark.parametrize("kind", scale.GATES)
def test_segments_give_the_loss_and_gradients_of_the_plain_run(kind):
    made = {name: make(kind, B=2, T=11, H=3) for name, make in scale.CONTENDERS.items()}  # 3 does not divide 11
    processes.agree({name: result for name, (_, result) in made.items()}, tolerance=1e-5)
    assert scale.segment_of(11, 1) == 3 and scale.segment_of(11, 4) == 11


@pytest.mark.parametrize("kind", scale.GATES)
def test_the_bytes_of_a_step_are_those_that_are_explained(kind):
    B, H, T = 8, 16, (256, 512)  # from 1,024 rows on the products that wait for each other are a constant
    a, b = (processes.call("benchmarks.scale:peak", name=scale.PLAIN, kind=kind, B=B, T=t, H=H) for t in T)
    objects = (b - a) / (T[1] - T[0]) - scale.predicted(kind, B, H)
    assert 0 < objects < 1536


def test_the_section_of_long_sequences(tmp_path):
    def cell(T):
        seconds = {scale.PLAIN: [1e-4 * T] * 3, **dict.fromkeys(scale.SEGMENTS, [1.3e-4 * T] * 3)}
        held = {scale.PLAIN: 44_000 * T, **dict.fromkeys(scale.SEGMENTS, 1e5 * T**0.5)}
        return {"T": T, "seconds": seconds, "bytes": held}

    layer = {"kind": "LSTM", "cells": [cell(T) for T in (16, 64, 256)], "objects": 992.0, "resident": 10**7}
    found = {"B": 8, "H": 64, "layers": [layer]}
    text = "\n".join(scale.section(found, "performance-scale.png"))
    assert "](performance-scale.png)" in text
    assert "44,000 bytes for each further step, of 44,000 predicted (1.000): 43,008 in arrays, 992 in objects" in text
    assert "memory grows as T to the 0.50; at T = 256 it is 7 times less, in 1.30 times the time." in text
    assert "| 256 | 100 | 1.30 | 1.30 | 11.3 | 1.6 | 1.6 |" in text
    scale.draw(found, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 1000


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
