"""The arguments of a step, and what happens between its calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.compiler.fuzz.program import Call, Drawing, State

CALLS = 8


@dataclass
class Argument:
    """A parameter of the step: `variable` holds what is given for it, `fresh` is the text of such a thing."""

    parameter: str
    variable: str
    kind: str
    fresh: Callable[[], str]
    used: str  # how the body gets at the tensor in it


def text_of(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def array(w: Drawing, shape: tuple[int, ...], kinds: str = "f") -> str:
    """The text of an array: values, dtype and layout."""
    d = w.d
    dtype = d.one(["float32"] * 7 + ["float64", "float64", "float16"])
    inside = text_of(shape)
    if d.chance(0.15):
        return f"edges({inside}{', ' if inside else ''}dtype='{dtype}')"
    if d.chance(0.1) and "i" in kinds:
        return f"ids(3, {inside or '*()'}, dtype='{d.one(['int64', 'int32', 'int8', 'bool'])}')"
    plain = f"normal({inside}{', ' if inside else ''}dtype='{dtype}')"
    if shape and d.may("layout", 0.15):
        twice = text_of((*shape[:-1], 2 * shape[-1]))
        return d.one(
            [
                f"np.asfortranarray({plain})",
                f"{plain}[::-1]",
                f"normal({twice}, dtype='{dtype}')[..., ::2]",
                f"np.broadcast_to(normal({shape[-1]}, dtype='{dtype}'), {shape})",
                f"normal({text_of(shape[::-1])}).T",
            ]
        )
    return plain


def arguments(w: Drawing, shape: tuple[int, ...], count: int) -> list[str]:
    """Draw parameters of the step. Returns how their tensors are written in it."""
    d = w.d
    w.args: list[Argument] = []  # type: ignore[misc]
    found = []
    for _ in range(count):
        own = d.one([shape] * 4 + [shape[1:], (1,) * len(shape), ()])
        found += argument(w, own)
    w.program.parameters = ", ".join(a.parameter for a in w.args)  # type: ignore[attr-defined]
    return found


def argument(w: Drawing, shape: tuple[int, ...]) -> list[str]:
    """Draw one parameter."""
    d = w.d
    kind = d.one(["tensor"] * 8 + sorted(KINDS))
    if kind != "tensor" and not d.may(f"argument: {kind}"):
        kind = "tensor"
    name, variable = w.name("a"), w.name("x")
    if kind == "tensor":
        fresh = lambda: f"tr.Tensor({array(w, shape, 'fi')})"
        used = [name]
    else:
        make, forms = KINDS[kind]
        fresh = lambda: make(w, shape)
        used = [form.format(a=name) for form in forms]
    add_argument(w, Argument(name, variable, kind, fresh, used[0] if used else name))
    if not used:  # a number: what is made of it
        made = w.name("v")
        w.line(f"{made} = tr.ones({text_of(shape)}) * {name}")
        used = [made]
    return used


def add_argument(w: Drawing, a: Argument) -> None:
    w.args.append(a)  # type: ignore[attr-defined]
    first = a.fresh()
    w.setup(f"{a.variable} = {first}")
    w.run(f"{a.parameter} = {a.variable}")


# What else may be an argument: its text, and how the step gets at the tensors.
KINDS: dict[str, tuple[Callable[[Drawing, tuple[int, ...]], str], list[str]]] = {
    "leaf": (lambda w, s: f"tr.Tensor(normal({text_of(s)}), requires_grad=True)", ["{a}"]),
    "parameter": (lambda w, s: f"tr.nn.Parameter(normal({text_of(s)}))", ["{a}"]),
    "array": (lambda w, s: array(w, s), ["tr.Tensor({a})"]),
    "number": (lambda w, s: w.d.one(["2.0", "0.5", "0.0", "-0.0", "1", "1.0", "True", "False", "3", "np.nan"]), []),
    "NumPy number": (
        lambda w, s: w.d.one(
            [
                "np.float64(0.5)",
                "np.float32(2)",
                "np.int64(3)",
                "np.float64(-0.0)",
                "np.bool_(True)",
                "np.float16(0.1)",
                "np.int8(2)",
                "np.float64(0.1)",
                "np.array(0.5)",
                "np.array(2)",
            ]
        ),
        [],
    ),
    "list": (lambda w, s: f"[tr.Tensor({array(w, s)}), tr.Tensor({array(w, s)})]", ["{a}[0]", "{a}[1]"]),
    "tuple": (lambda w, s: f"(tr.Tensor({array(w, s)}), [tr.Tensor({array(w, s)})])", ["{a}[0]", "{a}[1][0]"]),
    "dict": (lambda w, s: f"{{'x': tr.Tensor({array(w, s)}), 1: {w.d.one(['2', '2.0', 'None'])}}}", ["{a}['x']"]),
    "ordered dict": (lambda w, s: f"collections.OrderedDict(x=tr.Tensor({array(w, s)}))", ["{a}['x']"]),
    "namespace": (lambda w, s: f"types.SimpleNamespace(x=tr.Tensor({array(w, s)}))", ["{a}.x"]),
    "deque": (lambda w, s: f"collections.deque([tr.Tensor({array(w, s)})])", ["{a}[0]"]),
    "named tuple": (lambda w, s: f"collections.namedtuple('Pair', 'x y')(tr.Tensor({array(w, s)}), 2)", ["{a}.x"]),
}

# --- calls ------------------------------------------------------------------------------------------------------------


def calls(w: Drawing, count: int = CALLS) -> None:
    """Draw the calls, with new values for most arguments and, in some programs, other changes between them."""
    d = w.d
    calm = d.one([0.0, 0.15, 0.15, 0.3])  # how often something but the values changes
    args: list[Argument] = getattr(w, "args", [])
    w.program.closure = d.may("closure", 0.3)
    if d.chance(0.15):
        host = d.one(["method", "object", "partial", "wrapped"])
        w.program.host = host if d.may(f"compiled {host}") else "function"
    look = second(w) if d.may("second function", 0.06) else ""
    count *= 3 if d.may("many calls", 0.03) else 1
    if d.may("no_grad decorator", 0.02):
        w.program.decorators.append("@tr.no_grad()")
    for n in range(count):
        changes: list[str] = []
        if n:
            for a in args:
                if d.chance(0.8):
                    changes += again(w, a)
            while n > 0 and d.chance(calm if n > 1 else calm / 2):
                if text := change(w, args):
                    changes.append(text)
        w.program.calls.append(Call(changes, look if look and d.chance(0.4) else call_text(w, args)))


def second(w: Drawing) -> str:
    """Another compiled function, of the same things around it. Returns a call of it."""
    states = [s.text for s in w.states if s.kind in ("parameter", "tensor")]
    states += [f"next(iter({s.text}.parameters()))" for s in w.states if s.kind == "module"]
    if not states:
        return ""
    w.setup(f"look = C(lambda x: ((x * {w.d.one(states)}).detach(), x + 1))")
    return f"look({w.d.one(['tr.ones(1)', 'tr.ones(1)', 'np.ones(1)'])})"


def call_text(w: Drawing, args: list[Argument]) -> str:
    d = w.d
    given = [a.variable for a in args]
    if len(args) > 1 and args[0].kind == args[1].kind and d.may("the same object twice", 0.05):
        given[1] = given[0]
    if args and args[0].kind == "tensor" and d.may("an argument from outside", 0.03):
        outer = [s.text for s in w.states if s.kind in ("parameter", "tensor")]
        given[0] = d.one(outer) if outer else given[0]
        w.program.must_run = False  # what is returned may have a graph then
    if args and d.may("arguments by name", 0.04):
        given[-1] = f"{args[-1].parameter}={given[-1]}"
    if d.may("no_grad outside", 0.01):
        return f"tr.no_grad()(f)({', '.join(given)})"
    if d.may("detect_anomaly", 0.01):
        return f"tr.detect_anomaly()(f)({', '.join(given)})"
    return f"f({', '.join(given)})"


def again(w: Drawing, a: Argument) -> list[str]:
    """Other values for an argument, mostly of the same form as before."""
    d, x = w.d, a.variable
    if a.kind in ("tensor", "leaf", "parameter") and d.may("assign_ to an argument", 0.1):
        return [f"{x}.assign_({x}.numpy() * 2 + 1)"]
    if a.kind in ("leaf", "parameter"):
        return [] if d.chance(0.7) else [f"{x} = {a.fresh()}"]
    if a.kind == "array" and d.may("argument array written between calls", 0.3):
        return [f"{x}[...] = {d.one(['0', x + ' * 2', '-0.0', 'np.nan'])}"]
    if a.kind in ("list", "deque") and d.may("argument container changed", 0.3):
        return [f"{x}[0] = tr.Tensor({x}[0].numpy() + 1)"]
    if a.kind in ("dict", "ordered dict") and d.may("argument container changed", 0.3):
        return [f"{x}['x'] = tr.Tensor({x}['x'].numpy() + 1)"]
    if a.kind == "namespace" and d.may("argument container changed", 0.3):
        return [f"{x}.x = tr.Tensor({x}.x.numpy() + 1)"]
    if a.kind in ("number", "NumPy number") and d.chance(0.6):
        return []
    if a.kind == "tensor" and d.chance(0.8):  # the same shape and dtype
        return [f"{x} = tr.Tensor({d.one(['normal', 'normal', 'normal', 'edges'])}(*{x}.shape).astype({x}.dtype))"]
    return [f"{x} = {a.fresh()}"]


def change(w: Drawing, args: list[Argument]) -> str | None:
    """Something that happens between two calls."""
    d = w.d
    if w.states and d.chance(0.7):
        state = d.one(w.states)
        feature, rule = d.one(CHANGES[state.kind])
        if state.kind == "tensor" and "frozen" in feature:
            w.program.must_run = False  # what is returned may have a graph then
        return rule(w, state) if d.may(f"{state.kind} {feature}") else None
    rule = d.one(OTHER)
    return rule(w, args) if d.may(rule.__name__) else None


def replaced(w: Drawing, s: State) -> str | None:
    return s.put(s.fresh()) if s.put is not None else None


def hooked(w: Drawing, s: State) -> str:
    hook = w.d.one(["g * 2", "None", "-g"])
    return f"{w.name('hook')} = {s.text}.register_hook(lambda g: {hook})"


def unhooked(w: Drawing, s: State) -> str | None:
    made = w.counts.get("hook", -1)
    return f"hook{w.d.number(0, made)}()" if made >= 0 else None


Rule = tuple[str, Callable[[Drawing, State], str | None]]
TENSORS: list[Rule] = [
    ("assign_ between calls", lambda w, s: f"{s.text}.assign_({s.text}.numpy() * 2 + 1)"),
    ("assign_ between calls", lambda w, s: f"{s.text}.assign_(np.zeros({s.text}.shape))"),
    ("assign_ between calls", lambda w, s: f"{s.text}.assign_(np.asfortranarray(normal(*{s.text}.shape)))"),
    ("replaced between calls", replaced),
]
CHANGES: dict[str, list[Rule]] = {
    "parameter": [
        *TENSORS,
        ("frozen between calls", lambda w, s: f"{s.text}.requires_grad = not {s.text}.requires_grad"),
        ("gradient between calls", lambda w, s: f"{s.text}.grad = None"),
        ("gradient between calls", lambda w, s: f"{s.text}.grad = tr.Tensor(normal(*{s.text}.shape))"),
        ("gradient between calls", lambda w, s: f"{s.text}.grad = np.zeros({s.text}.shape)"),
        ("hooks between calls", hooked),
        ("hooks between calls", unhooked),
        ("other dtype between calls", lambda w, s: s.put(f"tr.nn.Parameter(normal(*{s.text}.shape), dtype='float64')")),
    ],
    "tensor": [
        *TENSORS,
        ("frozen between calls", lambda w, s: f"{s.text}.requires_grad = not {s.text}.requires_grad"),
    ],
    "array": [
        ("outside array written", lambda w, s: f"{s.text}[...] *= 2"),
        ("outside array written", lambda w, s: f"{s.text}[...] = -0.0"),
        ("replaced between calls", replaced),
    ],
    "number": [("replaced between calls", replaced)],
    "flag": [("replaced between calls", replaced)],
    "module": [
        ("mode between calls", lambda w, s: f"{s.text}.{w.d.one(['eval', 'train'])}()"),
        ("mode between calls", lambda w, s: f"{s.text}.train(not {s.text}.training)"),
        (
            "module options",
            lambda w, s: (
                f"for m in {s.text}.modules():\n    if hasattr(m, 'p'): m.p = {w.d.one(['0.0', '0.9', '0.25'])}"
            ),
        ),
        (
            "module options",
            lambda w, s: (
                f"for m in {s.text}.modules():\n    if hasattr(m, 'momentum'): m.momentum = {w.d.one(['0.5', '1.0'])}"
            ),
        ),
        ("module options", lambda w, s: f"for m in {s.text}.modules():\n    if hasattr(m, 'eps'): m.eps = 0.1"),
        ("replaced between calls", replaced),
        (
            "parameter replaced",
            lambda w, s: (
                f"for m in {s.text}.modules():\n"
                f"    for k, v in vars(m).items():\n"
                f"        if k in ('weight', 'bias') and v is not None: setattr(m, k, tr.nn.Parameter(v.numpy() * 2))"
            ),
        ),
        (
            "loaded between calls",
            lambda w, s: f"{s.text}.load_state_dict({{k: v.numpy() / 2 for k, v in {s.text}.state_dict().items()}})",
        ),
        (
            "frozen between calls",
            lambda w, s: (
                f"for p in list({s.text}.parameters())"
                f"[{w.d.one([':1', '-1:', '::2', ':'])}]: p.requires_grad = not p.requires_grad"
            ),
        ),
        ("gradient between calls", lambda w, s: f"{s.text}.zero_grad()"),
        ("assign_ between calls", lambda w, s: f"for p in {s.text}.parameters(): p.assign_(p.numpy() * 0.5)"),
        ("other dtype between calls", lambda w, s: f"{s.text}.to('{w.d.one(['float64', 'float32'])}')"),
        (
            "submodule replaced",
            lambda w, s: (
                f"for m in {s.text}.modules():\n"
                f"    for k, v in list(m.named_children()):\n"
                f"        if isinstance(v, tr.nn.Tanh): setattr(m, k, tr.nn.ReLU())"
            ),
        ),
        (
            "forward patched",
            lambda w, s: f"{s.text}.forward = (lambda old: lambda *a, **k: old(*a, **k))({s.text}.forward)",
        ),
        (
            "hooks between calls",
            lambda w, s: f"for p in {s.text}.parameters(): {w.name('hook')} = p.register_hook(lambda g: g * 2)",
        ),
        ("hooks between calls", unhooked),
    ],
    "optimizer": [
        (
            "rate between calls",
            lambda w, s: f"{s.text}.param_groups[0]['lr'] = {w.d.one(['0.5', '0.01', '0.0', '0.1'])}",
        ),
        (
            "options of an optimiser",
            lambda w, s: f"{s.text}.param_groups[0]['weight_decay'] = {w.d.one(['0.1', '0.0'])}",
        ),
        (
            "options of an optimiser",
            lambda w, s: (
                f"for k in ('momentum', 'betas', 'alpha'):\n"
                f"    if k in {s.text}.param_groups[0]:\n"
                f"        {s.text}.param_groups[0][k] = (0.5, 0.9) if k == 'betas' else 0.3"
            ),
        ),
        ("replaced between calls", replaced),
        ("loaded between calls", lambda w, s: f"{s.text}.load_state_dict({s.text}.state_dict())"),
        ("gradient between calls", lambda w, s: f"{s.text}.zero_grad()"),
        ("optimiser stepped outside", lambda w, s: f"{s.text}.step()"),
        ("parameter added", lambda w, s: f"{s.text}.add_param_group({{'params': [tr.nn.Parameter(normal(2))]}})"),
    ],
    "schedule": [
        ("rate between calls", lambda w, s: f"{s.text}.step()"),
        ("replaced between calls", replaced),
        ("loaded between calls", lambda w, s: f"{s.text}.load_state_dict({s.text}.state_dict())"),
    ],
}


def other_shape(w: Drawing, args: list[Argument]) -> str | None:
    tensors = [a for a in args if a.kind == "tensor"]
    if not tensors:
        return None
    x = w.d.one(tensors).variable
    return w.d.one(
        [
            f"{x} = tr.Tensor(np.concatenate([{x}.numpy()] * 2))",
            f"{x} = tr.Tensor({x}.numpy()[:1])",
            f"{x} = tr.Tensor({x}.numpy()[None])",
        ]
    )


def other_dtype(w: Drawing, args: list[Argument]) -> str | None:
    tensors = [a for a in args if a.kind == "tensor"]
    if not tensors:
        return None
    x = w.d.one(tensors).variable
    return f"{x} = tr.Tensor({x}.numpy().astype('{w.d.one(['float64', 'float16', 'float32', 'int64'])}'))"


def other_layout(w: Drawing, args: list[Argument]) -> str | None:
    tensors = [a for a in args if a.kind == "tensor"]
    if not tensors or not w.d.may("layout"):
        return None
    x = w.d.one(tensors).variable
    return f"{x} = tr.Tensor(np.asfortranarray({x}.numpy()))"


def wants_gradient(w: Drawing, args: list[Argument]) -> str | None:
    tensors = [a for a in args if a.kind in ("tensor", "leaf", "parameter")]
    if not tensors or not w.d.may("requires_grad on arguments"):
        return None
    w.program.must_run = False  # what is returned may have a graph then
    x = w.d.one(tensors).variable
    return f"{x}.requires_grad = not {x}.requires_grad"


def result_used(w: Drawing, args: list[Argument]) -> str | None:
    """What a caller does to what a call has returned."""
    if not w.d.may("results changed"):
        return None
    return (
        "for r in (result if isinstance(result, list | tuple) else [result]):\n"
        "    if isinstance(r, np.ndarray) and r.flags.writeable: r += 1"
    )


def switched(w: Drawing, args: list[Argument]) -> str | None:
    which = "numba" if w.d.may("numba", 0.3) else "fused"
    return f"tr.enable_{which}({w.d.one(['False', 'True'])})"


def seeded(w: Drawing, args: list[Argument]) -> str | None:
    return w.d.one(["tr.manual_seed(3)", "tr.rand(2)"])


def argument_renewed(w: Drawing, args: list[Argument]) -> str | None:
    if not args:
        return None
    a = w.d.one(args)
    return f"{a.variable} = {a.fresh()}"


def argument_gradient(w: Drawing, args: list[Argument]) -> str | None:
    leaves = [a for a in args if a.kind in ("leaf", "parameter")]
    if not leaves or not w.d.may("gradient between calls"):
        return None
    x = w.d.one(leaves).variable
    return w.d.one([f"{x}.grad = None", f"{x}.grad = tr.Tensor(normal(*{x}.shape))"])


OTHER: list[Callable[[Drawing, list[Argument]], Any]] = [
    other_shape,
    other_dtype,
    other_layout,
    wants_gradient,
    result_used,
    switched,
    seeded,
    argument_renewed,
    argument_gradient,
]
