"""Formulas that can be shown with names, shown with numbers, as text or as LaTeX, and computed.

A leaf has a name and a value. `FORWARD` has what an op computes, and `BACKWARD`, for each of its operands, what a
gradient `g` of the result becomes there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinygrad_rnn.tensor.backend import sum_to

SUM, NEGATIVE, PRODUCT, MATRICES, POWER, ATOM = range(1, 7)  # what binds how tightly


@dataclass(frozen=True, eq=False)
class Formula:
    """A formula: `kind` is "name", "partial", or an operator or function of the `parts`.

    >>> import numpy as np
    >>> h, y = leaf("h", 0.5), leaf("y", -2.0)
    >>> f = (h - y) ** 2
    >>> Text().show(f), Text(numbers=True).show(f), f.value().tolist()
    ('(h - y)²', '(0.5 - (-2))²', 6.25)
    """

    kind: str
    parts: tuple[Formula, ...] = ()
    name: str = ""
    number: Any = None

    def __add__(self, other: Formula) -> Formula:
        return Formula("+", (self, other))

    def __sub__(self, other: Formula) -> Formula:
        return Formula("-", (self, other))

    def __mul__(self, other: Formula) -> Formula:
        return other if self.kind == "one" else Formula("·", (self, other))

    def __truediv__(self, other: Formula) -> Formula:
        return Formula("/", (self, other))

    def __matmul__(self, other: Formula) -> Formula:
        return Formula("@", (self, other))

    def __neg__(self) -> Formula:
        return Formula("neg", (self,))

    def __pow__(self, power: int) -> Formula:
        return Formula("^2", (self,))

    @property
    def T(self) -> Formula:
        """Transposed."""
        return Formula("T", (self,))

    def value(self) -> Any:
        """What it comes to."""
        if not self.parts:
            return self.number
        return COMPUTED[self.kind](*(part.value() for part in self.parts))


COMPUTED: dict[str, Callable[..., Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "·": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "@": lambda a, b: a @ b,
    "neg": lambda a: -a,
    "^2": lambda a: a * a,
    "T": lambda a: a.T,
    "tanh": np.tanh,
    "σ": lambda a: 1 / (1 + np.exp(-a)),
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "√": np.sqrt,
    "max": lambda a: np.maximum(a, 0),
    ">": lambda a: (a > 0).astype(a.dtype),
    "sum": np.sum,
    "mean": np.mean,
    "spread": lambda a, like: np.broadcast_to(a, like.shape),
    "Σ": lambda a, like: sum_to(a, like.shape),
}


def leaf(name: str, value: Any) -> Formula:
    """A variable with its value; "" for a number without a name."""
    return Formula("name", name=name, number=np.asarray(value))


def one(shape: tuple[int, ...]) -> Formula:
    """The 1 with which a backward begins: the derivative of the loss by itself."""
    return Formula("one", number=np.ones(shape))


def partial(of: str, by: str, value: Any) -> Formula:
    """A derivative with its value."""
    return Formula("partial", name=f"{of}/{by}", number=np.asarray(value))


def call(function: str, *parts: Formula) -> Formula:
    """A function of some formulas."""
    return Formula(function, parts)


ONE, TWO = leaf("", 1.0), leaf("", 2.0)

FORWARD: dict[str, Callable[..., Formula]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negative": lambda x: -x,
    "square": lambda x: x**2,
    "sqrt": lambda x: call("√", x),
    "exp": lambda x: call("exp", x),
    "log": lambda x: call("log", x),
    "sin": lambda x: call("sin", x),
    "cos": lambda x: call("cos", x),
    "tanh": lambda x: call("tanh", x),
    "sigmoid": lambda x: call("σ", x),
    "relu": lambda x: call("max", x),
    "matmul": lambda a, b: a @ b,
    "linear": lambda x, W: x @ W.T,
    "linear_bias": lambda x, W, b: x @ W.T + b,
    "sum": lambda x: call("sum", x),
    "mean": lambda x: call("mean", x),
}
# Of g, the result y, and the operands.
BACKWARD: dict[str, tuple[Callable[..., Formula], ...]] = {
    "add": (lambda g, y, a, b: g, lambda g, y, a, b: g),
    "subtract": (lambda g, y, a, b: g, lambda g, y, a, b: -g),
    "multiply": (lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
    "divide": (lambda g, y, a, b: g / b, lambda g, y, a, b: -(g * (y / b))),
    "negative": (lambda g, y, x: -g,),
    "square": (lambda g, y, x: g * TWO * x,),
    "sqrt": (lambda g, y, x: g / (TWO * y),),
    "exp": (lambda g, y, x: g * y,),
    "log": (lambda g, y, x: g / x,),
    "sin": (lambda g, y, x: g * call("cos", x),),
    "cos": (lambda g, y, x: g * -call("sin", x),),
    "tanh": (lambda g, y, x: g * (ONE - y**2),),
    "sigmoid": (lambda g, y, x: g * y * (ONE - y),),
    "relu": (lambda g, y, x: g * call(">", x),),
    "matmul": (lambda g, y, a, b: g @ b.T, lambda g, y, a, b: a.T @ g),
    "linear": (lambda g, y, x, W: g @ W, lambda g, y, x, W: g.T @ x),
    "linear_bias": (lambda g, y, x, W, b: g @ W, lambda g, y, x, W, b: g.T @ x, lambda g, y, x, W, b: g),
    "sum": (lambda g, y, x: call("spread", g, x),),
    "mean": (lambda g, y, x: call("spread", g / leaf("", float(np.size(x.value()))), x),),
}


class Text:
    """Shows formulas in Unicode: with names, or with `numbers` to so many `digits`."""

    signs: ClassVar = {
        "+": " + ",
        "-": " - ",
        "·": " · ",
        "⊙": " ⊙ ",
        "/": " / ",
        "@": " ",
        "^2": "²",
        "T": "ᵀ",
        "Σ": "Σ ",
    }

    def __init__(self, numbers: bool = False, digits: int = 4) -> None:
        self.numbers, self.digits = numbers, digits

    def show(self, formula: Formula, least: int = SUM) -> str:
        """The formula, in parentheses if it binds less than `least`."""
        text, binds = self._shown(formula)
        return text if binds >= least else f"({text})"

    def _shown(self, f: Formula) -> tuple[str, int]:
        """The text of a formula, and how tightly it binds."""
        kind, signs = f.kind, self.signs
        if not f.parts:
            return self._leaf(f)
        if kind in ("+", "-"):
            right = self.show(f.parts[1], PRODUCT)
            right = f"({right})" if right.startswith("-") else right
            return self.show(f.parts[0]) + signs[kind] + right, SUM
        if kind in ("·", "/"):
            sign = "⊙" if kind == "·" and all(np.size(p.value()) > 1 for p in f.parts) else kind
            right = self.show(f.parts[1], PRODUCT if kind == "·" and f.parts[1].kind != "/" else MATRICES)
            return self.show(f.parts[0], NEGATIVE) + signs[sign] + right, PRODUCT
        if kind == "@":
            a, b = (self.show(part, MATRICES) for part in f.parts)
            scales = self.numbers and any(np.size(part.value()) == 1 for part in f.parts)
            return a + signs["·" if scales else "@"] + b, PRODUCT if scales else MATRICES
        if kind == "neg":
            return "-" + self.show(f.parts[0], PRODUCT), NEGATIVE
        if kind in ("^2", "T"):
            if kind == "T" and self.numbers and np.size(f.value()) == 1:
                return self._shown(f.parts[0])
            return self.show(f.parts[0], ATOM) + signs[kind], POWER
        if kind == "spread":
            return self._shown(f.parts[0])
        if kind == "Σ":
            return signs["Σ"] + self.show(f.parts[0], MATRICES), PRODUCT
        return self.function(kind, self.show(f.parts[0])), ATOM

    def _leaf(self, f: Formula) -> tuple[str, int]:
        if self.numbers or not f.name:
            text = self.number(f.number)
            return text, NEGATIVE if text.startswith("-") else ATOM
        if f.kind == "partial":
            return self.partial(*f.name.split("/")), ATOM
        return self.named(f.name), ATOM

    def named(self, name: str) -> str:
        """A name: "h_2" for "h[2]"."""
        return re.sub(r"\[(\d+)\]", r"_\1", name)

    def partial(self, of: str, by: str) -> str:
        """A derivative."""
        return f"∂{self.named(of)}/∂{self.named(by)}"

    def number(self, value: Any) -> str:
        """A number, or an array as nested lists.

        >>> [Text().number(v) for v in (0.123456, -2e-7, [[1.0, 0.5]])]
        ['0.1235', '-2e-07', '[[1, 0.5]]']
        """
        value = np.asarray(value)
        if value.size == 1:
            return f"{float(value.reshape(())) + 0.0:.{self.digits}g}"
        return self._nested(value)

    def _nested(self, value: Any) -> str:
        if value.ndim == 0:
            return self.number(value)
        return "[" + ", ".join(self._nested(v) for v in value) + "]"

    def function(self, kind: str, inside: str) -> str:
        """A function of what is inside."""
        if kind in ("max", ">"):
            return f"max(0, {inside})" if kind == "max" else f"[{inside} > 0]"
        return f"{kind}({inside})"


GREEK = "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"


class Latex(Text):
    """Shows formulas in LaTeX, which asks for no package but amsmath."""

    signs: ClassVar = {
        "+": " + ", "-": " - ", "·": r" \cdot ", "⊙": r" \odot ", "/": " / ", "@": r" \, ", "^2": "^2", "T": r"^\top",
        "Σ": r"\sum ",
    }  # fmt: skip

    def named(self, name: str) -> str:
        """A name with what follows its first underscore as an index.

        >>> [Latex().named(n) for n in ("w", "W_hh", "h[2]", "loss", "alpha")]
        ['w', 'W_{hh}', 'h_{2}', '\\\\mathit{loss}', '\\\\alpha']
        """
        base, _, index = super().named(name).partition("_")
        base = f"\\{base}" if base in GREEK.split() else base if len(base) <= 1 else rf"\mathit{{{_plain(base)}}}"
        return f"{base}_{{{_plain(index.replace('_', ','))}}}" if index else base

    def partial(self, of: str, by: str) -> str:
        return rf"\frac{{\partial {self.named(of)}}}{{\partial {self.named(by)}}}"

    def number(self, value: Any) -> str:
        value = np.asarray(value)
        if value.size == 1:
            base, e, exponent = super().number(value).partition("e")
            return rf"{base} \times 10^{{{int(exponent)}}}" if e else base
        rows = value if value.ndim == 2 else value.reshape(1, -1)
        inside = r" \\ ".join(" & ".join(self.number(v) for v in row) for row in rows)
        return rf"\begin{{bmatrix}} {inside} \end{{bmatrix}}"

    def _leaf(self, f: Formula) -> tuple[str, int]:
        text, binds = super()._leaf(f)
        return text, min(binds, PRODUCT) if r"\times" in text else binds

    def function(self, kind: str, inside: str) -> str:
        if kind in ("max", ">"):
            return rf"\max(0, {inside})" if kind == "max" else f"[{inside} > 0]"
        if kind == "√":
            return rf"\sqrt{{{inside}}}"
        names = {"σ": r"\sigma", "sum": r"\operatorname{sum}", "mean": r"\operatorname{mean}"}
        return f"{names.get(kind, f'{chr(92)}{kind}')}({inside})"


def _plain(text: str) -> str:
    """Text without what LaTeX takes for its own."""
    return re.sub(r"[\\{}$&#^~%_]", "", text)
