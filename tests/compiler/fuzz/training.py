"""Whole training steps: layers, losses, optimisers, schedules, clipping, and what people write around them."""

from __future__ import annotations

from tests.compiler.fuzz.changes import Argument, add_argument, calls
from tests.compiler.fuzz.program import Drawing, Program, State

ACTIVATIONS = [
    "tr.nn.Tanh()",
    "tr.nn.ReLU()",
    "tr.nn.GELU()",
    "tr.nn.SiLU()",
    "tr.nn.ELU()",
    "tr.nn.Sigmoid()",
    "tr.tanh",
    "tr.nn.LeakyReLU()",
    "tr.nn.Softplus()",
]
# How somebody looks at what was looked up, if anybody does.
LOOKS = ["pass", "pass", "x.requires_grad and x.retain_grad()", "x.requires_grad and x.register_hook(lambda g: g * 2)"]
# How a layer reads ids, and what is done with its last state.
READS = ["self.rnn(x, lengths=lengths)"] * 3 + ["self.rnn(ids, lengths=lengths, embedding=self.embed)"]
LAST = """\
        h = (state[0] if isinstance(state, tuple) else state)[0, :, :1]
        y = y + (h[:, None] if self.rnn.batch_first else h)
"""
RATES = ["0.1", "0.05", "0.01", "0.5"]


def draw_training(seed: int) -> Program:
    """A training step and what belongs to it."""
    w = Drawing(seed, "training")
    d = w.d
    w.args = []  # type: ignore[attr-defined]
    w.program.must_run = True
    model, inputs, classes = d.one(
        [features, features, tokens, tokens, sequence, own_module, attention, convolution, bare]
    )(w)
    optimizer = an_optimizer(w, model)
    schedule = a_schedule(w, optimizer) if d.chance(0.4) else None
    rate = a_rate(w) if d.may("rate inside", 0.1) else None
    w.program.parameters = ", ".join(a.parameter for a in w.args)  # type: ignore[attr-defined]
    body(w, model, inputs, classes, optimizer, schedule, rate)
    calls(w)
    return w.program


# --- models: a state, the line that computes `y` of the arguments, the number of classes ------------------------------


def given(w: Drawing, fresh: str, kind: str = "tensor") -> str:
    """A parameter of the step."""
    a, x = w.name("a"), w.name("x")
    add_argument(w, Argument(a, x, kind, lambda: fresh, a))
    return a


def features(w: Drawing) -> tuple[State, str, int]:
    d = w.d
    n, h, k = d.number(1, 4), d.number(1, 5), d.number(1, 3)
    between = [
        *ACTIVATIONS,
        f"tr.nn.LayerNorm({h})",
        f"tr.nn.BatchNorm1d({h}, momentum={d.one(['0.1', '0.5', 'None'])})",
        f"tr.nn.Dropout({d.one(['0.5', '0.2', '0.0'])})",
        f"tr.nn.Linear({h}, {h}, bias={d.chance(0.7)})",
    ]
    middle = [d.one(between) for _ in range(d.number(0, 2))]
    if any("momentum=None" in text for text in middle):  # its number of batches is a number of Python
        w.program.must_run = False
    layers = ", ".join([f"tr.nn.Linear({n}, {h})", *middle, f"tr.nn.Linear({h}, {k})"])
    a = given(
        w, d.one([f"tr.Tensor(normal({d.number(2, 4)}, {n}))"] * 3 + [f"normal(3, {n})"] * d.may("argument: array"))
    )
    model = w.state("module", lambda: f"tr.nn.Sequential({layers})", "model")
    return model, f"y = {model.text}({a})", k


