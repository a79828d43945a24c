"""Which expressions are mutated, and how.

Cosmic Ray's operators change numbers, operators, comparisons and conditions. They know nothing of terms, arguments
and gates, so a few operators here drop and swap those.
"""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tinygrad_rnn"

# Functions mutated as a whole, besides every derivative given to `op` in tensor/ops/ and what it calls there.
FUNCTIONS = {
    "kernels/recurrent.py": "rnn_vjp lstm_vjp _lstm_slopes gru_vjp _gru_slopes",
    "kernels/normalisation.py": "layer_norm_vjp _normalised",
    "kernels/cross_entropy.py": "cross_entropy_vjp",
    "nn/cells.py": "rnn_cell lstm_cell gru_cell _rnn_plain _lstm_plain _gru_plain add_biases gru_biases "
    "RNNCell.forward LSTMCell.forward GRUCell.forward",
    "nn/recurrent_options.py": "RecurrentOptions.project RecurrentOptions.product RecurrentOptions.norm "
    "rnn_with_options lstm_with_options gru_with_options options_of",
    "nn/checks.py": "loss_mask",
    "nn/losses.py": "_rows cross_entropy nll_loss _classes _reduce_kept mse_loss l1_loss huber_loss "
    "binary_cross_entropy_with_logits _pair _difference _reduce",
    "nn/functional.py": "sequence_mask _layer_norm layer_norm dropout",
    "nn/layers.py": "Linear.forward Embedding.forward LayerNorm.forward",
    "nn/recurrent.py": "_Recurrent._layers _Recurrent._direction _Recurrent._options RNN._unroll LSTM._unroll "
    "GRU._unroll spans_of permuted inverse",
    "nn/watching.py": "Steps.in_time",
}
# Files mutated statement by statement but for these: they check arguments and word messages.
STATEMENTS = {
    "tensor/graph.py": "_freed",
    "tensor/sweep.py": "check_finite _where",
    "tensor/parts.py": "",
    "tensor/functional.py": "_tensors _one _paired _checked_positions",
    "tensor/checkpoint.py": "",
}

# Of Cosmic Ray's operators, those that make mistakes: a bit operator on floats raises, and a mutant that dies of a
# TypeError proves nothing; a comparison is negated or loses its bound.
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Pow"}
COMPARISONS = {
    "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE",
    "GtE_Gt", "GtE_Lt",
}  # fmt: skip
OTHERS = {
    "AddNot", "NumberReplacer", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue",
    "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Not", "ZeroIterationForLoop",
}  # fmt: skip
TWINS = {
    "add": "subtract", "subtract": "add", "multiply": "divide", "sum": "mean", "mean": "sum", "sin": "cos",
    "cos": "sin", "sigmoid": "tanh", "tanh": "sigmoid", "minimum": "maximum", "maximum": "minimum",
    "multiply_no_nan": "divide_no_nan", "divide_no_nan": "multiply_no_nan", "max": "min", "zeros_like": "ones_like",
}  # fmt: skip
UNARY = {
    "exp", "log", "cos", "sin", "sign", "sigmoid", "tanh", "flip", "reshape", "transpose", "swapaxes", "expand_dims",
    "broadcast_to", "softmax", "sum", "mean", "square", "sqrt", "clip", "where", "keep", "spread", "minimum", "abs",
    "fold", "_inverse", "astype", "permuted", "in_time", "detach", "_direction", "concatenate", "pad", "jacobian",
    "grad_of",
}  # fmt: skip
NOT_SWAPPED = {"isinstance", "getattr", "hasattr", "range", "slice"}
# Statements for speed alone: their mutants compute the same.
SPEED_ALONE = ("W = _SharedWeight(W_hh) if not (self.fused or options) and has_kernels([W_hh._array]) else W_hh",)
COMMUTATIVE = {"multiply", "add", "equal", "minimum", "maximum", "swapaxes"}
SHAPES = {"ndim", "shape", "dtype"}
NOT_LOOKED_INTO = {"namespace", "_constants", "isinstance", "type", "device_of"}  # they ask for a kind only


@dataclass(frozen=True)
class Region:
    """A derivative, or a function that one is made of: a stretch of a file under the name of its op or layer."""

    file: str  # below the package
    label: str
    first: int  # its lines, from 1
    last: int
    start: int  # its characters
    stop: int


