"""Who kills a mutant: every oracle is asked, not only the first that objects.

A mutant lives in a process of its own, forked from one that has NumPy, Hypothesis and pytest loaded and not this
package. An import hook gives it the mutated source for one module; no file is written.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from types import CodeType, FrameType
from typing import Any

import array_api_strict  # noqa: F401 (imported once, before the forks)
import hypothesis.strategies  # noqa: F401
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from threadpoolctl import threadpool_limits

from tests.mutants.mutations import PACKAGE, ROOT, Mutant, Region

CASES, MORE = 6, 80  # of each row of the table of domains; more where nobody has objected yet
ROWS = 3  # of the rows that run an expression, this many: those of its own op first
FEW, MANY = 20, 200  # Hypothesis examples a test: at first, and for what has survived those
CPU_LIMIT, LIMIT = 60, 600.0  # seconds of work and of waiting; what takes longer has an endless loop

LAWS = {
    "fused = plain": ("kernel", "plain"),
    "reference": (
        "reference",
        "one_by_one",
        "vanishing",
        "nonlinearity",
        "unused",
        "without_a_batch",
        "layer_norm",
        "cross_entropy",
        "losses_of",
        "embedding",
        "linear",
        "dropout",
    ),
    "second order": ("second_order",),
}
TESTS = {  # the nearest, by file or by function; of the rest of tensor/ops the last line
    "kernels/recurrent.py": "nn/test_cells.py nn/test_recurrent.py kernels/test_numba.py",
    "layer_norm_vjp": "nn/test_layers.py nn/test_digits.py",
    "_normalised": "nn/test_layers.py nn/test_digits.py",
    "cross_entropy_vjp": "nn/test_functional.py nn/test_digits.py",
    "nn/cells.py": "nn/test_cells.py nn/test_recurrent.py nn/test_recurrent_options.py",
    "nn/recurrent_options.py": "nn/test_recurrent_options.py nn/test_cells.py",
    "nn/checks.py": "nn/test_functional.py",
    "nn/losses.py": "nn/test_functional.py nn/test_digits.py compiler/test_compile.py test_ways_in.py",
    "nn/functional.py": "nn/test_functional.py compiler/test_compile.py",
    "_layer_norm": "nn/test_layers.py nn/test_digits.py",
    "layer_norm": "nn/test_layers.py nn/test_digits.py",
    "dropout": "nn/test_layers.py nn/test_recurrent.py",
    "nn/layers.py": "nn/test_layers.py",
    "nn/recurrent.py": "nn/test_recurrent.py nn/test_lengths.py nn/test_recurrent_options.py nn/test_looked_up.py "
    "nn/test_watching.py explain/test_flow.py",
    "nn/looked_up.py": "nn/test_looked_up.py",
    "kernels/looked_up.py": "nn/test_looked_up.py",
    "nn/watching.py": "nn/test_watching.py nn/test_lengths.py explain/test_flow.py",
    "tensor/graph.py": "tensor/test_graph.py tensor/test_sweep.py tensor/test_functional.py tensor/test_checkpoint.py "
    "tensor/test_indexing.py tensor/test_pitfalls.py",
    "tensor/sweep.py": "tensor/test_sweep.py tensor/test_graph.py tensor/test_functional.py tensor/test_checkpoint.py "
    "tensor/test_mode.py tensor/test_indexing.py tensor/test_pitfalls.py",
    "tensor/parts.py": "tensor/test_sweep.py tensor/test_indexing.py tensor/test_pitfalls.py tensor/test_digits.py",
    "tensor/functional.py": "tensor/test_functional.py tensor/test_graph.py tensor/test_sweep.py "
    "tensor/test_checkpoint.py tensor/test_fused.py tensor/test_mode.py tensor/test_pitfalls.py",
    "tensor/checkpoint.py": "tensor/test_checkpoint.py tensor/test_functional.py tensor/test_pitfalls.py",
    "identity": "tensor/test_functional.py",
    "reduced_axes": "tensor/test_ops_table.py",
    "to_device": "tensor/test_tensor.py",
    "tensor/ops/indexing.py": "tensor/test_indexing.py tensor/test_special_values.py tensor/test_digits.py",
    "tensor/ops/linalg.py": "tensor/test_einsum.py tensor/test_special_values.py",
    "tensor/ops/shape.py": "tensor/test_options.py tensor/test_special_values.py",
    "": "tensor/test_special_values.py tensor/test_subgradients.py tensor/test_digits.py",
}
LAST = {"digits", "other tests", "pitfalls"}
KINDS = ("RNN", "LSTM", "GRU")
# Beside these the laws of recurrent layers are asked.
CELLS = {"tests/nn/test_cells.py", "tests/nn/test_recurrent.py", "tests/nn/test_recurrent_options.py"}


@dataclass
class Verdict:
    """What the oracles said: how many witnesses each heard, and what those that objected said."""

    witnesses: dict[str, int] = field(default_factory=dict)
    killers: dict[str, str] = field(default_factory=dict)


# --- the mutated package --------------------------------------------------------------------------


class Mutated(SourceFileLoader):
    """Loads a module of the package from another source than its file's."""

    def __init__(self, file: str, source: str) -> None:
        self.module = "tinygrad_rnn." + file.removesuffix(".py").replace("/", ".")
        super().__init__(self.module, str(PACKAGE / file))
        self.source = source

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.module else None

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


