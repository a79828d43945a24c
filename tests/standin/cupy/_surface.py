"""Which names, methods and arguments CuPy has, as the list beside this file says.

`python tests/standin/cupy/_surface.py` writes the list anew where the real CuPy can be imported, which needs its wheel
and no GPU. A line is `kind name(arguments)`: `f` a function, `u` a ufunc, `m` a method and `a` an attribute of an
array, `n` any other name. Defaults are left out but for whether there is one: NumPy has the values.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("surface.txt")
MODULES = ("", "linalg", "cuda", "cuda.runtime")  # whose names are listed


@cache
def surface() -> dict[tuple[str, str], str]:
    """{(kind, name): arguments}, of every line."""
    found = {}
    for line in LIST.read_text(encoding="utf-8").splitlines()[1:]:
        kind, name, arguments = re.fullmatch(r"(\w) ([\w.]+)(.*)", line).groups()  # type: ignore[union-attr]
        found[kind, name] = arguments
    return found


@cache
def version() -> str:
    """The version of CuPy that the list is of."""
    return LIST.read_text(encoding="utf-8").split()[1]


@cache
def names() -> frozenset[str]:
    """Every public name of the namespace and of the modules in it, with a dot."""
    return frozenset(name for kind, name in surface() if kind in "fun")


@cache
def arguments(kind: str, name: str) -> tuple[int | None, frozenset[str] | None]:
    """How many arguments a call may give by position, and which by name; None where any."""
    positional: int | None = 0
    named: set[str] | None = set()
    only_named = False
    for word in filter(None, re.split(r",\s*", surface()[kind, name][1:-1])):
        word = word.removesuffix("=")
        if word == "*":
            only_named = True
        elif word.startswith("**"):
            named = None
        elif word.startswith("*"):
            positional, only_named = None, True
        else:
            if named is not None:
                named.add(word)
            if not only_named and positional is not None:
                positional += 1
    return positional, None if named is None else frozenset(named)


def check_call(kind: str, name: str, positional: int, named: Any) -> None:
    """Raise what CuPy raises for arguments that it does not have."""
    if (kind, name) not in surface():
        what = "module 'cupy'" if kind in "fun" else "'cupy.ndarray' object"
        raise AttributeError(f"{what} has no attribute {name!r}")
    if kind == "u":
        most, known = None, frozenset({"out", "dtype", "casting", "where"})
    else:
        most, known = arguments(kind, name)
    if most is not None and positional > most:
        raise TypeError(f"{name}() takes {most} positional arguments but {positional} were given")
    for argument in named:
        if known is not None and argument not in known:
            raise TypeError(f"{name}() got an unexpected keyword argument {argument!r}")


def _arguments(signature: str) -> str:
    """`(self, axis=None, int b=1)` as `(axis=,b=)`."""
    words = []
    for word in re.split(r",\s*(?![^(]*\))", signature[1 : signature.rindex(")")]):
        name, default, _ = word.strip().partition("=")
        name = name.split(":")[0].split()[-1] if name.strip() else ""
        if name and name not in ("self", "/"):
            words.append(name + ("=" if default else ""))
    return f"({','.join(words)})"


def _line(name: str, thing: Any) -> str:
    if type(thing).__name__ == "ufunc":
        return f"u {name}({thing.nin},{thing.nout})"
    if not callable(thing) or inspect.isclass(thing):
        return f"n {name}"
    try:
        return f"f {name}{_arguments(str(inspect.signature(thing)))}"
    except ValueError:
        found = re.match(rf"{name.split('.')[-1]}(\([^\n]*\))", thing.__doc__ or "")
        return f"f {name}{_arguments(found.group(1)) if found else '(*args,**kwargs)'}"


def write() -> None:
    """Write the list from the CuPy that is imported here."""
    import cupy

    lines = []
    for module in MODULES:
        holder = cupy
        for part in filter(None, module.split(".")):
            holder = getattr(holder, part)
        public = [n for n in dir(holder) if n[0] != "_" and n != "annotations" and not (module and n[0].isupper())]
        public += ["Device", "Event", "Stream"] if module == "cuda" else []
        lines += [_line(f"{module}.{n}".lstrip("."), getattr(holder, n)) for n in public]
    for name in (n for n in dir(cupy.ndarray) if n[0] != "_"):
        found = re.match(r"[\w.]*\.?" + name + r"(\([^\n]*\))", getattr(cupy.ndarray, name).__doc__ or "")
        lines.append(f"m {name}{_arguments(found.group(1))}" if found else f"a {name}")
    head = f"CuPy {cupy.__version__} (wheel cupy-cuda12x): what it has, and what each takes"
    LIST.write_text("\n".join([head, *sorted(lines)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
