"""check_recurrent: does a recurrent layer or cell obey the laws of its kind, and are its gradients right?

A layer is looked at from outside: it is run on whole batches, parts of them, other orders and other lengths, and what
comes out must fit together, in values and in gradients, which are compared with numeric derivatives, too.

The laws do not need Hypothesis: `check_case` checks all of them on one case. `check_recurrent` searches.
"""

from __future__ import annotations

from tinygrad_rnn.testing import recurrent_gradients as gradients
from tinygrad_rnn.testing import recurrent_laws as laws
from tinygrad_rnn.testing.judge import Counts, Law, explore, hypothesis_strategies, judge
from tinygrad_rnn.testing.runs import RecurrentExample
from tinygrad_rnn.testing.subject import LONG, VERY_LONG, Factory, Sequences, Subject

__all__ = ["LAWS", "check_case", "check_recurrent"]

MANY = 32  # sequences of a batch, beyond which few laws are asked

# Whatever Hypothesis draws, these are checked: each law has one that it applies to, small ones first.
CASES = (
    Sequences(T=1, B=1, initial=False),
    Sequences(T=2, B=2),
    Sequences(T=4, B=3, lengths=(2, 4, 1)),
    Sequences(T=0, B=2),
    Sequences(T=3, B=0),
    Sequences(T=3, B=11, scale=8.0),
    Sequences(T=2, B=67, pulled="last"),
    Sequences(T=LONG, B=2, lengths=(LONG, 27), pulled="state"),
    Sequences(T=VERY_LONG, B=1, pulled="last"),
)


def check_recurrent(
    layer_factory: Factory,
    *,
    examples: int | None = None,
    input_size: int | None = None,
    cell: bool | None = None,
) -> Counts:
    """Prove a recurrent layer or a cell: all laws that apply, on fixed cases and on random ones that Hypothesis draws.

    Arguments:
        layer_factory: makes the layer, a `tr.nn.Module`; it is made anew, in float64, for every case.
        examples: random cases; as many as the active Hypothesis profile says unless given; 0: the fixed ones alone.
        input_size: where the layer has no attribute of this name and its weights' shapes do not tell.
        cell: whether it is a cell, where trying does not tell.

    Returns how many cases each law was checked on: one that never applied is not there.

    Raises:
        LawError: an AssertionError whose `law` names the law that is broken, and whose message says at which step,
            sequence and entry, of the smallest case found.
        TypeError: what the factory makes can be called neither as a layer nor as a cell.

    What is expected of a layer:
        `forward(x, hx=None)` returns `output, state`. x is (T, B, I), output (T, B, O); both (B, T, ...) if the layer
        has `batch_first = True`. A state, given and returned alike, is a Tensor, or tuples, lists and dicts of Tensors
        of any shapes, one axis of which is the batch; one of integers is carried along and has no gradient. State and
        weights are all that a layer has: it keeps nothing between calls that changes what a call gives.
    and of a cell:
        `forward(x, hx=None)` with x (B, I) returns the next state, a Tensor (B, H) or a tuple of those; the first is
        its output. The kit unrolls it.

    Every gradient (parameters, x, initial states) is compared with a numeric derivative, in first and second order,
    and that of x for each step alone, over up to 40 steps, and for some steps of 137. So it is, in first order, for
    inputs 8 times as large, in a batch of 67, in both modes, and where some weights, x or the states require none. The
    complex step judges, to 1e-9; where it does not apply (abs is not analytic) a difference does, to 1e-5 over a few
    steps, and over many the run in chunks. Runs are compared with each other: batches with their sequences alone and
    in other orders, a run in chunks with the whole, forwards and backwards. More is checked of

        a parameter `lengths` of forward   sequences of different lengths, in any order. The output past an end is 0,
                                           the state is each sequence's own last one, and nothing is read past it
        bidirectional = True               halves of the output, weights `X` and `X_reverse`, states (2 * layers, B,
                                           H) as in `tr.nn.RNN`. Causality and chunks do not apply
        fused = True or False              the same with both
        dropout                            drawn from the library's generator, in training mode

    Empty batches and sequences, and x (T, I) without a batch, are checked where the layer takes them.

    What it cannot see: an equation that is not the one you meant; what happens after more than 137 steps, or on a
    condition that no case meets; the derivative at a kink; a mistake within rounding, or in an entry that is much
    smaller than the rest of its step.

    >>> from tinygrad_rnn import nn
    >>> laws = check_recurrent(lambda: nn.GRUCell(2, 3), examples=2)
    >>> laws["per-step gradients"] >= 4, laws["lengths"]
    (True, 0)
    """
    strategies = hypothesis_strategies("check_recurrent")
    name = getattr(layer_factory, "__name__", type(layer_factory).__name__)
    return explore(
        f"check_recurrent of {name}",
        strategies.sequences(),
        lambda case: check_case(layer_factory, case, input_size=input_size, cell=cell),
        examples,
        first=CASES,
    )


def check_case(
    layer_factory: Factory, case: Sequences, *, input_size: int | None = None, cell: bool | None = None
) -> Counts:
    """All laws of `check_recurrent` that apply, on one case, without Hypothesis: {law: 1} for those that did.

    Raises LawError.

    >>> from tinygrad_rnn import nn
    >>> found = check_case(lambda: nn.GRU(3, 4), Sequences(T=3, B=2))
    >>> "causality" in found, "reversal" in found
    (True, False)
    """
    example = RecurrentExample(Subject(layer_factory, case.seed, input_size, cell), case)
    return judge(_laws_for(case), example)


def _laws_for(case: Sequences) -> tuple[Law[RecurrentExample], ...]:
    """The laws that are asked about a case: of the largest, those that small ones cannot break."""
    if not case.T or not case.B:
        return OF_NOTHING
    if case.T > LONG:
        return OF_MANY_STEPS
    return OF_SIZE if case.scale != 1 or case.B > MANY else LAWS


OF_NOTHING: tuple[Law[RecurrentExample], ...] = (laws.empty,)  # without a step or without a sequence

OF_MANY_STEPS: tuple[Law[RecurrentExample], ...] = (
    laws.shape,
    gradients.per_step,
    laws.chunking,
    laws.modes,
)

OF_SIZE: tuple[Law[RecurrentExample], ...] = (laws.shape, gradients.gradient, laws.modes)  # large values, many rows

LAWS: tuple[Law[RecurrentExample], ...] = (
    laws.shape,
    laws.dtype,
    laws.repeats,
    laws.no_mutation,
    laws.no_aliasing,
    gradients.gradient,
    laws.batch_permutation,
    laws.batch_of_singles,
    gradients.per_step,
    laws.zero,
    laws.causality,
    laws.lengths,
    laws.padding,
    laws.chunking,
    laws.truncation,
    laws.reversal,
    laws.fused,
    laws.unbatched,
    laws.float32,
    laws.frozen,
    laws.modes,
    gradients.dropout,
    gradients.second_derivative,
)
