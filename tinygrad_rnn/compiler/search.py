"""What a function can get at without being called: its guard, which sees whether any of that is another thing now."""

from __future__ import annotations

import argparse
import array
import collections
import contextvars
import dataclasses
import functools
import inspect
import io
import itertools
import operator
import os
import random
import re
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.compiler.arrays import flat, refill
from tinygrad_rnn.compiler.found import give_back, hooks_of
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.graph import Node
from tinygrad_rnn.tensor.mode import Changes
from tinygrad_rnn.tensor.tensor import Tensor

LIBRARIES = frozenset({"tinygrad_rnn", "numpy"}) | sys.stdlib_module_names - {"__main__"}
PLAIN = (int, float, str, bytes, complex, type(None), np.generic, np.dtype)
SEQUENCES = (tuple, list, set, frozenset, collections.deque, bytearray)
NUMBERS = (memoryview, array.array)  # which are watched as those of a small array
HOLDERS = (types.SimpleNamespace, argparse.Namespace, threading.local)  # of Python's own: of what a user puts there
MOST = 10_000  # entries of a container that is watched
BYTES = 65_536  # of an array that is watched; of a larger one a replay reads what NumPy's calls were given
MISSING = object()
WHOLE = frozenset({"vars", "__dict__", "getattr", "attrgetter"})  # names of what reads any attribute
# Methods that Python calls where no name is seen, as for x + y.
IMPLICIT = re.compile(r"__(?!init__|new__|repr__|del__|init_subclass__|class_getitem__|getstate__|reduce).*__")


class Place(NamedTuple):
    """Where a function finds something: a variable, an attribute, an entry of a dictionary; and what it found."""

    read: Callable[[str, Any], Any]  # what is there now under the name, or else the second argument
    name: str
    value: Any


class Generator(NamedTuple):
    """Random numbers that a step may draw by itself: how far they have come, and how they go back there."""

    state: Callable[[], Any]
    go_to: Callable[[Any], Any]


