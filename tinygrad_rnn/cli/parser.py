"""The arguments of the command. What its defaults are, and which a resumed run may change, is in here too."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tinygrad_rnn import __version__
from tinygrad_rnn.cli.options import SEEDS, Numbers, Parser, device, path, text_file, whole

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]

PROGRAM = "tinygrad-rnn"
SPLITS = ("end", "lines", "random")
RATES = {"lstm": 6e-3, "gru": 3e-3, "rnn": 4e-3}  # the best of those tried; at 8e-3 a GRU of 256 units diverges

# What `train` assumes. The parser leaves out what is not given, so that --resume can tell it from what is.
DEFAULTS: dict[str, Any] = {
    "text": None,
    "encoding": "utf-8",
    "tokens": "char",
    "vocabulary": None,
    "split": "end",
    "held_out": None,
    "out": None,
    "replace": False,
    "resume": None,
    "init_from": None,
    "config": None,
    "model": "lstm",
    "hidden": 256,
    "layers": 1,
    "embedding": 64,
    "dropout": 0.1,
    "seq_len": 32,
    "batch": 16,
    "accumulate": 1,
    "steps": None,
    "epochs": None,
    "minutes": None,
    "lr": None,
    "schedule": "cosine",
    "clip": 1.0,
    "patience": None,
    "save_every": 500,
    "seed": 0,
    "device": "cpu",
    "threads": None,
    "numba": None,
    "plain": False,
    "watch": False,
}
# What may be given with --resume.
CHANGEABLE = (
    *("text", "held_out", "encoding", "steps", "epochs", "minutes", "lr", "schedule", "clip", "dropout", "batch"),
    *("accumulate", "patience", "save_every", "device", "threads", "numba", "plain", "watch"),
)

TRAIN_HELP = """\
Train a character model: a network that reads a text and learns to predict the next character.

The text is cut into --batch streams that are read side by side, --seq-len characters at a time. The
state of the network is carried from one piece to the next; gradients reach back to the beginning of
the piece (truncated back-propagation through time). The last tenth of the text (--split) is held out: the
model never learns from it, and the bits per character it needs there are what counts. Fewer is
better: 7 would be no idea at all, 2 is decent, 1 is very good. They are measured ten times in a run,
on a sample, with the standard error that this brings, and in the end on all of it; of a text that is
large for the time given, on as much as leaves nine tenths of the time for training."""

TRAIN_EXAMPLES = """\
examples:
  tinygrad-rnn train
      about a minute, on the text that comes with Python; into runs/lstm-1
  tinygrad-rnn train --text book.txt --out runs/book
      a text of your own
  tinygrad-rnn train --text *.txt --minutes 10 --hidden 512 --dropout 0.2
      a larger network, for ten minutes
  tinygrad-rnn train --model gru --layers 2 --steps 5000 --lr 0.003
  tinygrad-rnn train --text book.txt --tokens bpe --vocabulary 2000
      tokens of some characters each, learnt from the text

  tinygrad-rnn train --resume runs/book
      go on with a run that was stopped or killed
  tinygrad-rnn train --resume runs/book --steps 6000
      train a run of 3000 steps 3000 more
  tinygrad-rnn train --resume runs/book --steps 9000 --lr 0.001 --batch 32 --dropout 0.3
      and go on otherwise
  tinygrad-rnn train --init-from runs/book --text letters.txt --lr 0.001 --epochs 5
      begin with the model of runs/book, and train it on another text
  tinygrad-rnn train --config runs/book/options.toml --seed 1
      the same again, with another seed

