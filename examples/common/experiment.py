"""What the scripts in `examples/` share: options, training with progress, a table beside a baseline, pictures, claims.

    def main(run: Experiment) -> None:
        model = ...
        run.fit("LSTM", model, batch, loss, evaluate)
        run.table("Accuracy", ["model", "accuracy"], [["LSTM", 0.97], ["logistic regression", 0.95]])
        run.expect("the LSTM's accuracy", 0.97, at_least=0.95)

    if __name__ == "__main__":
        sys.exit(experiment(main, steps=2000, quick=200))

All that a script shows is also in its folder: `results.json`, the pictures, a log and a checkpoint for each model. What
an earlier run left there stays until this one is at its end; and nothing is written before the first call of `fit` or
`picture`, so a script that reads and checks its data before has nothing to undo.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from examples.common.use import Adds, OnDevice, Use, add_options, check_options, entries, refuse_options, typed, use_run
from tinygrad_rnn.errors import InputError, TinygradRnnError
from tinygrad_rnn.scalars import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from examples.common.folder import Folder
    from tinygrad_rnn.cli.options import Parser
    from tinygrad_rnn.nn import Module

CLONE = Path(__file__).parents[2]
LONGEST = 150  # bytes of a file's name: there are names of 255, and others are made of it
Cell = str | int | float
BaseSchedule = Callable[[float], float]


@dataclass(frozen=True)
class Fit:
    """How a training went: the `records` of its log, the figures of its `best` evaluation, its number of `parameters`,
    the `steps` and `seconds` it took, and whether its patience ended it (`early`).
    """

    records: list[dict[str, Any]]
    best: dict[str, float]
    parameters: int
    steps: int
    seconds: float
    early: bool

    def curve(self, figure: str) -> tuple[list[int], list[float]]:
        """The steps at which a figure of the evaluation was measured, and what it was: what `axes.plot` takes.

        >>> Fit([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "error": 0.5}], {}, 0, 2, 1.0, False).curve("error")
        ([2], [0.5])
        """
        found = [record for record in self.records if figure in record]
        return [record["step"] for record in found], [record[figure] for record in found]


@dataclass
class _Problem:
    """A `training.Task` made of functions."""

    model: Module
    batch: Callable[[int], tuple[tuple[Any, ...], int]]
    loss: Callable[..., Any]
    measure: Callable[[], dict[str, float]]
    keep: Callable[[Any], None] | None
    unit: str
    goal: str = ""

    def describe(self, loss: float) -> dict[str, float]:
        return {}

    def evaluate(self) -> dict[str, float]:
        from tinygrad_rnn.tensor.mode import no_grad

        self.model.eval()
        try:
            with no_grad():
                figures = self.measure()
        finally:
            self.model.train()
        self.goal = next(iter(figures))
        return figures


@dataclass
class Experiment(OnDevice):
    """One run of a script: what was asked for, and where what it finds is kept.

    Attributes:
        steps: how many training steps a model gets, as the script or `--steps` says.
        quick: whether a glance is enough (`--quick`): less data, fewer models; the claims are then weaker.
        seed: of everything random; the library's own generator has it already.
        device: "cpu" or "cuda", for models and tensors.
        data: the user's own file or folder, None for the script's own data.
        encoding: of the text in it.
        folder: where what it finds is kept.
        options: what else the script asked for, by name.
    """

    name: str
    about: str
    steps: int
    quick: bool
    seed: int
    device: str
    data: Path | None
    encoding: str
    folder: Folder
    options: argparse.Namespace
    results: dict[str, Any] = field(default_factory=lambda: {k: [] for k in ("tables", "pictures", "notes", "claims")})

    def __post_init__(self) -> None:
        from tinygrad_rnn.screen import console

        self.console = console()
        self._fitted: dict[str, str] = {}  # by the names of their files, the names of the models
        self.tries: list[str] = []

    @property
    def out(self) -> Path:
        """The folder that all is written to, made when it is first asked for."""
        return self.folder.begin()

    def say(self, *parts: str | tuple[str, str]) -> None:
        """A line on the screen, as it is; a part may be (text, style)."""
        from tinygrad_rnn.screen import say

        say(self.console, *parts)

    def source(self, text: str) -> None:
        """Say what the data is and where it is from; "generated" if it is."""
        self.results["source"] = text
        self.say(f"Data: {text}")

    def note(self, text: str) -> None:
        """A finding in plain words, shown with the results and kept with them."""
        self.results["notes"].append(text)
        self.say(text)

    def try_with(self, *words: str, file: str = "") -> None:
        """Have the last line say how the run is used: these words after `--use RUN`, and a `file` of its folder."""
        self.tries = [*words, *[os.fspath(self.folder.path / file)] * bool(file)]

    def fit(
        self,
        name: str,
        model: Module,
        batch: Callable[[int], tuple[tuple[Any, ...], int]],
        loss: Callable[..., Any],
        evaluate: Callable[[], dict[str, float]],
        *,
        use: Mapping[str, Any] | None = None,
        keep: Callable[[Any], None] | None = None,
        steps: int | None = None,
        minutes: float | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: BaseSchedule | None = None,
        clip: float | None = 1.0,
        evaluations: int = 10,
        patience: int | None = None,
        unit: str = "sequences",
        show: bool = True,
    ) -> Fit:
        """Train `model` with AdamW; it ends with the weights of its best evaluation, in evaluation mode.

        `batch(step)` returns what training step number `step`, from 0, is made with, a tuple of arrays and tensors, and
        how many `unit`s that is. `loss`, called with these, returns the loss: from there to the optimiser a step is
        recorded and repeated by `tr.compile`, which says what it takes. One that carries a state from step to step
        returns the loss and what to `keep`, which is called with that after the step, and with None before it.
        `evaluate()` returns figures of what is not trained on: the first is to become small and decides which
        evaluation is the best; it is called in evaluation mode and records nothing. The other arguments are those of
        `training.train`; `steps` is the experiment's own unless it or `minutes` is given. A model without an evaluation
        (0 steps, minutes or evaluations) is measured as it ends. The weights are kept as the checkpoint
        `file_name(name)` in `out/checkpoints`, with what else is needed to `use` the model: its `sizes`, of which it
        was built, and whatever JSON can hold. The records are kept as `out/NAME.jsonl`. Raises KeyboardInterrupt after
        Ctrl-C, Terminated after SIGTERM and SIGHUP, with the best weights saved; before the first evaluation, those
        there are.
        """
        from tinygrad_rnn.cli.answers import Terminated
        from tinygrad_rnn.optim import AdamW, BudgetLR, warmup_cosine
        from tinygrad_rnn.training import (
            Budget,
            LoopState,
            MetricsLog,
            Silent,
            display_for,
            read_metrics,
            save_checkpoint,
            train,
        )
        from tinygrad_rnn.training.resume import weights

        slug = file_name(name.lower().replace(" ", "-"))
        if (other := self._fitted.setdefault(slug, name)) != name:
            raise ValueError(f"{name!r} and {other!r} would both be kept as {slug!r}: choose another name for one")
        parameters = list(model.named_parameters())
        size = sum(p.size for _, p in parameters)
        if show:
            self.say(("\n" + name, "bold"), f", {size:,} parameters")
        model.train()
        log = self.out / f"{slug}.jsonl"
        log.unlink(missing_ok=True)
        best: dict[str, Any] = {}

        def save(state: LoopState, figures: dict[str, float]) -> None:
            best["weights"], best["figures"] = weights(model), figures
            manifest = {"step": state.step, "example": self.name, "model": name, "seed": self.seed, "figures": figures}
            metrics.sync()
            manifest["use"] = entries(use)
            save_checkpoint(self.out / "checkpoints", slug, best["weights"], manifest)

        if steps is None and minutes is None:
            steps = self.steps
        budget = Budget(steps, minutes)
        problem = _Problem(model, batch, loss, evaluate, keep, unit)
        adam = AdamW(parameters, lr=lr, weight_decay=weight_decay)
        with MetricsLog(log) as metrics:
            outcome = train(
                problem,
                adam,
                parameters,
                budget,
                schedule=BudgetLR(adam, schedule or warmup_cosine),
                clip=clip,
                evaluations=evaluations,
                patience=patience,
                log_every=max(1, (budget.steps or 0) // 1000),
                display=display_for(self.console) if show else Silent(),
                metrics=metrics,
                keep_best=save,
                plain=self.options.plain or self.device != "cpu",
            )
            if best:
                model.load_state_dict(best["weights"])
            elif outcome.stopped_by is None:
                save(outcome.state, {key: number(key, value) for key, value in problem.evaluate().items()})
            elif outcome.state.step:  # stopped before its first evaluation
                save(outcome.state, {})
        model.eval()
        if outcome.stopped_by is not None:
            raise KeyboardInterrupt if outcome.stopped_by == signal.SIGINT else Terminated(outcome.stopped_by)
        state = outcome.state
        if show:
            figures = ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in best["figures"].items())
            early = " (stopped early)" if outcome.early else ""
            self.say(f"Best after step {state.best_step:,} of {state.step:,}{early}, {state.seconds:.0f} s: {figures}")
        return Fit(read_metrics(log), best["figures"], size, state.step, state.seconds, outcome.early)

    def verdict(self, figure: str, values: Mapping[str, float], simple: Container[str], *, least: bool = False) -> None:
        """Say which is better by a figure, which is to be large, or the `least`: the best of some networks, or the best
        of methods that are `simple`; there are some of both. Values that are shown alike are no difference.

        The figure has its name: "BLEU", and not "right".
        """
        ranking = sorted(values, key=values.__getitem__, reverse=not least)
        network, other = (next((name for name in ranking if (name in simple) == kind), "") for kind in (False, True))
        first, second = sorted((network, other), key=ranking.index)
        said = f"{first}, {_shown(float(values[first]))}, before {second}, {_shown(float(values[second]))}"
        if _shown(float(values[first])) == _shown(float(values[second])):
            said = (
                f"no difference is seen between {network} and {other}, a simple method: {_shown(float(values[first]))}"
            )
        else:
            said = f"{'a simple method' if first in simple else 'the network'} wins: {said}"
        self.note(f"{figure}: {said}.")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], best: int = -1) -> None:
        """Show and keep a table: the first column is text, in the others numbers; row number `best` stands out.

        Integers are shown with commas, floats with four digits; a string as it is.
        """
        from rich.table import Table

        from tinygrad_rnn.screen import show_table

        texts = [[_shown(cell) for cell in row] for row in rows]
        table = Table()
        for k, column in enumerate(columns):
            table.add_column(column, justify="right" if k else "left")
        for k, row in enumerate(texts):
            table.add_row(*row, style="bold cyan" if k == best else "")
        self.say()
        show_table(self.console, title, table)
        self.results["tables"].append({"title": title, "columns": list(columns), "rows": texts})

    @contextmanager
    def picture(self, file: str, caption: str, size: tuple[float, float] = (9, 5)) -> Iterator[Figure]:
        """A figure to draw on, saved as `out/file` at the end of the block; `size` in inches, at 100 dots each.

        `caption` is one sentence that says what there is to see. What is written in the picture is plain text, and no
        mathematics. What no file's name can have is written as %XX in its own.
        """
        from matplotlib.figure import Figure

        from tinygrad_rnn.screen import plain_labels, save_picture

        file = file_name(file)
        if any(picture["file"] == file for picture in self.results["pictures"]):
            raise ValueError(f"there is a picture {file!r} already: choose another name for one")
        with plain_labels():
            figure = Figure(figsize=size, dpi=100, layout="constrained")
            yield figure
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        if lacking := save_picture(figure, self.out / file):
            self.say(f"{file}: no font of this computer has {lacking!r}, and boxes stand for them")
        self.results["pictures"].append({"file": file, "caption": caption})

    def expect(self, what: str, value: float, *, at_least: float = -math.inf, at_most: float = math.inf) -> None:
        """Claim that `value` lies within bounds. A claim that fails makes the exit status 1, unless the user chose the
        number of steps. Bounds are those of the script's own data: of other data nothing is claimed.
        """
        if self.data is not None:
            return
        bound = f"at least {_shown(at_least)}" if at_least > -math.inf else f"at most {_shown(at_most)}"
        holds = bool(at_least <= value <= at_most)
        self.results["claims"].append({"what": what, "value": float(value), "bound": bound, "holds": holds})


def file_name(name: str) -> str:
    """A name as a file can have it: a slash and the like as %XX, and what is too long cut, with a hash in its place.

    >>> file_name("EUR/USD [x] $.png"), file_name("..")
    ('EUR%2FUSD [x] $.png', '%2E.')
    """
    unusual = r"[/\\\x00-\x1f\x7f%]|^\.|^$" + ('|[<>:"|?*]' if os.name == "nt" else "")
    name = re.sub(unusual, lambda found: f"%{ord(found[0]):02X}" if found[0] else "%", name)
    raw = os.fsencode(name)
    if len(raw) <= LONGEST:
        return name
    ending = Path(name).suffix if len(Path(name).suffix) < 9 else ""
    digest = hashlib.sha256(raw).hexdigest()[:16]
    return f"{raw[: LONGEST - 32].decode(errors='ignore')}~{digest}{ending}"


def _shown(cell: Cell) -> str:
    """
    >>> _shown("a"), _shown(12345), _shown(0.98765), _shown(1234.5)
    ('a', '12,345', '0.9877', '1,234')
    """
    if isinstance(cell, str):
        return cell
    cell = number("a cell", cell)
    return f"{cell:,.4g}" if isinstance(cell, float) and abs(cell) < 1000 else f"{cell:,.0f}"


def experiment(
    main: Callable[[Experiment], None],
    *,
    steps: int,
    quick: int,
    data: str = "",
    encoded: bool = False,
    fetch: str = "",
    options: Adds | None = None,
    data_options: Adds | None = None,
    use: Use | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a script's `main`; returns the exit status: 0, 1 a claim failed or training diverged, 2 wrong input, 130
    Ctrl-C.

    Arguments:
        main: gets the experiment. Its module's docstring is what `--help` and the gallery say of it.
        steps, quick: the number of training steps, and that of `--quick`.
        data: what `--data` takes, such as "a TSV file with a header"; without it there is no such option.
        encoded: whether that is text, of an encoding that `--encoding` names.
        fetch: the name of the public data set that `--fetch` downloads and uses as `--data`.
        options: adds options of the script's own to the parser.
        data_options: adds those that say how `--data` is read; their default is None.
        use: how what was trained is used, by `--use`.
        argv: the arguments, those of the command unless given.
    """
    from tinygrad_rnn.cli.answers import answered
    from tinygrad_rnn.cli.options import with_flags

    module = sys.modules[main.__module__]
    name, about = Path(str(module.__file__)).stem, (module.__doc__ or "").strip()
    parser, own = _parser(name, about, steps, quick)
    _add_data(own, data, encoded, fetch)
    for add, to in ((options, parser), (data_options, own)):
        if add:
            add(to)
    using = parser.add_argument_group("use what was trained") if use else None
    if use and using:
        add_options(using, use)
    given = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        try:
            args = parser.parse_args(given)
            if use and using and args.use:
                check_options(args, parser, own, using, use)
                return use_run(use, name, args, own)
            refuse_options(args, using)
            args.standard = args.steps is None
            if args.standard:
                args.steps = quick if args.quick else steps
            _check_data(args, own)
            return _run(main, name, about, args, _without_out(given))
        except TinygradRnnError as error:
            error.args = (with_flags(error, parser.flags()),)
            raise
        except ImportError as error:  # a library of an extra, such as scikit-learn
            advice = "" if "pip install" in str(error) else f" ({_install()} brings what the examples need)"
            raise ImportError(f"{error}{advice}") from None

    return answered(name, work)