# --- the oracles ----------------------------------------------------------------------------------


def hear(verdict: Verdict, oracle: str, law: Callable[[], object]) -> None:
    """Ask one oracle about one case, unless it has objected already; a law that is broken goes by its own name. One
    that does not apply to the case, and says False, is no witness.
    """
    if oracle in verdict.killers:
        return
    try:
        applied = law()
    except Exception as error:  # noqa: BLE001 (a mutant may raise anything)
        verdict.killers[oracle] = said(error)
        applied = True
    if applied is not False:
        verdict.witnesses[oracle] = verdict.witnesses.get(oracle, 0) + 1


def said(error: Exception) -> str:
    """One line of what an oracle said, and its law, where it names one."""
    law = getattr(error, "law", type(error).__name__)
    return f"{law}: {str(error).strip().partition(chr(10))[0][:200]}"


def ask_laws(rows: Sequence[str], verdict: Verdict, more: bool = False) -> None:
    """The laws of the test kit, one by one, on seeded cases of rows of the table of domains."""
    from tinygrad_rnn.testing.domains import DOMAINS

    domains = {str(domain): domain for domain in DOMAINS}
    for seed in range(MORE):
        if seed >= CASES and (verdict.killers or not more):
            break
        for row in rows:
            ask_case(domains[row], domains[row].sample(seed), verdict)


def ask_case(domain: Any, case: Any, verdict: Verdict) -> None:
    from tinygrad_rnn.testing import laws, ops

    example = ops.OpExample(domain, case)
    if example.low_dtypes:
        example.low_dtypes = (np.float32,)
    try:
        laws.no_mutation(example)
        laws.outputs(example)
    except Exception as error:  # noqa: BLE001 (what does not even run is noticed)
        verdict.killers["value"] = said(error)
        return
    looks = (laws.shape, laws.dtype, laws.no_aliasing)  # which the laws that pull back take for granted
    asked = {
        "value": [(ops.value,), (laws.repeats,)],
        "gradient": [(laws.gradient,)],
        "second derivative": [(laws.second_derivative,)],
        "linear": [(*looks, laws.linear), (*looks, laws.zero)],
        "transpose": [(*looks, laws.transpose)],
        "backward": [(*looks, laws.backward)],
        "broadcasting": [(*looks, ops.broadcasting)],
        "float32": [(laws.low_precision,)],
        "backend": [(*looks, laws.backend)],
    }
    for oracle, questions in asked.items():
        for some in questions:
            hear(verdict, oracle, lambda some=some: [law(example) for law in some][-1])
    for oracle in list(verdict.killers):  # the second derivative is right or wrong only where the first is right
        if oracle == "second derivative" and not verdict.killers[oracle].startswith(oracle):
            verdict.killers["gradient"] = verdict.killers.pop(oracle)


