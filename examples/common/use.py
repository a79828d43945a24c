"""What the scripts in `examples/` share to use what they have trained, on what is new: `--use RUN`.

    def main(run: Experiment) -> None:
        sizes = {"vocabulary": len(vocabulary)}
        model = Reader(**sizes)
        run.fit("LSTM", model, batch, loss, evaluate, use={"sizes": sizes, "words": vocabulary.tokens})

    def answer(used: Used) -> Iterator[Answer]:
        kept = used.models[0]  # the best of those that were trained
        model, vocabulary = kept.load(Reader), WordVocabulary(tuple(kept["words"]))
        for given in used.lines():
            ...
            yield Answer(f"{label}  {given.text}", {"text": given.text, "label": label})

    if __name__ == "__main__":
        sys.exit(experiment(main, steps=2000, quick=200, use=Use(answer, text="a sentence", files="a text file")))

What `fit` is given as `use` stands in the manifest of the model's checkpoint, which names the weights: they cannot come
apart. An answer is a text for people and, with `--json`, an object on a line for programs.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tinygrad_rnn.errors import CheckpointError, InputError, TinygradRnnError
from tinygrad_rnn.scalars import number

if TYPE_CHECKING:
    from tinygrad_rnn.nn import Module
    from tinygrad_rnn.tensor.tensor import Tensor

    Model = TypeVar("Model", bound=Module)

VERSION = 1
"""Of what a run keeps for its use: it grows where an older script would read it wrongly."""
STANDARD_INPUT = "/dev/stdin"
Adds = Callable[[argparse._ActionsContainer], object]  # options to a parser, or to a group of it


class Answer(NamedTuple):
    """An answer as people read it, lines of text, and as programs do, what JSON can hold; `rows` are its table."""

    text: str
    content: dict[str, Any]
    rows: list[dict[str, Any]] = []  # noqa: RUF012 (never written to)


class Given(NamedTuple):
    """A text that is asked about, and where it stands: `place` for people, nothing for one of --text."""

    text: str
    place: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Use:
    """How a script uses what it has trained.

    Attributes:
        answer: gives the answers to what is asked.
        text: what `--text` takes, such as "a sentence"; without it there is no such option.
        files: what `--input` takes, such as "WAV files"; without it there is no such option.
        needed: whether one of the two must be given.
        table: what the table of all answers is, which `--csv` writes; without it there is no such option.
        options: adds further options; their default is None.
        allows: options of training that mean something here, too, by their names, such as "steps".
        settled: options of how data is read that a run has settled for good, by their names.
    """

    answer: Callable[[Used], Iterator[Answer]]
    text: str = ""
    files: str = ""
    needed: bool = True
    table: str = ""
    options: Adds | None = None
    allows: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()


class OnDevice:
    """What has a `device`, "cpu" or "cuda", for models and tensors."""

    device: str

    def tensor(self, array: Any) -> Tensor:
        """An array as a Tensor on the device, floats as float32."""
        import numpy as np

        from tinygrad_rnn.tensor.tensor import Tensor

        array = np.asarray(array)
        return Tensor(array.astype(np.float32) if array.dtype == np.float64 else array, device=self.device)


class Kept(dict[str, Any]):
    """What a run keeps of a model, `name`: the entries that `fit` was given as `use`, and the weights."""

    def __init__(self, name: str, entries: Mapping[str, Any], weights: Mapping[str, Any], place: Path, device: str):
        super().__init__(entries)
        self.name, self.weights, self.place, self.device = name, weights, place, device

    def __missing__(self, key: str) -> Any:
        raise CheckpointError(
            f"{self.place}: there is no {key!r} in it: it was trained by another version of this script"
        )

    def load(self, build: Callable[..., Model]) -> Model:
        """The model, built of its `sizes`, with its weights, in evaluation mode. Raises CheckpointError for another."""
        try:
            model = build(**self["sizes"])
            model.load_state_dict(dict(self.weights))
        except (KeyError, TypeError, TinygradRnnError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{self.place}: is of another version of this script: {error}") from None
        model.eval()
        return model.to(self.device)


@dataclass(frozen=True)
class Used(OnDevice):
    """A run that is used.

    Attributes:
        folder: the run's.
        models: what it keeps, the best one first.
        options: what is asked for, by name; how files are read is as in the run, but for their encoding, unless it is
            said again.
        device: where to compute.
    """

    folder: Path
    models: list[Kept]
    options: argparse.Namespace
    device: str

    def lines(self, tables: Callable[[Path], list[tuple[int, str]]] | None = None) -> list[Given]:
        """The texts of --text, and of the files of --input each line that is not blank; of a .csv or .tsv what `tables`
        finds in it, lines and texts. Raises InputError for none.
        """
        from tinygrad_rnn.data import read_text

        found = [Given(text, "", {}) for text in self.options.text or ()]
        for file in self.files():
            if tables and file.suffix.lower() in (".csv", ".tsv"):
                found += [Given(text, f"{file}, line {k}", {"file": str(file), "line": k}) for k, text in tables(file)]
                continue
            for k, line in enumerate(read_text(file, self.options.encoding or "utf-8").split("\n"), 1):
                if "\t" in line:
                    raise InputError(
                        f"{file}, line {k}: there is a tab in it: a line is one text, and no row of a table"
                    )
                if line.strip():
                    found.append(Given(line, f"{file}, line {k}", {"file": str(file), "line": k}))
        for given in found:
            if not given.text.strip():
                raise InputError("--text: must be a text, not blanks")
        if not found:
            raise InputError(f"{self.files()[0]}: there is nothing in it but blanks")
        return found

    def files(self) -> list[Path]:
        """The files of --input; a - is the standard input."""
        return [Path(STANDARD_INPUT if file == "-" else file) for file in getattr(self.options, "input", None) or ()]


def entries(use: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the manifest of a checkpoint says of its use."""
    from tinygrad_rnn import __version__

    return None if use is None else {"version": VERSION, "library": __version__, **use}


