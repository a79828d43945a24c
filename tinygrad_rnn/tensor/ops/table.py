"""How a line of the derivative table is made: `op`, with options given as NumPy's are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, cast

from tinygrad_rnn.tensor import op as engine
from tinygrad_rnn.tensor.backend import Array
from tinygrad_rnn.tensor.op import Vjp
from tinygrad_rnn.tensor.tensor import Tensor

P = ParamSpec("P")


def op(
    *vjps: Vjp | None, joint: Vjp | None = None, promote: bool = False
) -> Callable[[Callable[P, Array]], Callable[P, Tensor]]:
    """`tr.op`, where what follows the arrays are options, by name or by position: `sum(x, 0)` is `sum(x, axis=0)`.

    A leading underscore, which marks the inner op of a public function, is no part of the op's name in messages.
    """

    def decorate(forward: Callable[P, Array]) -> Callable[P, Tensor]:
        n = len(vjps)
        forward.__name__ = forward.__name__.strip("_")
        parameters = list(inspect.signature(forward).parameters.values())
        options = [] if joint else [p.name for p in parameters[n:]]
        signature = inspect.Signature(
            [p.replace(kind=p.KEYWORD_ONLY) if p.name in options else p for p in parameters]
        )
        forward.__signature__ = signature  # type: ignore[attr-defined]
        call: Any = engine.op(*vjps, joint=joint, promote=promote)(forward)
        if not options:
            return cast("Callable[P, Tensor]", call)

        @wraps(forward)
        def call_with_options(*given: Any, **named: Any) -> Any:
            if len(given) > n:
                if len(given) > n + len(options):
                    raise TypeError(
                        f"{forward.__name__} takes {n + len(options)} arguments, but {len(given)} were given"
                    )
                named.update(zip(options, given[n:], strict=False))
            return call(*given[:n], **named)

        call_with_options.op = call.op  # type: ignore[attr-defined]
        return cast("Callable[P, Tensor]", call_with_options)

    return decorate