def tokens(w: Drawing) -> tuple[State, str, int]:
    """Embedding, dropout, a recurrent layer, linear."""
    d = w.d
    h, k, layers = d.number(1, 5), d.number(2, 5), d.one([1, 1, 1, 2])
    both, batch_first = d.chance(0.2), d.chance(0.2)
    options = [f"num_layers={layers}", f"bidirectional={both}", f"batch_first={batch_first}"]
    options += [f"fused={d.chance(0.6)}", f"bias={d.chance(0.8)}"]
    options += ["dropout=0.4"] if layers > 1 and d.chance(0.5) else []
    options += [o for o in ("layer_norm=True", "recurrent_dropout=0.3") if d.chance(0.15)]
    kind = d.one(["RNN", "LSTM", "GRU"])
    tied = not both and d.chance(0.25)
    w.setup(
        f"class Model(tr.nn.Module):\n"
        f"    def __init__(self):\n"
        f"        self.embed = tr.nn.Embedding({k}, {h}{d.one(['', '', ', padding_idx=0'])})\n"
        f"        self.drop = tr.nn.Dropout({d.one(['0.0', '0.3', '0.5'])})\n"
        f"        self.rnn = tr.nn.{kind}({h}, {h}, {', '.join(options)})\n"
        f"        self.head = tr.nn.Linear({h * (1 + both)}, {k})\n"
        + ("        self.head.weight = self.embed.weight\n" if tied else "")
        + "    def forward(self, ids, lengths=None):\n"
        "        x = self.drop(self.embed(ids))\n"
        f"        {d.one(LOOKS)}\n"
        f"        y, state = {d.one(READS)}\n"
        f"        {d.one([*LOOKS, 'y = y + self.rnn(x, lengths=lengths)[0]'])}\n"
        f"{d.one(['', LAST])}"
        "        return self.head(y)"
    )
    T, B = d.number(1, 4), d.number(1, 3)
    some = [f"ids({k}, {T}, {B})", f"tr.Tensor(ids({k}, {T}, {B}))", f"ids({k}, {T}, {B}, dtype='int32')"]
    a = given(w, d.one(some), "ids")
    if d.may("ids out of range", 0.1):
        w.args[-1].fresh = lambda: f"ids({k}, {T}, {B}) + rng.integers(0, 2)"  # type: ignore[attr-defined]
    model = w.state("module", lambda: "Model()", "model")
    steps, batch = (B, T) if batch_first else (T, B)
    some = f", {[d.number(1, steps) for _ in range(batch)]}"
    lengths = lengths_of(w, steps, batch) if d.chance(0.4) else d.one(["", "", some])
    return model, f"y = {model.text}({a}{lengths})", k


def lengths_of(w: Drawing, T: int, B: int) -> str:
    """Lengths of B sequences that are an argument, other ones at each call; some are out of range."""
    some = f"ids({T}, {B}, dtype='{w.d.one(['int64', 'int64', 'int32', 'uint8'])}')"
    form = w.d.one(["{} + {}", "{} + {}", "tr.Tensor({} + {})"])
    a = given(w, form.format(1, some), "ids")
    if w.d.may("lengths out of range", 0.05):
        w.args[-1].fresh = lambda: form.format(w.d.number(0, 1), some)  # type: ignore[attr-defined]
    return ", " + a


def sequence(w: Drawing) -> tuple[State, str, int]:
    d = w.d
    n, h = d.number(1, 3), d.number(1, 4)
    kind = d.one(["RNN", "LSTM", "GRU"])
    a = given(w, f"tr.Tensor(normal({d.number(1, 4)}, {d.number(1, 3)}, {n}))")
    if d.chance(0.3):
        model = w.state("module", lambda: f"tr.nn.{kind}Cell({n}, {h})", "model")
        first = d.one([f"{model.text}({a}[0])", f"{model.text}({a}[-1])"])
        return model, f"h = {first}\nh = h[0] if isinstance(h, tuple) else h\ny = tr.tanh(h) * 2", h
    model = w.state("module", lambda: f"tr.nn.{kind}({n}, {h}, fused={d.chance(0.5)})", "model")
    return model, f"y, h = {model.text}({a})" + d.one(["", f"\ny, h = {model.text}({a}, h)"]), h


