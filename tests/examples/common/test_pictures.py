"""Pictures as people have them: of any mode, light or dark, turned, damaged, of another size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.common.pictures import read_picture, write_picture
from tinygrad_rnn.errors import InputError

pillow = pytest.importorskip("PIL.Image")

X = np.zeros((5, 7), np.uint8)
X[1:4, 2:4] = [[255, 51], [102, 0], [204, 153]]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16", "CMYK"])
def test_a_picture_of_any_mode(mode: str, tmp_path: Path) -> None:
    file, x = (
        tmp_path / ("x.tif" if mode == "CMYK" else "x.png"),
        X if mode != "1" else 255 * (X > 127).astype(np.uint8),
    )
    if mode == "I;16":
        pillow.fromarray(x.astype(np.uint16) * 257).save(file)
    else:
        pillow.fromarray(x).convert(mode).save(file)
    found = read_picture(file, 5, 7)
    np.testing.assert_allclose(found.pixels, x / 255, atol=0.01)
    assert found.pixels.dtype == np.float32 and not found.swapped and found.aside == ""


def test_ink_on_paper_is_swapped(tmp_path: Path) -> None:
    pillow.fromarray(255 - X).save(tmp_path / "x.png")
    found = read_picture(tmp_path / "x.png", 5, 7)
    np.testing.assert_allclose(found.pixels, X / 255, atol=1e-6)
    assert found.swapped and found.content == {"file": str(tmp_path / "x.png"), "swapped": True} and found.aside
    seen_through = np.zeros((5, 7, 4), np.uint8)  # black everywhere, and to be seen where the ink is
    seen_through[..., 3] = X
    pillow.fromarray(seen_through).save(tmp_path / "y.png")
    np.testing.assert_allclose(read_picture(tmp_path / "y.png", 5, 7).pixels, X / 255, atol=0.01)


def test_a_photograph_that_was_turned(tmp_path: Path) -> None:
    exif = pillow.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    pillow.fromarray(np.ascontiguousarray(np.rot90(X))).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_allclose(read_picture(tmp_path / "x.png", 5, 7).pixels, X / 255, atol=1e-6)


def test_another_size_is_refused_or_scaled(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    write_picture(file, np.kron(X / 255, np.ones((4, 4))))
    with pytest.raises(InputError, match=r"x\.png: 28 x 20 pixels, and this run reads 7 x 5: --resize scales it"):
        read_picture(file, 5, 7)
    np.testing.assert_allclose(read_picture(file, 5, 7, resize=True).pixels, X / 255, atol=1e-6)
    wide = read_picture(file, 9, 7, resize=True).pixels  # it keeps its proportions, in the middle
    np.testing.assert_allclose(wide[2:7], X / 255, atol=1e-6)
    assert wide.shape == (9, 7) and not wide[:2].any() and not wide[7:].any()
    write_picture(file, np.pad(np.ones((1, 300)), ((1, 1), (1, 1))))
    assert read_picture(file, 5, 7, resize=True).pixels.shape == (5, 7)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_picture(tmp_path / "x.png", X / 255)
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png", 5, 7).pixels, np.float32(X) / np.float32(255))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a picture"), (b"hello", "not a picture"), (None, "damaged: ")],
)
def test_what_is_no_picture_is_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    if content is None:
        write_picture(file, np.random.default_rng(0).random((50, 50)))
        content = file.read_bytes()[:900]
    file.write_bytes(content)
    with pytest.raises(InputError) as found:
        read_picture(file, 5, 7)
    assert str(found.value).startswith(f"{file}: {message}") and "\n" not in str(found.value)
    with pytest.raises(InputError, match="no such file"):
        read_picture(tmp_path / "nowhere.png", 5, 7)
    with pytest.raises(InputError, match="is a folder"):
        read_picture(tmp_path, 5, 7)


def test_a_picture_that_would_fill_the_memory(tmp_path: Path) -> None:
    pillow.new("1", (10_000, 6_000)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="10000 x 6000 pixels are too many to read"):
        read_picture(tmp_path / "x.png", 5, 7)