def ask_layers(kinds: Sequence[str], verdict: Verdict) -> None:
    """The laws of recurrent layers, on layers and cells of these kinds with options of each kind."""
    from tinygrad_rnn import nn
    from tinygrad_rnn.testing.recurrent import check_case
    from tinygrad_rnn.testing.subject import Sequences

    ragged, whole = Sequences(T=4, B=3, lengths=(2, 4, 1)), Sequences(T=5, B=2)
    both = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    for layer, cell in ((getattr(nn, kind), getattr(nn, f"{kind}Cell")) for kind in kinds):
        for factory, case in (
            (partial(layer, 2, 3), ragged),
            (partial(layer, 2, 3, fused=False), whole),
            (partial(layer, 2, 3, **both), ragged),
            (partial(layer, 2, 3, **both), whole),
            (partial(layer, 2, 3, layer_norm=True, recurrent_dropout=0.3), ragged),
            (partial(cell, 2, 3), whole),
            (partial(cell, 2, 3, layer_norm=True), whole),
        ):
            hear(verdict, "laws", partial(check_case, factory, case))


class Witnesses:
    """A pytest plugin: each test bears witness in the column of its name. A column that has objected is not asked
    again, and those in `LAST` only about what all others have let pass.
    """

    def __init__(self, column_of: Callable[[str], str], verdict: Verdict) -> None:
        self.column_of, self.verdict = column_of, verdict

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        column = self.column_of(item.nodeid)
        if column in self.verdict.killers or (column in LAST and self.verdict.killers):
            pytest.skip("not asked")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        column = self.column_of(report.nodeid)
        if report.failed:
            self.verdict.killers.setdefault(column, report.nodeid)
        if report.when == "call" and not report.skipped:
            self.verdict.witnesses[column] = self.verdict.witnesses.get(column, 0) + 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.verdict.killers.setdefault("import", report.nodeid)


def column_of(node: str) -> str:
    """The column of a test: of tensor/ the name of its file, of nn/ the law it is about."""
    path, _, name = node.partition("::")
    if path.endswith("/test_digits.py"):
        return "digits"
    if path.startswith("tests/tensor/"):
        return path.removeprefix("tests/tensor/test_").removesuffix(".py")
    return next((law for law, words in LAWS.items() if any(w in name for w in words)), "other tests")


@dataclass(frozen=True)
class Court:
    """The oracles that are asked about a region: rows of the table, files of tests, kinds of recurrent layers."""

    rows: tuple[str, ...]
    files: tuple[str, ...]
    kinds: tuple[str, ...]


def court_of(region: Region, runs: dict[str, set[tuple[str, int]]]) -> Court:
    """The oracles that are nearest to a region; `runs` tells which functions the laws of a row run."""
    keys = (region.label, region.file, "")
    files = tuple(f"tests/{name}" for name in next(TESTS[key] for key in keys if key in TESTS).split())
    own = [kind for kind in KINDS if kind.lower() in region.label.lower()]
    kinds = tuple(own or KINDS) if CELLS.intersection(files) else ()
    return Court(tuple(witnesses_of(region, runs)), files, kinds)