def _install() -> str:
    """The command that installs what the examples need, as a shell takes it here."""
    from tinygrad_rnn.screen import install

    return install("-e", f"{'.' if Path.cwd() == CLONE else CLONE}[viz,data]")


def _parser(name: str, about: str, steps: int, quick: int) -> tuple[Parser, argparse._ArgumentGroup]:
    """The parser of what all scripts are asked, and its group for what says how data of one's own is read."""
    from tinygrad_rnn.cli.options import SEEDS, Parser, device, path, whole

    parser = Parser(
        prog=f"python -m examples.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", type=device, default="cpu", help="where to compute: cpu, cuda or cuda:N (default: %(default)s)")
    add("--seed", type=whole(0, SEEDS), default=0, help="the same seed, the same numbers (default: %(default)s)")
    add("--steps", type=whole(1, 10**9), help=f"training steps of a model (default: {steps:,}, quick {quick:,})")
    add("--quick", action="store_true", help="a glance: less of everything")
    add("--out", type=path, help=f"the folder for results, pictures and checkpoints (default: runs/{name})")
    add("--threads", type=whole(1, 1024), default=1, help="threads of the matrix products (default: %(default)s)")
    add("--plain", action="store_true", help="op by op and by NumPy alone: no step is recorded, no kernel compiled")
    parser.set_defaults(data=None, encoding=None, fetch="")
    return parser, parser.add_argument_group("your own data")


