"""What the optimisers share: parameter groups, flat buffers, saving and loading.

An optimiser works on flat arrays: all parameters of a group with one dtype, device and step count lie behind
one another, so a step is a handful of array operations whatever the number of parameters. Values that were
handed out never change: a step computes new values into a new array, and the parameters become views of it.

Of float16 parameters the moments are float32, and so is all that a step computes, up to the new values: the square of
a gradient of 1e-4 is no float16, nor is an ε of 1e-8, and 0 / 0 would be NaN.
"""

from __future__ import annotations

import copy as copying
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.memory import memory_for
from tinygrad_rnn.scalars import number, plain, whole
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array, namespace, widened
from tinygrad_rnn.tensor.device import capture
from tinygrad_rnn.tensor.mode import active_tape, replay_overrides, replayed
from tinygrad_rnn.tensor.tensor import Tensor, box, snapshot


def _own(value: Any) -> Any:
    """An option that shares nothing with `value`, which somebody may go on changing; a number as Python's own."""
    return copying.deepcopy(plain(value))


def _shape(kind: str, name: str, moment: str, entry: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of a moment in the entry of a state. Raises `DTypeError` for what is no array of numbers."""
    value = entry[moment]
    if isinstance(value, Tensor):
        return value.shape
    try:
        return tuple(backend.asarray(value).shape)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{kind}: {name}.{moment}: {error}") from None


def _gradient(p: Tensor) -> Any:
    """The array of the gradient of a parameter, without a tensor around it; None if there is none."""
    watch = None if p._node is None else p._node.watch
    return None if watch is None else watch.grad


class _Flat:
    """Parameters side by side: their values and their moments, each as one array."""

    __slots__ = ("bound", "cuts", "indices", "moments", "shapes", "values")

    def __init__(self, indices: tuple[int, ...], shapes: list[tuple[int, ...]]) -> None:
        self.indices, self.shapes = indices, shapes
        self.cuts = [0]
        for shape in shapes:
            self.cuts.append(self.cuts[-1] + math.prod(shape))
        self.values: Any = None
        self.bound: list[Array] = []  # the arrays that the parameters were given: who has another was assigned to
        self.moments: dict[str, Array] = {}

    def piece(self, flat: Array, k: int) -> Array:
        """The part of a flat array that belongs to parameter k, in its shape."""
        return flat[self.cuts[k] : self.cuts[k + 1]].reshape(self.shapes[k])


class ParamGroup(dict[str, Any]):
    """The options of a group of parameters. What `tr.compile` records reads and sets them anew at each replay."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return _option(self, name) if active_tape.get() is not None and type(value) in (int, float) else value

    def get(self, name: str, otherwise: Any = None) -> Any:
        return self[name] if name in self else otherwise  # noqa: SIM401 (`[]` asks the tape)

    def __iter__(self) -> Iterator[str]:  # dict(group) and {**group} then ask for each value
        return super().__iter__()

    def values(self) -> Any:
        return [self[name] for name in self]

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def _keep(self, name: str, value: Any = None) -> None:
        """Raise `AttributeError` where the parameters were to be others: the optimiser would go by its own."""
        if name == "params" and dict.get(self, name, value) is not value:
            raise AttributeError(
                "the parameters of a group stay: add_param_group adds some, a new optimiser has others, "
                "and p.requires_grad = False or p.grad = None leaves a parameter as it is"
            )

    @replayed(changes="options")
    def __setitem__(self, name: str, value: Any) -> None:
        self._keep(name, value)
        super().__setitem__(name, value)

    @replayed(changes="options")
    def __delitem__(self, name: str) -> None:
        self._keep(name)
        super().__delitem__(name)

    @replayed(changes="options")
    def update(self, *args: Any, **kwargs: Any) -> None:
        found = dict(*args, **kwargs)
        self._keep("params", found.get("params", dict.get(self, "params")))
        super().update(found)

    def clear(self) -> None:
        self._keep("params")
        super().clear()

    def popitem(self) -> tuple[str, Any]:
        self._keep(next(reversed(self), ""))
        return super().popitem()

    def setdefault(self, name: str, value: Any = None) -> Any:
        if name not in self:
            self[name] = value
        return self[name]

    def pop(self, name: str, *otherwise: Any) -> Any:
        if name not in self:
            return super().pop(name, *otherwise)
        value = self[name]
        del self[name]
        return value

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc, override]
        self.update(other)
        return self


@replayed(changes="reads")
def _option(group: ParamGroup, name: str) -> Any:
    """An option as it is now."""
    return dict.__getitem__(group, name)


