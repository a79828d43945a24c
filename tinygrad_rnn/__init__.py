"""Reverse-mode autograd for recurrent networks, from scratch: `import tinygrad_rnn as tr`.

Importing this loads NumPy and nothing heavier; `tr.nn`, `tr.optim` and the rest load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinygrad_rnn import errors
from tinygrad_rnn.kernels.cuda import cuda_kernels_enabled, enable_cuda_kernels
from tinygrad_rnn.kernels.switch import enable_numba, numba_enabled

from tinygrad_rnn.tensor.tensor import Tensor  # isort: skip  (first: the ops and Tensor need each other)
from tinygrad_rnn.tensor.backend import keep_freed_memory, synchronize
from tinygrad_rnn.tensor.checkpoint import checkpoint
from tinygrad_rnn.tensor.creation import arange, full, ones, ones_like, rand, randn, zeros, zeros_like
from tinygrad_rnn.tensor.functional import grad, grad_of, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from tinygrad_rnn.tensor.fused import enable_fused, fused
from tinygrad_rnn.tensor.mode import detect_anomaly, is_recording, no_grad
from tinygrad_rnn.tensor.op import op
from tinygrad_rnn.tensor.ops import *  # noqa: F403
from tinygrad_rnn.tensor.ops import __all__ as _ops
from tinygrad_rnn.tensor.random import manual_seed

if TYPE_CHECKING:
    from tinygrad_rnn import data as data
    from tinygrad_rnn import decoding as decoding
    from tinygrad_rnn import estimators as estimators
    from tinygrad_rnn import explain as explain
    from tinygrad_rnn import kernels as kernels
    from tinygrad_rnn import language as language
    from tinygrad_rnn import nn as nn
    from tinygrad_rnn import optim as optim
    from tinygrad_rnn import testing as testing
    from tinygrad_rnn import training as training
    from tinygrad_rnn.compiler import compile as compile

__version__ = "0.1.0"

_LAZY = ("data", "decoding", "estimators", "explain", "kernels", "language", "nn", "optim", "testing", "training")

__all__ = [
    "Tensor",
    "arange",
    "checkpoint",
    "compile",
    "cuda_kernels_enabled",
    "detect_anomaly",
    "enable_cuda_kernels",
    "enable_fused",
    "enable_numba",
    "errors",
    "full",
    "fused",
    "grad",
    "grad_of",
    "hessian",
    "hvp",
    "is_recording",
    "jacobian",
    "jvp",
    "keep_freed_memory",
    "manual_seed",
    "no_grad",
    "numba_enabled",
    "ones",
    "ones_like",
    "op",
    "rand",
    "randn",
    "synchronize",
    "value_and_grad",
    "vjp",
    "zeros",
    "zeros_like",
    *_ops,
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "compile":
        return importlib.import_module(f"{__name__}.compiler").compile
    raise importlib.import_module(f"{__name__}.pytorch").no_name(__name__, name)


def __dir__() -> list[str]:
    from importlib.util import find_spec

    here = find_spec("sklearn")  # else whoever looks at all that there is gets an error
    return sorted([*__all__, *(name for name in _LAZY if name != "estimators" or here)])
