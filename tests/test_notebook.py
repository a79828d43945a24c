"""What a notebook shows of tensors, modules and runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.notebook import CELLS
from tinygrad_rnn.training import RunFolder


def parsed(thing: Any) -> ElementTree.Element:
    """Its HTML, which is well-formed."""
    return ElementTree.fromstring(
        re.sub(r"<img([^>]*)>", r"<img\1/>", thing._repr_html_()).replace("<details open", "<details")
    )


def texts(element: ElementTree.Element, tag: str) -> list[str]:
    return ["".join(found.itertext()) for found in element.iter(tag)]


def test_a_small_matrix_is_a_table() -> None:
    x = tr.Tensor([[1.5, 2.0, float("nan")], [1e-7, -3.0, 4.0]], requires_grad=True)
    html = parsed(x)
    assert texts(html, "p") == ["Tensor of shape (2, 3), float32, requires a gradient"]
    assert texts(html, "td") == ["1.5", "2", "nan", "1e-07", "-3", "4"]
    assert texts(html, "th") == ["", "0", "1", "2", "0", "1"]
    assert texts(parsed(tr.Tensor([True, False])), "td") == ["True", "False"]


@pytest.mark.parametrize("shape", [(), (0,), (2, 2, 2), (CELLS[0] + 1, 2), (2, CELLS[1] + 1), (100_000,)])
def test_any_other_tensor_is_the_text_that_it_is_elsewhere(shape: tuple[int, ...]) -> None:
    x = tr.ones(*shape) * 2
    assert texts(parsed(x), "pre") == [repr(x)]


def test_a_parameter_is_called_one() -> None:
    assert texts(parsed(tr.nn.Parameter([1.0])), "p")[0].startswith("Parameter of shape (1,)")


class Model(tr.nn.Module):
    def __init__(self) -> None:
        self.lstm, self.norm, self.heads = tr.nn.LSTM(4, 8), tr.nn.BatchNorm1d(8), [tr.nn.Linear(8, 3)]
        self.scale = tr.nn.Parameter([1.0])
        self.heads[0].owner = self  # one that points back

    def extra_repr(self) -> str:
        return "<b>"


def test_a_module_lists_its_parts_and_their_shapes() -> None:
    model = Model()
    html = parsed(model)
    count = sum(p.size for p in model.parameters())
    assert texts(html, "summary")[0] == f"Model(<b>), {count:,} parameters"
    assert [text.split(":")[0] for text in texts(html, "summary")[1:]] == ["lstm", "norm", "heads.0"]
    rows = [texts(row, "th") + texts(row, "td") for row in html.iter("tr")]
    assert ["scale", "(1,)", "float32"] in rows and ["weight_hh_l0", "(32, 8)", "float32"] in rows
    assert ["running_mean", "(8,)", "float32"] in rows and ["weight", "(3, 8)", "float32"] in rows


def test_a_run_shows_its_curve_its_figures_and_what_was_asked_for(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run<1>")
    assert texts(parsed(run), "p") == [f"run {run.path}"]  # not there yet
    run.create({"hidden": 32, "text": "a & b"})
    with tr.training.MetricsLog(run.metrics) as log:
        log.write({"step": 1, "loss": 3.25})
        log.write({"step": 2, "loss": float("inf")})
    run.picture.write_bytes(b"a picture")
    html = parsed(run)
    assert texts(html, "td")[:2] == ["2", "None"]
    rows = [texts(row, "th") + texts(row, "td") for row in html.iter("tr")]
    assert ["hidden", "32"] in rows and ["text", "a & b"] in rows
    (image,) = html.iter("img")
    assert image.get("src") == "data:image/png;base64,YSBwaWN0dXJl"


def test_values_on_a_device_and_frozen_ones_are_shown() -> None:
    assert texts(parsed(tr.Tensor(np.arange(3))), "td") == ["0", "1", "2"]
