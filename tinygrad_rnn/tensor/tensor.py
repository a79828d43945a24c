"""class Tensor: an array and a node, nothing else.

Arithmetic and the methods that NumPy has are a line each, which names the op that does the work.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from tinygrad_rnn.errors import BackendMismatchError, DTypeError, ImmutableError, ShapeError
from tinygrad_rnn.memory import memory_for
from tinygrad_rnn.scalars import flag
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import AnyArray, Array, DType
from tinygrad_rnn.tensor.device import is_on_device
from tinygrad_rnn.tensor.graph import Node, Watch, leaf
from tinygrad_rnn.tensor.mode import Changes, replayed
from tinygrad_rnn.tensor.places import BUFFER, GRADIENT, OWN, SNAPSHOT, InHook, Place
from tinygrad_rnn.tensor.sweep import Gradients, sweep, write_gradients

Axis: TypeAlias = int | tuple[int, ...] | None


class Tensor:
    """An array that remembers how it was computed.

    `data` is anything array-like: Python floats become float32, arrays keep their dtype (float16,
    float32, float64, integers, bool). It is copied, and the values of a tensor never change: what
    looks like a change rebinds (`assign_`). With `requires_grad=True` the tensor is a leaf whose
    `.grad` a backward adds to.

    Ops of integers alone follow NumPy, so `exp` or `/` of an integer tensor is float64; beside
    floats, integers take their dtype.

    Raises `DTypeError` for complex or non-numeric data and for an integer leaf that requires a
    gradient, and `TypeError` for a tensor that requires a gradient, alone or in a list: a copy of
    its values would cut the graph (`y.detach()`, `tr.stack`).

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([[2., 4.],
            [6., 8.]], dtype=float32)
    """

    __slots__ = ("_array", "_node", "_place")
    _array: AnyArray
    _node: Node | None
    _place: Place  # where its values stand; a computed tensor has none

    def __init__(
        self, data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
    ) -> None:
        if isinstance(data, Tensor):
            if data.requires_grad:
                raise TypeError(
                    f"{type(self).__name__}(y) of a tensor y that requires a gradient would cut "
                    "the graph silently: use y itself, or y.detach() if you want its values alone"
                )
            data = data._array
        self._array = backend.asarray(data, dtype, device)
        self._node = None
        self._place = OWN
        if requires_grad:
            self.requires_grad = requires_grad

    # --- what it is -------------------------------------------------------------------------------

    @property
    def data(self) -> AnyArray:
        """The values as an array of the tensor's library: a read-only view (a copy on a GPU)."""
        return backend.freeze(self._array)

    @data.setter
    def data(self, value: Any) -> NoReturn:
        raise ImmutableError(
            "a tensor's .data cannot be set: give a leaf new values with .assign_(array)"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return tuple(self._array.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return int(self._array.ndim)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self._array.size)

    @property
    def dtype(self) -> DType:
        """The dtype of the elements."""
        return self._array.dtype

    @property
    def device(self) -> str:
        """Where the values live: `"cpu"`, `"cuda:0"`, ..."""
        return backend.device_of(self._array)

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient flows to or through this tensor. May be set on a leaf, which then
        starts anew: a graph recorded before, and the `.grad` that it had, belong to the leaf that
        it was.
        """
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if not self.is_leaf:
            raise RuntimeError(
                f"requires_grad of the output of {self._maker()} cannot be set: .detach() it first"
            )
        wanted = flag("requires_grad", wanted)
        if wanted and not backend.is_floating(self._array.dtype):
            raise DTypeError(
                f"a tensor of dtype {self._array.dtype} cannot require a gradient: "
                f'derivatives need floats, so pass dtype="float32"'
            )
        if wanted != self.requires_grad:
            self._node = leaf(self.shape, self._array.dtype) if wanted else None
            Changes.count += 1
            self._place = BUFFER if getattr(self, "_place", None) is BUFFER else OWN

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user, not computed from a tensor that requires a gradient."""
        return self._node is None or self._node.plan is None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backwards have added up so far; None before the first.

        Set it to None to start anew. A computed tensor has none unless `retain_grad` was called on
        it, and warns that it has none: so `w = w - lr * w.grad` ends the training of `w`, which is
        then no leaf; `w.assign_(...)` goes on.
        """
        if self._node is None:
            return None
        watch = self._node.watch
        if watch is not None and watch.grad is not None:
            found = box(watch.grad, None)
            found._place = GRADIENT
            return found
        if not self.is_leaf and (watch is None or not watch.keeps):
            warnings.warn(
                f".grad of the output of {self._maker()} is None: a backward keeps the "
                "gradients of leaves only; call .retain_grad() on this tensor before the backward",
                UserWarning,
                stacklevel=2,
            )
        return None

    @grad.setter
    @replayed(changes="gradients")
    def grad(self, value: Tensor | None) -> None:
        if value is None:
            if self._node is not None and self._node.watch is not None:
                self._node.watch.grad = None
            return
        if self._node is None:
            raise RuntimeError("a tensor that does not require a gradient has no .grad to set")
        array = self._beside("a gradient", value)
        if tuple(array.shape) != self.shape:
            raise ShapeError(
                f"a gradient of shape {tuple(array.shape)} for a tensor of shape {self.shape}"
            )
        xp = backend.namespace(array)
        self._watch().grad = xp.asarray(array, dtype=self._array.dtype, copy=True)

    # --- differentiation --------------------------------------------------------------------------

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add the derivative of this tensor to `.grad` of every leaf that it was computed from.

        `gradient` is what is pulled back: an array of the tensor's shape; it may be omitted for one
        element (then 1). The graph is freed on the way unless `retain_graph`. If a derivative
        raises, no `.grad` has changed.

        Raises `ShapeError` for a gradient of another shape, `GraphFreedError` for a graph already
        freed, `OutOfMemoryError` where memory runs out: the graph is freed then, too.
        """
        if self._node is None:
            raise RuntimeError(
                "backward of a tensor that does not require a gradient: no input had "
                "requires_grad=True, or it was computed under no_grad or from detached values"
            )
        gradients = Gradients()
        start = self._output_gradient(gradient)
        with memory_for("a backward"):
            results = sweep([self._node], [start], gradients, retain=retain_graph)
            write_gradients(results, gradients)

    def _output_gradient(self, gradient: Any = None) -> Array:
        """`gradient` as an array fit to be pulled back from this tensor; 1 if omitted."""
        if gradient is None:
            if self.size != 1:
                raise ShapeError(
                    f"backward of a tensor of shape {self.shape} needs gradient= of that shape; "
                    f"it may be omitted for one element only (did you forget .sum() or .mean()?)"
                )
            return backend.namespace(self._array).ones_like(self._array)
        array = self._beside("gradient", gradient)
        if tuple(array.shape) != self.shape:
            raise ShapeError(
                f"gradient of shape {tuple(array.shape)} for a tensor of shape {self.shape}"
            )
        return backend.namespace(array).astype(array, self._array.dtype, copy=False)

    def _beside(self, what: str, value: Any) -> AnyArray:
        """The array of a Tensor; anything else as an array of this tensor's dtype.

        Numbers and lists go where this tensor is; what is elsewhere is refused.
        """
        if isinstance(value, Tensor):
            array = value._array
        elif hasattr(value, "dtype") or not is_on_device(self._array):
            array = backend.asarray(value, self._array.dtype)
        else:
            array = backend.asarray(value, self._array.dtype, self.device)
        if backend.device_of(array) != self.device:
            raise BackendMismatchError(
                f"{what} on {backend.device_of(array)} for a tensor on {self.device}: "
                f'move it with .to("{self.device}")'
            )
        return array

    def detach(self) -> Tensor:
        """The same values without a history, as a state is carried from chunk to chunk.

        Of a leaf it is the values as they are now, to read: a write to them is an error.
        """
        held = getattr(self, "_place", None) if self._node is None else self._node.plan
        if held in (GRADIENT, SNAPSHOT, BUFFER) or (self._node is not None and held is None):
            return snapshot(self)
        return box(self._array, None)

    def retain_grad(self) -> None:
        """Keep `.grad` of this computed tensor too."""
        self._watch().keeps = True

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook` with the complete gradient of this tensor in each backward; what it returns
        replaces it, and so does an in-place operator on what it is given.

        Returns a function that removes the hook. A hook may add and remove hooks, itself too: that
        holds from the next backward on.
        """

        if not callable(hook):
            raise TypeError(f"a hook is a function of a gradient, not {type(hook).__name__}")

        def on_gradient(g: Any) -> Any:
            seen = box(g._array, g._node) if isinstance(g, Tensor) else box(g, None)
            seen._place = place = InHook()
            result = hook(seen)
            result = place.written if result is None else result
            if result is None:
                return None
            if not isinstance(result, Tensor):
                raise TypeError(
                    f"a hook returned {type(result).__name__}: "
                    "return a Tensor, or None to change nothing"
                )
            if result.shape != self_shape:
                raise ShapeError(
                    f"a hook returned shape {result.shape} for a tensor of shape {self_shape}"
                )
            result = result.to(g.dtype)
            return result if isinstance(g, Tensor) else result._array

        self_shape = self.shape  # not self: a node must not hold a tensor
        hooks = self._watch().hooks
        hooks.append(on_gradient)
        Changes.count += 1

        def remove() -> None:
            Changes.count += 1
            if on_gradient in hooks:
                hooks.remove(on_gradient)

        return remove

    def _watch(self) -> Watch:
        if self._node is None:
            raise RuntimeError("a tensor that does not require a gradient has none to watch")
        if self._node.watch is None:
            self._node.watch = Watch(keeps=False)
        return self._node.watch

    @replayed(changes="itself")
    def assign_(self, value: Any) -> Tensor:
        """Give a leaf new values, copied. The old array lives on unchanged in whatever graph or
        view has seen it.

        Raises `ShapeError` for another shape and `ImmutableError` for what is no leaf, so that
        nothing else would have the new values: a computed tensor, a part, `detach()`, `.grad`, a
        value of `state_dict()`. The dtype stays.
        """
        if not self.is_leaf:
            raise ImmutableError(
                f"assign_ on a computed tensor (made by {self._maker()}): "
                "only leaves take new values"
            )
        place = getattr(self, "_place", None)
        if place is None and self._node is None:
            raise ImmutableError(
                "assign_ on what an op computed, a part or a view say: nothing else would have the "
                "new values; assign to the tensor that it was computed from, or to a new one, "
                "tr.Tensor(y)"
            )
        return self._assign(value) if place is None else place.assign(self, value)

    def _assign(self, value: Any) -> Tensor:
        value = value._array if isinstance(value, Tensor) else value
        array = backend.asarray(value, self._array.dtype, self.device)
        if tuple(array.shape) != self.shape:
            raise ShapeError(
                f"assign_ of shape {tuple(array.shape)} to a tensor of shape {self.shape}"
            )
        self._array = array
        return self

    # --- out of here ------------------------------------------------------------------------------

    def numpy(self) -> backend.HostArray:
        """The values as a read-only NumPy array (copied from a GPU)."""
        array: backend.HostArray = backend.freeze(backend.to_host(self._array))
        return array

    def item(self) -> Any:
        """The value of a tensor of one element, as a Python number. On a GPU this waits for it."""
        if self.size != 1:
            raise ShapeError(f"item() of a tensor of shape {self.shape}: one element only")
        return backend.to_host(self._array).item()

    def tolist(self) -> Any:
        """The values as nested Python lists."""
        return backend.to_host(self._array).tolist()

    def to(self, *targets: Any) -> Tensor:
        """This tensor on another device (`"cuda"`, `"cpu"`) or with another dtype (`"float64"`).

        Differentiable between devices and between floating types.
        """
        moved = self
        for target in targets:
            if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
                if backend.check_device(target) != moved.device:
                    moved = ops.to_device(moved, device=target, source=moved.device)
            else:
                dtype = backend.dtype_of(target)
                if dtype != moved.dtype:
                    moved = ops.astype(moved, dtype)
        return moved

    def astype(self, dtype: Any) -> Tensor:
        """This tensor with another dtype; differentiable between floating types."""
        return self.to(backend.dtype_of(dtype))

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is ambiguous: use .any() or .all()"
            )
        return bool(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d tensor")
        return int(self._array.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).numpy().any())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        body = backend.render(self._array, prefix="Tensor(")
        marks = [f"dtype={self._array.dtype}"]
        if self.device != "cpu":
            marks.append(f'device="{self.device}"')
        if self.requires_grad:
            marks.append("requires_grad=True" if self.is_leaf else f"made_by={self._maker()}")
        return f"Tensor({body}, {', '.join(marks)})"

    def _repr_html_(self) -> str:
        from tinygrad_rnn.notebook import tensor_html

        return tensor_html(self)

    def _maker(self) -> str:
        if self._node is None or self._node.plan is None:
            return "the user"
        return self._node.plan.name  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if self.requires_grad:
            raise TypeError(
                "a tensor that requires a gradient became a NumPy array: that would cut the graph "
                "silently; use the op of tinygrad_rnn (tr.stack for a list of tensors), or "
                ".detach() first, or .numpy() if you want the values"
            )
        array = backend.to_host(self._array)
        if dtype is None and not copy:
            return backend.freeze(array)
        return array.astype(array.dtype if dtype is None else dtype, copy=True)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        # `ndarray + tensor` arrives here as np.add; other ufuncs would cut the graph
        name = ufunc.__name__
        given = any(v is not None for v in options.values())
        if name not in _UFUNCS or method != "__call__" or given:
            self._refuse_numpy(name if method == "__call__" else f"{name}.{method}")
        return getattr(ops, name)(*inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        self._refuse_numpy(function.__name__)

    def _refuse_numpy(self, name: str) -> NoReturn:
        ours = {"absolute": "abs", "amax": "max", "amin": "min"}.get(name, name)
        if ours in ops.__all__:
            cure = f"use tr.{ours}"
        else:
            cure = "apply it to .numpy() if you want the values without a gradient"
        raise TypeError(f"np.{name} of a Tensor would cut the graph silently: {cure}")

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise BufferError(
                "a tensor that requires a gradient cannot be exported: .detach() it first"
            )
        copied: Any = backend.namespace(self._array).asarray(self._array, copy=True)
        return copied.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        array: Any = self._array
        return array.__dlpack_device__()  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        if not self.is_leaf:
            raise TypeError(
                f"only leaves are copied and pickled, and this was made by {self._maker()}: "
                ".detach() it first"
            )
        is_buffer = getattr(self, "_place", None) is BUFFER
        array = backend.to_host(self._array)
        return _rebuild, (type(self), array, self.device, self.requires_grad, is_buffer)

    def __copy__(self) -> Tensor:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        rebuild, arguments = self.__reduce__()
        memo[id(self)] = copied = rebuild(*arguments)
        return copied  # type: ignore[no-any-return]

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise ImmutableError(
            "a tensor's values never change: build the result with tr.where, tr.concatenate or "
            "tr.stack, or give a leaf new values with .assign_(array)"
        )

    __hash__ = object.__hash__

    if not TYPE_CHECKING:  # to a type checker no name is missing then

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):  # `_place`, which a computed tensor has not: soon answered
                return object.__getattribute__(self, name)
            from tinygrad_rnn.pytorch import missing

            return missing(self, "Tensor", name)

    # --- arithmetic -------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return ops.power(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.power(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.negative(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return ops.equal(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return ops.not_equal(self, other)

    def __lt__(self, other: Any) -> Tensor:
        return ops.less(self, other)

    def __le__(self, other: Any) -> Tensor:
        return ops.less_equal(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ops.greater(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ops.greater_equal(self, other)

    # booleans and integers, without a derivative

    def __and__(self, other: Any) -> Tensor:
        return ops.bitwise_and(self, other)

    def __rand__(self, other: Any) -> Tensor:
        return ops.bitwise_and(other, self)

    def __or__(self, other: Any) -> Tensor:
        return ops.bitwise_or(self, other)

    def __ror__(self, other: Any) -> Tensor:
        return ops.bitwise_or(other, self)

    def __xor__(self, other: Any) -> Tensor:
        return ops.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return ops.bitwise_xor(other, self)

    def __invert__(self) -> Tensor:
        return ops.bitwise_invert(self)

    def _in_place(self, other: Any, op: Callable[[Any, Any], Tensor]) -> Tensor:
        if self.requires_grad and self.is_leaf:
            raise ImmutableError(
                "an in-place operator on a leaf that requires a gradient: `p -= lr * g` would "
                "replace the leaf by a computed tensor and training would stop silently; "
                "write p.assign_((p - lr * g).detach()), or use tr.optim"
            )
        place = getattr(self, "_place", None)
        return op(self, other) if place is None else place.write(self, op(self, other))

    def __iadd__(self, other: Any) -> Tensor:
        return self._in_place(other, ops.add)

    def __isub__(self, other: Any) -> Tensor:
        return self._in_place(other, ops.subtract)

    def __imul__(self, other: Any) -> Tensor:
        return self._in_place(other, ops.multiply)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._in_place(other, ops.divide)

    def __ipow__(self, other: Any) -> Tensor:
        return self._in_place(other, ops.power)

    def __imatmul__(self, other: Any) -> Tensor:
        return self._in_place(other, ops.matmul)

    def __iand__(self, other: Any) -> Tensor:
        return self._in_place(other, ops.bitwise_and)

    def __ior__(self, other: Any) -> Tensor:
        return self._in_place(other, ops.bitwise_or)

    def __ixor__(self, other: Any) -> Tensor:
        return self._in_place(other, ops.bitwise_xor)

    # --- ops as methods, where NumPy has them -----------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    def exp(self) -> Tensor:
        """`tr.exp(self)`."""
        return ops.exp(self)

    def log(self) -> Tensor:
        """`tr.log(self)`."""
        return ops.log(self)

    def sqrt(self) -> Tensor:
        """`tr.sqrt(self)`."""
        return ops.sqrt(self)

    def abs(self) -> Tensor:
        """`tr.abs(self)`."""
        return ops.abs(self)

    def tanh(self) -> Tensor:
        """`tr.tanh(self)`."""
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        """`tr.sigmoid(self)`."""
        return ops.sigmoid(self)

    def relu(self) -> Tensor:
        """`tr.relu(self)`."""
        return ops.relu(self)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """`tr.sum(self, axis=axis, keepdims=keepdims)`."""
        return ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """`tr.mean(self, axis=axis, keepdims=keepdims)`."""
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def prod(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """`tr.prod(self, axis=axis, keepdims=keepdims)`."""
        return ops.prod(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """`tr.max(self, axis=axis, keepdims=keepdims)`: the values only."""
        return ops.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """`tr.min(self, axis=axis, keepdims=keepdims)`: the values only."""
        return ops.min(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
        """`tr.var(self, axis=axis, ddof=ddof, keepdims=keepdims)`."""
        return ops.var(self, axis=axis, ddof=ddof, keepdims=keepdims)

    def std(self, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
        """`tr.std(self, axis=axis, ddof=ddof, keepdims=keepdims)`."""
        return ops.std(self, axis=axis, ddof=ddof, keepdims=keepdims)

    def cumsum(self, axis: int | None = None) -> Tensor:
        """`tr.cumsum(self, axis=axis)`."""
        return ops.cumsum(self, axis=axis)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """`tr.argmax(self, axis=axis, keepdims=keepdims)`; integers, no gradient."""
        return ops.argmax(self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """`tr.argmin(self, axis=axis, keepdims=keepdims)`; integers, no gradient."""
        return ops.argmin(self, axis=axis, keepdims=keepdims)

    def any(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """`tr.any(self, axis=axis, keepdims=keepdims)`; a boolean, no gradient."""
        return ops.any(self, axis=axis, keepdims=keepdims)

    def all(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """`tr.all(self, axis=axis, keepdims=keepdims)`; a boolean, no gradient."""
        return ops.all(self, axis=axis, keepdims=keepdims)

    def clip(self, min: float | None = None, max: float | None = None) -> Tensor:
        """`tr.clip(self, min=min, max=max)`."""
        return ops.clip(self, min=min, max=max)

    def reshape(self, *shape: Any) -> Tensor:
        """`tr.reshape(self, shape)`; `x.reshape(2, 3)` and `x.reshape((2, 3))` are the same."""
        return ops.reshape(self, _spread_out(shape))

    def transpose(self, *axes: Any) -> Tensor:
        """`tr.transpose(self, axes)`; without axes they are reversed."""
        return ops.transpose(self, _spread_out(axes) if axes else None)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """`tr.swapaxes(self, axis1, axis2)`."""
        return ops.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """`tr.squeeze(self, axis=axis)`."""
        return ops.squeeze(self, axis=axis)

    def flatten(self) -> Tensor:
        """This tensor with one axis."""
        return ops.reshape(self, (-1,))

    def take(self, indices: Any, axis: int = 0) -> Tensor:
        """`tr.take(self, indices, axis=axis)`."""
        return ops.take(self, indices, axis=axis)

    def split(self, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
        """`tr.split(self, indices_or_sections, axis=axis)`."""
        return ops.split(self, indices_or_sections, axis=axis)

    @property
    def T(self) -> Tensor:
        """The axes reversed."""
        return ops.transpose(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
        return ops.swapaxes(self, -1, -2)


_new = object.__new__


def box(array: Array, node: Node | None) -> Tensor:
    """A Tensor of an array and a node as they are: nothing copied, nothing checked."""
    t = _new(Tensor)
    t._array = array
    t._node = node
    return t


def made(array: Array) -> Tensor:
    """`box(array, None)`, but a leaf that the user made, as `Tensor(...)` is."""
    t = box(array, None)
    t._place = OWN
    return t


def twin(t: Tensor, array: Array) -> Tensor:
    """`array` as a constant, which takes new values if `t` does."""
    return made(array) if getattr(t, "_place", None) is OWN else box(array, None)


def snapshot(leaf: Tensor) -> Tensor:
    """The values of a leaf as they are now, to read: a write to them would not reach the leaf."""
    t = box(leaf._array, None)
    t._place = SNAPSHOT
    return t


def _spread_out(given: tuple[Any, ...]) -> Any:
    """The shape or axes of `f(2, 3)` or `f((2, 3))`."""
    return given[0] if len(given) == 1 else given


def _rebuild(
    kind: type[Tensor],
    array: backend.HostArray,
    device: str,
    requires_grad: bool,
    is_buffer: bool = False,
) -> Tensor:
    t: Tensor = _new(kind)
    t._array = backend.to_device(array.copy(), device)
    t._node = None
    t._place = BUFFER if is_buffer else OWN
    if requires_grad:
        t.requires_grad = True
    return t


from tinygrad_rnn.tensor import ops  # noqa: E402  (the ops need Tensor, and its methods need the ops)

# the ufuncs that stand for an operator: `ndarray + tensor` calls np.add
_UFUNCS = frozenset(
    ("add", "subtract", "multiply", "divide", "power", "matmul")
    + ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
    + ("bitwise_and", "bitwise_or", "bitwise_xor")
)
