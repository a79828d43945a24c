"""Damage checkpoints in many ways, and count what loading them says.

    python -m benchmarks.damage --copies 2000

A damaged checkpoint must be a CheckpointError, or give the very values that were saved where the damage is in nothing
that matters, such as white space. Loading other values, or any other error, is a failure.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.training import load_checkpoint, save_checkpoint

TENSORS = {
    "embedding.weight": np.arange(60, dtype=np.float32).reshape(12, 5) / 7,
    "output.bias": np.linspace(-1, 1, 12),
    "optimizer/exp_avg/output.bias": np.linspace(0, 1, 12),
    "steps": np.array(7, dtype=np.int64),
}
MANIFEST = {"step": 7, "model": {"hidden": 5}, "loop": {"best": 1.25}, "vocabulary": "\n abc…"}
HUGE = (2**31, 2**32, 2**53, 2**62, 2**63, 2**64 - 1, 2**64, 10**30, -1)


def header(raw: bytes) -> tuple[dict[str, dict[str, list[int]]], bytes]:
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def joined(entries: object, data: bytes) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def truncated(raw: bytes, draw: random.Random) -> bytes:
    return raw[: draw.randrange(len(raw))]


def flipped(raw: bytes, draw: random.Random) -> bytes:
    found = bytearray(raw)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    return bytes(found)


def garbage(raw: bytes, draw: random.Random) -> bytes:
    """Random bytes at the beginning, where the header is."""
    size = draw.randrange(1, min(300, len(raw)))
    at = draw.randrange(0, min(200, len(raw) - size))
    return raw[:at] + draw.randbytes(size) + raw[at + size :]


def zeroed(raw: bytes, draw: random.Random) -> bytes:
    """A block of zeros, as a file system may leave it."""
    size = draw.randrange(1, len(raw))
    at = draw.randrange(0, len(raw) - size + 1)
    return raw[:at] + bytes(size) + raw[at + size :]


def appended(raw: bytes, draw: random.Random) -> bytes:
    return raw + draw.randbytes(draw.randrange(1, 50))


def huge_header(raw: bytes, draw: random.Random) -> bytes:
    return (draw.choice(HUGE) % 2**64).to_bytes(8, "little") + raw[8:]


def huge_shape(raw: bytes, draw: random.Random) -> bytes:
    entries, data = header(raw)
    entry = entries[draw.choice([name for name in entries if name != "__metadata__"])]
    if draw.random() < 0.5:
        entry["shape"] = [draw.choice(HUGE) for _ in range(draw.randrange(1, 4))]
    else:
        entry["data_offsets"][1] = entry["data_offsets"][0] + draw.choice(HUGE)
    return joined(entries, data)


def overlapping(raw: bytes, draw: random.Random) -> bytes:
    """A tensor that takes its values from another's place, or partly from it."""
    entries, data = header(raw)
    names = [name for name in entries if name != "__metadata__"]
    entry, other = (entries[name] for name in draw.sample(names, 2))
    begin, end = entry["data_offsets"]
    at = draw.choice((other["data_offsets"][0], begin + draw.choice((-8, -4, 4, 8))))
    entry["data_offsets"] = [at, at + end - begin]
    return joined(entries, data)


def renamed(raw: bytes, draw: random.Random) -> bytes:
    """Two tensors that change their names: the format has nothing against it."""
    entries, data = header(raw)
    a, b = draw.sample([name for name in entries if name != "__metadata__"], 2)
    entries[a], entries[b] = entries[b], entries[a]
    return joined(entries, data)


def reshaped(raw: bytes, draw: random.Random) -> bytes:
    """Another shape or another type of as many bytes."""
    entries, data = header(raw)
    entry = entries[draw.choice([name for name in entries if name != "__metadata__"])]
    if draw.random() < 0.5:
        entry["shape"] = [*entry["shape"][::-1], 1]
    else:
        entry["dtype"] = {"F32": "I32", "F64": "I64", "I64": "F64"}[str(entry["dtype"])]  # type: ignore[assignment]
    return joined(entries, data)


def edited(raw: bytes, draw: random.Random) -> bytes:
    """A manifest with another value, as a careless hand leaves it."""
    content = json.loads(raw)
    key = draw.choice(list(content))
    content[key] = draw.choice((None, 0, -1, 10**40, "", "x" * 100, [], {}, [[[]]], 1e308, True))
    return json.dumps(content).encode()


EVERYWHERE = (truncated, flipped, garbage, zeroed, appended)
WEIGHTS = (*EVERYWHERE, huge_header, huge_shape, overlapping, renamed, reshaped)
Damage = Callable[[bytes, random.Random], bytes]


def same(folder: Path) -> bool:
    found = load_checkpoint(folder, "last")
    return {k: found.manifest[k] for k in MANIFEST} == MANIFEST and {
        k: (x.dtype, x.shape, x.tobytes()) for k, x in found.tensors.items()
    } == {k: (x.dtype, x.shape, x.tobytes()) for k, x in TENSORS.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.damage", description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp())
    manifest = save_checkpoint(folder, "last", TENSORS, MANIFEST)
    weights = folder / json.loads(manifest.read_text())["weights"]
    whole = {path: path.read_bytes() for path in (manifest, weights)}
    kinds: list[tuple[Path, Damage]] = [(weights, f) for f in WEIGHTS]
    kinds += [(manifest, f) for f in (*EVERYWHERE, edited)]
    answers = ("CheckpointError", "as it was saved", "SILENTLY DIFFERENT", "another error")
    counts: dict[str, Counter[str]] = {}
    for n in range(options.copies):
        path, damage = kinds[n % len(kinds)]
        for each, raw in whole.items():
            each.write_bytes(raw)
        path.write_bytes(damage(whole[path], draw))
        try:
            answer = "as it was saved" if same(folder) else "SILENTLY DIFFERENT"
        except CheckpointError as error:
            answer = "CheckpointError" if str(folder) in str(error) and "\n" not in str(error) else "another error"
        except Exception as error:  # noqa: BLE001 (whatever it is, it is counted)
            answer = "another error"
            print(f"{damage.__name__}: {type(error).__name__}: {error}")
        counts.setdefault(f"{path.suffix[1:]}, {damage.__name__}", Counter())[answer] += 1
    print(f"{'':26}" + "".join(f"{answer:>20}" for answer in answers))
    for kind, found in counts.items():
        print(f"{kind:26}" + "".join(f"{found[answer]:>20,}" for answer in answers))
    total = sum(counts.values(), Counter())
    print(f"{'all':26}" + "".join(f"{total[answer]:>20,}" for answer in answers))
    return bool(total["SILENTLY DIFFERENT"] or total["another error"])


if __name__ == "__main__":
    sys.exit(main())