def _add_data(own: argparse._ArgumentGroup, data: str, encoded: bool, fetch: str) -> None:
    from tinygrad_rnn.cli.options import path

    if data:
        own.add_argument("--data", type=path, metavar="PATH", help=data)
    if encoded:
        own.add_argument("--encoding", help="of the text in it (default: utf-8)")
    if fetch:
        what = f"download the public data set {fetch!r} (once) and use that"
        own.add_argument("--fetch", action="store_const", const=fetch, default="", help=what)


def _check_data(args: argparse.Namespace, own: argparse._ArgumentGroup) -> None:
    """Raise InputError unless what is asked for of data of one's own fits together, and is there."""
    if args.fetch and args.data:
        raise InputError("--fetch and --data exclude each other: choose one")
    if args.data and not os.path.exists(args.data):
        raise InputError(f"{args.data}: no such file or folder")
    for action in own._group_actions:
        if action.default is None and getattr(args, action.dest) is not None and not args.data:
            raise InputError(f"{action.option_strings[0]} says how --data is read, and there is none: give both")


def _without_out(given: list[str]) -> list[str]:
    """The arguments but for --out: where it was written is no part of how it was made."""
    kept: list[str] = []
    skipped = False
    for arg in given:
        flag, equals, _ = arg.partition("=")
        out = not skipped and len(flag) > 2 and "--out".startswith(flag)  # argparse takes --o for it, too
        if not out and not skipped:
            kept.append(arg)
        skipped = out and not equals
    return kept


