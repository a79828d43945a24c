"""`metrics.jsonl`: whole lines of JSON, which can be cut behind a step."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "gone", [Path.unlink, lambda path: path.rename(f"{path}.old"), lambda path: path.write_text("")]
)
@pytest.mark.skipif(os.name == "nt", reason="files of POSIX, which may be removed while they are open")
def test_a_log_that_is_no_longer_there_is_an_error_at_the_next_save(tmp_path: Path, gone) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write({"step": 1})
        log.sync()
        gone(tmp_path / "metrics.jsonl")
        if not (tmp_path / "metrics.jsonl").exists():
            with pytest.raises(FileNotFoundError, match="was removed or moved while it was written"):
                log.sync()
            (tmp_path / "metrics.jsonl").write_text("of another run")
            with pytest.raises(FileNotFoundError, match="was removed or moved while it was written"):
                log.sync()
        else:
            log.sync()  # emptied, and still the same file


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
