"""Checkpoints: tensors in a safetensors file, and a JSON manifest beside it that says what they are.

    best.json                           the manifest: names its weights file, holds a SHA-256 for each tensor
    best-001200-5f2c9a7e.safetensors    the weights, at step 1,200

The manifest is the switch. Weights are written under a name of their own, to the disk, and moved into place before
the manifest that names them replaces the old one in one step; only then is the old weights file removed. So
whenever a process dies, either the old checkpoint or the new one is whole. A checkpoint that is replaced may stay
as the previous one: its manifest is copied under another name before the switch, and its weights are not removed.
Nothing is pickled: reading a checkpoint runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tinygrad_rnn.errors import CheckpointError, InputError
from tinygrad_rnn.scalars import number, whole
from tinygrad_rnn.tensor.backend import host_array
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.training.disk import remove, write_atomically

FORMAT = "tinygrad-rnn checkpoint"
VERSION = 1
LONGEST = 200
"""The bytes of the longest name of a checkpoint: file systems have names of 255, and the weights' is longer."""
DTYPES = (
    *("float16", "float32", "float64", "complex64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)

# What no part of a path can hold, here or, of separators, elsewhere.
_SEPARATORS = r"/\\\x00-\x1f\x7f" + (r'<>:"|?*' if os.name == "nt" else "")
_UNNAMEABLE = re.compile(f"[{_SEPARATORS}]")
_WEIGHTS = re.compile(rf"([^{_SEPARATORS}]+)-\d{{6,}}-[0-9a-f]{{8}}\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` found: the tensors by name, as arrays, and the manifest's other entries."""

    tensors: dict[str, np.ndarray]
    manifest: dict[str, Any]
    path: Path


def save_checkpoint(
    folder: str | os.PathLike[str],
    name: str,
    tensors: Mapping[str, np.ndarray | Tensor],
    manifest: Mapping[str, Any],
    previous: str | None = None,
) -> Path:
    """Write a checkpoint into `folder`, replacing one of the same `name`; returns the path of its manifest.

    `tensors` are arrays, or tensors of any device, by name. `manifest` is anything JSON can hold, `step` among it;
    numbers of NumPy's types become Python's. The checkpoint that is replaced, if it is of another step, stays under the
    name `previous`, if one is given. Arrays of the other byte order come back in this machine's. An OSError (no space,
    no permission) leaves the checkpoint that was there before as it was.

    Raises CheckpointError, before anything is written, for what could not be read again: a `name` that no file can
    have, arrays of no plain numbers, a manifest that is not JSON; and for the name of a JSON file that is none.
    """
    path, step, arrays = _path(folder, name), _step(manifest), _arrays(tensors)
    _check_ours(path)
    before = None if previous is None else _path(folder, previous)
    data = save(arrays)  # the one copy that writing needs
    weights = f"{name}-{step:06d}-{hashlib.sha256(data).hexdigest()[:8]}.safetensors"
    content = _content(manifest, weights, arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path.with_name(weights), data)
    if before is not None and _names(path).step not in (None, step):
        write_atomically(before, path.read_bytes())
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
    clear_stale(path.parent)
    return path


def _path(folder: str | os.PathLike[str], name: str) -> Path:
    """The manifest of the checkpoint `name`. Raises CheckpointError for what can be no file's name, or is another's."""
    if not isinstance(name, str) or not name or _UNNAMEABLE.search(name):
        raise CheckpointError(
            f"{name!r} cannot be the name of a checkpoint: a string of a character or more, and none of "
            + ("/ \\ and control characters" if os.name != "nt" else '/ \\ < > : " | ? * and control characters')
        )
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{name!r} cannot be the name of a checkpoint: {error.reason}") from None
    if size > LONGEST:
        raise CheckpointError(f"{name[:40]!r}...: the name of a checkpoint has at most {LONGEST} bytes, not {size}")
    path = Path(folder) / f"{name}.json"
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder: choose another name for the checkpoint")
    return path


def _check_ours(path: Path) -> None:
    """Raise CheckpointError for a JSON file that is no checkpoint; a damaged one may be replaced."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: no checkpoint of tinygrad-rnn: not replaced")


def _step(manifest: Mapping[str, Any]) -> int:
    try:
        return whole("step", manifest.get("step", 0))
    except InputError as error:
        raise CheckpointError(f"the manifest's {error}") from None


def _arrays(tensors: Mapping[str, np.ndarray | Tensor]) -> dict[str, np.ndarray]:
    """The tensors as contiguous arrays. Raises CheckpointError for what a safetensors file cannot hold."""
    found = {}
    for key, given in tensors.items():
        if not isinstance(key, str) or key == "__metadata__" or key != key.encode("utf-8", "replace").decode():
            raise CheckpointError(f"{key!r} cannot be the name of a tensor in a checkpoint")
        try:
            array = given.numpy() if isinstance(given, Tensor) else given
            array = np.asarray(array if isinstance(array, np.ndarray | np.generic) else host_array(array), order="C")
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"tensor {key!r} cannot be made an array: {error}") from None
        if array.dtype.name not in DTYPES or isinstance(given, np.ma.MaskedArray):
            kind = "masked array" if isinstance(given, np.ma.MaskedArray) else str(array.dtype)
            raise CheckpointError(f"tensor {key!r} is {kind}: a checkpoint holds {', '.join(DTYPES)}")
        found[key] = array
    return found


def _content(manifest: Mapping[str, Any], weights: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The manifest as it will be read. Raises CheckpointError for what JSON cannot hold."""
    own = {
        "format": FORMAT,
        "version": VERSION,
        "weights": weights,
        "tensors": {
            key: {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": digest(array)}
            for key, array in arrays.items()
        },
    }
    if (taken := {*own, "sha256"} & manifest.keys()) and manifest.get(
        "format"
    ) != FORMAT:  # else one that has been read
        raise CheckpointError(f"the manifest has {min(taken)!r}, which is an entry of the checkpoint's own")
    try:
        # There and back: a tuple is a list then and 1 as a key "1", and the digest is of that.
        text = json.dumps({**manifest, **own}, default=_as_json, ensure_ascii=False)
        content: dict[str, Any] = json.loads(text, object_pairs_hook=_once)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the manifest cannot be written as JSON: {error}") from None
    content["sha256"] = _manifest_digest(content)
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of JSON whose keys are all different: 1 and "1" are not."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"two keys are {twice!r} there")
    return found


def _as_json(value: Any) -> Any:
    """What stands in a manifest for what JSON does not know: a number for one of NumPy's or a tensor."""
    return number("an entry", value)


def rename_checkpoint(folder: str | os.PathLike[str], name: str, new: str) -> None:
    """Call the checkpoint `name` by the name `new`, replacing one that has it."""
    path = _path(folder, name)
    write_atomically(_path(folder, new), path.read_bytes())
    path.unlink()


def clear_stale(folder: str | os.PathLike[str]) -> None:
    """Remove what a process that died while it wrote has left: temporary files, and weights no manifest names."""
    found = list(Path(folder).iterdir())
    named = {path.name.removesuffix(".json"): _names(path).weights for path in found if path.name.endswith(".json")}
    for path in found:
        ours = _WEIGHTS.fullmatch(path.name.removesuffix(".tmp"))
        # Whose manifest is damaged is left alone: a person may still want the weights.
        used = path.name in named.values() or (ours and named.get(ours[1], "") is None)
        if (ours and not used) or path.name.endswith((".json.tmp", ".safetensors.tmp")):
            remove(path)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A file of safetensors to read from. Raises FileNotFoundError, and CheckpointError for one that is not whole."""
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            yield file
    except (CheckpointError, FileNotFoundError):
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None


def load_checkpoint(folder: str | os.PathLike[str], name: str) -> Checkpoint:
    """Read the checkpoint `name` in `folder`, every byte of it verified.

    Raises CheckpointError, naming the file, the tensor and the reason, for a checkpoint that is missing,
    damaged, truncated, not ours or of a newer format.
    """
    path = _path(folder, name)
    content = _read_manifest(path)
    weights = path.parent / content["weights"]
    tensors: dict[str, np.ndarray] = {}
    try:
        with opened(weights) as file:
            stored = set(file.keys())
            expected = content["tensors"]
            for key in sorted(stored ^ set(expected)):
                raise CheckpointError(
                    f"{weights}: tensor {key!r} is " + ("not in the manifest" if key in stored else "missing")
                )
            for key, entry in expected.items():
                array = file.get_tensor(key)
                if array.dtype.name != entry["dtype"] or list(array.shape) != entry["shape"]:
                    raise CheckpointError(
                        f"{weights}: tensor {key!r} is {array.dtype.name} {list(array.shape)}, the manifest "
                        f"says {entry['dtype']} {entry['shape']}"
                    )
                if digest(array) != entry["sha256"]:
                    raise CheckpointError(f"{weights}: tensor {key!r} is damaged: its SHA-256 differs")
                tensors[key] = array
    except FileNotFoundError:
        raise CheckpointError(f"{weights}: no such file, though {path.name} names it") from None
    return Checkpoint(tensors, content, path)


class _Names(NamedTuple):
    """What a manifest says of itself; None for one that is missing or damaged."""

    step: int | None
    weights: str | None


def _names(path: Path) -> _Names:
    try:
        content = _read_manifest(path)
    except CheckpointError:
        return _Names(None, None)
    return _Names(content.get("step", 0), content["weights"])


def digest(array: np.ndarray) -> str:
    """The SHA-256 of the bytes of a contiguous array, low byte first; where that is the machine's order, uncopied."""
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()


def _manifest_digest(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file: there is no checkpoint here") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of tinygrad-rnn")
    if not isinstance(content.get("version"), int) or content["version"] > VERSION:
        found = content.get("version")
        raise CheckpointError(f"{path}: format version {found}, this program reads {VERSION}: upgrade it")
    try:
        whole = content.get("sha256") == _manifest_digest(content)
    except (ValueError, RecursionError):  # what could be read, but not be written
        whole = False
    if not whole:
        raise CheckpointError(f"{path}: damaged: the manifest's own SHA-256 differs")
    if not _WEIGHTS.fullmatch(str(content.get("weights"))) or not isinstance(content.get("tensors"), dict):
        raise CheckpointError(f"{path}: damaged: it names no weights file")
    return content
