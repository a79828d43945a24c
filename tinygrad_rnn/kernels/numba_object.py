"""Kernels as numba compiles them: into an object file, which `native` loads without numba.

A kernel is a loop of the form that `machine` describes, or, as `entry`, a function of numbers and addresses. It is
registered here under the name of its symbol, and compiled by `emit`, in a process of its own. What a kernel must obey:

- It asks for no memory, and so makes no arrays but `carray`s: what it needs is handed in, or, a few numbers, in `room`.
- It raises nothing; where it may fail, it says so in memory.
- It calls nothing but other kernels' functions, math, and addresses that it was given.

`emit` refuses what does not. Besides, a kernel depends on nothing that is read when it is compiled but the processor
and the modules in `native.SOURCES`, since by these what was compiled is found again.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from tinygrad_rnn.kernels.native import container, group_of, key, symbol_of

FLOATS = {"f": types.float32, "d": types.float64}
WORDS = {1: types.int8, 2: types.int16, 4: types.int32, 8: types.int64}  # by their size: what is copied, whatever it is
ROOM = 9
_numbers = types.CPointer(types.intp)

kernels: dict[str, tuple[Callable[..., Any], Any, str]] = {}  # by symbol: a function, its signature, its group


def loops(kinds: Mapping[Any, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a loop for the types of numbers that `data` may point to: it is given as their example."""

    def register(f: Callable[..., None]) -> Callable[..., None]:
        for kind, number in kinds.items():
            signature = types.void(_numbers, _numbers, _numbers, types.CPointer(number))
            kernels[symbol_of(f.__name__, kind)] = f, signature, group_of(f.__name__, kind)
        return f

    return register