def _run(main: Callable[[Experiment], None], name: str, about: str, args: argparse.Namespace, given: list[str]) -> int:
    """Check what is asked for, run the script's `main`, and put what it found in the place of what there was."""
    import matplotlib.figure  # noqa: F401  (before hours of training, not after)
    from threadpoolctl import threadpool_limits

    from examples.common.folder import Folder
    from tinygrad_rnn.cli.options import check_device, choose_path
    from tinygrad_rnn.kernels.switch import enable_numba, numba_enabled
    from tinygrad_rnn.tensor.backend import keep_freed_memory
    from tinygrad_rnn.tensor.random import manual_seed

    check_device(args.device)
    asked = {key: value for key, value in vars(args).items() if key not in ("out", "standard")}
    folder = Folder(args.out or Path("runs") / name, name, asked)
    folder.check()
    if args.fetch:
        args.data = _fetched(args.fetch)
    manual_seed(args.seed)
    keep_freed_memory()
    data = Path(args.data) if args.data else None
    encoding = args.encoding or "utf-8"
    run = Experiment(name, about, args.steps, args.quick, args.seed, args.device, data, encoding, folder, args)
    with threadpool_limits(args.threads), _left(folder), ExitStack() as after:
        begun = process_time()  # of this process alone: how busy the machine is does not count
        after.callback(enable_numba, numba_enabled())
        run.say(choose_path(args.device, args.plain))
        main(run)
        command = shlex.join(["python", "-m", f"examples.{name}", *given])
        _keep(run, command, round(process_time() - begun, 1))
    return int(data is None and args.standard and not all(claim["holds"] for claim in run.results["claims"]))


