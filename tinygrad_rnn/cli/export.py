"""`tinygrad-rnn export`: a trained model as one file, for other programs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.cli.options import quoted
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.exported import as_metadata, exported
from tinygrad_rnn.language.model import describe_model
from tinygrad_rnn.language.onnx_file import OPSET, onnx_bytes
from tinygrad_rnn.language.trained import Trained, load
from tinygrad_rnn.training.disk import write_atomically
from tinygrad_rnn.training.resume import weights


def run(args: argparse.Namespace) -> int:
    """Write the file, whole or not at all; returns the exit status."""
    check_output()
    trained = load(args.folder, args.checkpoint)
    path = _path(args)
    data = _data(trained, args.format)
    if path.is_file() or not path.exists():
        write_atomically(path, data)
    else:  # a pipe, say
        path.write_bytes(data)
    described = describe_model(trained.model, trained.vocabulary)
    sizes = ", ".join(f"{name} {value}" for name, value in described["model"].items())
    print(f"{quoted(path)}: {len(data) / 1e6:.2f} MB, the model of step {trained.step:,}: {sizes}")
    print("In its metadata: the vocabulary, the configuration and the figures")
    if args.format == "onnx":
        print(_signature(trained))
    return 0


def _path(args: argparse.Namespace) -> Path:
    """Where to write: beside the run unless it is said. Raises InputError for what must not be replaced."""
    run = Path(args.folder)
    name = run.stem if run.is_file() else run.resolve().name
    path = Path(args.out) if args.out else run.parent / f"{name}.{args.format}"
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file to write", hint="choose another file")
    if path.is_file() and not args.replace:
        raise InputError(f"{path}: is there already", hint="choose another file, or replace it")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: {path.absolute().parent} is no folder", hint="choose another file")
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write in {path.absolute().parent}", hint="choose another file")
    return path


def _data(trained: Trained, form: str) -> bytes:
    header = {
        **describe_model(trained.model, trained.vocabulary),
        "step": trained.step,
        "figures": dict(trained.figures),
        "config": dict(trained.config),
    }
    if form == "onnx":
        return onnx_bytes(trained.model, as_metadata(header))
    return exported(weights(trained.model), header)


def _signature(trained: Trained) -> str:
    """What goes in and comes out of the graph."""
    config = trained.model.config
    states = ("h", "c") if config.cell == "lstm" else ("h",)
    shape = f"({config.layers}, batch, {config.hidden})"
    given, found = " and ".join(states), " and ".join(f"{state}_next" for state in states)
    return (
        f"Opset {OPSET}: ids (time, batch) of int64 and {given} {shape}, zeros at first, give scores "
        f"(time, batch, {config.vocabulary}) and {found}"
    )
