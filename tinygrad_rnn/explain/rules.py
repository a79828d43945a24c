"""The rule of an op: its line of source, and in words."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable
from functools import lru_cache
from typing import Any

# A line for each op that has a derivative. `g` is what comes from above: the derivative of the loss by the result.
WORDS = {
    # arithmetic
    "add": "a change of either summand changes the sum as much: both get g as it is",
    "subtract": "the first gets g, what is subtracted gets -g",
    "multiply": "each factor gets g times the other factor",
    "divide": "the numerator gets g / b, the denominator -g y / b",
    "negative": "the sign turns: -g",
    "maximum": "g goes to the larger of the two, half to each where they are equal",
    "minimum": "g goes to the smaller of the two, half to each where they are equal",
    "clip": "g passes where nothing was cut off, and is 0 where it was",
    "where": "g goes to the branch that was chosen; the other gets 0",
    "multiply_no_nan": "each factor gets g times the other factor; where g is 0 it stays 0",
    "divide_no_nan": "the numerator gets g / d, the denominator -g y / d; where g is 0 it stays 0",
    # functions of one number
    "exp": "the slope of exp is exp itself: g times the result y",
    "expm1": "g times exp(x)",
    "log": "the slope of log is 1 / x: g / x",
    "log1p": "g / (1 + x)",
    "sqrt": "g / (2 y), y being the root",
    "square": "g times 2 x",
    "abs": "g with the sign of x",
    "sign": "a step is flat: nothing goes through",
    "sin": "g times cos(x)",
    "cos": "g times -sin(x)",
    "tanh": "g times the slope 1 - y²: 1 in the middle, nearly 0 where y is near -1 or 1",
    "sigmoid": "g times the slope y (1 - y): at most 1/4, nearly 0 where y is near 0 or 1",
    "softplus": "g times sigmoid(x)",
    "relu": "g passes where the result is positive, and is 0 elsewhere",
    "leaky_relu": "g passes where x is positive, and times the negative slope elsewhere",
    "elu": "g passes where x is positive, and times alpha exp(x) elsewhere",
    "silu": "g times the slope of x sigmoid(x)",
    "gelu": "g times the slope of the curve",
    "power": "g times p x^(p - 1)",
    "exponential": "g times the result times log(base)",
    "general_power": "the base gets g b a^(b - 1), the exponent g y log(a)",
    "identity": "g as it is",
    "cast": "g as it is, in the dtype of the operand",
    "to_device": "g as it is, on the device of the operand",
    # reductions
    "sum": "every summand gets the same g",
    "mean": "each of n summands gets g / n",
    "max": "g goes to the largest, in equal parts where there are several",
    "min": "g goes to the smallest, in equal parts where there are several",
    "norm": "g times the unit vector x / |x|",
    "cumsum": "each gets the g of all sums that it is in: a sum from the other end",
    "softmax": "y (g - the mean of g, weighted by y): the parts compete, as they add up to 1",
    "log_softmax": "g - softmax(x) times the sum of g",
    "logsumexp": "each gets g times its softmax",
    # shapes
    "reshape": "g in the old shape",
    "transpose": "g with its axes turned back",
    "swapaxes": "g with the two axes swapped back",
    "moveaxis": "g with the axes moved back",
    "squeeze": "g with the axes put back",
    "expand_dims": "g without the new axis",
    "broadcast_to": "g, summed over the copies",
    "flip": "g flipped back",
    "pad": "g without the border",
    "tril": "g below the diagonal, 0 above it",
    "triu": "g above the diagonal, 0 below it",
    "concatenate": "each gets its piece of g",
    "stack": "each gets its slice of g",
    # indexing
    "slice": "g goes back to the place that was read; all the rest gets 0",
    "gather": "g goes back to the places that were read, added up where one was read twice",
    "take": "each row gets the sum of the g of its reads: rows that were not read get 0",
    "take_along_axis": "g goes back to the places that were read, added up where one was read twice",
    "assemble": "each part gets the g of its place",
    # products
    "matmul": "in y = a b, a gets g bᵀ and b gets aᵀ g",
    "product": "in y = aᵀ b, a gets b gᵀ and b gets a g",
    "linear": "in y = x Wᵀ, x gets g W and W gets gᵀ x, summed over the batch",
    "linear_bias": "in y = x Wᵀ + b, x gets g W, W gets gᵀ x and b gets g, both summed over the batch",
    "einsum": "each operand gets the sum of g times the others, over the indices that it has not",
    # layers
    "permuted": "g with the sequences in their old order",
    "stack_rows": "each step gets the g of its output, at the row where its state stands",
    "windows": "g goes back to where each window was read, added up where windows overlap",
    "overlap_add": "each window gets the g of its place",
    # fused: a whole formula as one node
    "rnn_step": "one step h' = f(x + h Wᵀ): d = g f', x gets d, the state before gets d W, and W gets dᵀ h",
    "lstm_step": "one step of an LSTM: c before gets the g of c times f, all else gets its part by way of the gates",
    "gru_step": "one step of a GRU: the state before gets g z past the gates, and the rest by way of r, z and n",
    "rnn_sequence": "all steps of an RNN on a GPU, the last one first: each as rnn_step, and W in one product",
    "lstm_sequence": "all steps of an LSTM on a GPU, the last one first: each as lstm_step, and W in one product",
    "gru_sequence": "all steps of a GRU on a GPU, the last one first: each as gru_step, and W in one product",
    "layer_norm": "g times the gain, without its mean and its part along the normalised x, over the deviation",
    "cross_entropy": "the well-known p - y: the softmax minus the target, times g, 0 where it is masked",
    "ctc": "-g times the probability that an alignment of the target is at that class then",
    "max_pool": "g goes to the largest of each window",
    # a segment that was not kept
    "checkpoint": "the segment is computed again, and g is pulled back through it",
}


def words_for(plan: Any) -> str:
    """What the rule of a node's op does, in words.

    >>> import tinygrad_rnn as tr
    >>> words_for(tr.nn.Parameter([1.0]).exp()._node.plan)
    'the slope of exp is exp itself: g times the result y'
    """
    function = getattr(getattr(plan, "op", None), "forward", None)
    if function is not None and not (function.__module__ or "").startswith("tinygrad_rnn."):
        return "an op of your own"
    return WORDS.get(plan.name, "")


def rule_of(plan: Any, i: int) -> str:
    """The source of the rule by which a node's op pulls a gradient back to its operand `i`.

    >>> import tinygrad_rnn as tr
    >>> a, b = tr.nn.Parameter([1.0]), tr.nn.Parameter([1.0])
    >>> rule_of((a / b)._node.plan, 0), rule_of((a - b)._node.plan, 1)
    ('divide_no_nan(g, b)', '-g')
    """
    op = getattr(plan, "op", None)
    if op is None:
        return "sweep of the segment, computed again"
    if hasattr(op, "vjp"):  # fused: a kernel, whose page has more than a line
        return f"{_called(op.vjp)}[{i}]" if len(op.arrays) > 1 else _called(op.vjp)
    rule = op.joint or op.vjps[i]
    text = source_of(rule) or _called(rule)
    return f"({text})[{i}]" if op.joint else text


@lru_cache(maxsize=256)
def _called(function: Callable[..., Any]) -> str:
    """A call of a function with the names of its parameters."""
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return f"{inspect.unwrap(function).__name__}({', '.join(names)})"


@lru_cache(maxsize=1024)
def source_of(function: Callable[..., Any]) -> str:
    """What a lambda, or a function of one line, returns: its own part of the source, on one line; else "".

    Several rules may stand in one line. Which of them this is, its code knows: where in the line it begins and ends.

    >>> f, g = (lambda a: a + 1), (lambda a: a * 2)
    >>> source_of(g)
    'a * 2'
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return ""
    source = "".join(linecache.getlines(code.co_filename))
    lines = [(line, column) for line, _, column, _ in code.co_positions() if line is not None and column is not None]
    for node in _functions(source).get(code.co_firstlineno, ()):
        body = _result(node)
        if body is not None and _arguments(node) == code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            start, stop = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
            if start <= max(lines, default=(0, 0)) < stop:
                return " ".join((ast.get_source_segment(source, body) or "").split())
    return ""


def _result(node: ast.Lambda | ast.FunctionDef) -> ast.expr | None:
    """The expression that a function returns, if that is all it does."""
    if isinstance(node, ast.Lambda):
        return node.body
    last = node.body[-1]
    return last.value if len(node.body) == 1 and isinstance(last, ast.Return) else None


def _arguments(node: ast.Lambda | ast.FunctionDef) -> tuple[str, ...]:
    return tuple(a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs))


@lru_cache(maxsize=32)
def _functions(text: str) -> dict[int, list[ast.Lambda | ast.FunctionDef]]:
    """The functions in the text of a file, or of a notebook's cell, by their first line."""
    functions: dict[int, list[ast.Lambda | ast.FunctionDef]] = {}
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return functions
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda | ast.FunctionDef):
            functions.setdefault(node.lineno, []).append(node)
    return functions
