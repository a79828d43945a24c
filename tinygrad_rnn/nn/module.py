"""Module, a thing with parameters, and Parameter, a tensor that is trained.

Attributes of a module are plain attributes; what it holds is found by looking at them.

A `Parameter`, a `Module`, or a list or tuple of them that is an attribute is part of the module, named by
the path to it: `model.layers[0].weight` is `layers.0.weight`. Nothing is registered behind one's back, so a
misspelt attribute is an `AttributeError` and not a silent None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

from tinygrad_rnn.errors import DTypeError, ImmutableError, ShapeError
from tinygrad_rnn.nn.watching import tell_where, watcher
from tinygrad_rnn.scalars import flag
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.checkpoint import recomputed
from tinygrad_rnn.tensor.mode import Changes, active_tape, replayed
from tinygrad_rnn.tensor.places import BUFFER
from tinygrad_rnn.tensor.tensor import Tensor, box, snapshot

_LISTS = (list, tuple)  # `list | tuple` is built anew at each look, and `zero_grad` looks at every attribute

_MODES = frozenset({"training", "requires_grad"})


class Parameter(Tensor):
    """A leaf that a `Module` lists among its parameters; it requires a gradient unless told otherwise (frozen).

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Parameter([1.0, 2.0]).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = True) -> None:
        super().__init__(data, dtype, device, requires_grad)

    def __repr__(self) -> str:
        return "Parameter" + super().__repr__().removeprefix("Tensor")

    def detach(self) -> Tensor:
        """The values as they are now, to read: a write to them, which would not reach the parameter, is an error."""
        return snapshot(self)

    def _in_place(self, other: Any, op: Callable[[Any, Any], Tensor]) -> Tensor:
        if self.requires_grad:
            return super()._in_place(other, op)
        raise ImmutableError(
            "an in-place operator on a frozen parameter would put a plain tensor, which no module lists, in its place: "
            "write p.assign_(p * 0.5)"
        )