class Guard:
    """The places that a step may look at, found before it runs, and what was there.

    These are its closure and its globals, those of the functions that it calls, and of their objects the attributes
    that the code names; what containers hold; all that modules hold; of tensors the hooks, and whether they are frozen.
    A change of those is counted, so that the guard need only look at the count.
    """

    def __init__(self, step: Any, args: Any) -> None:
        self.places: list[Place] = []
        self.containers: list[tuple[Any, tuple[Any, ...]]] = []
        self.modules: list[tuple[Module, type, dict[str, Any]]] = []  # with their classes and attributes
        self.nodes: list[tuple[Tensor, Node | None, Any]] = []  # of the tensors, with their hooks
        self.tensors: dict[int, Tensor] = {}  # that were found, by their ids
        self.arrays: list[tuple[HostArray, bytes]] = []  # and what they hold
        self.numbers: list[tuple[Any, bytes]] = []  # those of Python and of C
        self.objects: list[tuple[dict[str, Any], dict[str, Any]]] = []  # the attributes of objects, as they were
        self.generators: list[Generator] = []  # that were found
        self.count = Changes.count
        Search(self).go([step, *given_objects(args)])
        self.divide()

    def divide(self) -> None:
        """Tell the variables of closures, which are read faster, from the other places."""
        self.cells: list[tuple[types.CellType, Any]] = []
        self.others: list[Place] = []
        for p in self.places:
            if isinstance(p.read, functools.partial) and p.read.func is in_cell and p.value is not MISSING:
                self.cells.append((p.read.args[0], p.value))
            else:
                self.others.append(p)

    def fits(self) -> bool:
        """Whether everything is what it was."""
        if not (self.places_fit() and self.contents_fit()):
            return False
        if self.count != Changes.count:
            if self.changed_module() is not None:
                return False
            self.count = Changes.count
        return True

    def places_fit(self) -> bool:
        """Whether the same is found in all places."""
        try:
            for cell, value in self.cells:
                if (now := cell.cell_contents) is not value and not same(now, value):
                    return False
        except ValueError:  # the variable was deleted
            return False
        missing = MISSING
        for read, name, value in self.others:
            if (now := read(name, missing)) is not value and not same(now, value):
                return False
        return True

    def contents_fit(self) -> bool:
        """Whether containers and arrays hold the same."""
        for container, items in self.containers:
            if not unchanged(container, items):
                return False
        return all(numbers.tobytes() == values for numbers, values in itertools.chain(self.arrays, self.numbers))

    def changed_module(self) -> Any:
        """A module that is another now, or a tensor with other hooks or frozen; None if there is none."""
        for module, kind, held in self.modules:
            now, usual = vars(module), type(module)
            if usual is not kind:
                return module
            for name in now.keys() | held.keys():
                if name in held and now.get(name, MISSING) is held[name]:
                    continue
                a, b = (values.get(name, getattr(usual, name, MISSING)) for values in (held, now))
                if a is not b and not same(a, b):
                    return module
        return next((t for t, node, hooks in self.nodes if t._node is not node or hooks_of(node) != hooks), None)

    def changed(self) -> str:
        """What is another thing now, in words."""
        for read, name, value in self.places:
            if (now := read(name, MISSING)) is not value and not same(now, value):
                return f"{name!r}"
        for container, items in self.containers:
            if not unchanged(container, items):
                return f"what a {type(container).__name__} holds"
        for numbers, values in itertools.chain(self.arrays, self.numbers):
            if numbers.tobytes() != values:
                return f"what {described(numbers)} holds"
        return f"an attribute of {type(self.changed_module()).__name__}"

    def restore(self) -> None:
        """Have places and containers hold what they held, as far as they can be written to."""
        for read, name, value in self.places:
            if read(name, MISSING) is not value:
                owner = read.args[0] if isinstance(read, functools.partial) else getattr(read, "__self__", None)
                put(owner, name, value)
        for container, items in self.containers:
            if not unchanged(container, items):
                refill(container, items)
        for own, before in self.objects:
            for name in own.keys() - before.keys():
                del own[name]
            own.update(before)
        for tensor, node, hooks in self.nodes:
            give_back(tensor, node, hooks)

    def moving(self, used: Any) -> str:
        """What the step has changed itself that it may look at, in words: what it does hangs on how often it ran."""
        for _, name, value, now in self.seen_anew():
            if kept(value, now, used):
                return f"{name!r}"
        for container, items in self.containers:
            if not unchanged(container, items) and any(kept(*pair, used) for pair in replaced(container, items)):
                return f"what a {type(container).__name__} holds"
        for numbers, values in itertools.chain(self.arrays, self.numbers):
            if numbers.tobytes() != values:
                return f"what {described(numbers)} holds"
        return ""

    def seen_anew(self) -> Iterator[tuple[Any, str, Any, Any]]:
        """The places and the attributes of modules where another thing is now: of whom, its name, what was and is."""
        for read, name, value in self.places:
            if (now := read(name, MISSING)) is not value and not same(now, value):
                yield read, name, value, now
        for module, _, held in self.modules:
            for name, value in held.items():
                if (now := vars(module).get(name, MISSING)) is not value and not same(now, value):
                    yield module, name, value, now

    def after(self, used: Any) -> bool:
        """Forget the places to which the step itself has written something, having used nothing of what was there.

        Numbers stay: whether they were used cannot be seen. Returns whether there were any.
        """
        count = len(self.containers) + len(self.places)
        self.containers = [(c, items) for c, items in self.containers if unchanged(c, items)]
        self.places = [
            Place(read, name, value)
            for read, name, value in self.places
            if (now := read(name, MISSING)) is value or same(now, value) or kept(value, now, used)
        ]
        self.divide()
        for module, _, held in self.modules:
            for name, value in list(held.items()):
                now = vars(module).get(name, MISSING)
                if now is not value and not same(now, value) and not kept(value, now, used):
                    held[name] = now
            for name, now in vars(module).items():
                if name not in held and not isinstance(now, PLAIN) and not hasattr(type(module), name):
                    held[name] = now
        return len(self.containers) + len(self.places) < count


def described(numbers: Any) -> str:
    """An array that is watched, in words."""
    return f"an array of shape {numbers.shape}" if isinstance(numbers, np.ndarray) else f"a {type(numbers).__name__}"


def given_objects(x: Any) -> Iterator[Any]:
    """What arguments hold that is not told by their signature."""
    if isinstance(x, Mapping | tuple | list | set | frozenset | collections.deque):
        for v in entries(x):
            yield from given_objects(v)
    elif dataclasses.is_dataclass(x) and hasattr(x, "__dict__") and not isinstance(x, type):
        yield type(x)
        yield from given_objects(vars(x))
    elif not isinstance(x, np.ndarray) and not (isinstance(x, Tensor) and x._node is None):
        yield x