With --steps, the same --seed, machine and --threads give the same model, whether steps are recorded or
not, and another in the last digits with numba than without; --minutes ends by the clock.
Ctrl-C finishes the step and saves. A resumed run goes on as if it had never stopped, bit for bit, even
after a crash (from the newest checkpoint: --save-every). If it gets another --steps or --minutes, the
learning rate goes on where the schedule of the new total is at that point."""

GENERATE_HELP = "Write with a trained model, a character at a time. The same --seed writes the same text."

GENERATE_EXAMPLES = """\
examples:
  tinygrad-rnn generate runs/demo
  tinygrad-rnn generate runs/demo --prompt "The method " --length 1000 --temperature 0.5
  tinygrad-rnn generate runs/demo --prompt "The " --temperature 0    always the likeliest character
  tinygrad-rnn generate runs/demo --top-k 5 --seed 7            only ever one of the 5 likeliest
  tinygrad-rnn generate runs/demo --prompt-file begin.txt --num-samples 3"""

EVALUATE_HELP = """\
Measure how well a trained model predicts a text: the bits per character it needs, the mean of -log2 of
the probabilities it gave to the characters that came. Fewer is better. Characters that the model has
not seen in training are left out, neither read nor counted, and it says how many; more than a tenth of
all is an error."""

EVALUATE_EXAMPLES = """\
examples:
  tinygrad-rnn evaluate runs/demo --text new.txt
  tinygrad-rnn evaluate runs/demo --text new.txt --per-line | sort -n | tail    the lines it found oddest"""

EXPORT_HELP = """\
Write a trained model as one file for other programs: its weights alone, a third of the size of a checkpoint,
with the vocabulary, the configuration and the figures in the metadata. As safetensors the weights have
PyTorch's names and layouts, and every command here that takes a RUN takes the file, too; as ONNX it is a
graph that other runtimes compute, with the state as an input and an output (pip install onnx)."""

EXPORT_EXAMPLES = """\
examples:
  tinygrad-rnn export runs/demo                                 into runs/demo.safetensors
  tinygrad-rnn export runs/demo --format onnx --out model.onnx"""

RUNS_HELP = """\
Show what has been trained, the best first: the bits per character of the held-out text, by the evaluations
within the training, and what each run was asked for. Bits of one and the same text can be compared."""

RUNS_EXAMPLES = """\
examples:
  tinygrad-rnn runs                                     all that is in the folder runs
  tinygrad-rnn runs runs/lstm-* --picture curves.png    some of them, and their curves in one picture"""

DOCTOR_HELP = """\
Show what this computer has for training: Python, NumPy, the library of its matrix products with the
kernels and threads it uses, variables that slow it down and by how much (measured, in about a second),
GPUs or what to install for them, and free memory."""

EXPLORE_HELP = """\
Open a page on which to play with back-propagation through time: choose a cell, the number of steps, the
scale of the recurrent weight, a truncation, and see states, gates, the backward sweep, the ledger of the
recurrent weight and the flow of the gradient, and a short training run, live. The page is served by this
command to this computer alone, at 127.0.0.1; Ctrl-C ends it."""

EXPLORE_EXAMPLES = """\
examples:
  tinygrad-rnn explore
  tinygrad-rnn explore --port 0 --no-browser    any free port; the address is printed
  tinygrad-rnn explore --html page.html         the page as one file, to send or to put into a course"""


COMPLETION_EXAMPLES = """\
examples:
  tinygrad-rnn completion bash > ~/.local/share/bash-completion/completions/tinygrad-rnn
  tinygrad-rnn completion man > ~/.local/share/man/man1/tinygrad-rnn.1"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command: what it parses has `command`, the name of the subcommand, and `flags`, its options."""
    top = Parser(
        prog=PROGRAM,
        description="Train recurrent networks that write text, write with them, and see how they learn.",
        epilog="tinygrad-rnn COMMAND --help explains a command, with examples.",
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for add in (
        _add_train,
        _add_generate,
        _add_evaluate,
        _add_export,
        _add_runs,
        _add_doctor,
        _add_explore,
        _add_completion,
    ):
        command = add(commands)
        command.set_defaults(flags=command.flags())
    return top


def _add_train(commands: Commands) -> Parser:
    rates = ", ".join(f"{rate:g} for {model}" for model, rate in RATES.items())
    train = commands.add_parser(
        "train",
        help="train a character model on a text",
        description=TRAIN_HELP,
        epilog=TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = train.add_argument_group("what to read and where to write").add_argument
    add(
        "--text",
        nargs="+",
        type=text_file,
        metavar="FILE",
        help="text files, joined in this order; what gzip, bzip2 or xz has compressed is unpacked, - is the standard "
        "input (default: Python's help pages)",
    )
    add("--encoding", help="of the text files (default: utf-8)")
    add(
        "--split",
        choices=SPLITS,
        help="which tenth is held out: the end of the text; one of each ten lines, drawn by --seed, as of a sorted "
        "list; or one of each ten stretches of some thousand characters (default: end)",
    )
    add(
        "--held-out",
        nargs="+",
        type=text_file,
        metavar="FILE",
        help="hold out these text files, and learn from all of --text",
    )
    add(
        "--tokens",
        choices=("char", "word", "bpe"),
        help="what the network reads and predicts: characters, frequent words, or what byte-pair encoding finds in the "
        "text (pip install tokenizers); bits are told per character either way (default: char)",
    )
    add(
        "--vocabulary",
        type=whole(1, 10**6),
        metavar="N",
        help="so many words or byte pairs (default: 10,000 words, 1,000 byte pairs)",
    )
    add("--out", type=path, metavar="RUN", help="folder for the results (default: the first free runs/MODEL-N)")
    add("--replace", action="store_true", help="replace a run that --out already holds")
    add(
        "--resume",
        type=path,
        metavar="RUN",
        help="go on with a run; its text (--text and --held-out: the same at another place), --seed, --seq-len and "
        "network stay, but for --dropout",
    )
    add(
        "--init-from",
        type=path,
        metavar="RUN",
        help="begin with the model of another run, or of a file by export, to train it on another text: its network "
        "stays, characters that it does not know get rows of their own, and the optimiser is new",
    )
    add(
        "--config",
        type=path,
        metavar="FILE",
        help="options from a file in TOML, such as hidden = 512; what is typed goes before. Each run leaves its own, "
        "options.toml",
    )
    add = train.add_argument_group("the network").add_argument
    add("--model", choices=("rnn", "lstm", "gru"), help="kind of recurrent layer (default: lstm)")
    add("--hidden", type=whole(1, 65536), metavar="H", help="hidden units (default: 256)")
    add("--layers", type=whole(1, 64), metavar="N", help="layers on top of one another (default: 1)")
    add("--embedding", type=whole(1, 65536), metavar="E", help="numbers per character (default: 64)")
    add(
        "--dropout",
        type=Numbers(float, 0, 0.99, "must be a number from 0 to 0.99"),
        metavar="P",
        help="part of the outputs dropped in training; more helps long runs on small texts (default: 0.1)",
    )
    add = train.add_argument_group("the training").add_argument
    add("--seq-len", type=whole(1, 10**6), metavar="T", help="characters per piece (default: 32)")
    add("--batch", type=whole(1, 10**6), metavar="B", help="streams side by side (default: 16)")
    add(
        "--accumulate",
        type=whole(1, 10**4),
        metavar="K",
        help="make each step with the mean gradient of K batches: that of K times as many streams, in the memory of B "
        "(default: 1)",
    )
    add(
        "--steps",
        type=whole(1, 10**9),
        metavar="N",
        help="length of the training, those before a --resume included (default: 3000, about a minute)",
    )
    add(
        "--epochs",
        type=Numbers(float, 0, 10**6, "must be a number above 0, up to 1,000,000", open_low=True),
        metavar="E",
        help="length of the training in passes over the text, instead of --steps",
    )
    add(
        "--minutes",
        type=Numbers(float, 0, 10**6, "must be a number above 0, up to 1,000,000", open_low=True),
        metavar="M",
        help="length of the training by the clock; with --steps, whichever comes first",
    )
    add(
        "--lr",
        type=Numbers(float, 0, 1e3, "must be a number above 0, up to 1,000", open_low=True),
        metavar="R",
        help=f"highest learning rate of Adam; see --schedule (default: {rates})",
    )
    add(
        "--schedule",
        choices=("cosine", "linear", "constant", "plateau"),
        help="how the rate falls after the warm-up, or that it stays; plateau: no warm-up, and half the rate after "
        "each evaluation (there are ten in a run) that brings nothing better (default: cosine)",
    )
    add(
        "--clip",
        type=Numbers(float, 0, 1e9, "must be a number above 0, up to 1e9", open_low=True),
        metavar="C",
        help="largest norm of a gradient (default: 1.0)",
    )
    add(
        "--patience",
        type=whole(1, 10**9),
        metavar="N",
        help="stop when N evaluations in a row bring nothing better (default: never)",
    )
    add("--save-every", type=whole(1, 10**9), metavar="N", help="steps between checkpoints (default: 500)")
    add("--seed", type=whole(0, SEEDS), metavar="S", help="of all that is random (default: 0)")
    add("--device", type=device, help="cpu, cuda or cuda:N (default: cpu)")
    add(
        "--threads",
        type=whole(1, 1024),
        metavar="N",
        help="threads that share a step, or its matrix products (default: 1 for small networks, else up to all cores)",
    )
    add(
        "--watch",
        action="store_true",
        help="look at every 50th step how the gradient flows back through time, show it, say when it vanishes or "
        "explodes, and write flow.jsonl and flow.png; some 2 %% of the time, and the same training, to the last bit "
        "with --threads 1",
    )
    add(
        "--numba",
        action=argparse.BooleanOptionalAction,
        help="whether numba runs the kernels on the CPU (default: if it is installed: pip install numba)",
    )
    add(
        "--plain",
        action="store_true",
        help="step by step as the code says, op by op and by NumPy alone: no step is recorded and replayed, no kernel "
        "compiled; slower, for those who look into it",
    )
    return train


def _add_generate(commands: Commands) -> Parser:
    generate = commands.add_parser(
        "generate",
        help="write with a trained model",
        description=GENERATE_HELP,
        epilog=GENERATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = generate.add_argument
    _add_folder(add)
    add("--prompt", metavar="TEXT", help="what the text begins with (default: a new line)")
    add("--prompt-file", type=path, metavar="FILE", help="a text file with that, without the end of its last line")
    add("--encoding", default="utf-8", help="of that file (default: %(default)s)")
    add(
        "--num-samples",
        type=whole(1, 10**6),
        default=1,
        metavar="N",
        help="write so many texts, with the seeds S, S + 1, ... and dashes between them (default: %(default)s)",
    )
    add(
        "--length",
        type=whole(0, 10**9),
        default=500,
        metavar="N",
        help="characters to write (default: %(default)s)",
    )
    add(
        "--temperature",
        type=Numbers(float, 0, 1e6, "must be a number from 0 to 1,000,000"),
        default=0.7,
        metavar="X",
        help="0: always the likeliest; 1: as likely as the model says; more: wilder (default: %(default)s)",
    )
    add("--top-k", type=whole(1, 10**9), metavar="K", help="choose among the K likeliest characters only")
    add(
        "--seed",
        type=whole(0, SEEDS),
        default=0,
        metavar="S",
        help="of the choice (default: %(default)s)",
    )
    _add_checkpoint(add)
    add("--threads", type=whole(1, 1024), metavar="N", help="threads of the matrix products (default: 1)")
    return generate


def _add_evaluate(commands: Commands) -> Parser:
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a trained model on a text",
        description=EVALUATE_HELP,
        epilog=EVALUATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = evaluate.add_argument
    _add_folder(add)
    add(
        "--text",
        nargs="+",
        type=text_file,
        metavar="FILE",
        required=True,
        help="text files, joined in this order; what gzip, bzip2 or xz has compressed is unpacked, - is the standard "
        "input",
    )
    add("--encoding", default="utf-8", help="of the text files (default: %(default)s)")
    add("--per-line", action="store_true", help="first print each line with its own bits per character")
    _add_checkpoint(add)
    add("--threads", type=whole(1, 1024), metavar="N", help="threads of the matrix products (default: 1)")
    return evaluate


def _add_export(commands: Commands) -> Parser:
    export = commands.add_parser(
        "export",
        help="write a trained model as one file for other programs",
        description=EXPORT_HELP,
        epilog=EXPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = export.add_argument
    _add_folder(add)
    add("--format", choices=("safetensors", "onnx"), default="safetensors", help="(default: %(default)s)")
    add("--out", type=path, metavar="FILE", help="the file to write (default: beside the run, with its name)")
    add("--replace", action="store_true", help="replace a file that is there")
    _add_checkpoint(add)
    return export


def _add_runs(commands: Commands) -> Parser:
    runs = commands.add_parser(
        "runs",
        help="list what has been trained, and compare it",
        description=RUNS_HELP,
        epilog=RUNS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = runs.add_argument
    add("folders", nargs="*", type=path, metavar="RUN", help="runs, or folders with runs in them (default: runs)")
    add("--picture", type=path, metavar="FILE", help="draw the curves of all of them into a picture (.png, .svg, .pdf)")
    return runs


def _add_doctor(commands: Commands) -> Parser:
    return commands.add_parser(
        "doctor",
        help="show what this computer has, and what slows it down",
        description=DOCTOR_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_explore(commands: Commands) -> Parser:
    explore = commands.add_parser(
        "explore",
        help="open a page on which to play with back-propagation through time",
        description=EXPLORE_HELP,
        epilog=EXPLORE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = explore.add_argument
    add("--port", type=whole(0, 65535), default=8000, metavar="N", help="0: any free one (default: %(default)s)")
    add("--no-browser", action="store_true", help="print the address, and open no browser")
    add(
        "--html",
        type=path,
        metavar="FILE",
        help="instead, write the page as one file that needs no server and holds the answers to some of the settings",
    )
    return explore


def _add_completion(commands: Commands) -> Parser:
    completion = commands.add_parser(
        "completion",
        help="print what completes this command in a shell, or its manual page",
        description="Print a script that completes commands and options in a shell, or the manual page.",
        epilog=COMPLETION_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = ("bash", "zsh", "tcsh", "man")
    completion.add_argument("kind", choices=kinds, help="a shell (made with shtab), or man (with argparse-manpage)")
    return completion


def _add_folder(add: Callable[..., Any]) -> None:
    add("folder", type=path, metavar="RUN", help="a folder that train has written, or a file by export")


def _add_checkpoint(add: Callable[..., Any]) -> None:
    add(
        "--checkpoint",
        choices=("best", "last"),
        help="the model that did best on the held-out text, or the newest (default: best; last if there is none yet)",
    )
