"""`metrics.jsonl`: whole lines of JSON, which can be cut behind a step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_rnn.errors import DTypeError, InputError
from tinygrad_rnn.training import MetricsLog, read_metrics, truncate_metrics

RECORDS = [
    {"step": n, "loss": 3.0 / n, "bits_per_char": 4.3 / n, "chars_per_second": 1000.0 * n}
    | ({"held_out_bits_per_char": 4.4 / n} if n % 10 == 0 else {})
    for n in range(1, 41)
]


def test_metrics_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for record in RECORDS:
            log.write(record)
            assert json.loads(path.read_text().splitlines()[-1]) == record  # each is there at once
        log.write({"step": 41, "loss": float("nan")})
    assert read_metrics(path) == [*RECORDS, {"step": 41, "loss": None}]
    with open(path, "a") as file:
        file.write('{"step": 42, "lo')
    assert len(read_metrics(path)) == 41


@pytest.mark.skipif(os.name == "nt", reason="files of POSIX, which may be removed while they are open")
@pytest.mark.parametrize("gone", [Path.unlink, lambda path: path.rename(f"{path}.old")])
def test_a_log_that_is_no_longer_there_is_an_error_at_the_next_save(tmp_path: Path, gone) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write({"step": 1})
        log.sync()
        gone(path)
        for _ in range(2):
            with pytest.raises(FileNotFoundError, match="was removed or moved while it was written"):
                log.sync()
            path.write_text("of another run")


@pytest.mark.parametrize("half", ['{"step": 2, "lo', "{", '{"step": 2}', ""])
def test_what_was_left_half_written_does_not_spoil_what_is_appended(half: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for before in ("", '{"step": 1}\n'):
        path.write_text(before + half)
        for k in (2, 3):
            with MetricsLog(path) as log:
                log.write({"step": k})
        assert [record["step"] for record in read_metrics(path)] == ([1, 2, 3] if before else [2, 3])
    path.write_text("of another kind")  # is not ours to remove
    with MetricsLog(path) as log:
        log.write({"step": 1})
    assert path.read_text() == 'of another kind\n{"step": 1}\n'


def test_damaged_records_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for line in ("of another kind", "[1, 2]", "3", '{"step": 2, "lo{"step": 3}', "", "\x00", "[" * 100_000):
        path.write_text('{"step": 1}\n' + line + '\n{"step": 4}\n')
        with pytest.raises(InputError, match=r"metrics.jsonl, line 2: damaged: no record of figures"):
            read_metrics(path)
    path.write_text('{"step": 1}\n\xff\n')
    with pytest.raises(InputError, match="line 2"):
        read_metrics(path)


@pytest.mark.parametrize("record", [{1: 2.0, "1": 3.0}, {None: 1}, {"n": 10**5000}, {("a", 1): 2}, {"x": np.ma.masked}])
def test_what_could_not_be_read_again_is_not_written(record: Any, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write({"n": 10**400, "\u2028\n\ud800": 1})
        with pytest.raises(DTypeError, match="the figure"):
            log.write(record)
    assert read_metrics(path) == [{"n": 10**400, "\u2028\n\ud800": 1}]


def test_records_without_a_step_stay_where_others_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for record in ({"step": 1}, {"seed": 3}, {"step": float("nan")}, {"step": 2}, {"step": 3}, {"seed": 4}):
            log.write(record)
    truncate_metrics(path, 2)
    assert read_metrics(path) == [{"step": 1}, {"seed": 3}, {"step": None}, {"step": 2}]


def test_metrics_are_cut_behind_a_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    truncate_metrics(path, 3)
    assert not path.exists()
    lines = [f'{{"step": {n}}}\n' for n in range(1, 6)]
    for rest in ("", '{"step": 6, "lo', "\x00\x00\n"):
        path.write_text("".join(lines) + rest)
        truncate_metrics(path, 9)
        assert path.read_text() == "".join(lines)
    truncate_metrics(path, 3)
    assert path.read_text() == "".join(lines[:3])