def put(owner: Any, name: str, value: Any) -> None:
    """Have a place hold a value again, or nothing."""
    if isinstance(owner, types.CellType):
        owner.cell_contents = value
    elif type(owner) is dict and value is MISSING:
        owner.pop(name, None)
    elif type(owner) is dict:
        owner[name] = value
    elif hasattr(type(owner), "__slots__") and value is not MISSING:
        setattr(owner, name, value)


def kept(value: Any, now: Any, used: Any) -> bool:
    """Whether another value than this one, which the step has replaced, might have made a difference."""
    return (
        value is MISSING
        or now is MISSING
        or isinstance(value, PLAIN)
        or isinstance(now, PLAIN)
        or any(id(v) in used for v in flat(value))
    )


def replaced(container: Any, items: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    """What a container held and holds no more, each with what is there now. One that has grown is only written to."""
    if isinstance(container, Mapping):
        half = len(items) // 2
        pairs = [(value, container.get(key, MISSING)) for key, value in zip(items[:half], items[half:], strict=True)]
    elif isinstance(container, set):
        pairs = [(x, x if x in container else MISSING) for x in items]
    else:
        pairs = list(zip(items, itertools.chain(entries(container), itertools.repeat(MISSING)), strict=False))
    return ((was, now) for was, now in pairs if was is not now and not same(was, now))


def unchanged(container: Any, items: tuple[Any, ...]) -> bool:
    """Whether a container holds the same things."""
    now = entries(container)
    return len(now) == len(items) and all(map(operator.is_, now, items))


def entries(container: Any) -> tuple[Any, ...]:
    """What a container holds, keys included."""
    if isinstance(container, Mapping):
        return *container.keys(), *container.values()
    return tuple(container.ravel().tolist() if isinstance(container, np.ndarray) else container)


def same(a: Any, b: Any) -> bool:
    """Whether two numbers, strings or tuples of them are equal in every respect."""
    if type(a) is not type(b):
        return False
    if isinstance(a, PLAIN):
        return repr(a) == repr(b)
    return type(a) is tuple and len(a) == len(b) and all(x is y or same(x, y) for x, y in zip(a, b, strict=True))


def in_cell(cell: types.CellType, name: str, otherwise: Any) -> Any:
    """`contents`, of a variable that is called so."""
    return contents(cell)


def contents(cell: types.CellType) -> Any:
    """What a variable of a closure holds."""
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return MISSING


class Search:
    """Looks for the places of a guard. `names` are those that the code found so far uses."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.names: set[str] = set()
        self.asked: set[str] = set()  # the names in strings, as for `hasattr`: whether there is one matters, too
        self.seen: dict[int, Any] = {}
        self.looked: set[tuple[int, Any]] = set()
        self.owners: list[Any] = []  # objects whose attributes are looked at by name

    def go(self, roots: Iterable[Any]) -> None:
        """Look at all that `roots` lead to, until no new name turns up."""
        self.visit(roots)
        names = -1
        while names != len(self.names):
            names = len(self.names)
            for owner in list(self.owners):
                self.visit(self.attributes(owner))

    def visit(self, found: Iterable[Any]) -> None:
        waiting = list(found)[::-1]
        while waiting:
            x = waiting.pop()
            if isinstance(x, PLAIN) or x is MISSING or id(x) in self.seen:
                continue
            self.seen[id(x)] = x
            waiting.extend(list(self.inside(x))[::-1])

    def place(self, owner: Any, read: Callable[[str, Any], Any], name: str) -> Iterator[Any]:
        """Watch what `read` finds in an owner under a name, and give what is there now."""
        if (id(owner), name) not in self.looked:
            self.looked.add((id(owner), name))  # whose id stays its own, since `read` holds it
            value = read(name, MISSING)
            self.guard.places.append(Place(read, name, value))
            yield value

    def inside(self, x: Any) -> Iterable[Any]:
        """What an object refers to, as far as a step may use it."""
        if isinstance(x, Tensor):
            return self.tensor(x)
        if isinstance(x, Module):
            return self.module(x)
        if isinstance(x, os._Environ):
            x = x._data  # type: ignore[attr-defined]  # texts of it are new ones each time
        if isinstance(x, SEQUENCES) or (isinstance(x, Mapping) and root(type(x)) != "tinygrad_rnn"):
            return self.container(x)
        if isinstance(x, np.ndarray) or root(type(x)) == "numpy":
            return self.of_numpy(x)
        return self.code(x)

    def tensor(self, x: Tensor) -> Iterable[Any]:
        self.guard.tensors[id(x)] = x
        hooks = hooks_of(x._node)
        self.guard.nodes.append((x, x._node, hooks))
        return [contents(cell) for hook in hooks for cell in getattr(hook, "__closure__", None) or ()]

    def module(self, x: Module) -> Iterable[Any]:
        self.guard.modules.append((x, type(x), dict(vars(x))))
        yield from vars(x).values()
        yield from self.methods(type(x))

    def container(self, x: Any) -> Iterable[Any]:
        items = entries(x)
        if len(items) > MOST:
            return ()
        if not isinstance(x, tuple | frozenset):
            self.guard.containers.append((x, items))
        return items

    def of_numpy(self, x: Any) -> Iterable[Any]:
        if isinstance(x, np.ndarray):
            if x.dtype.hasobject:
                return self.container(x)
            if x.nbytes <= BYTES:
                self.guard.arrays.append((x, x.tobytes()))
        elif hasattr(x, "bit_generator"):
            bits = x.bit_generator
            self.guard.generators.append(Generator(lambda: bits.state, functools.partial(setattr, bits, "state")))
        elif hasattr(x, "get_state"):  # a RandomState
            self.guard.generators.append(Generator(x.get_state, x.set_state))
        return ()

    def code(self, x: Any) -> Iterable[Any]:
        """What functions and objects refer to."""
        if isinstance(x, NUMBERS) or of_c(x):
            numbers = x if isinstance(x, NUMBERS) else memoryview(x)
            self.guard.numbers.append((numbers, numbers.tobytes()))
            return ()
        if isinstance(x, random.Random):
            self.guard.generators.append(Generator(x.getstate, x.setstate))
            return ()
        if isinstance(x, contextvars.ContextVar):
            return self.place(x, functools.partial(in_context, x), x.name)
        return self.refers(x)

    def refers(self, x: Any) -> Iterable[Any]:
        """What functions and what stands for them refer to, or else `owner`."""
        if isinstance(x, functools.partial):
            return x.func, x.args, x.keywords
        if isinstance(x, types.MethodType):
            return x.__self__, x.__func__
        if isinstance(x, staticmethod | classmethod):
            return (x.__func__,)
        if isinstance(x, property):
            return x.fget, x.fset
        if isinstance(x, functools.cached_property):
            return (x.func,)
        if isinstance(x, weakref.ref):
            return (x(),)
        if isinstance(x, types.FunctionType):
            return self.function(x)
        if root(type(x)) == "tinygrad_rnn" and hasattr(x, "compiled"):
            return (x.step,)  # the function that is compiled, not its recordings
        if isinstance(x, functools._lru_cache_wrapper):
            return (x.__wrapped__,)
        return self.owner(x)

    def owner(self, x: Any) -> Iterable[Any]:
        """Anything that has attributes: an object, a class, or a module of Python."""
        if isinstance(x, types.ModuleType):
            name = x.__name__
        else:
            name = (x if isinstance(x, type) else type(x)).__module__
        if isinstance(x, collections.UserList | collections.UserString):
            return (x.data,)
        if is_library(name) and not isinstance(x, HOLDERS) and not has(x, "state_dict"):
            return (os.environ,) if x is os and not self.names.isdisjoint({"environ", "getenv"}) else ()
        self.owners.append(x)
        found = [*self.attributes(x)]
        if not isinstance(x, types.ModuleType | type) and hasattr(x, "__dict__"):
            self.guard.objects.append((vars(x), dict(vars(x))))
        if not isinstance(x, types.ModuleType):
            found += self.methods(x if isinstance(x, type) else type(x))
        return found

    def attributes(self, x: Any) -> Iterator[Any]:
        """What an object holds under the names that are used; all of it where the code reads names by other names."""
        if isinstance(x, types.ModuleType | type):
            kinds: tuple[Any, ...] = inspect.getmro(x) + inspect.getmro(type(x)) if isinstance(x, type) else (x,)
            for name in sorted(self.names):
                found = next((k for k, kind in enumerate(kinds) if name in vars(kind)), -1)
                for kind in kinds[: found + 1]:  # one that is nearer may get the name, too
                    yield from self.place(kind, vars(kind).get, name)
            return
        own = getattr(x, "__dict__", None)
        # whatever is no number, too: what is asked for by `getattr` is in no code. Of an optimiser replays use what is;
        # of what else has a state, such as a task of this package, whose code is not read, modules are looked at
        stateful = has(x, "state_dict")
        others = {k for k, v in (own or {}).items() if isinstance(v, Module) or not (stateful or isinstance(v, PLAIN))}
        if not stateful and not WHOLE.isdisjoint(self.names) and type(own) is dict:
            yield own
        for name in sorted(self.names | others):
            of_class = inspect.getattr_static(type(x), name, MISSING)
            if isinstance(of_class, types.MemberDescriptorType):
                yield from self.place(x, functools.partial(getattr, x), name)
            elif own is not None and (name in own or name in self.asked or of_class is not MISSING):
                yield from self.place(x, own.get, name)

    def methods(self, kind: type) -> Iterator[Any]:
        """The functions of a class that a user has written, and what stands in it under a name that is used."""
        for base in kind.__mro__:
            if not is_library(base.__module__):
                self.owners += [base] * (id(base) not in self.seen)
                self.seen[id(base)] = base
                if issubclass(base, Module):  # whose code does not name it
                    yield from self.place(base, vars(base).get, "forward")
                for name, value in list(vars(base).items()):
                    if isinstance(value, types.FunctionType) and IMPLICIT.fullmatch(name):
                        yield from self.place(base, vars(base).get, name)
                    f = value.__func__ if isinstance(value, staticmethod | classmethod) else value
                    code = isinstance(f, types.FunctionType | property | functools.cached_property)
                    if code and not hasattr(f, "replayed"):
                        yield f

    def function(self, f: types.FunctionType) -> Iterator[Any]:
        """What a function refers to: its closure, its defaults, the globals that it names, what it wraps."""
        if is_library(f.__module__):
            yield getattr(f, "__wrapped__", None)
            if f.__closure__:  # a decorator of the library around a function of the user
                yield from (v for c in f.__closure__ if isinstance(v := contents(c), types.FunctionType))
            return
        names = set(names_in(f.__code__))
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            refuse_iterators(names, name, contents(cell))
            yield from self.place(cell, functools.partial(in_cell, cell), name)
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            if getattr(f, name):
                yield from self.place(f, functools.partial(getattr, f), name)
        if f.__dict__:
            self.owners.append(f)
        self.asked |= set(strings_in(f.__code__))
        self.names |= names | self.asked
        for name in sorted(f.__globals__.keys() if "globals" in names else names & f.__globals__.keys()):
            refuse_iterators(names, name, f.__globals__[name])
            yield from self.place(f.__globals__, f.__globals__.get, name)
        yield getattr(f, "__wrapped__", None)


def refuse_iterators(names: set[str], name: str, value: Any) -> None:
    """Raise CompileError for a variable that the code may call `next` with: the next call would find another one. That
    of a count is seen to be another at the second call.
    """
    if "next" in names and isinstance(value, Iterator) and not isinstance(value, io.IOBase | itertools.count):
        raise CompileError(
            f"a function that tr.compile records may take the next of {name!r}, a {type(value).__name__}, "
            f"which a replay would not: pass what it gives as an argument"
        )


def of_c(x: Any) -> bool:
    """Whether `x` is a number, an array or a structure of C."""
    ctypes: Any = sys.modules.get("ctypes")
    return ctypes is not None and isinstance(x, ctypes.c_int.__mro__[2])


def has(x: Any, name: str) -> bool:
    """Whether an object or its class has an attribute; its `__getattr__` is not asked."""
    return inspect.getattr_static(x, name, MISSING) is not MISSING


def in_context(variable: contextvars.ContextVar[Any], name: str, otherwise: Any) -> Any:
    """The value of a context variable, which is called so."""
    return variable.get(otherwise)


@functools.cache
def is_library(module: str | None) -> bool:
    """Whether a module is Python's, this package's, NumPy's, or of any installed one: it holds no parameters."""
    package = (module or "").partition(".")[0]
    origin = getattr(sys.modules.get(package), "__file__", None) or ""
    return package in LIBRARIES or "site-packages" in origin or "dist-packages" in origin


def root(kind: type) -> str:
    """The package that a class is of."""
    return kind.__module__.partition(".")[0]


def strings_in(code: types.CodeType) -> Iterator[str]:
    """The strings in a function and those inside it that may be names."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from strings_in(constant)
        elif isinstance(constant, str) and constant.isidentifier():
            yield constant


def names_in(code: types.CodeType) -> Iterator[str]:
    """The names that a function and those inside it look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)
