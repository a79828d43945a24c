"""Programs of library ops: values, joins and slices, and their derivatives."""

from __future__ import annotations

import itertools
from typing import Any

from tests.compiler.fuzz.changes import arguments, calls
from tests.compiler.fuzz.program import Drawing, Program

UNARY = "exp expm1 log log1p sqrt square abs sign sin cos tanh sigmoid softplus relu leaky_relu elu silu gelu negative"
REDUCE = "sum mean prod max min var std norm logsumexp"
BINARY = "add subtract multiply divide maximum minimum power"
COMPARE = "equal not_equal less less_equal greater greater_equal"


def draw_ops(seed: int) -> Program:
    """A step of ops of the library on arguments and on tensors around it."""
    w = Drawing(seed, "ops")
    d = w.d
    shape = d.one([(3,), (2, 3), (3, 4), (4, 2), (1, 3), (2, 3, 2), (5,), (2, 2), (), (3, 9), (17,), (9, 2)])
    w.program.must_run = True
    pool = arguments(w, shape, d.number(1, 3))
    for _ in range(d.number(0, 2)):
        pool.append(parameter(w, shape).text)
    if d.chance(0.3):
        pool.append(constant(w, shape).text)
    if d.chance(0.3):
        d.one([option, outside])(w, shape, pool)
    wanted = d.number(2, 8)
    for _ in range(30):
        wanted -= one_line(w, pool)
        if not wanted:
            break
    finish(w, pool)
    calls(w)
    return w.program


def parameter(w: Drawing, shape: tuple[int, ...]) -> Any:
    d = w.d
    shape = d.one([shape, shape, shape[1:], (1,) * len(shape), ()])
    dtype = d.one(["float32"] * 4 + ["float64", "float16"])
    values = d.one([f"normal{arg(shape)}", f"np.asfortranarray(normal{arg(shape)})"] + [f"normal{arg(shape)}"] * 4)
    return w.state("parameter", lambda: f"tr.nn.Parameter({values}, dtype='{dtype}')", "w")


def constant(w: Drawing, shape: tuple[int, ...]) -> Any:
    d = w.d
    dtype = d.one(["float32", "float64", "int64", "bool"])
    text = f"tr.Tensor(ids(3, {', '.join(map(str, shape)) or '*()'}).astype('{dtype}'))"
    return w.state("tensor", lambda: text, "c")


def option(w: Drawing, shape: tuple[int, ...], pool: list[str]) -> None:
    """A number of Python or NumPy beside the step."""
    d = w.d
    text = lambda: d.one(
        ["2.0", "0.5", "-0.0", "0.0", "1", "True", "3", "np.float64(0.5)", "np.float32(2)", "np.int64(2)"]
    )
    made = w.state("number", text, "n")
    name = w.name("v")
    if w.line(f"{name} = {d.one(pool)} * {made.text}"):
        pool.append(name)


def outside(w: Drawing, shape: tuple[int, ...], pool: list[str]) -> None:
    """A NumPy array beside the step."""
    if not w.d.may("outside array"):
        return
    made = w.state("array", lambda: f"normal{arg(shape)}", "a")
    name = w.name("v")
    if w.line(f"{name} = {w.d.one(pool)} + {made.text}"):
        pool.append(name)