def add_options(group: argparse._ArgumentGroup, use: Use) -> None:
    """The options of `--use`, of which each has the default None."""
    from tinygrad_rnn.cli.options import path

    group.add_argument("--use", type=path, metavar="RUN", help="a folder that this example has trained: train nothing")
    if use.text:
        group.add_argument("--text", action="append", metavar="TEXT", help=f"{use.text}; may be given again")
    if use.files:
        what = f"{use.files} (- for the standard input)"
        group.add_argument("--input", type=path, nargs="+", metavar="FILE", help=what)
    group.add_argument("--json", action="store_true", default=None, help="a JSON object a line, for programs")
    if use.table:
        group.add_argument("--csv", type=path, metavar="FILE", help=f"write {use.table} here, too")
    if use.options:
        use.options(group)


def refuse_options(args: argparse.Namespace, using: argparse._ArgumentGroup | None) -> None:
    """Take the options of `--use` out of those of a training. Raises InputError where one was given."""
    for action in using._group_actions if using else ():
        if vars(args).pop(action.dest) is not None:
            raise InputError(f"{action.option_strings[0]} is for a run that is used: give --use RUN, too")


def check_options(
    args: argparse.Namespace,
    parser: argparse.ArgumentParser,
    own: argparse._ArgumentGroup,
    using: argparse._ArgumentGroup,
    use: Use,
) -> None:
    """Raise InputError unless what is asked for of a run that is used fits together."""
    reading = [action for action in _reading(own) if action.dest not in use.settled]
    allowed = {action.dest for action in (*using._group_actions, *reading)} | {"help", "device", "threads", *use.allows}
    for action in parser._actions:
        if action.dest not in allowed and getattr(args, action.dest) != action.default:
            raise InputError(f"{action.option_strings[0]} is of training, and --use trains nothing: leave it out")
    there = [f"--{name}" for name, what in (("text", use.text), ("input", use.files)) if what]
    if use.needed and not any(getattr(args, flag[2:]) for flag in there):
        raise InputError(f"--use answers what is given to it: {' or '.join(there)} is missing")
    for action in reading:
        if getattr(args, action.dest) is not None and not getattr(args, "input", None):
            raise InputError(f"{action.option_strings[0]} says how --input is read, and there is none: give both")


def _reading(own: argparse._ArgumentGroup) -> list[argparse.Action]:
    """The options that say how data is read."""
    return [action for action in own._group_actions if action.dest not in ("data", "fetch")]


