"""Checkpoints: what is written comes back bit for bit, or a CheckpointError says why not."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn.training.checkpoint as checkpoint
from benchmarks import damage
from tinygrad_rnn import Tensor
from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.nn import Parameter
from tinygrad_rnn.training import load_checkpoint, save_checkpoint

TENSORS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "bias": np.array([1.5, -2.5], dtype=np.float64),
    "steps": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float16),
}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    fortran = {**TENSORS, "turned": TENSORS["weight"].T}
    path = save_checkpoint(tmp_path / "new" / "folder", "best", fortran, {"step": 12, "vocabulary": "aß…"})
    found = load_checkpoint(path.parent, "best")
    assert found.manifest["step"] == 12 and found.manifest["vocabulary"] == "aß…"
    assert found.tensors.keys() == fortran.keys()
    for name, array in fortran.items():
        assert found.tensors[name].dtype == array.dtype
        assert np.array_equal(found.tensors[name], array)


def test_the_weights_are_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    manifest = json.loads(save_checkpoint(tmp_path, "best", TENSORS, {"step": 1}).read_text())
    assert np.array_equal(load_file(tmp_path / manifest["weights"])["weight"], TENSORS["weight"])


def test_a_new_one_replaces_the_old_and_leaves_other_files_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "last", TENSORS, {"step": 1})
    (tmp_path / "best-notes.safetensors").write_text("mine")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, "best", {"x": np.full(3, step)}, {"step": step})
    assert load_checkpoint(tmp_path, "best").tensors["x"].tolist() == [3, 3, 3]
    assert load_checkpoint(tmp_path, "last").manifest["step"] == 1
    names = files(tmp_path)
    assert len(names) == 5 and "best-notes.safetensors" in names and not [n for n in names if n.endswith(".tmp")]


@pytest.mark.parametrize("dies_at", range(1, 9))
def test_whenever_writing_stops_one_whole_checkpoint_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    save_checkpoint(tmp_path, "epoch 3.5", {"x": np.zeros(3)}, {"step": 1})
    calls = 0

    def counted(real):
        def call(*args):
            nonlocal calls
            calls += 1
            if calls == dies_at:
                raise OSError(28, "No space left on device")
            return real(*args)

        return call

    for name in ("fsync", "replace", "close"):
        monkeypatch.setattr(checkpoint.os, name, counted(getattr(os, name)))
    with suppress(OSError):
        save_checkpoint(tmp_path, "epoch 3.5", {"x": np.ones(3)}, {"step": 2})
    monkeypatch.undo()
    found = load_checkpoint(tmp_path, "epoch 3.5")
    assert np.all(found.tensors["x"] == found.manifest["step"] - 1)
    save_checkpoint(tmp_path, "epoch 3.5", {"x": np.ones(3)}, {"step": 2})
    assert len(files(tmp_path)) == 2


@settings(max_examples=200)
@given(st.data())
def test_no_damage_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    save_checkpoint(folder, "best", TENSORS, {"step": 3, "model": {"hidden": 8}})
    victim = data.draw(st.sampled_from(sorted(folder.iterdir())))
    raw = bytearray(victim.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "append", "garbage"]))
    if kind == "flip":
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    elif kind == "append":
        raw += data.draw(st.binary(min_size=1, max_size=20))
    else:
        at = data.draw(st.integers(0, len(raw) - 1))
        junk = data.draw(st.binary(min_size=1, max_size=16))
        raw[at : at + len(junk)] = junk
    victim.write_bytes(raw)
    try:
        found = load_checkpoint(folder, "best")
    except CheckpointError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
    else:  # damage that changes no value, such as white space at the end of the manifest
        assert found.manifest["step"] == 3 and found.manifest["model"] == {"hidden": 8}
        for name, array in TENSORS.items():
            assert found.tensors[name].tobytes() == array.tobytes()
            assert found.tensors[name].dtype == array.dtype and found.tensors[name].shape == array.shape


NAMES = [
    "best",
    "val_loss=1.23",
    "epoch.3.",
    "LSTM, dropout",
    " GRU (64) ",
    "..",
    ".json",
    "ħ é e\u0301 \U0001f600",
    "x" * 200,
]
NAMES += ["best.json", "a.tmp", "a.safetensors", "a-000001-0123abcd", "%s {} $HOME ~", "\udcff", "#'\"`[b]"]
NO_NAMES: list[Any] = [
    None,
    5,
    b"a",
    Path("a"),
    "",
    "a/b",
    "../a",
    "/",
    "a\\b",
    "a\nb",
    "a\x00b",
    "\x7f",
    "x" * 201,
    "é" * 101,
    "\ud800",
]


@pytest.mark.skipif(os.name == "nt", reason="file names of POSIX")
def test_any_name_can_be_read_again_and_replacing_leaves_one_weights_file_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.os, "fsync", lambda descriptor: None)
    for step in (1, 2):
        for k, name in enumerate(NAMES):
            save_checkpoint(tmp_path, name, {"x": np.full(3, step + k)}, {"step": step})
    for k, name in enumerate(NAMES):
        found = load_checkpoint(tmp_path, name)
        assert found.tensors["x"].tolist() == [2 + k] * 3 and found.manifest["step"] == 2
    assert len(list(tmp_path.iterdir())) == 2 * len(NAMES)
    checkpoint.rename_checkpoint(tmp_path, "val_loss=1.23", "it's 1.23")
    assert load_checkpoint(tmp_path, "it's 1.23").manifest["step"] == 2


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_cannot_be_a_name_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "new"
    for call in (
        lambda: save_checkpoint(folder, name, TENSORS, {"step": 1}),
        lambda: save_checkpoint(folder, "last", TENSORS, {"step": 1}, previous=0 if name is None else name),
        lambda: load_checkpoint(folder, name),
    ):
        with pytest.raises(CheckpointError, match=r"name of a checkpoint"):
            call()
    assert not folder.exists()


def test_neither_folders_nor_files_of_others_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    (tmp_path / "config.json").write_text('{"seed": 0}')
    for name, message in (("run", "run.json: is a folder"), ("config", "config.json: no checkpoint of tinygrad-rnn")):
        with pytest.raises(CheckpointError, match=message):
            save_checkpoint(tmp_path, name, TENSORS, {"step": 1})
    assert files(tmp_path) == ["config.json", "run.json"]


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8", "c8", "b1", "i1"])
def test_both_byte_orders_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(checkpoint.os, "fsync", lambda descriptor: None)
    big = np.arange(5).reshape(5, 1).astype(f">{kind}")
    save_checkpoint(tmp_path, "a", {"big": big, "little": big.astype(f"<{kind}"), "0-d": big[3, 0]}, {"step": 1})
    found = load_checkpoint(tmp_path, "a").tensors
    for key in ("big", "little"):
        assert np.array_equal(found[key], big) and found[key].dtype == big.dtype.newbyteorder("=")
    assert found["0-d"] == big[3, 0]


def test_a_digest_is_that_of_the_file_whatever_the_machine() -> None:
    assert checkpoint.digest(np.arange(3, dtype=">i4")) == checkpoint.digest(np.arange(3, dtype="<i4"))


WRONG = {
    "text": ({"x": np.array(["a"])}, {}, "tensor 'x' is <U1: a checkpoint holds float16, float32"),
    "objects": ({"x": np.array([{}])}, {}, "tensor 'x' is object"),
    "None": ({"x": None}, {}, "tensor 'x' cannot be made an array: .*NoneType"),
    "a masked number in a list": ({"x": [1.0, np.ma.masked]}, {}, "tensor 'x' cannot be made an array: .*masked"),
    "a masked array in a list": ({"x": [np.ma.array([1.0], mask=[True])]}, {}, "cannot be made an array: .*masked"),
    "dates": ({"x": np.array(["2020-01-01"], "M8[D]")}, {}, r"tensor 'x' is datetime64\[D\]"),
    "complex128": ({"x": np.array([1j])}, {}, "tensor 'x' is complex128"),
    "a structure": ({"x": np.zeros(2, "f4, i4")}, {}, "tensor 'x' is "),
    "a mask": ({"x": np.ma.masked_equal([1, 2], 2)}, {}, "tensor 'x' is masked array"),
    "a ragged list": ({"x": [[1], [1, 2]]}, {}, "tensor 'x' cannot be made an array"),
    "a reserved name": ({"__metadata__": np.zeros(1)}, {}, "'__metadata__' cannot be the name of a tensor"),
    "half a character": ({"\ud800": np.zeros(1)}, {}, "cannot be the name of a tensor"),
    "a number as name": ({3: np.zeros(1)}, {}, "3 cannot be the name of a tensor"),
    "a negative step": ({}, {"step": -1}, "the manifest's step must be a whole number of at least 0, not -1"),
    "half a step": ({}, {"step": 1.5}, "the manifest's step must be"),
    "a step in words": ({}, {"step": "3"}, "the manifest's step must be"),
    "no step": ({}, {"step": None}, "the manifest's step must be"),
    "a function": ({}, {"f": len}, "the manifest cannot be written as JSON: an entry must be a number"),
    "an array": ({}, {"f": np.zeros(2)}, "the manifest cannot be written as JSON"),
    "bytes": ({}, {"f": b"x"}, "the manifest cannot be written as JSON"),
    "a key twice": ({}, {"f": {1: 2, "1": 3}}, "the manifest cannot be written as JSON: two keys are '1' there"),
    "its digest": (
        {},
        {"sha256": "x"},
        "the manifest has 'sha256', which is an entry of the checkpoint's own",
    ),
    "a tuple as key": ({}, {"f": {(1, 2): 3}}, "the manifest cannot be written as JSON"),
    "an entry of its own": ({}, {"weights": "pretrained"}, "the manifest has 'weights'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_could_not_be_read_again_is_refused_before_anything_is_written(tmp_path: Path, case: str) -> None:
    tensors, manifest, message = WRONG[case]
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tmp_path / "new", "best", tensors, manifest)
    assert not (tmp_path / "new").exists()


def test_a_manifest_holds_numbers_of_every_kind(tmp_path: Path) -> None:
    figures = {"a": np.float32(0.5), "b": np.array(2), "c": Tensor(0.25), "d": np.bool_(True), "e": np.float64(3)}
    manifest = {"step": np.int64(3), "figures": figures, "betas": (0.9, np.float16(0.5)), "by step": {10: 1, 2: 3}}
    save_checkpoint(tmp_path, "best", {"x": Parameter([1.0])}, manifest)
    found = load_checkpoint(tmp_path, "best")
    assert found.manifest["figures"] == {"a": 0.5, "b": 2, "c": 0.25, "d": True, "e": 3.0}
    assert found.manifest["step"] == 3 and found.manifest["betas"] == [0.9, 0.5]
    assert found.manifest["by step"] == {"10": 1, "2": 3}
    save_checkpoint(tmp_path, "copy", found.tensors, found.manifest)  # what was read can be written
    assert load_checkpoint(tmp_path, "copy").tensors["x"].tolist() == [1.0]


def rewrite(path: Path, **changes: object) -> None:
    content = {**json.loads(path.read_text()), **changes}
    content["sha256"] = checkpoint._manifest_digest(content)
    path.write_text(json.dumps(content))


def test_the_reason_is_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, "best", TENSORS, {"step": 3})
    weights = tmp_path / json.loads(path.read_text())["weights"]
    good, good_weights = path.read_bytes(), weights.read_bytes()
    tensors = json.loads(good)["tensors"]

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            load_checkpoint(tmp_path, "best")
        path.write_bytes(good)
        weights.write_bytes(good_weights)

    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path, "last")
    rewrite(path, version=2)
    refused("format version 2.*upgrade")
    rewrite(path, format="something else")
    refused("not a checkpoint")
    path.write_text("[1, 2")
    refused("not JSON")
    path.write_text("[1, 2]")
    refused("not a checkpoint")
    rewrite(path, weights="../elsewhere.safetensors")
    refused("names no weights file")
    weights.unlink()
    refused("no such file, though best.json names it")
    weights.write_bytes(good_weights[:-1])
    refused("not a whole safetensors file")
    weights.write_bytes(good_weights.replace(TENSORS["weight"].tobytes(), TENSORS["weight"][::-1].tobytes()))
    refused("tensor 'weight' is damaged")
    rewrite(path, tensors={k: v for k, v in tensors.items() if k != "bias"})
    refused("tensor 'bias' is not in the manifest")
    rewrite(path, tensors={**tensors, "more": tensors["bias"]})
    refused("tensor 'more' is missing")
    rewrite(path, tensors={**tensors, "bias": {**tensors["bias"], "shape": [1, 2]}})
    refused(r"tensor 'bias' is float64 \[2\], the manifest says float64 \[1, 2\]")
    assert load_checkpoint(tmp_path, "best").manifest["step"] == 3


def test_damage_of_every_kind_is_a_checkpoint_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["damage", "--copies", "160"])
    assert damage.main() == 0, capsys.readouterr().out


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    def save(step: int) -> None:
        save_checkpoint(tmp_path, "last", {"x": np.full(3, step)}, {"step": step}, previous="previous")

    def steps() -> list[int]:
        found = [load_checkpoint(tmp_path, name) for name in ("previous", "last")]
        assert all(np.all(c.tensors["x"] == c.manifest["step"]) for c in found)
        return [c.manifest["step"] for c in found]

    for step in (1, 5, 9):
        save(step)
    assert steps() == [5, 9] and len(files(tmp_path)) == 4
    save(9)  # the same step again does not push the one before out
    assert steps() == [5, 9] and len(files(tmp_path)) == 4
    (tmp_path / "last.json").write_bytes(b"")  # nor does a damaged one become it
    save(12)
    assert steps() == [5, 12]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    for name in ("best", "last"):
        save_checkpoint(tmp_path, name, TENSORS, {"step": 4})
    before = files(tmp_path)
    for stale in ("last.json.tmp", "last-000009-0123abcd.safetensors.tmp", "last-000009-0123abcd.safetensors"):
        (tmp_path / stale).write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    checkpoint.clear_stale(tmp_path)
    assert files(tmp_path) == [*before, "notes.txt"]
    (tmp_path / "best.json").write_text("damaged")
    checkpoint.clear_stale(tmp_path)
    assert files(tmp_path) == [*before, "notes.txt"]  # the weights may still be wanted
