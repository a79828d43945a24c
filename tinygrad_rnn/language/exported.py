"""A model as one file of safetensors, without all that only a training needs: a third of the size of a checkpoint.

The tensors have their names of the `state_dict`, which are PyTorch's. The metadata, strings by name, are

    format, version     "tinygrad-rnn model", "1"
    model               the sizes, as JSON
    vocabulary          the characters, sorted: the place of each is its id; as JSON
    step, figures       of the training, as JSON
    config              what the training was asked for, on what, as JSON: `config.json` of its run
    sha256              of all of the above and of every tensor
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save

from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.training.checkpoint import digest, opened

FORMAT, VERSION = "tinygrad-rnn model", "1"


def exported(tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> bytes:
    """The file, whole, of tensors by name and of a header that JSON can hold.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(exported({"w": np.ones(3)}, {"step": 7}))
    ...     file.flush()
    ...     tensors, header = read_exported(file.name)
    >>> tensors["w"].tolist(), header["step"]
    ([1.0, 1.0, 1.0], 7)
    """
    metadata = {"format": FORMAT, "version": VERSION} | as_metadata(header)
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return save(arrays, {**metadata, "sha256": _sha256(metadata, arrays)})


def as_metadata(header: Mapping[str, Any]) -> dict[str, str]:
    """The entries of a header as strings, in JSON of ASCII alone."""
    return {name: json.dumps(value) for name, value in header.items()}


def read_exported(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the header of a file, every byte of them verified. Raises CheckpointError for another one."""
    try:
        with opened(path) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a model that tinygrad-rnn has exported")
            if metadata.get("version") != VERSION:
                found = metadata.get("version")
                raise CheckpointError(f"{path}: format version {found}, this program reads {VERSION}: upgrade it")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    rest = {name: text for name, text in metadata.items() if name != "sha256"}
    if metadata.get("sha256") != _sha256(rest, tensors):
        raise CheckpointError(f"{path}: damaged: its SHA-256 differs")
    return tensors, {name: json.loads(text) for name, text in rest.items() if name not in ("format", "version")}


def _sha256(metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
    told = {name: [array.dtype.name, list(array.shape), digest(array)] for name, array in tensors.items()}
    return hashlib.sha256(json.dumps([dict(metadata), told], sort_keys=True).encode()).hexdigest()
