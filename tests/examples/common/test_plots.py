"""What the drawing helpers put on the axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from examples.common.plots import BLUE, GREY, INK, ORANGE, draw_curves, draw_picture, draw_text, draw_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

figure = pytest.importorskip("matplotlib.figure")


@pytest.fixture
def axes() -> Axes:
    return figure.Figure().subplots()


def test_each_curve_has_its_colour(axes: Axes) -> None:
    curves = {"a": ([0, 2], [1.0, 3.0]), "b": (range(3), np.zeros(3))}
    draw_curves(axes, curves, (GREY, BLUE), marker="o")
    assert [(line.get_label(), line.get_color(), line.get_marker()) for line in axes.lines] == [
        ("a", GREY, "o"),
        ("b", BLUE, "o"),
    ]
    assert axes.lines[0].get_xydata().tolist() == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="shorter"):
        draw_curves(axes, curves, (GREY,))


def test_no_curve_is_left_out_of_the_legend(axes: Axes) -> None:
    draw_curves(axes, {"_x": ([0], [1]), "y": ([0], [2])}, (GREY, BLUE))
    assert [text.get_text().strip("\u200b") for text in axes.legend().get_texts()] == ["_x", "y"]


def test_weights_have_a_row_for_each_token_written(axes: Axes) -> None:
    weights = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    image = draw_weights(axes, weights, ["a", "b", "c"], ["x", "y"], rotation=40)
    assert np.array_equal(image.get_array(), weights) and image.get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {40}
    with pytest.raises(ValueError, match=r"weights \(2, 3\) for 3 tokens written and 2 read"):
        draw_weights(axes, weights, ["x", "y"], ["a", "b", "c"])


def test_a_picture_has_no_ticks(axes: Axes) -> None:
    draw_picture(axes, [[0.0, 1.0]], "two", "Blues", fontsize=8, color=ORANGE)
    (image,) = axes.images
    assert (
        image.get_array().tolist() == [[0, 1]] and image.get_clim() == (-0.06, 1) and image.get_cmap().name == "Blues"
    )
    assert not len(axes.get_xticks()) and not len(axes.get_yticks()) and not axes.get_frame_on()
    assert (axes.title.get_text(), axes.title.get_fontsize(), axes.title.get_color()) == ("two", 8, ORANGE)


def test_text_stands_in_lines_and_columns(axes: Axes) -> None:
    text = "a b\n\n c"
    draw_text(axes, text, [BLUE] * 6 + [ORANGE], [c == "b" for c in text], fontsize=7)
    found = [(c.get_text(), c.get_position(), c.get_color(), c.get_bbox_patch() is not None) for c in axes.texts]
    assert found == [("a", (0.5, 0), BLUE, False), ("b", (2.5, 0), BLUE, True), ("c", (1.5, 2), ORANGE, False)]
    assert {c.get_fontsize() for c in axes.texts} == {7} and not axes.axison


def test_text_without_colours_is_ink_and_too_few_are_an_error(axes: Axes) -> None:
    draw_text(axes, "ab")
    assert {c.get_color() for c in axes.texts} == {INK}
    with pytest.raises(ValueError, match="shorter"):
        draw_text(axes, "ab", [BLUE])