@dataclass(frozen=True)
class Mutant:
    """One changed expression."""

    region: Region
    line: int
    before: str
    after: str
    source: str  # of the whole file
    nth: int = 0  # among those of its region that read the same

    @property
    def key(self) -> str:
        """What `equivalent.py` calls it: the changed lines alone, so that it survives edits elsewhere."""
        return f"{self.region.file}: {self.before}  ->  {self.after}"


class Text:
    """A source and its syntax tree, with characters where `ast` has lines and bytes."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = ast.parse(source)
        self.lines = source.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def span(self, node: ast.AST) -> tuple[int, int]:
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def of(self, node: ast.AST) -> str:
        start, stop = self.span(node)
        return self.source[start:stop]


@functools.cache
def text_of(file: str) -> Text:
    return Text((PACKAGE / file).read_text(encoding="utf-8"))


# --- where ----------------------------------------------------------------------------------------


def regions() -> list[Region]:
    """All that is mutated, in the order of the files."""
    table = [path.relative_to(PACKAGE).as_posix() for path in sorted((PACKAGE / "tensor" / "ops").glob("*.py"))]
    found = []
    for file in (*table, *FUNCTIONS):
        functions = named_functions(text_of(file).tree)
        found += derivatives(file)
        found += [region(file, name, functions[name]) for name in FUNCTIONS.get(file, "").split()]
    for file, left_out in STATEMENTS.items():
        functions = named_functions(text_of(file).tree)
        assert functions.keys() >= set(left_out.split()), f"{left_out}: {file} has no such function"
        names = [name for name in functions if name not in left_out.split() and "__init__" not in name]
        found += [region(file, name, functions[name]) for name in names]
    return found


def region(file: str, label: str, node: ast.AST) -> Region:
    start, stop = text_of(file).span(node)
    first = min((d.lineno for d in getattr(node, "decorator_list", ())), default=node.lineno)
    return Region(file, label, first, node.end_lineno, start, stop)


def named_functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    functions = {f.name: f for f in tree.body if isinstance(f, ast.FunctionDef)}
    for c in tree.body:
        if isinstance(c, ast.ClassDef):
            functions |= {f"{c.name}.{f.name}": f for f in c.body if isinstance(f, ast.FunctionDef)}
    return functions


def derivatives(file: str) -> Iterator[Region]:
    """The rules given to `op(...)` in a file, then the functions of the file they call that are no ops themselves."""
    text = text_of(file)
    rules: list[ast.expr] = []
    for name, call in calls_of_op(text.tree):
        for i, rule in enumerate(rules_of(call)):
            rules.append(rule)
            if isinstance(rule, ast.Lambda):
                yield region(file, f"{name}[{i}]" if len(rules_of(call)) > 1 else name, rule)
    helpers = helpers_of(rules, named_functions(text.tree))
    yield from (region(file, name, node) for name, node in helpers.items())


def calls_of_op(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """The calls `op(...)` at the top of a file, as decorators and in assignments, with the names of what they make."""
    for statement in tree.body:
        names = [statement.name] if isinstance(statement, ast.FunctionDef) else ["?"]
        if isinstance(statement, ast.Assign):
            names = [n.id for n in ast.walk(statement.targets[0]) if isinstance(n, ast.Name)]
            calls = [c.func for c in ast.walk(statement.value) if isinstance(c, ast.Call) and is_op(c.func)]
        else:
            calls = [d for d in getattr(statement, "decorator_list", ()) if is_op(d)]
        yield from zip(names, calls, strict=False)


def helpers_of(rules: Sequence[ast.AST], functions: dict[str, ast.FunctionDef]) -> dict[str, ast.FunctionDef]:
    """The functions that rules call, and those that they call; no ops. In the order of the file."""
    found: set[str] = set()
    waiting = list(rules)
    while waiting:
        for node in ast.walk(waiting.pop()):
            f = functions.get(node.id) if isinstance(node, ast.Name) else None
            if f is not None and f.name not in {*found, *public_ops()} and not any(map(is_rule, f.decorator_list)):
                found.add(f.name)
                waiting.append(f)
    return {name: f for name, f in functions.items() if name in found}


def is_rule(node: ast.AST) -> bool:
    return is_op(node) and bool(rules_of(node))


def is_op(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "op"


@functools.cache
def public_ops() -> list[str]:
    """`ops.__all__`, without an import: the process that forks has not imported the package."""
    tree = text_of("tensor/ops/__init__.py").tree
    (names,) = (a.value for a in tree.body if isinstance(a, ast.Assign) and a.targets[0].id == "__all__")
    return ast.literal_eval(names)


def rules_of(call: ast.AST) -> list[ast.expr]:
    assert isinstance(call, ast.Call)
    given = [*call.args, *(k.value for k in call.keywords if k.arg == "joint")]
    return [rule for rule in given if isinstance(rule, ast.Lambda | ast.Name)]


# --- how ------------------------------------------------------------------------------------------


def mutants_of(where: Region) -> list[Mutant]:
    """Every mutant of a region, those that say the same once."""
    text = text_of(where.file)
    original = text.source[where.start : where.stop]
    column = len(text.source[: where.start].rpartition("\n")[2])
    whole = "(" + original + ")" if original.startswith("lambda") else " " * column + original
    whole = whole if whole.startswith("(") else "class _:\n" * (column > 0) + whole
    offset = whole.index(original)
    seen, found = {ast.dump(ast.parse(whole))}, []
    edits = (*own_edits(Text(whole)), *cosmic_edits(Text(whole)))
    for start, stop, new in sorted(edits):
        mutated = whole[:start] + new + whole[stop:]
        try:
            meaning = ast.dump(ast.parse(mutated))
        except SyntaxError:
            continue
        if meaning in seen or mutated[:offset] != whole[:offset]:
            continue
        seen.add(meaning)
        end = len(mutated) - (len(whole) - offset - len(original))
        changed = text.source[: where.start] + mutated[offset:end] + text.source[where.stop :]
        line, before, after = changed_lines(text.source, changed)
        nth = sum((m.before, m.after) == (before, after) for m in found)
        found.append(Mutant(where, line, before, after, changed, nth))
    return found


def changed_lines(old: str, new: str) -> tuple[int, str, str]:
    """The first line that differs, and what stood and stands there."""
    a, b = old.splitlines(), new.splitlines()
    first = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    same = 0
    while same < min(len(a), len(b)) - first and a[-1 - same] == b[-1 - same]:
        same += 1
    before, after = a[first : len(a) - same], b[first : len(b) - same]
    return first + 1, " ".join(map(str.strip, before)), " ".join(map(str.strip, after))


Edit = tuple[int, int, str]


def code_of(text: Text) -> Iterator[ast.AST]:
    """The nodes of a region that compute: no annotations, defaults, messages or decorators."""
    waiting: list[ast.AST] = [text.tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr) or only_speaks(node):
            continue
        if isinstance(node, ast.Assign) and text.of(node).startswith(SPEED_ALONE):
            continue
        yield node
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            waiting += node.body if isinstance(node.body, list) else [node.body]
        elif isinstance(node, ast.AnnAssign):
            waiting += [node.target, *([node.value] if node.value else [])]
        else:
            waiting += ast.iter_child_nodes(node)


def only_speaks(node: ast.AST) -> bool:
    """Whether it refuses something, words a message or asks for a kind of thing: no derivative depends on it."""
    match node:
        case ast.If(body=[ast.Raise()], orelse=[]):
            return True
        case ast.IfExp(body=ast.Constant(value=str()), orelse=ast.Constant(value=str())):
            return True
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name in NOT_LOOKED_INTO
    return False


def own_edits(text: Text) -> Iterator[Edit]:
    """Terms dropped, arguments and gates swapped, the gradient negated, statements left out."""
    asked_for_shape = [n.value for n in ast.walk(text.tree) if isinstance(n, ast.Attribute) and n.attr in SHAPES]
    for node in code_of(text):
        if isinstance(node, ast.Name) and node in asked_for_shape:
            continue
        if type(node) in EDITS:
            yield from EDITS[type(node)](text, node)
        if can_be_left_out(node):
            yield *text.span(node), "pass"


def swapped(text: Text, items: Sequence[ast.expr]) -> Iterator[Edit]:
    """Neighbours that change places."""
    of, span = text.of, text.span
    for a, b in itertools.pairwise(items):
        if not any(isinstance(x, ast.Starred) or of(x) == "name" or of(x).startswith('"') for x in (a, b)):
            (start, _), (_, stop) = span(a), span(b)
            between = text.source[span(a)[1] : span(b)[0]]
            yield start, stop, of(b) + between + of(a)


def binary(text: Text, node: ast.BinOp) -> Iterator[Edit]:
    yield *text.span(node), f"({text.of(node.left)})"
    yield *text.span(node), f"({text.of(node.right)})"
    if not isinstance(node.op, ast.Add | ast.Mult):
        yield from swapped(text, [node.left, node.right])


def boolean(text: Text, node: ast.BoolOp) -> Iterator[Edit]:
    for value in node.values:
        yield *text.span(node), " and ".join(f"({text.of(v)})" for v in node.values if v is not value)


def called(text: Text, node: ast.Call) -> Iterator[Edit]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in NOT_SWAPPED | COMMUTATIVE:
        yield from swapped(text, node.args)
    if name in TWINS:
        stop = text.span(node.func)[1]
        yield stop - len(name), stop, TWINS[name]
    if name in UNARY:
        inside = node.args[0] if node.args else node.func.value
        yield *text.span(node), f"({text.of(inside)})"


def transposed(text: Text, node: ast.Attribute) -> Iterator[Edit]:
    if node.attr in ("mT", "T"):
        yield *text.span(node), text.of(node.value)


def incoming(text: Text, node: ast.Name) -> Iterator[Edit]:
    if node.id in ("g", "dh") and isinstance(node.ctx, ast.Load):
        for factor in ("-", "2 * ", "0 * "):
            yield *text.span(node), f"({factor}{node.id})"


def either(text: Text, node: ast.IfExp) -> Iterator[Edit]:
    yield *text.span(node), f"({text.of(node.body)})"
    yield *text.span(node), f"({text.of(node.orelse)})"


def condition(text: Text, node: ast.If | ast.While) -> Iterator[Edit]:
    yield *text.span(node.test), "False"
    if isinstance(node, ast.If):
        yield *text.span(node.test), "True"


def listed(text: Text, node: ast.Tuple | ast.List) -> Iterator[Edit]:
    yield from swapped(text, node.elts)


def accumulated(text: Text, node: ast.AugAssign) -> Iterator[Edit]:
    between = text.span(node.target)[1], text.span(node.value)[0]
    yield *between, " = "
    yield *between, " += " if isinstance(node.op, ast.Sub | ast.Mult) else " -= "


EDITS: dict[type[ast.AST], Callable[[Text, Any], Iterator[Edit]]] = {
    ast.BinOp: binary,
    ast.BoolOp: boolean,
    ast.Call: called,
    ast.Attribute: transposed,
    ast.Name: incoming,
    ast.IfExp: either,
    ast.If: condition,
    ast.While: condition,
    ast.Tuple: listed,
    ast.List: listed,
    ast.AugAssign: accumulated,
}


def can_be_left_out(node: ast.AST) -> bool:
    """Whether `pass` can stand for a statement: no value that is kept is missing then, and it is more than a text."""
    if not isinstance(node, ast.AugAssign | ast.Expr | ast.Continue | ast.Assign):
        return False
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name | ast.Tuple) for t in node.targets):
        return False
    return not isinstance(getattr(node, "value", None), ast.Constant | ast.Yield)


def cosmic_edits(text: Text) -> Iterator[Edit]:
    """The mutations of Cosmic Ray's operators."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    code = [text.span(n) for n in code_of(text) if isinstance(n, ast.expr | ast.stmt) and not compound(n)]
    # `strict=` of a zip refuses lists of two lengths, as `if ...: raise` does
    checks = [text.span(n) for n in ast.walk(text.tree) if isinstance(n, ast.keyword) and n.arg == "strict"]
    for operator in operators():
        positions = [p for node in ast_nodes(get_ast(text.source)) for p in operator.mutation_positions(node)]
        for i, ((line, column), _) in enumerate(positions):
            at = text.starts[line - 1] + column
            if any(start <= at < stop for start, stop in code) and not any(a <= at < b for a, b in checks):
                mutated = mutate_code(text.source, operator, i)
                if mutated is not None and mutated != text.source:
                    yield 0, len(text.source), mutated


def compound(node: ast.AST) -> bool:
    """Whether it holds more than what it computes itself: its parts are looked at one by one."""
    return isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If | ast.For | ast.While | ast.With | ast.Try)


@functools.cache
def operators() -> list:
    from cosmic_ray.plugins import get_operator, operator_names

    chosen = []
    for name in sorted(operator_names()):
        kind = name.partition("/")[2]
        family, _, change = kind.partition("_")
        arithmetic = family == "ReplaceBinaryOperator" and ARITHMETIC.issuperset(change.split("_"))
        if kind in OTHERS or arithmetic or (family == "ReplaceComparisonOperator" and change in COMPARISONS):
            chosen.append(get_operator(name)())
    return chosen
