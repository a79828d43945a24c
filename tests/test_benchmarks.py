"""The benchmarks run, and what they compare is the same work."""

from __future__ import annotations

import io
import json
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tr
from benchmarks import (
    __main__,
    cells,
    first_use,
    gpu,
    gpu_grid,
    grid,
    loops,
    main_job,
    processes,
    report,
    rnn_step,
    scale,
    step_memory,
    train_step,
)

TINY = cells.cells([(2, 5, 8)])


@pytest.mark.parametrize("cell", TINY, ids=cells.label)
@pytest.mark.parametrize("module", [rnn_step, train_step])
def test_our_contenders_agree_with_each_other(module, cell):
    ours = {name: make for name, make in module.CONTENDERS.items() if name.startswith("tinygrad_rnn")}
    if not find_spec("numba"):
        ours = {name: make for name, make in ours.items() if "numba" not in name}
    try:
        made = {}
        for name, make in ours.items():
            tr.enable_numba(False)  # a contender in a process of its own need not
            made[name] = make(**cell)
        assert len(made) >= 3
        processes.agree({name: result for name, (_, result) in made.items()})
        for step, _ in made.values():
            assert processes.time_step(step, 0) > 0
    finally:
        tr.enable_numba(False)


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


def test_a_worker_that_nobody_waits_for_any_more_is_ended():
    with pytest.raises(KeyboardInterrupt), processes.Workers("benchmarks.rnn_step", ["tinygrad_rnn, fused"]) as workers:
        raise KeyboardInterrupt
    assert all(worker.returncode for worker in workers.workers.values())


def test_a_long_step_counts_at_once_and_a_short_one_after_another():
    calls = []
    assert processes.time_step(lambda: calls.append(time.sleep(0.01)), 0.001) >= 0.01
    assert len(calls) == 1
    processes.time_step(lambda: calls.append(None), 0)
    assert len(calls) == 3


def test_a_worker_answers_when_its_threads_rest(monkeypatch):
    used = iter([0.0, 1.0, 1.0, 2.0, 2.0, 2.0])  # seconds of the processor before and after each wait
    naps = []
    with monkeypatch.context() as patch:
        patch.setattr(processes.time, "process_time", lambda: next(used))
        patch.setattr(processes.time, "sleep", naps.append)
        processes.settle()
    assert len(naps) == 3
    order = []
    monkeypatch.setattr(processes, "settle", lambda: order.append("rests"))
    message = '{"call": "benchmarks.processes:peak_memory", "arguments": {}}'
    monkeypatch.setattr(processes.sys, "stdin", [message])
    monkeypatch.setattr(processes.sys, "stdout", io.StringIO())
    monkeypatch.setattr(processes.json, "dumps", lambda answer: order.append("answers") or "")
    processes.serve()
    assert order == ["rests", "answers"]


def test_cells_are_measured_the_largest_first_and_kept_as_they_come(monkeypatch):
    monkeypatch.setattr(cells, "SIZES", [(1, 2, 3), (2, 2, 3), (1, 3, 3), (2, 3, 3)])
    monkeypatch.setattr(cells, "TURN", 0)
    ours, floor = "tinygrad_rnn", grid.FLOOR
    names = lambda cell: [ours, floor] if cell["B"] == 1 else [ours]
    kept = []
    sizes = [(1, 2, 3), (2, 3, 3)]
    found = cells.measure("benchmarks.train_step", names, sizes, 0, lambda f: kept.append(len(f)))
    assert kept == [1, 2, 3, 4, 5, 6]
    assert [cell["B"] for cell in found] == [2, 2, 2, 1, 1, 1]
    assert [list(cell["seconds"]) for cell in found] == 3 * [[ours]] + 3 * [[ours, floor]]
    assert all(len(times) == cells.LEAST for cell in found for times in cell["seconds"].values())
    assert [cells.label(cell) for cell in cells.in_order(found)][:2] == ["RNN 1,2,3", "RNN 2,3,3"]


def made_up(names, seconds, sizes=cells.SIZES):
    """Cells in which each of the names takes as long as `seconds(name, cell)` says."""
    return [
        {**cell, "seconds": {name: [seconds(name, cell)] * 3 for name in names(cell)}} for cell in cells.cells(sizes)
    ]


def step_seconds(name, cell):
    """Ours is ahead of both peers with everything, as fast as PyTorch compiled, and loses one cell to each."""
    if cells.label(cell) == "GRU 64,128,512" and name == grid.BOTH:
        return 2.5
    times = {grid.PLAIN: 5.0, grid.FUSED: 3.0, grid.NUMBA: 1.5, grid.COMPILED: 2.0, grid.BOTH: 1.0}
    return (times | {grid.INSIDE: 0.98, "PyTorch": 2.0, "JAX": 1.6, grid.FLOOR: 0.8, grid.OWN: 0.5})[name]