def own_module(w: Drawing) -> tuple[State, str, int]:
    """A module of one's own, with a scale, a temperature, an option, a table."""
    d = w.d
    n = d.number(1, 3)
    inner = d.one(
        [
            "x * self.scale",
            "x * self.gain",
            "x @ self.weight",
            "tr.tanh(x @ self.weight) + self.bias",
            "x * self.scale * self.gain",
            "x if self.off else x * self.weight[0]",
            "(x * self.weight[0]) / self.temperature",
            "x * self.table + self.bias",
            "self.f(x) @ self.weight",
            "x * GAIN + self.bias",
            "sum(x * p for p in self.parts)",
            "self.keep(x * self.gain)",
        ]
    )
    if "self.table" in inner and not d.may("outside array"):
        inner = "x * self.gain"
    w.setup("GAIN = 1.5")
    w.setup(
        f"class Own(tr.nn.Module):\n"
        f"    def __init__(self):\n"
        f"        self.weight = tr.nn.Parameter(normal({n}, {n}))\n"
        f"        self.bias = tr.nn.Parameter(np.zeros({n}, 'f'))\n"
        f"        self.gain = tr.nn.Parameter(2.0)\n"
        f"        self.temperature = tr.nn.Parameter([1.5])\n"
        f"        self.parts = [tr.nn.Parameter(normal({n})), tr.nn.Parameter(normal({n}))]\n"
        f"        self.scale, self.off, self.f = 2.0, False, tr.tanh\n"
        f"        self.table = normal({n})\n"
        f"        self.register_buffer('mean', tr.zeros({n}))\n"
        f"    def forward(self, x):\n"
        f"        return {inner}\n"
        f"    def keep(self, y):\n"
        f"        self.last = y.detach() if not hasattr(self, 'last') else (self.last * 0.5 + y).detach()\n"
        f"        return y + self.last"
    )
    if "keep" in inner:
        w.program.must_run = False
    a = given(w, f"tr.Tensor(normal({d.number(1, 3)}, {n}))")
    model = w.state("module", lambda: "Own()", "model")
    line = f"y = {model.text}({a})"
    if d.chance(0.3):
        line += f"\n{model.text}.mean.assign_(0.9 * {model.text}.mean + 0.1 * {a}.mean(axis=0))"
    if d.may("module options", 0.4):
        name, values = d.one(
            [("scale", ["3.0", "-0.0", "1"]), ("off", ["True", "False"]), ("f", ["tr.sigmoid", "tr.relu"])]
        )
        w.states.append(State("flag", "", lambda new: f"{model.text}.{name} = {new}", lambda: d.one(values)))
    return model, line, n


def attention(w: Drawing) -> tuple[State, str, int]:
    d = w.d
    h, heads = d.one([(2, 1), (4, 2), (4, 1)])
    a = given(w, f"tr.Tensor(normal({d.number(1, 3)}, {d.number(1, 2)}, {h}))")
    if d.chance(0.5):
        model = w.state(
            "module", lambda: f"tr.nn.MultiheadAttention({h}, {heads}, dropout={d.one(['0.0', '0.3'])})", "model"
        )
        given_ = d.one([f"{a}, {a}, {a}", f"{a}, {a} * 2, {a}", f"{a}, {a}[::-1], {a}[::-1]"])
        return model, f"y, weights = {model.text}({given_})", h
    options = f"dropout={d.one(['0.0', '0.3'])}, norm_first={d.chance(0.5)}"
    model = w.state("module", lambda: f"tr.nn.TransformerEncoderLayer({h}, {heads}, 3, {options})", "model")
    return model, f"y = {model.text}({a})", h


def convolution(w: Drawing) -> tuple[State, str, int]:
    d = w.d
    c = d.number(1, 2)
    a = given(w, f"tr.Tensor(normal({d.number(1, 2)}, {c}, {d.number(4, 6)}))")
    after = d.one(["", ", tr.nn.MaxPool1d(2)", ", tr.nn.AvgPool1d(2)", ", tr.nn.Tanh()", ", tr.nn.BatchNorm1d(2)"])
    text = f"tr.nn.Sequential(tr.nn.Conv1d({c}, 2, {d.number(1, 3)}, padding={d.number(0, 1)}){after})"
    model = w.state("module", lambda: text, "model")
    return model, f"y = {model.text}({a})", 0