class Module:
    """The base of all layers and models. A subclass sets attributes in `__init__` and defines `forward`.

    Calling a module calls its `forward`. Parameters keep the order in which they were set, a module's own
    before those of its parts; one that is used twice (tied weights) is listed once, under its first name.

    >>> import tinygrad_rnn as tr
    >>> class Tagger(tr.nn.Module):
    ...     def __init__(self):
    ...         self.lstm = tr.nn.LSTM(4, 8)
    ...         self.head = tr.nn.Linear(8, 3)
    ...     def forward(self, x):
    ...         return self.head(self.lstm(x)[0])
    >>> model = Tagger()
    >>> model(tr.randn(5, 2, 4)).shape
    (5, 2, 3)
    >>> model
    Tagger, 475 parameters
      lstm: LSTM(4, 8), 448 parameters
        weight_ih_l0 (32, 4)
        weight_hh_l0 (32, 8)
        bias_ih_l0 (32,)
        bias_hh_l0 (32,)
      head: Linear(8, 3), 27 parameters
        weight (3, 8)
        bias (3,)
    """

    training: bool = True
    never_half: ClassVar[tuple[str, ...]] = ()  # names of its tensors that `to("float16")` makes float32
    _buffer_names: tuple[str, ...] = ()
    forward: Callable[..., Any]

    def __init_subclass__(cls, **options: Any) -> None:
        """A layer of ours that has the `__init__` of a base says in its errors what it is called itself."""
        super().__init_subclass__(**options)
        ours = cls.__module__.startswith(__name__.rpartition(".")[0] + ".")
        if ours and "__init__" not in vars(cls) and isinstance(cls.__init__, FunctionType):
            setattr(cls, "__init__", _renamed(cls.__init__, f"{cls.__qualname__}.__init__"))  # noqa: B010 (for mypy)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if (look := watcher.get()) is not None:
                return look.call(self, args, kwargs)
            return self.forward(*args, **kwargs)
        except Exception:
            tell_where(Module.__call__.__code__)
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        Changes.count += 1
        if name in _MODES:
            _check_mode(type(self), name, value)
        if isinstance(value, Tensor | Module | list | tuple):
            if "." in name or not name:
                self._check_name(name, value)
            elif name in self._buffer_names and isinstance(value, Tensor) and value.is_leaf:
                value._place = BUFFER
        if value is not None and name in vars(self):
            self._check_replaced(name, value)
        if (tape := active_tape.get()) is None:
            super().__setattr__(name, value)
        elif tape.computes(value):
            tape.at_replay(_set_copies, (self, name, value))
            super().__setattr__(name, value)
        else:
            _set_again(self, name, value)

    def __delattr__(self, name: str) -> None:
        Changes.count += 1
        super().__delattr__(name)

    if not TYPE_CHECKING:  # to a type checker no name is missing then

        def __getattr__(self, name: str) -> Any:
            from tinygrad_rnn.pytorch import missing

            return missing(self, "Module", name)

    # --- what is in it ----------------------------------------------------------------------------

    def _check_replaced(self, name: str, value: Any) -> None:
        """Raise `TypeError` if a parameter or a buffer were to be replaced by what is no tensor, and not listed."""
        is_parameter = isinstance(vars(self)[name], Parameter)
        if (is_parameter or name in self._buffer_names) and not isinstance(value, Tensor):
            what = "parameter" if is_parameter else "buffer"
            raise TypeError(
                f"{type(self).__name__}: {name!r} is a {what}, and {type(value).__name__} would take its place "
                f"unlisted: {name}.assign_(array) gives it new values, and `del` removes it"
            )

    def _check_name(self, name: str, value: Any) -> None:
        """Raise `ValueError` if what a module lists were to have a name that another may have."""
        parts = value if isinstance(value, list | tuple) else [value]
        if name in self._buffer_names or any(isinstance(part, Parameter | Module) for part in parts):
            raise ValueError(
                f"{type(self).__name__}: {name!r} cannot name a part of a module: a dot stands between the names on "
                "the path to a parameter, so two of them could have one name in a state_dict"
            )

    def register_buffer(self, name: str, value: Any) -> None:
        """Set attribute `name` to a tensor that is saved and moved with the module, but not trained.

        Raises `ValueError` for a name with a dot, and for that of a parameter, of a module or of a method.
        """
        held = getattr(self, name, None)
        if not (held is None or (isinstance(held, Tensor) and not isinstance(held, Parameter))):
            raise ValueError(f"{type(self).__name__}: {name!r} cannot name a buffer: it names a {type(held).__name__}")
        if isinstance(value, Parameter):
            raise ValueError(
                f"{type(self).__name__}: a buffer {name!r} is not trained: give Tensor(p), not a parameter"
            )
        if name not in self._buffer_names:
            self._buffer_names = (*self._buffer_names, name)
        setattr(self, name, value if isinstance(value, Tensor) else Tensor(value))

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The module's own parameters and buffers by name."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter) or (name in self._buffer_names and isinstance(value, Tensor)):
                yield name, value
            elif isinstance(value, _LISTS):
                yield from ((f"{name}.{i}", p) for i, p in enumerate(value) if isinstance(p, Parameter))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are attributes of this one, or stand in a list or tuple that is."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, _LISTS):
                yield from ((f"{name}.{i}", m) for i, m in enumerate(value) if isinstance(m, Module))

    def _all(self, prefix: str = "", above: tuple[Module, ...] = ()) -> Iterator[tuple[str, Module]]:
        """This module and all below it with the paths to them; one that is used twice, under each of its names."""
        yield prefix, self
        above = (*above, self)
        for name, child in self.named_children():
            if not any(child is module for module in above):  # one that points back to its owner
                yield from child._all(f"{prefix}.{name}" if prefix else name, above)

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module (named "") and all below it, each once."""
        seen: set[int] = set()
        for name, module in self._all():
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def _names(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter and buffer under every one of its names."""
        for path, module in self._all():
            for name, value in module._tensors():
                yield (f"{path}.{name}" if path else name), value

    def _unique(self, parameters: bool) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for name, value in self._names():
            if id(value) not in seen and isinstance(value, Parameter) == parameters:
                seen.add(id(value))
                yield name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its name, each once."""
        return ((name, p) for name, p in self._unique(True) if isinstance(p, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter, each once: what an optimiser is given."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Every buffer with its name, each once."""
        return self._unique(False)

    def buffers(self) -> Iterator[Tensor]:
        """Every buffer, each once."""
        return (b for _, b in self.named_buffers())

    # --- values -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by name. A snapshot: later training does not change it, and it costs no copy.

        A write to one of the values, which would not reach the module, is an error: use `load_state_dict` or `assign_`.
        """
        named = [*self.named_parameters(), *self.named_buffers()]
        state = {name: snapshot(value) for name, value in named}
        if len(state) < len(named):  # names with dots, put into the module's __dict__
            raise ValueError(f"state_dict of {type(self).__name__}: two parameters or buffers have one name")
        return state

    @replayed
    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Set parameters and buffers to the values of `state`: tensors or arrays by name, cast to the module's dtype.

        All or nothing: a load that fails has changed nothing. Names that are missing or unexpected (unless not
        `strict`) and shapes that differ are listed in one error: a `KeyError` for names, a `ShapeError` where only
        shapes differ. `DTypeError` names an entry of no numbers, or of numbers that the dtype here cannot hold: 1.5 in
        an integer buffer, 1e300 in float32. A tied parameter may appear under any of its names, with one value.
        """
        known = dict(self._names())
        kind = type(self).__name__
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict of {kind}: tensors or arrays by name, not {type(state).__name__}")
        arrays = {name: _fitting(f"{kind}: {name}", v, known[name]) for name, v in state.items() if name in known}
        given = {id(known[name]) for name in arrays}
        missing = [n for n, t in (*self.named_parameters(), *self.named_buffers()) if id(t) not in given]
        unexpected = [name for name in state if name not in known]
        misshapen = [
            f"{name}: {tuple(array.shape)} given, {known[name].shape} here"
            for name, array in arrays.items()
            if tuple(array.shape) != known[name].shape
        ]
        wrong = [f"missing: {', '.join(missing)}"] if missing and strict else []
        wrong += [f"unexpected: {', '.join(map(str, unexpected))}"] if unexpected and strict else []
        if wrong or misshapen:
            wrong += [f"of another shape: {'; '.join(misshapen)}"] if misshapen else []
            message = f"load_state_dict of {kind}: {'. '.join(wrong)}"
            raise ShapeError(message) if misshapen and len(wrong) == 1 else KeyError(message)
        _check_ties(kind, known, arrays)
        before = [(known[name], known[name]._array) for name in arrays]
        try:
            for name, array in arrays.items():
                known[name].assign_(array)
        except BaseException:  # no memory for the copies, Ctrl-C, a buffer that has a graph
            for tensor, old in before:
                tensor._array = old
            raise

    def to(self, *targets: Any) -> Self:
        """Move the module to a device (`"cuda"`) or a floating dtype (`"float64"`), in place. The gradients
        of what moves are dropped.

        Integer buffers keep their dtype, and what a module names in `never_half` is float32 where the rest is float16.
        """
        seen = {id(t): t for _, t in self._names()}
        wide = {id(getattr(m, name)) for m in self.modules() for name in m.never_half}
        for tensor in seen.values():
            grads = tensor.requires_grad
            wanted = [t for t in targets if _is_device(t) or backend.is_floating(tensor.dtype)]
            if id(tensor) in wide:
                wanted = [t if _is_device(t) or backend.dtype_of(t) != "float16" else "float32" for t in wanted]
            moved = tensor.detach().to(*wanted)
            if moved._array is not tensor._array:
                tensor.requires_grad = False
                tensor._array = moved._array
                tensor.requires_grad = grads  # a new leaf: the old one's node knows the old dtype
        return self

    @replayed(changes="gradients")
    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            p.grad = None

    # --- mode -------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, which dropout looks at, here and below. Raises `TypeError` unless it is a boolean."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Leave the training mode, here and below."""
        return self.train(False)

    def is_training(self) -> bool:
        """The mode to compute by: `training`, or what it was, where a checkpointed segment is computed again."""
        return recomputed(self.training)

    # --- for people -------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The text between the parentheses of the module's line in `repr`."""
        return ""

    def __repr__(self) -> str:
        return "\n".join(self._lines("", ()))

    def _repr_html_(self) -> str:
        from tinygrad_rnn.notebook import module_html

        return module_html(self)

    def _lines(self, label: str, above: tuple[Module, ...]) -> list[str]:
        extra = self.extra_repr()
        count = sum(p.size for p in self.parameters())
        line = f"{label}{type(self).__name__}" + (f"({extra})" if extra else "")
        line += f", {count:,} parameter{'s' * (count != 1)}" if count else ""
        own = [f"  {name} {value.shape}" for name, value in self._tensors()]
        above = (*above, self)
        below = [(name, m) for name, m in self.named_children() if not any(m is module for module in above)]
        return [line, *own, *(f"  {sub}" for name, m in below for sub in m._lines(f"{name}: ", above))]