def verdicts(lines):
    return [(line.found, line.reached) for line in lines]


def test_verdicts_on_the_training_step_are_those_of_the_figures():
    found = made_up(lambda _: grid.NAMES, step_seconds, cells.SIZES + cells.BETWEEN)
    faster, inside = 1.6 / 2.5 ** (1 / 15), 0.98 / 2.5 ** (1 / 15)
    assert verdicts(grid.requirements(found)) == [
        ("14 of 15", False),
        (f"{faster:.2f}", True),
        ("15 of 15", True),
        (f"{inside:.2f}", False),
    ]
    assert grid.not_reached(found) == [
        "- compiled, numba, slower than the faster of PyTorch and JAX: GRU 64,128,512 (0.64).",
        "- NumPy alone, slower than PyTorch: none.",
    ]
    assert "| GRU 64,128,512 | **0.40** | **0.67** | 1.33 | 1.00 | **0.80** |" in grid.ratios(found, "PyTorch")
    assert grid.ratios(found, grid.FLOOR)[-1].startswith("| geometric mean of 15 | 0.16 | 0.27 | 0.53 | 0.40 |")


def test_nothing_is_judged_of_which_cells_or_a_peer_are_missing():
    found = made_up(lambda _: grid.NAMES, step_seconds, cells.SIZES[:2])
    assert verdicts(grid.requirements(found)) == [
        ("6 of 6", None),
        ("1.60", None),
        ("6 of 6", None),
        ("0.98", None),
    ]
    alone = made_up(lambda _: [grid.FUSED, grid.FLOOR], step_seconds)
    assert {line.reached for line in grid.requirements(alone)} == {None}
    assert grid.not_reached(alone) == []
    no_jax = made_up(lambda _: [name for name in grid.NAMES if name != "JAX"], step_seconds)
    assert [line.reached for line in grid.requirements(no_jax)] == [None, None, True, False]


def loop_seconds(name, cell):
    if cells.label(cell) == "RNN 32,64,128" and name == "MyGrad":
        return 2.9
    times = {loops.OURS: 1.0, loops.COMPILED: 0.5, "MyGrad": 3.0, "HIPS autograd": 6.0}
    return (times | {loops.EAGER: 0.9 if cell["B"] == 1 else 1.0})[name]


def test_verdicts_on_the_plain_loop_are_those_of_the_figures():
    found = made_up(loops.names, loop_seconds)
    assert verdicts(loops.requirements(found)) == [("12 of 15", True), ("8 of 9", False), ("9 of 9", True)]
    assert loops.not_reached(found) == [
        "- plain loop, slower than PyTorch eager: RNN 1,25,100 (0.90), LSTM 1,25,100 (0.90), GRU 1,25,100 (0.90).",
        "- plain loop, not 3 times as fast as MyGrad: RNN 32,64,128 (2.90).",
        "- plain loop, not 3 times as fast as HIPS autograd: none.",
    ]
    assert "| RNN 32,64,128 | 1e+03 | 1.00 | **2.90** | 6.00 |" in loops.table(found)
    assert "| RNN 64,64,256 | 1e+03 | 1.00 | - | - |" in loops.table(found)
    assert "| RNN 32,64,128 | 500 | 2.00 | 5.80 | 12.00 |" in loops.table(found, loops.COMPILED)