def entry(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function that is none of several kinds of numbers."""

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        kernels[symbol_of(f.__name__)] = f, signature, group_of(f.__name__, "")
        return f

    return register


def inlined(f: Callable[..., Any]) -> Any:
    """A function that kernels call, as a part of each."""
    return njit(inline="always")(f)


# --- addresses in a kernel --------------------------------------------------------------------------------------------


@intrinsic
def call(context: Any, loop: Any, args: Any, dims: Any, steps: Any, data: Any) -> Any:
    """Call the loop at an address; all are addresses."""

    def build(context: Any, builder: Any, _: Any, given: Any) -> Any:
        pointers = [builder.inttoptr(a, cgutils.voidptr_t) for a in given[1:]]
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t] * 4)
        builder.call(builder.inttoptr(given[0], kind.as_pointer()), pointers)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), build


@intrinsic
def at(context: Any, address: Any, like: Any) -> Any:
    """An address as a pointer of the type of another one."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

    return like(types.intp, like), build


@intrinsic
def place(context: Any, address: Any, count: Any, like: Any) -> Any:
    """The place so many numbers behind an address, as `at`."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.gep(builder.inttoptr(given[0], context.get_value_type(signature.return_type)), [given[1]])

    return like(types.intp, types.intp, like), build


@intrinsic
def size_of(context: Any, pointer: Any) -> Any:
    """The bytes of a number to which a pointer points."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return context.get_constant(types.intp, pointer.dtype.bitwidth // 8)

    return types.intp(pointer), build


@intrinsic
def as_kind(context: Any, pointer: Any, value: Any) -> Any:
    """A number as one of the kind to which a pointer points."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return context.cast(builder, given[1], value, pointer.dtype)

    return pointer.dtype(pointer, value), build


@intrinsic
def byte(context: Any, address: Any) -> Any:
    """An address as a pointer to bytes."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int8)(types.intp), build


@intrinsic
def number(context: Any, address: Any) -> Any:
    """The number, an int64, at an address."""

    def build(context: Any, builder: Any, _: Any, given: Any) -> Any:
        return builder.load(builder.inttoptr(given[0], given[0].type.as_pointer()))

    return types.intp(types.intp), build


@intrinsic
def small(context: Any, address: Any) -> Any:
    """The number, an int32, at an address."""

    def build(context: Any, builder: Any, _: Any, given: Any) -> Any:
        found = builder.load(builder.inttoptr(given[0], ir.IntType(32).as_pointer()))
        return builder.sext(found, given[0].type)

    return types.intp(types.intp), build


@intrinsic
def address(context: Any, pointer: Any) -> Any:
    """A pointer as an address."""

    def build(context: Any, builder: Any, _: Any, given: Any) -> Any:
        return builder.ptrtoint(given[0], ir.IntType(64))

    return types.intp(pointer), build


@intrinsic
def room(context: Any) -> Any:
    """The address of room for ROOM numbers, until the kernel is done."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.ptrtoint(cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(64), ROOM)), ir.IntType(64))

    return types.intp(), build


# --- the object file --------------------------------------------------------------------------------------------------

# What the linker finds in any process: functions that move memory, and the C library's mathematics. A call of another
# one comes of an array that is made, or of something that is raised.
MEMORY = {"memcpy", "memmove", "memset"}
MATHS = {"exp", "expf", "log", "logf", "sqrt", "sqrtf", "tanh", "tanhf"}
RAISES = "a_kernel_raises"


def _compiled(f: Callable[..., Any], signature: Any) -> Any:
    """What numba makes of a function."""
    flags = compiler.Flags()
    flags.nrt = flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    target = cpu_target.typing_context, cpu_target.target_context
    return compiler.compile_extra(*target, f, signature.args, signature.return_type, flags, {})


def _add_symbol(module: Any, symbol: str, made: Any) -> None:
    """Define a C function that calls what numba has made. Whether that raises is proven not to matter: `RAISES`."""
    context, of = cpu_target.target_context, made.signature
    kinds = [context.get_value_type(t) for t in of.args]
    back = ir.VoidType() if of.return_type is types.void else context.get_value_type(of.return_type)
    function = ir.Function(module, ir.FunctionType(back, kinds), symbol)
    builder = ir.IRBuilder(function.append_basic_block())
    callee = context.declare_function(module, made.fndesc)
    status, result = context.call_conv.call_function(builder, callee, of.return_type, of.args, function.args)
    with builder.if_then(status.is_error, likely=False):
        builder.call(cgutils.get_or_insert_function(module, ir.FunctionType(ir.VoidType(), []), RAISES), [])
    if of.return_type is types.void:
        builder.ret_void()
    else:
        builder.ret(result)


def emit(group: str) -> bytes:
    """The object file of the kernels of a group. Raises RuntimeError for a kernel that does not obey."""
    chosen = {symbol: (f, of) for symbol, (f, of, its) in kernels.items() if its == group}
    with global_compiler_lock:
        library = cpu_target.target_context.codegen().create_library(group)
        module, all_of_it = library.create_ir_module("symbols"), library._final_module
        for symbol, (f, signature) in chosen.items():
            made = _compiled(f, signature)
            _add_symbol(module, symbol, made)
            all_of_it.link_in(made.library._final_module)
            for part in made.library._linking_libraries:  # after what calls them: else they are left out
                if part.name != "nrt":  # which counts references of memory that is asked for
                    all_of_it.link_in(part._get_module_for_linking(), preserve=True)
        library.add_ir_module(module)
        for value in (*all_of_it.functions, *all_of_it.global_variables):
            if not value.is_declaration and value.name not in chosen:
                value.linkage = "internal"  # so that what nobody calls goes
        library._optimize_final_module()
    defined = "\n".join(line for line in str(all_of_it).splitlines() if not line.startswith("declare"))
    named = {f.name for f in all_of_it.functions if f.is_declaration} & set(re.findall(r'@"?([^"(\s]+)', defined))
    if strange := sorted(name for name in named - MEMORY - MATHS if not name.startswith("llvm.")):
        raise RuntimeError(f"kernels may not ask for memory nor raise, but they call {', '.join(strange)}")
    return bytes(library.codegen._tm.emit_object(all_of_it))


def main(group: str, path: str) -> None:
    """Write the kernels of a group to a file, as `native` reads it."""
    gc.disable()  # what a compiler makes it keeps: a tenth of the time
    found = key()
    from tinygrad_rnn.kernels import numba_machine, numba_products, numba_stages  # noqa: F401 (they register kernels)

    Path(path).write_bytes(container(emit(group), found))
