"""The picture of a run."""

from __future__ import annotations

from tinygrad_rnn.language.picture import plot_loss


def test_a_steep_start_is_drawn_inside_the_picture(tmp_path):
    """Points far above the axes once made the layout collapse, with a warning."""
    curve = [{"step": k, "bits_per_char": 20 / k, "held_out_bits_per_char": 21 / k} for k in range(1, 31)]
    plot_loss(tmp_path / "loss.png", curve, title="steep", lines={"lzma": 1.5})
    assert (tmp_path / "loss.png").stat().st_size > 1000
