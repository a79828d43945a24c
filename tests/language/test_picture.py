"""The learning curve of any run, and what is said without matplotlib."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tinygrad_rnn.language.picture import plot_loss

RECORDS = [
    {"step": n, "loss": 3.0 / n, "bits_per_char": 4.3 / n, "chars_per_second": 1000.0 * n}
    | ({"held_out_bits_per_char": 4.4 / n} if n % 10 == 0 else {})
    for n in range(1, 41)
]


@pytest.mark.parametrize("records", [RECORDS, RECORDS[:1], [{"step": 1, "loss": None, "bits_per_char": None}], []])
def test_a_picture_of_any_run(tmp_path: Path, records: list[dict[str, float]]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "loss.png"
    plot_loss(path, records, title="a title", lines={"3-gram": 2.4, "4-gram": 2.39})
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_install_command_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib$"):
        plot_loss(tmp_path / "loss.png", RECORDS, title="")
    assert not list(tmp_path.iterdir())


def test_a_steep_start_is_drawn_inside_the_picture(tmp_path):
    """Points far above the axes once made the layout collapse, with a warning."""
    curve = [{"step": k, "bits_per_char": 20 / k, "held_out_bits_per_char": 21 / k} for k in range(1, 31)]
    plot_loss(tmp_path / "loss.png", curve, title="steep", lines={"lzma": 1.5})
    assert (tmp_path / "loss.png").stat().st_size > 1000