def _fitting(what: str, value: Any, like: Tensor) -> backend.Array:
    """A value from a state as a new array for `like`. Raises `DTypeError` for what is no array of numbers, or loses by
    the cast what makes it a number: its fraction as an integer, its finiteness as a narrow float.
    """
    try:
        given = value._array if isinstance(value, Tensor) else backend.asarray(value)
        with backend.quiet():
            array = backend.asarray(given, like.dtype)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"load_state_dict of {what}: {error}") from None
    with backend.quiet():
        xp = backend.namespace(array)
        if backend.is_floating(like.dtype):
            kept = given.dtype == like.dtype or bool(xp.all(xp.isfinite(array) == xp.isfinite(given)))
        else:
            kept = bool(xp.all(array == given))
    if not kept:
        raise DTypeError(f"load_state_dict of {what}: {like.dtype} cannot hold these values of {given.dtype}")
    return backend.to_device(array, like.device)


def _check_ties(kind: str, known: Mapping[str, Tensor], arrays: Mapping[str, backend.Array]) -> None:
    """Raise `ValueError` for a tied parameter that is given two values."""
    first: dict[int, str] = {}
    for name, array in arrays.items():
        other = first.setdefault(id(known[name]), name)
        xp = backend.namespace(array)
        if other != name and not bool(xp.all((array == arrays[other]) | (array != array))):
            raise ValueError(
                f"load_state_dict of {kind}: {other} and {name} are one parameter, but two values are given"
            )


