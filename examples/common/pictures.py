"""Pictures in files, as networks of the examples read them: grey values from 0, the ground, to 1, the ink.

Pillow reads and writes them: it comes with matplotlib.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from examples.common.use import Used
from tinygrad_rnn.data.text import read_bytes
from tinygrad_rnn.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.float32]
MOST = 50_000_000  # pixels of a picture


class Picture(NamedTuple):
    """The `pixels` (rows, columns) of a file, and whether its ground was light, so that light and dark are swapped."""

    file: Path
    pixels: Pixels
    swapped: bool

    @property
    def content(self) -> dict[str, Any]:
        """What an answer says of it."""
        return {"file": str(self.file), "swapped": self.swapped}

    @property
    def aside(self) -> str:
        """The same in words."""
        return "  (its ground is light: light and dark are swapped)" * self.swapped


def picture_options(group: argparse._ActionsContainer) -> None:
    """The option that `pictures_of` asks for."""
    what = "scale pictures of another size, as they are, to fit into that of the run"
    group.add_argument("--resize", action="store_true", default=None, help=what)


def pictures_of(used: Used, rows: int, columns: int) -> Iterator[Picture]:
    """The pictures of --input. Raises InputError for what is none, or has another size, unless --resize is given."""
    for file in used.files():
        yield read_picture(file, rows, columns, bool(used.options.resize))


def read_picture(file: Path, rows: int, columns: int, resize: bool = False) -> Picture:
    """A picture of so many rows and columns. The ground is what most of its edge is, light or dark; what can be seen
    through is light. Colours become grey. Raises InputError for a file that is no such picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(read_bytes(file)))
        if image.width * image.height > MOST:
            raise InputError(f"{file}: {image.width} x {image.height} pixels are too many to read")
        image = ImageOps.exif_transpose(image)
        grey = _grey(image)
    except UnidentifiedImageError:
        raise InputError(f"{file}: not a picture that can be read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, of damaged files
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: damaged: {error}") from None
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    swapped = bool(np.median(edge) > 0.5)
    pixels = 1 - grey if swapped else grey
    if pixels.shape != (rows, columns):
        if not resize:
            size = f"{pixels.shape[1]} x {pixels.shape[0]} pixels, and this run reads {columns} x {rows}"
            raise InputError(f"{file}: {size}: --resize scales it")
        pixels = _fitted(pixels, rows, columns)
    return Picture(file, pixels, swapped)


def _grey(image: Image) -> Pixels:
    """Grey values (rows, columns) from 0, black, to 1, white."""
    from PIL import Image

    if image.mode.startswith("I"):  # of 16 bits
        return np.asarray(image, np.float32) / 65535
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return np.asarray(image.convert("L"), np.float32) / 255


def _fitted(pixels: Pixels, rows: int, columns: int) -> Pixels:
    """A picture scaled to fit, in the middle of its ground."""
    from PIL import Image

    scale = min(rows / pixels.shape[0], columns / pixels.shape[1])
    height, width = (max(1, round(scale * length)) for length in pixels.shape)
    small = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    top, left = (rows - height) // 2, (columns - width) // 2
    return np.pad(small, ((top, rows - height - top), (left, columns - width - left)))


def write_picture(file: Path, pixels: npt.ArrayLike) -> None:
    """Write grey values (rows, columns) from 0 to 1, light on dark, as a PNG."""
    from PIL import Image

    Image.fromarray(np.uint8(np.rint(255 * np.clip(pixels, 0, 1)))).save(file)