def _parts_of_state(kind: str, state: Any) -> tuple[list[Mapping[str, Any]], Mapping[str, Mapping[str, Any]]]:
    """The groups and the entries of the state of an optimiser. Raises `TypeError` for what has not its form."""
    of_state = isinstance(state, Mapping) and {"groups", "state"} <= state.keys()
    groups, entries = (state["groups"], state["state"]) if of_state else (None, None)
    if (
        not isinstance(groups, list | tuple)
        or not all(isinstance(group, Mapping) and isinstance(group.get("params"), list | tuple) for group in groups)
        or not isinstance(entries, Mapping)
        or not all(isinstance(entry, Mapping) for entry in entries.values())
    ):
        raise TypeError(
            f'load_state_dict of {kind}: a state is {{"groups": [options and the names of "params", ...], "state": '
            f"moments by name}}, as state_dict() returns it, not {state!r:.60}"
        )
    return list(groups), entries


class Optimizer:
    """The base of the optimisers. A subclass names its options and its moments and defines `update`.

    `parameters`: an iterable of parameters, of (name, parameter) pairs such as `module.named_parameters()`,
    or of dictionaries {"params": ..., "lr": ...} where groups are to have options of their own.
    `param_groups` is the list of groups; changing `group["lr"]` changes the next step. Parameters whose
    `.grad` is None are skipped, their moments and step counts included.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        replay_overrides(cls, ("step", "zero_grad", "load_state_dict", "add_param_group"))

    def __init__(self, parameters: Iterable[Any], defaults: dict[str, Any]) -> None:
        if hasattr(parameters, "parameters"):
            raise TypeError(f"{type(self).__name__}: pass {type(parameters).__name__}.parameters(), not the module")
        groups = list(parameters)
        if not groups:
            raise ValueError(f"{type(self).__name__}: no parameters to optimise")
        if not isinstance(groups[0], Mapping):
            groups = [{"params": groups}]
        self.param_groups: list[ParamGroup] = []
        self._parameters: list[Tensor] = []
        self._names: list[str] = []
        self._steps: list[int] = []
        self._flats: dict[tuple[int, ...], _Flat] = {}
        self._owner: list[_Flat | None] = []  # the flat whose moments are those of each parameter
        for group in groups:
            self.add_param_group(group, defaults)

    def __setattr__(self, name: str, value: Any) -> None:
        groups = vars(self).get("param_groups")
        if groups and name in groups[0] and type(self).__module__.startswith("tinygrad_rnn."):
            raise AttributeError(
                f"{type(self).__name__} has {name!r} in each of its groups: "
                f"for group in optimizer.param_groups: group[{name!r}] = ..."
            )
        super().__setattr__(name, value)

    def add_param_group(self, group: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        """Add a group {"params": ..., options ...}; options that it does not give are those of the first
        group.
        """
        name = type(self).__name__
        if defaults is None:
            defaults = {k: v for k, v in self.param_groups[0].items() if k != "params"}
        if unknown := set(group) - {"params", *defaults}:
            raise TypeError(f"{name}: unknown option(s) {', '.join(sorted(unknown))} in a parameter group")
        if "params" not in group:
            raise ValueError(f"{name}: a parameter group needs 'params'")
        new = ParamGroup({k: _own(v) for k, v in {**defaults, **group}.items() if k != "params"})
        self.check(new)
        given = group["params"]
        members: list[tuple[str, Tensor]] = []
        for entry in [given] if isinstance(given, Tensor) else list(given):
            label, p = entry if isinstance(entry, tuple) else (str(len(self._parameters) + len(members)), entry)
            if not isinstance(p, Tensor) or not p.is_leaf or not p.requires_grad:
                raise ValueError(f"{name}: parameter {label} must be a leaf tensor that requires a gradient")
            if any(p is q for q in self._parameters) or any(p is q for _, q in members):
                raise ValueError(f"{name}: parameter {label} is given twice")
            if label in self._names or any(label == other for other, _ in members):
                raise ValueError(f"{name}: two parameters are named {label!r}")
            members.append((label, p))
        if not members:
            raise ValueError(f"{name}: no parameters to optimise in a group")
        new["params"] = tuple(p for _, p in members)
        for label, p in members:
            self._names.append(label)
            self._parameters.append(p)
            self._steps.append(0)
            self._owner.append(None)
        self.param_groups.append(new)

    @property
    def moments(self) -> tuple[str, ...]:
        """The names of what is remembered of each parameter from step to step."""
        return ()

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise `ValueError` for an option out of its range."""
        for key in ("lr", "eps", "weight_decay"):
            value = number(f"{type(self).__name__}: {key}", options.get(key, 0.0))
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{type(self).__name__}: {key} must be finite and at least 0, got {value!r}")
        for key in ("nesterov", "centered"):
            if plain(options.get(key, False)) not in (False, True):
                raise ValueError(f"{type(self).__name__}: {key} must be True or False, got {options[key]!r}")

    def update(self, p: Array, g: Array, moments: dict[str, Array], step: int, options: Mapping[str, Any]) -> Array:
        """The new values of flat `p` as a new array; `g` and the moments are the optimiser's own and may be written.

        All are of the parameters' dtype, but float32 where that is float16.
        """
        raise NotImplementedError

    def in_graph(self, graph: Any, dtype: Any, now: Callable[[], tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        """Options for a graph that is captured: arrays whose numbers are made before each launch, of the step and the
        options that `now()` gives. Here it is the rate.
        """
        return {"lr": graph.of_host(lambda: [now()[1]["lr"]], 1, dtype)}

    @replayed(changes="gradients")
    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self._parameters:
            p.grad = None

    @replayed
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        first = 0
        for group in self.param_groups:
            together: dict[Any, list[int]] = {}
            for i in range(first, first + len(group["params"])):
                if _gradient(self._parameters[i]) is not None:
                    a = self._parameters[i]._array
                    together.setdefault((a.dtype, backend.device_of(a), self._steps[i]), []).append(i)
            with memory_for(f"a step of {type(self).__name__}"):
                for indices in together.values():
                    self._step(tuple(indices), group)
            first += len(group["params"])

    def _step(self, indices: tuple[int, ...], group: ParamGroup) -> None:
        parameters = [self._parameters[i] for i in indices]
        arrays = [p._array for p in parameters]
        shapes = [a.shape for a in arrays]
        flat = self._flats.get(indices)
        if flat is None or flat.shapes != shapes:
            flat = _Flat(indices, shapes)
        if len(flat.bound) != len(arrays) or not all(map(operator.is_, arrays, flat.bound)):
            flat.values = backend.joined(arrays)
        owned = all(self._owner[i] is flat for i in indices)
        for name in self.moments:
            if not owned or name not in flat.moments:
                flat.moments[name] = backend.joined([self._moment(i, name) for i in indices])
        g = backend.joined([_gradient(p) for p in parameters])
        step = self._steps[indices[0]] + 1
        # a NumPy or Tensor scalar, as a schedule of one's own may set, would make float64 of float32 parameters
        options = {k: plain(v) for k, v in dict.items(group)}
        if (graph := capture.get()) is not None:
            now = lambda: (self._steps[indices[0]] + 1, {k: plain(v) for k, v in dict.items(group)})
            options |= self.in_graph(graph, widened(flat.values).dtype, now)
            graph.stepped(self, group, indices, flat)
        new = self.update(widened(flat.values), widened(g), flat.moments, step, options)
        flat.values = new if new.dtype == flat.values.dtype else namespace(new).astype(new, flat.values.dtype)
        flat.bound = [flat.piece(flat.values, k) for k in range(len(indices))]
        if self._flats.get(indices) is not flat:
            self._flats = {key: f for key, f in self._flats.items() if not set(key) & set(indices)} | {indices: flat}
        for k, i in enumerate(indices):
            self._parameters[i]._array = flat.bound[k]
            self._steps[i] = step
            self._owner[i] = flat

    def _moment(self, i: int, name: str) -> Array:
        """A moment of one parameter, on its device and of its dtype, or float32 where that is float16."""
        p, owner = self._parameters[i], self._owner[i]
        if owner is None or name not in owner.moments:
            return namespace(p._array).zeros_like(widened(p._array))
        held = owner.piece(owner.moments[name], owner.indices.index(i))
        dtype = self._moment_dtype(i)
        if held.dtype != dtype or backend.device_of(held) != p.device:
            held = backend.asarray(held, dtype, p.device)
        return held

    def _moment_dtype(self, i: int) -> Any:
        """The dtype of the moments of one parameter."""
        p = self._parameters[i]
        return backend.dtype_of("float32") if backend.is_half(p) else p.dtype

    # --- saving and loading -----------------------------------------------------------------------

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """{"groups": options of each group and the names of its parameters, "state": step and moments by
        name}.

        Copies, which later steps do not change; `copy=False` for who reads the moments before the next step.
        """
        state: dict[str, dict[str, Any]] = {}
        for i, name in enumerate(self._names):
            if self._steps[i]:
                state[name] = {"step": self._steps[i]}
                for m in self.moments:
                    moment = self._moment(i, m)
                    state[name][m] = snapshot(Tensor(moment)) if copy else box(moment, None)
        return {"groups": self._named_groups(), "state": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`: options, step counts and moments. All or nothing.

        Raises `KeyError` listing the names of parameters that only one side has, `ShapeError` listing moments that do
        not fit, `ValueError` for another number of groups, other options or one out of its range, entries of another
        kind of optimiser, and a step that is no whole number, `DTypeError` for moments that are no numbers,
        `TypeError` for what is no state.
        """
        groups, entries = _parts_of_state(type(self).__name__, state)
        self._check_names(groups, entries)
        before = [dict(group) for group in self.param_groups]
        try:
            for mine, theirs in zip(self.param_groups, groups, strict=True):
                mine.update({k: _own(v) for k, v in theirs.items() if k != "params"})
                self.check({k: v for k, v in mine.items() if k != "params"})
            self._check_moments(entries)  # which there are follows from the options
            loaded = [self._loaded(i, entries.get(name)) for i, name in enumerate(self._names)]
        except BaseException:
            for mine, old in zip(self.param_groups, before, strict=True):
                mine.update(old)
            raise
        # New lists: a copy of the attributes is a way back for whoever loads more than this.
        self._flats, self._steps, self._owner = {}, [step for step, _ in loaded], [owner for _, owner in loaded]

    def _named_groups(self) -> list[dict[str, Any]]:
        """The parameter groups with the names of their parameters in the place of these."""
        groups, first = [], 0
        for group in self.param_groups:
            count = len(group["params"])
            options = {k: _own(v) for k, v in group.items() if k != "params"}
            groups.append({**options, "params": self._names[first : first + count]})
            first += count
        return groups

    def _check_names(self, groups: list[Mapping[str, Any]], entries: Mapping[str, Any]) -> None:
        """Raise `ValueError` or `KeyError` unless groups and entries of a state have the names of these here."""
        kind = type(self).__name__
        if len(groups) != len(self.param_groups):
            raise ValueError(f"{kind}: {len(groups)} parameter groups given, {len(self.param_groups)} here")
        problems = []
        for mine, theirs in zip(self._named_groups(), groups, strict=True):
            if mine["params"] != list(theirs["params"]):
                missing = [n for n in mine["params"] if n not in theirs["params"]]
                unexpected = [n for n in theirs["params"] if n not in mine["params"]]
                problems.append(f"missing: {missing}, unexpected: {unexpected}")
            if set(mine) != set(theirs):
                raise ValueError(f"{kind}: options {sorted(theirs)} given, {sorted(mine)} here")
        if problems or not set(entries) <= set(self._names):
            problems = problems or [f"unexpected: {sorted(set(entries) - set(self._names))}"]
            raise KeyError(f"load_state_dict of {kind}: parameters {'; '.join(problems)}")

    def _check_moments(self, entries: Mapping[str, Any]) -> None:
        """Raise `ShapeError` unless the entries of a state hold every moment in the shape of its parameter,
        `ValueError` for what is no moment here, `DTypeError` for what is no array of numbers.
        """
        kind, misshapen = f"load_state_dict of {type(self).__name__}", []
        for name, entry in entries.items():
            shape = self._parameters[self._names.index(name)].shape
            misshapen += [
                f"{name}.{m}" for m in self.moments if m not in entry or _shape(kind, name, m, entry) != shape
            ]
            if others := sorted(map(str, set(entry) - {"step", *self.moments})):
                raise ValueError(f"{kind}: {name} has {', '.join(others)}, which is another kind of optimiser's")
        if misshapen:
            raise ShapeError(f"{kind}: missing or of another shape: {', '.join(misshapen)}")

    def _loaded(self, i: int, entry: Mapping[str, Any] | None) -> tuple[int, _Flat | None]:
        """Step count and moments of one parameter as a state has them; 0 and None if it has none."""
        if entry is None:
            return 0, None
        p = self._parameters[i]
        owner = _Flat((i,), [p.shape])
        for m in self.moments:
            value = entry[m]._array if isinstance(entry[m], Tensor) else entry[m]
            owner.moments[m] = backend.asarray(value, self._moment_dtype(i), p.device).reshape(-1)
        return whole(
            f"load_state_dict of {type(self).__name__}: the step of {self._names[i]}", entry.get("step")
        ), owner

    def __repr__(self) -> str:
        groups = [
            ", ".join(f"{k}={v}" for k, v in group.items() if k != "params") + f"; {len(group['params'])} parameters"
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({' | '.join(groups)})"