def run_tests(court: Court, verdict: Verdict) -> None:
    # not the laws, which have been asked, nor kinds of layers that have nothing to do with it
    others = ["not every_law", *(f"not {kind.lower()}" for kind in KINDS if court.kinds and kind not in court.kinds)]
    if court.rows:  # of the tests at special values, those of the ops
        others.append(f"({' or '.join(['not special_values', *(row.split()[0] for row in court.rows)])})")
    options = ["-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "-m", "not gpu"]
    pytest.main([*options, "-k", " and ".join(others), *court.files], plugins=[Witnesses(column_of, verdict)])


def ask(court: Court, more: bool) -> Verdict:
    """Every oracle's verdict on the package as it is imported here."""
    verdict = Verdict()
    try:
        import tinygrad_rnn.testing  # noqa: F401
    except Exception as error:  # noqa: BLE001 (a mutant may not even be imported)
        return Verdict({"import": 1}, {"import": said(error)})
    ask_laws(court.rows, verdict, more)
    ask_layers(court.kinds, verdict)
    # The tests take longer: of a mutant they are asked about what the laws have let pass.
    if court.files and not (more and verdict.killers):
        run_tests(court, verdict)
    return verdict


def rows_that_run() -> dict[str, set[tuple[str, int]]]:
    """For each row of the table, the functions that its laws run: file and first line."""
    from tinygrad_rnn.testing.domains import DOMAINS

    found = {}
    for row in map(str, DOMAINS):
        seen: set[tuple[str, int]] = set()

        def profile(frame: FrameType, event: str, _: object, seen: set[tuple[str, int]] = seen) -> None:
            seen.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

        sys.setprofile(profile)
        try:
            ask_laws([row], Verdict())
        finally:
            sys.setprofile(None)
        found[row] = {(os.path.relpath(file, PACKAGE), line) for file, line in seen if file.startswith(str(PACKAGE))}
    return found


def witnesses_of(region: Region, runs: dict[str, set[tuple[str, int]]]) -> list[str]:
    """The rows that run a region: those named after its op first."""
    if not region.file.startswith("tensor/ops/"):
        return []
    name = region.label.partition("[")[0].strip("_")
    lines = {(region.file, line) for line in range(region.first, region.last + 1)}
    found = [row for row, seen in runs.items() if lines & seen]
    return sorted(found, key=lambda row: (row != name, name not in row))[:ROWS]


# --- processes ------------------------------------------------------------------------------------


def in_a_process(work: Callable[[], object], out: Connection) -> None:
    """Run `work`, silently, and send back what it returns."""
    os.chdir(ROOT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            result = work()
        except BaseException:  # noqa: BLE001 (the parent says what it was)
            result = traceback.format_exc()
    out.send(result)
    out.close()
    os._exit(0)


def forked(jobs: Sequence[Callable[[], object]], workers: int, limit: float = LIMIT) -> Iterator[tuple[int, object]]:
    """The position and the result of each job, run in processes forked from this one; None for one that hung."""
    context = get_context("fork")
    waiting = list(enumerate(jobs))[::-1]
    running: dict[Connection, tuple] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                i, job = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=in_a_process, args=(job, theirs))
                process.start()
                theirs.close()
                running[ours] = (i, process, time.monotonic())
            for ours in wait(list(running), timeout=1.0):
                i, process, _ = running.pop(ours)
                try:
                    result = ours.recv()
                except EOFError:  # it died, a crash say
                    result = None
                process.join()
                yield i, result
            for ours, (i, process, start) in list(running.items()):
                if time.monotonic() - start > limit:
                    process.kill()
                    process.join()
                    del running[ours]
                    yield i, None
    finally:
        for _, process, _ in running.values():
            process.kill()
            process.join()


def judge(mutant: Mutant | None, court: Court, examples: int = FEW) -> Verdict:
    """The verdict on a mutant, in a process that has not imported the package; None is the package as it is."""
    assert "tinygrad_rnn" not in sys.modules
    set_examples(examples)
    if mutant is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT))
        sys.meta_path.insert(0, Mutated(mutant.region.file, mutant.source))
    return ask(court, more=mutant is not None)


def prepare() -> None:
    """What every fork shares: the libraries, which its garbage collector need not look at, and one BLAS thread."""
    gc.collect()
    gc.freeze()
    threadpool_limits(1)
    set_examples(FEW)
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"


def set_examples(number: int) -> None:
    """So many Hypothesis examples a test, the same each time, and not shrunk."""
    settings.register_profile(
        "mutants",
        max_examples=number,
        derandomize=True,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow],
    )