def test_the_page_is_made_from_files(tmp_path, capsys):
    out, page = tmp_path / "figures", tmp_path / "docs" / "performance.md"
    out.mkdir()
    report.save(out, "setting", {"lines": ["a machine"], "load": 0.7, "quick": False})
    some = [grid.FUSED, grid.COMPILED, "PyTorch", grid.FLOOR]
    report.save(out, "grid", made_up(lambda _: some, step_seconds))
    report.save(out, "loops", made_up(loops.names, loop_seconds))
    report.save(
        out, "imports", [{"import": m, "ms": ms, "of NumPy": ms / 50} for m, ms in (("numpy", 50), ("ours", 61))]
    )
    report.save(out, "step_memory", [{"kind": "RNN", "B": 1, "T": 25, "H": 100, "fused": 2_750_000, "compiled": 7e6}])
    report.save(out, "first_use", {"cold": 20.04, "warm": [0.5, 0.7, 0.6], "bytes": 800_000})
    assert report.main(["--from-json", "--out", str(out), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "busy, load average 0.7" in text
    assert "- a machine" in text
    assert "Left out, because not installed: tinygrad_rnn, fused=False, tinygrad_rnn, numba, " in text
    assert "| NumPy alone: at least as fast as PyTorch in 12 of 15 | 15 of 15 | reached |" in text
    assert "| plain loop: at least as fast as PyTorch eager in 12 of 15 | 12 of 15 | reached |" in text
    assert "| import: at most 1.2 times NumPy's | 1.22 | **not reached** |" in text
    assert "| `ours` | 61 | 1.22 |" in text
    assert "| RNN 1,25,100 | 2.75 | 2.74 | 7.00 | 5.51 |" in text
    assert "- bytes of a step, more than before: RNN 1,25,100 compiled (by 0.4 MB)." in text
    assert "| empty: the first time on a machine | 20.0 |" in text
    assert "0.8 MB: every time after that, the median of 3 | 0.60 |" in text
    assert "Not measured in this run: the main job, long sequences." in text
    pictures = {path.name for path in (tmp_path / "docs" / "performance").iterdir()}
    assert pictures == {"grid.png", "loops.png"}
    assert all(f"](performance/{name})" in text for name in pictures)
    assert "plain loop: 3 times as fast as MyGrad at small ones: 8 of 9, not reached" in capsys.readouterr().out


def test_the_main_job_is_judged_beside_pytorch(tmp_path, monkeypatch):
    figures = {main_job.NUMBA: (45e3, 200e6), main_job.NUMPY: (29e3, 150e6), main_job.PLAIN: (15e3, 140e6)}
    figures |= {main_job.TORCH: (30e3, 320e6), main_job.ONE: (40e3, 300e6)}
    rates = {tuple(options): figures[name] for name, options in main_job.OURS.items()}

    def process(*arguments):
        if arguments[0] == "-c":
            return 1.0, 30e6
        if "tinygrad_rnn" in arguments:
            folder = Path(arguments[arguments.index("--out") + 1])
            folder.mkdir()
            rate, peak = next(value for options, value in rates.items() if set(options) <= set(arguments))
            (folder / "metrics.jsonl").write_text(f'{{"chars_per_second": {rate}}}\n' * 60)
        else:
            given = json.loads(arguments[-1])
            rate, peak = figures[main_job.ONE if "threads" in given else main_job.TORCH]
            Path(given["log"]).write_text(json.dumps([rate] * 60))
        return 9.0, peak

    monkeypatch.setattr(main_job, "process", process)
    monkeypatch.setattr(main_job, "find_spec", lambda name: True)
    rows = main_job.measure(rounds=1)
    assert [tuple(line.row()[1:]) for line in main_job.requirements(rows)] == [
        ("1.50", "reached"),
        ("0.62", "**not reached**"),
        ("0.97", "**not reached**"),
        ("0.47", "reached"),
    ]
    text = "\n".join(main_job.section(rows))
    assert "| ours, numba | 45,000 | 9.0 | 200 | 170 | 1.50 | 0.62 |" in text


def test_ctrl_c_is_one_line_and_what_was_measured_is_kept(tmp_path, monkeypatch, capsys):
    def stop(quick, allowed, keep):
        keep(made_up(loops.names, loop_seconds, cells.QUICK)[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(loops, "measure", stop)
    monkeypatch.setattr(report, "prepare", lambda threads: [])
    monkeypatch.setattr(report, "call", lambda function: [])
    assert report.main(["--quick", "--only", "loops", "--out", str(tmp_path)]) == 130
    assert "Stopped. What was measured is in" in capsys.readouterr().out.replace("\n", " ")
    assert [cells.label(cell) for cell in report.read(tmp_path)["loops"]] == ["RNN 1,25,100"]


def test_the_schedule_leaves_time():
    assert sum(report.PLAN.values()) + report.PATIENCE < 15 * 60
    assert list(report.PLAN) == list(report.TITLES) == list(report.QUICK_PLAN)


def test_without_numba_the_first_use_is_not_measured(monkeypatch):
    def absent(function, **arguments):
        raise processes.Missing("numba is not installed")

    monkeypatch.setattr(first_use, "call", absent)
    assert "Not measured: numba is not installed." in first_use.section(first_use.measure(quick=True))


def test_the_blas_of_the_heading():
    assert any(line.startswith("NumPy") for line in processes.call("benchmarks.report:kernels"))


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


def test_verdicts_on_long_sequences_are_those_of_the_figures(monkeypatch):
    def found(us, dear, held):
        cells = [
            {
                "T": T,
                "seconds": {scale.PLAIN: [1e-6 * u * T], **{n: [d * 1e-6 * u * T] for n in scale.SEGMENTS}},
                "bytes": {scale.PLAIN: held * T, **dict.fromkeys(scale.SEGMENTS, 1e5 * T**0.5)},
            }
            for T, u, d in zip((16, 64, 256), us, dear, strict=True)
        ]
        layer = {"kind": "LSTM", "cells": cells, "objects": 992.0, "resident": 10**7}
        return {"B": 8, "H": 64, "layers": [layer]}

    good, bad = found((100, 90, 120), (2.0, 1.5, 1.3), 44_000), found((100, 90, 160), (1.0, 1.0, 1.5), 45_000)
    assert [line.reached for line in scale.requirements(good)] == [None] * 3  # the longest was not run
    monkeypatch.setattr(scale, "LENGTHS", [16, 64, 256])
    assert verdicts(scale.requirements(good)) == [("1.20", True), ("1.000", True), ("T to the 0.50, 1.30", True)]
    assert verdicts(scale.requirements(bad)) == [("1.60", False), ("1.023", False), ("T to the 0.50, 1.50", False)]
    assert scale.not_reached(good) == [
        "- LSTM in segments of √T steps, more than 1.4 times the time: T = 16 (2.00), T = 64 (1.50)."
    ]


def test_the_memory_of_a_step_is_judged_beside_what_it_was():
    found = [{**cell, "fused": 1e6 * was[0], "compiled": 1e6 * was[1]} for cell, was in of_before()]
    assert verdicts(step_memory.requirements(found)) == [("30 of 30", True)]
    found[4]["fused"] *= 1.02
    assert verdicts(step_memory.requirements(found)) == [("29 of 30", False)]
    assert verdicts(step_memory.requirements(found[:5])) == [("9 of 10", None)]


def of_before():
    return [(cell, step_memory.BEFORE[cells.label(cell)]) for cell in cells.in_order(cells.cells(cells.SIZES))]


@pytest.mark.parametrize(("B", "few"), [(1, 25), (4, train_step.V)])
def test_the_floor_of_ours_multiplies_the_rows_of_the_table_or_the_ids_whichever_are_fewer(B, few, monkeypatch):
    rows = []
    for of_ours in (False, True):
        step, _ = train_step.products(rows=of_ours)(B=B, T=25, H=3, kind="LSTM")
        seen = []
        with monkeypatch.context() as patch:
            patch.setattr(np, "matmul", lambda a, b, out, seen=seen: seen.append(a.shape[0] * a.shape[1] * b.shape[1]))
            step()
        rows.append(sum(seen))
    assert rows[0] - rows[1] == 3 * (B * 25 - few) * 3 * 12  # forwards, to the rows, to W_ih


def test_nothing_is_left_after_training_steps():
    row = processes.call("benchmarks.leaks:train", steps=300)
    assert row["objects left"] == row["of them in cycles"] == 0
    assert row["memory grown, MB"] < 2


def test_the_other_measurements_run():
    assert processes.call("benchmarks.graph:chain", length=1000, backward=True)["total, s"] > 0
    assert processes.call("benchmarks.graph:chain", length=1000, backward=False)["drop, s"] > 0
    assert processes.call("benchmarks.slices:ours", T=50, H=2) > 0
    assert processes.call("benchmarks.step_memory:peak", name="tinygrad_rnn", kind="RNN", B=1, T=2, H=3) > 1000


def test_a_geometric_mean():
    assert cells.mean([0.5, 2.0, 1.0]) == pytest.approx(1)


def test_the_table(capsys):
    __main__.show([{"name": "a", "ms": 1.5}, {"name": "bb", "ms": 1234567.0, "of": 3}])
    assert capsys.readouterr().out.splitlines() == [
        "  name          ms   of",
        "  a            1.5    -",
        "  bb     1,234,567    3",
    ]


def test_a_check_that_checks_nothing_fails_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(
        gpu.importlib.util, "find_spec", lambda name: None if name in ("cupy", "torch") else find_spec(name)
    )
    assert gpu.main(["--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == (tmp_path / "gpu.txt").read_text(encoding="utf-8").splitlines()
    assert json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["missing"]["cupy"] == "everything"
    assert (
        said[0].startswith(f"Results: {tmp_path}")
        and said[1].startswith("Python 3.")
        and f"numpy {np.__version__}" in said
    )
    assert "Missing: cupy, for everything" in said and "Missing: torch, for the comparison with cuDNN" in said
    assert said[-1] == "Nothing was checked: see what is missing above."


def test_the_files_that_need_a_gpu_are_found_by_their_mark() -> None:
    assert {"tests/test_gpu.py", "tests/tensor/test_gpu.py", "tests/nn/test_recurrent.py"} <= set(gpu.marked())
    assert "tests/tensor/test_backend.py" not in gpu.marked()


def a_cell_of_a_gpu(kind: str = "LSTM", size: tuple[int, int, int] = (64, 64, 256), **slower: float) -> cells.Cell:
    """As a device might give it: everybody takes 2 ms, or as many times as long as is said."""
    names = dict.fromkeys(gpu_grid.contenders(size), 1.0) | {gpu_grid.OURS: slower.get("ours", 1.0)}
    names |= {gpu_grid.LOOP: slower.get("loop", 1.0)}
    found = {name: {"losses": [4.0, 3.0, 2.0], "bytes": 2**21, "launches": 100} for name in names}
    seconds = {name: [2e-3 * factor, 2.2e-3 * factor, 2e-3 * factor] for name, factor in names.items()}
    return {"kind": kind, **dict(zip("BTH", size, strict=True)), "seconds": seconds, "found": found, "refused": {}}


def test_the_table_of_a_gpu() -> None:
    alone = a_cell_of_a_gpu("RNN")
    for name in [name for name in alone["seconds"] if name != gpu_grid.OURS]:
        del alone["seconds"][name], alone["found"][name]
    head, first, second = gpu_grid.table([a_cell_of_a_gpu(ours=1.25), alone], {"operations": 1e12, "launch": 2e-6})
    assert head.split()[0] == "ms" and first.split()[:5] == ["RNN", "64,64,256", "2.00", "-", "-"]
    assert second.split()[2] == "2.50" and "1.25" in second and "100/100" in second and "2/2" in second
    assert f"{2 * 3 * (64 * 64 + 65) * 4 * 256**2 / 1e9 + 6 * 64 * 64 * 256 * 65 / 1e9:.2f}" in second  # operations
    assert f"{(4 * 64 + 60) * 2e-3:.2f}" in second  # latency


def test_the_goals_of_a_gpu() -> None:
    found = [a_cell_of_a_gpu(ours=1.4), a_cell_of_a_gpu(size=(16, 32, 32), ours=9.0)]
    assert [goal.reached for goal in gpu_grid.goals(found)] == [True, True, False]
    assert [goal.found for goal in gpu_grid.goals(found)] == ["1.40", "1.00", "9.00"]
    assert [goal.reached for goal in gpu_grid.goals([a_cell_of_a_gpu(ours=1.6)])] == [False, None, False]
    assert [goal.reached for goal in gpu_grid.goals([])] == [None] * 3


def test_first_losses_on_a_gpu_are_compared() -> None:
    cell = a_cell_of_a_gpu(size=(64, 128, 512))
    assert gpu_grid.losses_agree(cell) == ""
    cell["found"][gpu_grid.TF32]["losses"] = [9.0] * 3  # which nobody compares
    cell["found"][gpu_grid.OURS]["losses"] = [4.0, 3.0, 2.0 + 1e-5]
    assert gpu_grid.losses_agree(cell) == ""
    cell["found"][gpu_grid.OURS]["losses"] = [4.0, 3.0, 2.0 + 3e-5]
    assert "LSTM 64,128,512: tinygrad_rnn has the losses" in gpu_grid.losses_agree(cell)
    cell["found"][gpu_grid.OURS]["losses"] = [4.0, 3.0, float("nan")]
    assert gpu_grid.losses_agree(cell)


def test_the_picture_of_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    gpu_grid.picture([a_cell_of_a_gpu(), a_cell_of_a_gpu("GRU", loop=3.0)], str(tmp_path / "gpu.png"))
    assert (tmp_path / "gpu.png").stat().st_size > 1000
    assert gpu_grid.spread([a_cell_of_a_gpu()]) == pytest.approx(0.1)


def test_a_contender_that_cannot_run_is_told_and_one_that_is_not_installed_left_out() -> None:
    def fails(**size: int) -> None:
        raise MemoryError("no\nmemory " + "x" * 999)

    _, result = gpu_grid.careful(fails)(B=1)
    assert result["refused"].startswith("MemoryError: no memory x") and len(result["refused"]) == gpu_grid.SAID
    with pytest.raises(ModuleNotFoundError):
        gpu_grid.careful(absent)()


def test_a_step_that_is_timed_by_events() -> None:
    class Event:
        def record(self) -> None:
            self.time = time.perf_counter()

        def synchronize(self) -> None:
            pass

    made = []
    step = gpu_grid.Timed(lambda: made.append(time.sleep(0.001)), Event, lambda a, b: 1e3 * (b.time - a.time))
    assert step.seconds(0.02) >= 0.001 and len(made) > 2