@contextmanager
def _left(folder: Folder) -> Iterator[None]:
    """What comes between a run and its end says where that is which was trained so far."""
    try:
        yield
    except BaseException as error:
        if kept := folder.leave():
            error.add_note(f"what was trained so far is in {kept}")
        raise


def _keep(run: Experiment, command: str, seconds: float) -> None:
    """Write the results, and show what became of the claims."""
    from tinygrad_rnn.training.disk import write_atomically

    about = {"example": run.name, "about": run.about, "command": command, "quick": run.quick, "seed": run.seed}
    content = json.dumps({**about, "seconds": seconds, **run.results}, indent=1, ensure_ascii=False) + "\n"
    write_atomically(run.out / "results.json", content.encode("utf-8", "backslashreplace"))
    run.folder.finish()
    for claim in run.results["claims"]:
        mark = ("✓", "green") if claim["holds"] else ("✗", "bold red")
        run.say(mark, f" {claim['what']}: {_shown(claim['value'])}, {claim['bound']}")
    pictures = "".join(f"{picture['file']}, " for picture in run.results["pictures"])
    run.say(f"{seconds:.0f} s of processor time. Written to {run.folder.path}: {pictures}results.json, checkpoints")
    if run.tries:
        run.say(f"Use it: {typed(run.name, run.folder.path, *run.tries)}")


def _fetched(data_set: str) -> Path:
    """The folder of a public data set; an error says what else may be done."""
    from tinygrad_rnn.data.fetch import fetch

    try:
        return fetch(data_set)
    except InputError as error:
        raise InputError(f"{error}; or give your own data with --data") from None