def bare(w: Drawing) -> tuple[State, str, int]:
    """No module: parameters and ops."""
    d = w.d
    n = d.number(1, 3)
    shape = d.one([f"{n}", f"{n}, {n}", "1", ""])
    dtype = d.one(["float32"] * 5 + ["float64", "float16"])
    p = w.state("parameter", lambda: f"tr.nn.Parameter(normal({shape}), dtype='{dtype}')", "w")
    rows = d.number(1, 3)
    rows = n if shape == f"{n}, {n}" else rows
    a = given(w, f"tr.Tensor(normal({rows}, {n}).astype('{dtype}'))")
    texts = [f"y = {a} * {p.text}", f"y = tr.tanh({a} * {p.text}) + {p.text}", f"y = {a} / ({p.text} * {p.text} + 1)"]
    if shape == f"{n}, {n}":
        texts += [f"y = {a} @ {p.text}", f"y = {a} @ {p.text}.T", f"y = tr.linear({a}, {p.text})"]
    return p, d.one(texts), n


# --- what trains it ---------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": [
        "",
        ", momentum=0.9",
        ", momentum=0.9, nesterov=True",
        ", weight_decay=0.1",
        ", momentum=0.5, weight_decay=0.01",
    ],
    "RMSprop": ["", ", momentum=0.9", ", centered=True", ", weight_decay=0.1"],
    "Adam": ["", ", betas=(0.5, 0.9)", ", weight_decay=0.1", ", eps=1e-3"],
    "AdamW": ["", ", weight_decay=0.1"],
}
OWN_OPTIMIZERS = [
    "    count = 0\n    def step(self):\n        super().step()\n        self.count += 1\n"
    "        self.param_groups[0]['lr'] = 0.1 / (1 + self.count)",
    "    def step(self):\n        for p in self._parameters:\n"
    "            if p.grad is not None: p.grad = p.grad * 0.5\n"
    "        super().step()",
    "    def zero_grad(self):\n        for p in self._parameters: p.grad = tr.zeros(*p.shape, dtype=p.dtype)",
    "    def update(self, p, g, moments, step, options):\n        return p - options['lr'] * np.sign(g)",
    "    k = 1.0\n    def step(self):\n        self.k *= 0.5\n        for p in self._parameters:\n"
    "            if p.grad is not None: p.assign_(p.numpy() - self.k * p.grad.numpy())",
]
OWN_SCHEDULES = [
    "    def factor(self, k): return 1.0\n    def step(self):\n        self.steps += 1\n"
    "        self.optimizer.param_groups[0]['lr'] = 0.1 / (1 + self.steps)",
    "    def factor(self, k): return 0.5 ** k",
    "    seen = 0\n    def factor(self, k): return 1 / (1 + self.seen)\n"
    "    def step(self):\n        self.seen += 2\n        super().step()",
]


def parameters_of(model: State) -> str:
    return f"[{model.text}]" if model.kind == "parameter" else f"{model.text}.parameters()"


def an_optimizer(w: Drawing, model: State) -> State:
    d = w.d
    kind = d.one(sorted(OPTIMIZERS))
    options = d.one(OPTIMIZERS[kind])
    lr = d.one(RATES)
    if d.may("own optimiser", 0.15):
        own = d.one(OWN_OPTIMIZERS)
        if "update" in own:
            kind, options = "SGD", ""
        w.setup(f"class OwnRule(tr.optim.{kind}):\n{own}")
        kind = "OwnRule"
    else:
        kind = f"tr.optim.{kind}"
    groups = parameters_of(model)
    if model.kind == "module" and d.chance(0.15):
        groups = f"[{{'params': p, 'lr': 0.1 / (1 + k)}} for k, p in enumerate({groups})]"
    if model.kind == "module" and d.chance(0.1):
        groups = f"{model.text}.named_parameters()"
    return w.state("optimizer", lambda: f"{kind}({groups}, lr={lr}{options})", "opt")