def arg(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "()"


RULES = ["unary", "unary", "binary", "binary", "reduce", "index", "index", "join", "cut_and_join", "reshaping"]
RULES += ["accumulate", "mixed", "linear"]


def one_line(w: Drawing, pool: list[str]) -> bool:
    """Draw a line of the step; whether it could be run."""
    d, before = w.d, len(w.program.body)
    rule = "own_state" if d.may("state of one's own", 0.04) else d.one(RULES)
    text = globals()[rule](w, pool)
    name = w.name("v")
    if text and "INNER" in text:
        text = compiled_inside(w, text)
    if not text or not w.line(f"{name} = {text}"):
        del w.program.body[before:]
        return False
    made = w.value(name)
    if isinstance(made, list):
        w.program.body[-1] = f"{name} = {text}[0]"
        w.run(w.program.body[-1])
        made = w.value(name)
    if made.size > 200:
        del w.program.body[before:]
        return False
    pool.append(name)
    if made.requires_grad and d.may("hook on a value", 0.03):
        w.line(f"{name}.register_hook(lambda g: g * 2)")
    if made.requires_grad and d.may("retain_grad", 0.03):
        w.line(f"{name}.retain_grad()")
    return True


def compiled_inside(w: Drawing, text: str) -> str:
    """A call of another compiled function."""
    if not w.d.may("one compiled function inside another"):
        return ""
    if "inner" not in w.counts:
        w.setup(f"{w.name('inner')} = C(lambda v: tr.tanh(v * 2) + v)")
    return text.replace("INNER", "inner0")


def pick(w: Drawing, pool: list[str], kinds: str = "f") -> str:
    some = [x for x in pool[-4:] + pool if w.value(x).dtype.kind in kinds]
    return w.d.one(some or pool)


def axis(w: Drawing, x: str) -> str:
    n = w.value(x).ndim
    some = ["None", *map(str, range(-n, n))]
    if n > 1:
        some += ["(0, 1)", "(-1, 0)"]
    return w.d.one(some)


def unary(w: Drawing, pool: list[str]) -> str:
    d, x = w.d, pick(w, pool)
    name = d.one(UNARY.split())
    if name in ("log", "sqrt") and d.chance(0.7):
        return f"tr.{name}(tr.abs({x}) + 0.5)"
    if name in ("softplus", "square", "exp") and d.chance(0.3):
        return d.one([f"tr.softmax({x}, axis=-1)", f"tr.log_softmax({x}, axis=0)", f"tr.cumsum({x}, axis=-1)"])
    return f"tr.{name}({x})"


def number(w: Drawing) -> str:
    return w.d.one(["2", "0.5", "-1.5", "0.0", "-0.0", "1", "True", "3.0", "np.float32(0.5)", "np.float64(1.5)"])


def binary(w: Drawing, pool: list[str]) -> str:
    d = w.d
    x, y = pick(w, pool, "fiub"), pick(w, pool, "fiub")
    if d.chance(0.25):
        y = number(w)
        x, y = d.one([(x, y), (y, x)])
    if d.chance(0.15):
        return f"tr.{d.one(COMPARE.split())}({x}, {y})"
    if d.chance(0.4):
        return f"{x} {d.one(['+', '-', '*'])} {y}"
    return f"tr.{d.one(BINARY.split())}({x}, {y})"


def reduce(w: Drawing, pool: list[str]) -> str:
    d, x = w.d, pick(w, pool, "ffffi")
    name = d.one(REDUCE.split())
    keep = d.one(["", ", keepdims=True"])
    if d.chance(0.1):
        return f"tr.{d.one(['argmax', 'argmin'])}({x}, axis={d.one(['None', '0', '-1'])})"
    return f"tr.{name}({x}, axis={axis(w, x)}{keep})"


def key(w: Drawing, shape: tuple[int, ...]) -> str:
    """An index."""
    d = w.d
    simple = [":", "1:", ":-1", "::-1", "::2", "-1:", "0", "-1", "None", "...", ":1", "1:2"]
    simple += ["np.array([-1, 0])", "[0]", "np.array([[0], [-1]])"]
    parts = [
        d.one([*simple, f"[0, {n - 1}, 0]", f"np.array([True] + [False] * {max(n - 1, 0)})"])
        for n in shape[: d.number(1, max(1, len(shape)))]
    ]
    return ", ".join(parts)


def index(w: Drawing, pool: list[str]) -> str | None:
    d, x = w.d, pick(w, pool, "fib")
    shape = w.value(x).shape
    if not shape:
        return f"{x}[None]" if d.chance(0.5) else f"{x}[...]"
    if d.chance(0.15):
        return (
            f"tr.take({x}, {d.one(['[0, -1, 0]', 'np.array([[0], [1]])', '0'])}, axis={d.number(-1, len(shape) - 1)})"
        )
    text = f"{x}[{key(w, shape)}]"
    if "True" in text:  # how long the result is depends on an array
        w.program.must_run = False
    return text


def join(w: Drawing, pool: list[str]) -> str:
    d = w.d
    xs = [pick(w, pool) for _ in range(d.number(1, 3))]
    if d.chance(0.4):
        xs = [xs[0]] * len(xs)
    return f"tr.{d.one(['concatenate', 'stack'])}([{', '.join(xs)}], axis={d.number(-1, 1)})"


def cut_and_join(w: Drawing, pool: list[str]) -> str | None:
    """Cut an array and join the pieces: what the passes look for."""
    d, x = w.d, pick(w, pool)
    shape = w.value(x).shape
    if not shape or max(shape) < 2:
        return None
    k = d.one([k for k, n in enumerate(shape) if n > 1])
    n = shape[k]
    before = ":, " * k
    cuts = sorted({0, n, d.number(1, n - 1), d.number(0, n)})
    pieces = [f"{x}[{before}{a}:{b}]" for a, b in itertools.pairwise(cuts)]
    pieces = [d.one([p, p, p, f"tr.tanh({p})", f"{p} * 2"]) for p in pieces]
    if d.chance(0.3):
        pieces.reverse()
    if d.chance(0.2):
        pieces.append(d.one(pieces))
    whole = f"tr.concatenate([{', '.join(pieces)}], axis={k})"
    if d.chance(0.3):
        whole = f"tr.stack([{', '.join(f'{x}[{before}{i}]' for i in range(n))}], axis={d.number(0, 1)})"
    return whole


def reshaping(w: Drawing, pool: list[str]) -> str:
    d, x = w.d, pick(w, pool, "fib")
    a = w.value(x)
    return d.one(
        [
            f"tr.reshape({x}, (-1,))",
            f"{x}.T",
            f"tr.transpose({x})",
            f"tr.swapaxes({x}, 0, -1)",
            f"tr.expand_dims({x}, {d.number(-1, a.ndim)})",
            f"tr.squeeze({x})",
            f"tr.flip({x}, axis={axis(w, x)})",
            f"tr.pad({x}, {tuple((d.number(0, 1), d.number(0, 2)) for _ in a.shape)})",
            f"tr.broadcast_to({x}, {(2, *a.shape)})",
            f"tr.tril({x})",
            f"tr.triu({x}, k={d.number(-1, 1)})",
            f"tr.moveaxis({x}, 0, -1)",
            f"{x}.flatten()",
            f"tr.split({x}, {d.number(1, 2)}, axis={d.number(-1, 0)})",
            f"tr.reshape({x}.T, {a.shape})",
            f"tr.astype({x}, '{d.one(['float64', 'float32', 'float16'])}')",
            f"{x}.detach()",
            f"+{x}",
        ]
    )


def accumulate(w: Drawing, pool: list[str]) -> str:
    """Values that are used many times, by loops."""
    d, x = w.d, pick(w, pool)
    return d.one(
        [
            f"sum(r for r in {x})",
            f"sum([{x}[k] * k for k in range(len({x}))])",
            f"{x} + {x} + {x}",
            f"functools.reduce(lambda h, r: tr.tanh(h + r), {x})",
            f"sum({x}[k] for k in (0, -1, 0))",
            f"({x} * {x}).sum() + {x}",
            f"tr.where({x} > 0, {x}, {number(w)})",
            f"tr.where({x} > 0, {number(w)}, {pick(w, pool)})",
            f"tr.clip({x}, -0.5, 0.5)",
            f"{x} ** {d.one(['2', '3', '0.5', '-1'])}",
            f"tr.stack([r * 2 for r in {x}])",
            f"tr.concatenate([tr.tanh(r)[None] for r in {x}])",
            f"tr.zeros_like({x}) + {x}",
            f"{x} * tr.ones({d.one(['1', '*' + x + '.shape'])})",
        ]
    )


def mixed(w: Drawing, pool: list[str]) -> str:
    """What surrounds ops."""
    d, x, y = w.d, pick(w, pool), pick(w, pool)
    return d.one(
        [
            f"tr.checkpoint(lambda v: tr.tanh(v * 2) + v, {x})",
            f"tr.nn.functional.dropout({x}, 0.5)",
            f"tr.nn.functional.dropout({x}, 0.0)",
            f"{x} * tr.rand(*{x}.shape)",
            f"{x} + tr.randn(*{x}.shape)",
            f"tr.no_grad()(lambda v: v * 2)({x})",
            f"tr.nn.functional.layer_norm({x}, {x}.shape[-1])",
            f"tr.nn.functional.mse_loss({x}, {y}.detach())",
            f"tr.nn.functional.huber_loss({x}, {y}.detach(), reduction='none')",
            f"tr.nn.functional.binary_cross_entropy_with_logits({x}, tr.sigmoid({y}.detach()))",
            f"INNER({x})",
            f"INNER({x})",
            f"tr.take_along_axis({x}, tr.argmax({x}, axis=-1, keepdims=True), axis=-1)",
            f"tr.take_along_axis({x}, np.zeros([1] * {x}.ndim, int), axis=0)",
        ]
    )


# what counts how often the step ran, and begins anew
TURNING = [
    ("types.SimpleNamespace(n=0)", "IT.n"),
    ("[0]", "IT[0]"),
    ("dict(n=1)", "IT['n']"),
    ("np.zeros(1)", "IT[0]"),
    ("collections.deque([1])", "IT[0]"),
]


def own_state(w: Drawing, pool: list[str]) -> str:
    """What no replay could do, or only by great care: right, or refused."""
    d, x = w.d, pick(w, pool)
    w.program.must_run = False
    if d.chance(0.4):
        gen = w.name("gen")
        w.setup(f"{gen} = np.random.default_rng({d.number(0, 9)})")
        return d.one(
            [f"{x} * {gen}.random()", f"{x} + tr.randn(*{x}.shape, generator={gen})", f"{x} * {gen}.random({x}.shape)"]
        )
    name = w.name("own")
    if d.chance(0.3):
        made, place = d.one(TURNING)
        w.setup(f"{name} = {made}")
        w.program.body.append(f"{place} = ({place} + 1) % {d.number(2, 4)}".replace("IT", name))
        return f"{x} * (2 if {place} else 3)".replace("IT", name)
    if d.chance(0.3):
        w.setup(f"{name} = np.zeros({w.value(x).shape})")
        w.program.body.append(d.one([f"{name}[...] += 1", f"{name}[...] = 3", f"np.add({name}, 1, out={name})"]))
        return f"{x} + {name}"
    w.setup(f"class Own:\n    last = 1.0\n{name} = Own()")
    w.program.body.append(f"h = {x} * {name}.last\n{name}.last = h.detach()")
    return f"{x} * 2"


def linear(w: Drawing, pool: list[str]) -> str:
    d, x, y = w.d, pick(w, pool), pick(w, pool)
    return d.one(
        [
            f"{x} @ {y}",
            f"{x} @ {y}.T",
            f"tr.linear({x}, {y})",
            f"{x}.T @ {x}",
            f"tr.einsum('...i,...i->...', {x}, {y})",
            f"tr.einsum('ij,ij->i', {x}, {y})",
            f"tr.einsum('ij->j', {x})",
            f"{x}.T @ {y}",
            f"tr.einsum('ij,kj->ik', {x}, {y})",
        ]
    )


# --- what becomes of it -----------------------------------------------------------------------------------------------


def finish(w: Drawing, pool: list[str]) -> None:
    """A backward, perhaps, and a result."""
    d = w.d
    floats = [x for x in pool if w.value(x).dtype.kind == "f"]
    graph = [x for x in floats if w.value(x).requires_grad]
    leaves = [x for x in graph if w.value(x).is_leaf]
    extra = []
    if graph and d.chance(0.8):
        terms = [
            d.one([f"{x}.sum()", f"({x} * {x}).sum()", f"{x}.mean()"]) for x in {d.one(graph[-4:]) for _ in range(2)}
        ]
        fresh = [f"{x}.grad = None" for x in leaves]
        if d.chance(0.7):
            for line in fresh:
                w.line(line)
        ways = ["backward"] * 6 + ["grad", "grad of grad", "twice", "no loss"]
        extra = differentiate(w, d.one(ways), " + ".join(sorted(terms)), leaves, graph)
    results = [
        d.one([x, f"{x}.detach()"]) if w.value(x).is_leaf else f"{x}.detach()"
        for x in dict.fromkeys(d.one(pool) for _ in range(3))
    ]
    results += [f"{x}.grad" for x in leaves if d.chance(0.6)] + extra
    if d.may("constant results", 0.15):
        results.append(d.one(["tr.zeros(2)", "np.ones(2)", "3", "None", "'text'", "[1.0, -0.0]", "np.float32(2)"]))
    w.program.body.append(f"return {container(w, results)}")


def container(w: Drawing, xs: list[str]) -> str:
    d = w.d
    if len(xs) == 1:
        return d.one([xs[0], f"({xs[0]},)", f"[{xs[0]}]"])
    inside = ", ".join(xs)
    named = ", ".join(f"'{k}': {x}" for k, x in zip("abcdefghijklmnop", xs, strict=False))
    return d.one([inside, f"[{inside}]", f"{{{named}}}", f"[{xs[0]}, ({', '.join(xs[1:])},)]"])


def differentiate(w: Drawing, how: str, loss: str, leaves: list[str], graph: list[str]) -> list[str]:
    """Lines that differentiate; what more is returned."""
    d = w.d
    w.line(f"loss = {loss}")
    if how == "backward" or not leaves:
        w.line("loss.backward()")
        return ["loss"] if d.chance(0.5) else []
    some = ", ".join(d.one([leaves, leaves[:1]]))
    if how == "grad":
        w.line(f"gs = tr.grad(loss, [{some}])")
        return ["gs"] if "gs" in w.names else []
    if how == "grad of grad":
        if w.line(f"gs = tr.grad(loss, [{leaves[0]}], create_graph=True)"):
            w.line("(gs[0] * gs[0]).sum().backward()")
        return []
    if how == "twice":
        w.line("loss.backward(retain_graph=True)")
        w.line("loss.backward()")
        return []
    x = d.one(graph)
    w.line(f"{x}.backward({d.one([f'tr.ones(*{x}.shape)', f'np.ones({x}.shape)', f'{x}.detach()'])})")
    return []
