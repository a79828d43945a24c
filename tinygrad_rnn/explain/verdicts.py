"""What the flow of a gradient through a recurrent layer means, in a sentence: what becomes of it, why, what helps."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from tinygrad_rnn.explain import text

if TYPE_CHECKING:
    from tinygrad_rnn.explain.flow import LayerFlow

VANISHES, EXPLODES = 0.01, 100.0
"""Of the gradient at the last step so much arrives at the first: less, and it vanishes, more, and it explodes."""
FADES = 0.9  # of a gradient that a step makes smaller than that, less than 1 % is left after 44 steps
SLOWLY = 0.1  # so little is not held, even where each step has left more than `FADES`
SATURATED = 0.7  # slopes below it are worth a word


def word(flow: LayerFlow) -> str:
    """What the gradient does: "vanishes", "explodes", "fades", "fades slowly" or "holds"."""
    if flow.state != "holds":
        return flow.state
    if flow.arrives ** (1 / flow.distance) < FADES:
        return "fades"
    return "fades slowly" if flow.arrives < SLOWLY else "holds"


def sentence(flow: LayerFlow) -> str:
    """The verdict, with its reasons and what helps."""
    if flow.state == "none":
        return f"{flow.title}: nothing can be said: {_nothing(flow)}."
    factor, does = flow.arrives ** (1 / flow.distance), word(flow)
    over = f"{flow.distance} step{'s' * (flow.distance > 1)} before{_of(flow)}"
    part = text.share(flow.arrives) + " of it" * (flow.arrives < 1)
    what = f"{part} arrives at the first, {over} ({factor:.2g} a step)"
    if does == "vanishes":
        what += f", and 1 % or more is left for {flow.reach} step{'s' * (flow.reach != 1)}"
    elif does.startswith("fades"):
        steps = math.ceil(math.log(VANISHES, factor))
        what += f", so that less than 1 % would be left after {steps} steps"
    return f"{flow.title}: the gradient at the last step {does}: {what}{_advice(flow)}."


def longest(flow: LayerFlow) -> tuple[int, int]:
    """How many of the sequences are as long as the longest, and how many there are."""
    steps = np.bincount(flow.chain.b)
    return int((steps == steps.max()).sum()), int((steps > 0).sum())


def _of(flow: LayerFlow) -> str:
    """Of which sequences it is the verdict, where that is not all of them."""
    some, count = longest(flow)
    if some == count:
        return ""
    return f", in the {f'{some} longest' if some > 1 else 'longest'} of {count} sequences"


def _nothing(flow: LayerFlow) -> str:
    """Why nothing can be said, and what to do."""
    if not flow.distance:
        return "there is one step only"
    there = [t for t in flow.order if flow.states[t] > 0]
    if not there:
        return "no gradient comes to any of its steps; does the loss depend on what it returns?"
    steps = f"x[:{there[-1] + 1}]" if flow.order[0] == 0 else f"x[{there[-1]}:]"
    return f"no gradient comes to its last step, but to t = {there[-1]}: give it the steps up to that alone, {steps}"


# --- what helps -----------------------------------------------------------------------------------


def _advice(flow: LayerFlow) -> str:
    if flow.state == "holds":
        return ""
    if flow.state == "explodes":
        helps = ["tr.optim.clip_grad_norm_", _smaller(flow)]
        return f"; what helps: {text.listed(helps, 'and')}"
    why, helps = _rnn(flow) if flow.kind == "RNN" else _gated(flow)
    helps += [] if flow.chain.layer.layer_norm else ["layer_norm=True"]
    return f"{why}; what helps: {text.listed(helps, 'or')}"


def _orthogonal(flow: LayerFlow) -> float:
    """The norm of W_hh where all its singular values are nearly the same, as those of an orthogonal matrix; else 0."""
    sizes = np.linalg.svd(flow.chain.W.numpy(), compute_uv=False)
    return float(sizes[0]) if sizes[-1] > 0.9 * sizes[0] else 0.0


def _smaller(flow: LayerFlow) -> str:
    norm = _orthogonal(flow) if flow.kind == "RNN" else 0.0
    if norm:
        return f"a smaller W_hh (its norm is {norm:.2g})"
    return "a smaller or orthogonal W_hh (tr.nn.init.orthogonal_)"


def _rnn(flow: LayerFlow) -> tuple[str, list[str]]:
    """A step multiplies the gradient by W_hh and the slopes f': why it vanishes, and what helps."""
    name, W = flow.chain.layer.nonlinearity, flow.chain.W.numpy()
    norm, slope = _orthogonal(flow), float(flow.slopes.mean())
    if not norm:
        helps = ["W_hh orthogonal at first (tr.nn.init.orthogonal_)"]
    elif norm < 0.99:
        helps = [f"a larger W_hh (it is orthogonal but for its norm, {norm:.2g})"]
    else:
        helps = []
    why = ""
    if slope < SATURATED or not helps:
        but = "W_hh is orthogonal, but " if norm >= 0.99 else ""
        why = f"; {but}the slopes f' of {name} are {slope:.2g} in the mean"
        if name == "relu":
            diagonal = np.array_equal(W, np.diag(np.diag(W)))
            helps.append("a larger bias (units at 0 pass nothing on)" if diagonal else "W_hh the identity at first")
        else:
            helps += ["smaller inputs or weights of the input"] if name == "tanh" else ["tanh (its slope is up to 1)"]
            helps.append("relu")
    return why, [*helps, "nn.LSTM", "nn.GRU"]


def _gated(flow: LayerFlow) -> tuple[str, list[str]]:
    """The gate f of an LSTM, z of a GRU, says how much of the state a step keeps: why it vanishes, and what helps."""
    gate, bias = {
        "LSTM": ("f", "a forget_bias"),
        "GRU": ("z", "a bias of the update gate z"),
    }[flow.kind]
    with suppress(ValueError):  # a layer with other equations
        kept = float(flow.chain.gates()[gate].mean())
        needed = VANISHES ** (1 / flow.distance)
        why = f"; {gate} is {kept:.2g} in the mean"
        if kept >= needed:
            return f"{why}, open enough", ["smaller inputs or weights (they saturate what comes after the gate)"]
        more = math.ceil(10 * (_logit(needed) - _logit(kept))) / 10
        return f"{why}, and {needed:.2g} would keep 1 %", [f"{bias} larger by {more:g}"]
    return "", [f"{bias} that is larger (it keeps more)"]


def _logit(p: float) -> float:
    """The number whose sigmoid is p."""
    p = max(p, 1e-12)
    return math.log(p / (1 - p))