def use_run(use: Use, example: str, args: argparse.Namespace, own: argparse._ArgumentGroup) -> int:
    """Answer with a run of an example; returns the exit status. Options of how data is read, `own`, that are not given
    are as in the run.
    """
    from threadpoolctl import threadpool_limits

    from examples.common.folder import config_of
    from tinygrad_rnn.cli.answers import check_output
    from tinygrad_rnn.cli.options import check_device
    from tinygrad_rnn.screen import console, say
    from tinygrad_rnn.tensor.mode import no_grad
    from tinygrad_rnn.tensor.random import manual_seed

    check_output()
    check_device(args.device)
    table = Path(args.csv) if use.table and args.csv else None
    if table and not table.parent.is_dir():
        raise InputError(f"{table}: there is no folder {table.parent}")
    folder = Path(args.use)
    check_run(folder, example)
    before = config_of(folder)
    for name in {action.dest for action in _reading(own)} - {"encoding"}:
        if getattr(args, name) is None:
            setattr(args, name, before.get(name))
    manual_seed(args.seed)
    used = Used(folder, models_of(folder, args.device), args, args.device)
    screen, rows = console(), []
    with threadpool_limits(args.threads), no_grad():
        for answer in use.answer(used):
            say(screen, as_json(answer.content) if args.json else answer.text)
            rows += answer.rows
    if table:
        write_table(table, rows)
    return 0


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of the same names as a CSV file with a header."""
    from tinygrad_rnn.training.disk import write_atomically

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def check_run(folder: Path, example: str) -> None:
    """Raise InputError unless a folder holds a run of this example."""
    from examples.common.folder import config_of
    from tinygrad_rnn.training import RunFolder

    if not folder.exists():
        train = f"train first: python -m examples.{example} --out {folder}"
        raise InputError(f"{folder}: no such folder: {train}")
    owner = config_of(folder).get("example", "")
    if owner == example:
        return
    what = "holds no run of this example"
    if owner:
        what = f"is a run of the example {owner}: python -m examples.{owner} --use uses it"
    elif RunFolder(folder).is_run():
        what = "is a run of tinygrad-rnn train: tinygrad-rnn generate uses it"
    elif (folder / "unfinished").exists():
        what = f"has not come to an end yet: what it has so far is in {folder / 'unfinished'}"
    raise InputError(f"{folder}: {what}")


def models_of(folder: Path, device: str) -> list[Kept]:
    """What a run keeps of its models, the best one first: that whose first figure is the least. Raises CheckpointError
    for what is damaged, of a newer version, or cannot be used.
    """
    from tinygrad_rnn.training import load_checkpoint

    found = []
    for path in sorted((folder / "checkpoints").glob("*.json")):
        checkpoint = load_checkpoint(path.parent, path.stem)
        manifest = checkpoint.manifest
        use = manifest.get("use")
        if not use:
            continue
        if use["version"] > VERSION:
            raise CheckpointError(
                f"{path}: was trained by a newer version, {use['library']}, whose scripts keep what this one "
                "cannot read: upgrade"
            )
        goal = next(iter(manifest["figures"].values()), math.inf)
        found.append((goal, Kept(manifest["model"], use, checkpoint.tensors, path, device)))
    if not found:
        raise CheckpointError(f"{folder}: keeps no model that can be used: train it again with this version")
    return [kept for _, kept in sorted(found, key=lambda one: one[0])]


def as_json(content: Mapping[str, Any]) -> str:
    """An object on a line; a number that is not finite is null, and what the screen cannot show is escaped.

    >>> as_json({"label": "süß", "p": 0.5, "low": float("nan")})
    '{"label": "süß", "p": 0.5, "low": null}'
    """
    text = json.dumps(_finite(content), ensure_ascii=False, default=lambda value: number("an entry", value))
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text))
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def typed(example: str, folder: str | os.PathLike[str], *words: str) -> str:
    """What is typed to use a run."""
    from tinygrad_rnn.cli.options import quoted

    shown = (word if word.startswith("--") else quoted(word) for word in words)
    return " ".join(["python -m", f"examples.{example}", "--use", quoted(folder), *shown])
