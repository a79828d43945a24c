"""A plugin of pytest, `-p tests.standin.on_cuda`: every new tensor is on "cuda" unless it is told where to be.

So tests that know of no device run on the stand-in. What a test passes from the host lands on the device, as if its
author had written `device="cuda"` each time; and ids are checked at once, as the tests expect of the host.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def everything_on_cuda() -> None:
    """Have new tensors be on "cuda" from now on."""
    import tinygrad_rnn  # noqa: F401
    from tinygrad_rnn.tensor import backend, device

    device.MOST = 1  # checks that are put off
    plain = backend.asarray

    def asarray(data: Any, dtype: Any = None, device: str | None = None) -> Any:
        x = plain(data, dtype, device)
        return backend.to_device(x, "cuda") if device is None and type(x) is np.ndarray else x

    for name, module in list(sys.modules.items()):
        if name.startswith("tinygrad_rnn") and getattr(module, "asarray", None) is plain:
            module.asarray = asarray  # type: ignore[attr-defined]


def pytest_configure() -> None:
    everything_on_cuda()