def a_schedule(w: Drawing, optimizer: State) -> State:
    d, o = w.d, optimizer.text
    if d.may("own schedule", 0.25):
        w.setup(f"class OwnSchedule(tr.optim.Schedule):\n{d.one(OWN_SCHEDULES)}")
        return w.state("schedule", lambda: f"OwnSchedule({o})", "sched")
    text = d.one(
        [
            f"tr.optim.StepLR({o}, {d.number(1, 3)}, gamma=0.5)",
            f"tr.optim.CosineAnnealingLR({o}, T_max={d.number(2, 6)}, warmup={d.number(0, 1)})",
            f"tr.optim.LambdaLR({o}, lambda k: 1 / (1 + k))",
            f"tr.optim.ConstantLR({o}, warmup={d.number(0, 4)})",
        ]
    )
    return w.state("schedule", lambda: text, "sched")


def a_rate(w: Drawing) -> str:
    a, x = w.name("a"), w.name("x")
    add_argument(w, Argument(a, x, "number", lambda: w.d.one(RATES), a))
    return a


# --- the step ---------------------------------------------------------------------------------------------------------


def loss_of(w: Drawing, classes: int) -> str:
    """A loss of `y`; its targets are an argument."""
    d = w.d
    shape = w.value("y").shape
    F = "tr.nn.functional"
    if classes > 1 and len(shape) == 3 and d.chance(0.3):
        return labelling_loss(w, *shape)
    if classes > 1 and shape and shape[-1] == classes and d.chance(0.6):
        targets = f"ids({classes}, {', '.join(map(str, shape[:-1])) or '*()'})"
        if d.chance(0.3):
            targets = f"np.where(ids(4, {', '.join(map(str, shape[:-1])) or '*()'}) == 0, -100, {targets})"
        a = given(w, targets, "ids")
        options = d.one(["", "", ", reduction='sum'", ", label_smoothing=0.1", ", reduction='none'"])
        text = f"{F}.cross_entropy(y, {a}{options})"
        if d.chance(0.2):
            text = f"{F}.nll_loss(tr.log_softmax(y, axis=-1), {a})"
        return f"{text}.sum()" if "none" in options else text
    a = given(w, f"tr.Tensor(normal({', '.join(map(str, shape)) or '*()'}).astype('{w.value('y').dtype}'))")
    return d.one(
        [
            f"{F}.mse_loss(y, {a})",
            f"{F}.huber_loss(y, {a})",
            f"{F}.l1_loss(y, {a}, reduction='sum')",
            f"{F}.binary_cross_entropy_with_logits(y, tr.sigmoid({a}))",
            f"tr.square(y - {a}).sum()",
            f"{F}.mse_loss(y, {a}, mask={a} < 1)",
            f"(y * {a}).mean()",
            f"tr.mean((y - {a}) ** 2) + 0.01 * (y * y).sum()",
        ]
    )


def body(
    w: Drawing, model: State, inputs: str, classes: int, optimizer: State, schedule: State | None, rate: str | None
) -> None:
    d, o, lines = w.d, optimizer.text, w.program.body
    module = model.kind == "module"
    if module and d.may("mode inside", 0.08):
        lines.append(f"{model.text}.{d.one(['train', 'eval'])}()")
    if rate:
        lines.append(f"{o}.param_groups[0]['lr'] = {rate}")
    forward = inputs
    if d.chance(0.08) and inputs.startswith("y = ") and "\n" not in inputs:
        forward = f"y = tr.checkpoint(lambda: {inputs[4:]})"
        w.program.must_run = False  # dropout draws from another generator there
    for line in forward.split("\n"):
        if not w.line(line):
            raise AssertionError(f"seed {w.program.seed}: {line}")
    w.line(f"loss = {loss_of(w, classes)}")
    w.program.parameters = ", ".join(a.parameter for a in w.args)  # type: ignore[attr-defined]
    zero = [f"{o}.zero_grad()"] * 5 + ([f"{model.text}.zero_grad()"] if module else [f"{model.text}.grad = None"])
    zero += [f"for p in {parameters_of(model)}: p.grad = None", "pass"]
    lines.append(d.one(zero))
    lines += d.one(
        [["loss.backward()"]] * 6
        + [
            ["(loss * 0.5).backward(retain_graph=True)", "(loss * 0.5).backward()"],
            ["loss.backward(retain_graph=True)", "loss.backward()"],
        ]
    )
    lines += clip(w, model, o)
    lines += update(w, model, optimizer, schedule)
    results = [
        "loss",
        "loss.detach()",
        "loss, y.detach()",
        "{'loss': loss, 'lr': LR}",
        "None",
        "[loss, NORM]",
        "loss, GRAD",
    ]
    text = d.one(
        [
            r
            for r in results
            if ("NORM" not in r or any("norm =" in x for x in lines)) and ("LR" not in r or d.may("rate read"))
        ]
    )
    first = model.text if not module else f"next(iter({model.text}.parameters()))"
    lines.append(
        "return "
        + text.replace("LR", f"{o}.param_groups[0]['lr']").replace("NORM", "norm").replace("GRAD", f"{first}.grad")
    )