def _set_copies(module: Module, name: str, value: Any) -> None:
    """`_set_again` of tensors that the step has computed, whose arrays the next replay writes anew."""
    setattr(module, name, _copies(value))


def _copies(x: Any) -> Any:
    """Copies of tensors, alone or in containers."""
    if isinstance(x, Tensor):
        return box(backend.namespace(x._array).asarray(x._array, copy=True), None)
    if type(x) is dict:
        return {k: _copies(v) for k, v in x.items()}
    return type(x)([_copies(v) for v in x]) if type(x) in (tuple, list) else x


def _check_mode(kind: type[Module], name: str, value: Any) -> None:
    """Raise `TypeError` for a mode that is no boolean, and `AttributeError` where nothing would come of it."""
    if name == "training":
        flag(f"{kind.__name__}: training", value)
    elif not hasattr(kind, name):
        raise AttributeError(
            f"{kind.__name__}: {name} is of parameters, and a module has none: "
            f"for p in module.parameters(): p.{name} = {value!r:.20}"
        )


@replayed(changes="options")
def _set_again(module: Module, name: str, value: Any) -> None:
    """Set an attribute within a step that `tr.compile` records, and at each replay."""
    setattr(module, name, value)


def _renamed(f: FunctionType, name: str) -> FunctionType:
    """A copy of a function that calls itself `name` where it is called wrongly."""
    copy = FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    copy.__kwdefaults__, copy.__annotations__, copy.__doc__ = f.__kwdefaults__, f.__annotations__, f.__doc__
    copy.__module__, copy.__qualname__ = f.__module__, name
    return copy


def _is_device(target: Any) -> bool:
    return isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda")


class ModuleList(Module):
    """Modules in a list, named by their positions: `len`, indexing, iteration, `append`.

    >>> import tinygrad_rnn as tr
    >>> layers = tr.nn.ModuleList([tr.nn.Linear(2, 2)])
    >>> [name for name, _ in layers.append(tr.nn.Linear(2, 1)).named_parameters()]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} holds modules, not {type(module).__name__}")
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.named_children())

    def __iter__(self) -> Iterator[Any]:
        return (child for _, child in self.named_children())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        children = list(self)
        return type(self)(children[index]) if isinstance(index, slice) else children[index]


class Sequential(ModuleList):
    """Modules applied one after the other; functions of one tensor may stand between them.

    >>> import tinygrad_rnn as tr
    >>> net = tr.nn.Sequential(tr.nn.Linear(3, 4), tr.tanh, tr.nn.Linear(4, 1))
    >>> net(tr.randn(2, 3)).shape
    (2, 1)
    """

    def __init__(self, *modules: Module | Callable[[Any], Any]) -> None:
        super().__init__(m if isinstance(m, Module) else Function(m) for m in modules)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        children = list(self)
        return type(self)(*children[index]) if isinstance(index, slice) else children[index]

    def forward(self, x: Any) -> Any:
        """`x` through every module in turn."""
        for module in self:
            x = module(x)
        return x


class Function(Module):
    """A function of one tensor as a module without parameters."""

    def __init__(self, f: Callable[[Any], Any]) -> None:
        if not callable(f):
            raise TypeError(f"Sequential holds modules and functions, not {type(f).__name__}")
        self.f = f

    def extra_repr(self) -> str:
        return getattr(self.f, "__name__", repr(self.f))

    def forward(self, x: Any) -> Any:
        """`f(x)`."""
        return self.f(x)
