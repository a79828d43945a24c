"""`make witness`: run the tests of this folder, print what was compared, and fail if that is too little.

python -m tests.witness.report
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

GOALS = {
    "samples float64 with gradients": 2000,
    "reference inputs float64": 5000,
    "recurrent samples with gradients": 100,
    "errors": 100,
    "onnx cases": 30,
}
COLUMNS = {
    "samples": "samples float64",
    "gradients": "samples float64 with gradients",
    "references": "reference inputs float64",
    "gradients ": "reference inputs float64 with gradients",
    "float32": "float32",
    "errors": "errors",
    "ONNX": "onnx cases",
    "refused": "refused",
}
RECURRENT = ("RNN", "LSTM", "GRU", "Cell")


class Compared:
    """A pytest plugin: what the tests record under "witness", by op; and whether any of them was skipped."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)
        for key, value in report.user_properties if report.when == "call" else ():
            if key == "witness":
                name, counts = value
                self.counts[name].update(counts)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(f"{report.nodeid}: {report.longrepr}")


def starting(counts: Counter[str], start: str) -> Counter[str]:
    """The counts whose names begin so, under the rest of their names."""
    return Counter({key.removeprefix(start): n for key, n in counts.items() if key.startswith(start)})


def cells(counts: Counter[str]) -> list[int]:
    sums = counts | Counter(
        {
            "float32": counts["samples float32"] + counts["reference inputs float32"],
            "refused": starting(counts, "refused: ").total(),
        }
    )
    return [sums[key] for key in COLUMNS.values()]


def show(by_op: dict[str, Counter[str]]) -> Counter[str]:
    """Print the table and the reasons; returns the totals."""
    from tests.witness.adapters import ACCEPTED, REASONS

    total = sum(by_op.values(), Counter[str]())
    width = max(map(len, (*by_op, "total")))
    print(f"{'':{width}}" + "".join(f"{title.strip():>12}" for title in COLUMNS))
    for name, counts in [*sorted(by_op.items()), ("total", total)]:
        print(f"{name:{width}}" + "".join(f"{n or '':>12}" for n in cells(counts)))
    for what, reasons in {"refused": REASONS, "accepted": ACCEPTED}.items():
        print("\nRefused here:" if what == "refused" else "\nRefused by PyTorch, taken here:")
        for reason, n in starting(total, f"{what}: ").most_common():
            print(f"{n:6}  {reasons[reason]}")
    return total


def shortfalls(by_op: dict[str, Counter[str]], total: Counter[str]) -> list[str]:
    """What is missing for a verdict."""
    from tests.witness.adapters import ACCEPTED, REASONS

    recurrent = [counts for name, counts in by_op.items() if name.startswith("nn.") and name.endswith(RECURRENT)]
    total["recurrent samples with gradients"] = sum(c["samples float64 with gradients"] for c in recurrent)
    short = [f"{total[name]:,} {name}, not {goal:,}" for name, goal in GOALS.items() if total[name] < goal]
    unused = set(REASONS) - set(starting(total, "refused: ")) | set(ACCEPTED) - set(starting(total, "accepted: "))
    return short + [f"a reason that no sample needs: {reason}" for reason in sorted(unused)]


def main() -> int:
    compared = Compared()
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "--numprocesses=auto", "--maxprocesses=8"]
    status = pytest.main([*options, str(Path(__file__).parent)], plugins=[compared])
    if status or compared.skipped or not compared.counts:
        print("\nThe witness was not heard:", *compared.skipped or ["see above"], sep="\n  ", file=sys.stderr)
        return int(status) or 1
    total = show(compared.counts)
    short = shortfalls(compared.counts, total)
    print("\nCompared: " + "; ".join(f"{total[name]:,} {name}" for name in GOALS))
    for line in short:
        print(f"Too little: {line}", file=sys.stderr)
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