def labelling_loss(w: Drawing, T: int, B: int, C: int) -> str:
    """`ctc_loss` of `y`: targets of two or three labels, or fewer, and steps that may be too few for them."""
    d, S = w.d, w.d.number(0, 3)
    some = f"ids({C - 1}, {B}, {S}, dtype='{d.one(['int64', 'int64', 'int32'])}')"
    targets = given(w, f"1 + {some}", "ids")
    if d.may("targets that are blank", 0.05):
        w.args[-1].fresh = lambda: f"{d.number(0, 1)} + {some}"  # type: ignore[attr-defined]
    steps = f"{[T] * B}" if d.chance(0.3) else given(w, f"ids({T + 1}, {B})", "ids")
    counts = f"{[d.number(0, S) for _ in range(B)]}" if d.chance(0.3) else given(w, f"ids({S + 1}, {B})", "ids")
    options = d.one(["", ", reduction='sum'", ", zero_infinity=True", ", zero_infinity=True"])
    return f"tr.nn.functional.ctc_loss(tr.log_softmax(y, axis=-1), {targets}, {steps}, {counts}{options})"


def clip(w: Drawing, model: State, o: str) -> list[str]:
    d, ps = w.d, parameters_of(model)
    if d.chance(0.5):
        return []
    if d.may("except", 0.2):
        return [
            f"try:\n    norm = tr.optim.clip_grad_norm_({ps}, {d.one(['0.5', '1.0', '100.0'])})\n"
            f"except tr.errors.NonFiniteError:\n"
            f"    {d.one(['return loss', 'norm = 0.0', f'{o}.zero_grad(); norm = -1.0'])}"
        ]
    return [
        d.one(
            [
                f"norm = tr.optim.clip_grad_norm_({ps}, {d.one(['0.5', '1.0', '0.01'])})",
                f"norm = tr.optim.clip_grad_norm_({ps}, 1.0, error_if_nonfinite=False)",
                f"tr.optim.clip_grad_value_({ps}, 0.2)",
            ]
        )
    ]


def update(w: Drawing, model: State, optimizer: State, schedule: State | None) -> list[str]:
    d, o = w.d, optimizer.text
    p = model.text if model.kind == "parameter" else f"list({model.text}.parameters())[0]"
    lines = [f"{o}.step()"]
    if d.may("own rule", 0.12):
        rate = d.one(["0.1", f"{o}.param_groups[0]['lr']"] if w.d.may("rate read") else ["0.1"])
        lines = d.one(
            [
                [
                    f"with tr.no_grad():\n    for p in {parameters_of(model)}:\n"
                    f"        if p.grad is not None: p.assign_(p - {rate} * p.grad)"
                ],
                [f"q = {p}", f"if q.grad is not None: q.assign_((q - {rate} * q.grad).detach())"],
                [f"q = {p}", "q.grad = q.grad * 2 if q.grad is not None else None", f"{o}.step()"],
            ]
        )
    if d.may("average of weights", 0.1):
        ema = w.state("tensor", lambda: f"tr.Tensor({p}.numpy())", "ema")
        lines.append(f"{ema.text}.assign_(0.9 * {ema.text} + 0.1 * {p}.detach())")
    if schedule is not None:
        lines.append(f"{schedule.text}.step()")
    if d.may("condition on a rate", 0.04):
        w.program.must_run = False
        lines.append(f"if {o}.param_groups[0]['lr'] < 0.05: loss = loss * 2")
    return lines
