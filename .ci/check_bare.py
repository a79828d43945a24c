"""Run where only the wheel and its hard dependencies are: what is promised without extras imports."""

from __future__ import annotations

import importlib
import importlib.resources
import pkgutil
import sys

# The modules that need an extra, and what they miss without it.
NEEDS_EXTRA = {
    "tinygrad_rnn.estimators": ("sklearn", "sklearn.base"),
    "tinygrad_rnn.kernels.compiled_stages": ("llvmlite",),
    "tinygrad_rnn.kernels.numba_machine": ("numba", "llvmlite"),
    "tinygrad_rnn.kernels.numba_object": ("numba", "llvmlite"),
    "tinygrad_rnn.kernels.numba_products": ("numba", "llvmlite"),
    "tinygrad_rnn.kernels.numba_stages": ("numba", "llvmlite"),
    "tinygrad_rnn.kernels.registers": ("llvmlite",),
    "tinygrad_rnn.testing.strategies": ("hypothesis",),
}

before = set(sys.modules)
import tinygrad_rnn  # noqa: E402 (what it loads is counted from here)

added = {name.split(".")[0] for name in set(sys.modules) - before}
heavy = added - set(sys.stdlib_module_names) - {"numpy", "tinygrad_rnn"}
if heavy:
    sys.exit(f"import tinygrad_rnn also loads {', '.join(sorted(heavy))}")

names = [module.name for module in pkgutil.walk_packages(tinygrad_rnn.__path__, "tinygrad_rnn.")]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in NEEDS_EXTRA.get(name, ()):
            raise
for name in tinygrad_rnn.__all__:
    getattr(tinygrad_rnn, name)

if not importlib.resources.files(tinygrad_rnn).joinpath("py.typed").is_file():
    sys.exit("the wheel has no py.typed")
from tinygrad_rnn.explore.one_file import one_file  # noqa: E402 (after the modules have been counted)
from tinygrad_rnn.explore.settings import Settings  # noqa: E402 (as above)

if "<canvas" not in one_file([Settings(steps=2)]):
    sys.exit("the wheel has no page to play with")
from tinygrad_rnn.kernels import cuda  # noqa: E402 (as above)

if "__global__" not in cuda.source("recurrent"):
    sys.exit("the wheel has no CUDA kernels")
print(f"tinygrad_rnn {tinygrad_rnn.__version__}: {len(names)} modules import without extras")
