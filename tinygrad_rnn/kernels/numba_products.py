"""Products with a weight that many steps share, compiled by numba: of a recurrent layer h Wᵀ and, backwards, dz W.

A BLAS first copies a factor into the order in which it reads it, panels of some columns, row by row; with the few rows
of a batch that takes longer than the product. A weight is the same at all steps, so here it is `pack`ed once, and
`product` multiplies by it as often as need be. A tile of the result, some rows of one panel, stays in registers while
it is summed: K. Goto and R. van de Geijn (2008), "Anatomy of high-performance matrix multiplication".

Each entry is summed in order, k = 0, 1, ..., by fused multiplications and additions. So its bits depend neither on the
processor nor on how many rows or columns are computed with it: a batch may be cut for threads in any way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from tinygrad_rnn.kernels.numba_object import FLOATS, as_kind, at, byte, loops, size_of
from tinygrad_rnn.kernels.registers import HERE, Registers, width_of

BLOCK = 512  # summands after which a tile goes to memory and back, so that what is read meanwhile stays in the cache


MANY = HERE.rows  # rows of a tile, at most
AT_ONCE = (4, 2, 2)  # panels of a tile of 1, 2 or 3 rows: one sum alone would wait for itself


# --- a tile -----------------------------------------------------------------------------------------------------------


class Tile:
    """The LLVM code of a tile: `rows` rows of `panels` panels."""

    def __init__(self, builder: Any, kind: Any, lanes: int, rows: int, panels: int) -> None:
        self.builder, self.kind, self.lanes, self.rows = builder, kind, lanes, range(rows)
        self.vector = ir.VectorType(kind, lanes)
        self.places = [(r, v) for r in range(rows) for v in range(2 * panels)]
        self.size = int(lanes * 2 * {"float": 4, "double": 8}[str(kind)])  # bytes of a row of a panel

    def add(self, *terms: Any) -> Any:
        """The sum of addresses and numbers."""
        total, *rest = (ir.Constant(ir.IntType(64), x) if isinstance(x, int) else x for x in terms)
        for x in rest:
            total = self.builder.add(total, x)
        return total

    def times(self, a: Any, n: int) -> Any:
        return self.builder.mul(a, ir.Constant(ir.IntType(64), n))

    def pointer(self, address: Any, kind: Any) -> Any:
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, address: Any, kind: Any) -> Any:
        found = self.builder.load(self.pointer(address, kind))
        found.align = self.size // 2 // self.lanes
        return found

    def everywhere(self, address: Any) -> Any:
        """A vector of one number."""
        number, some = self.load(address, self.kind), ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(some, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, some, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None))

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once."""
        letter = {"float": "f32", "double": "f64"}[str(self.kind)]
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        f = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fma.v{self.lanes}{letter}")
        return self.builder.call(f, (a, b, c))

    def sums(self, a: Any, a_row: Any, b: Any, b_panel: Any, begin: Mapping[Any, Mapping[Any, Any]], K: Any) -> Any:
        """The sums over k: they begin as `begin[block]` where the loop is entered from a block. Leaves the loop."""
        builder = self.builder
        loop, done = builder.append_basic_block("k"), builder.append_basic_block("summed")
        for block in begin:
            builder.position_at_end(block)
            builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(ir.IntType(64))
        sums = {place: builder.phi(self.vector) for place in self.places}
        for block, values in begin.items():
            k.add_incoming(ir.Constant(ir.IntType(64), 0), block)
            for place, phi in sums.items():
                phi.add_incoming(values[place], block)
        row = self.add(b, self.times(k, self.size))
        halves = {
            v: self.add(row, builder.mul(b_panel, self.add(v // 2)), v % 2 * self.size // 2) for _, v in self.places
        }
        of_b = {v: self.load(x, self.vector) for v, x in halves.items()}
        new: dict[tuple[int, int], Any] = {}
        for r in self.rows:
            x = self.everywhere(self.add(a, self.times(a_row, r), self.times(k, self.size // 2 // self.lanes)))
            new |= {(r, v): self.fused(x, of_b[v], sums[r, v]) for v in of_b}
        after = self.add(k, 1)
        k.add_incoming(after, loop)
        for place, phi in sums.items():
            phi.add_incoming(new[place], loop)
        builder.cbranch(builder.icmp_signed("<", after, K), loop, done)
        builder.position_at_end(done)
        return new

    def build(self, a: Any, a_row: Any, b: Any, b_panel: Any, y: Any, y_row: Any, K: Any, more: Any) -> None:
        """y = a b, or, with `more`, y += a b; all but K and `more` are addresses, or distances in bytes."""
        builder = self.builder
        to = {(r, v): self.add(y, self.times(y_row, r), v * self.size // 2) for r, v in self.places}
        anew, on = builder.append_basic_block("anew"), builder.append_basic_block("on")
        builder.cbranch(builder.icmp_signed("!=", more, ir.Constant(ir.IntType(64), 0)), on, anew)
        builder.position_at_end(on)
        before = {place: self.load(x, self.vector) for place, x in to.items()}
        nothing = dict.fromkeys(self.places, ir.Constant(self.vector, None))
        for place, x in self.sums(a, a_row, b, b_panel, {on: before, anew: nothing}, K).items():
            builder.store(x, self.pointer(to[place], self.vector)).align = self.size // 2 // self.lanes


def tiles(registers: Registers) -> Any:
    """A function that computes a tile. Its arguments are a number of the dtype, how many rows and panels the tile has,
    and what `Tile.build` takes.
    """
    sizes = [(rows, 1) for rows in range(1, registers.rows + 1)]
    sizes += [(rows, panels) for rows, most in enumerate(AT_ONCE, 1) for panels in range(2, most + 1)]

    @intrinsic
    def tile(context: Any, like: Any, rows: Any, panels: Any, a: Any, a_row: Any, b: Any, b_panel: Any, y: Any,
             y_row: Any, K: Any, more: Any) -> Any:  # fmt: skip
        def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            number = signature.args[0]
            lanes = registers.nbytes * 8 // number.bitwidth
            end = builder.append_basic_block("end")
            size = builder.add(builder.mul(given[1], ir.Constant(given[1].type, 8)), given[2])
            switch = builder.switch(size, end)
            for count, wide in sizes:
                block = builder.append_basic_block(f"tile{count}x{wide}")
                switch.add_case(ir.Constant(size.type, 8 * count + wide), block)
                builder.position_at_end(block)
                Tile(builder, context.get_value_type(number), lanes, count, wide).build(*given[3:])
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 10), build

    return tile


_tile = tiles(HERE)


@intrinsic
def _width(context: Any, like: Any) -> Any:
    """`width_of` the dtype of a number, which the compiler knows."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return ir.Constant(ir.IntType(64), width_of(str(signature.args[0])))

    return types.intp(like), build


@intrinsic
def _spare(context: Any, like: Any) -> Any:
    """The address of room for MANY rows of a panel."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        room = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(8), MANY * 2 * HERE.nbytes))
        return builder.ptrtoint(room, ir.IntType(64))

    return types.intp(like), build


# --- products ---------------------------------------------------------------------------------------------------------


@njit(inline="always")
def _columns(like: Any, g: Any, x: Any, w: Any, y: Any, M: Any, K: Any, x_row: Any, y_row: Any, size: Any) -> None:
    """y = x w of `g` panels, by tiles of about as many rows each."""
    apart, count = _width(like) * size, (M + MANY - 1) // MANY  # `apart` are the bytes of a panel's row
    for k in range(0, K, BLOCK):
        i = 0
        for t in range(count):
            end, n = M * (t + 1) // count, min(BLOCK, K - k)
            a, b, c = x + i * x_row + k * size, w + k * apart, y + i * y_row
            _tile(like, end - i, g, a, x_row, b, K * apart, c, y_row, n, k)
            i = end


@njit(inline="always")
def _product(like: Any, x: Any, w: Any, y: Any, M: Any, K: Any, N: Any, x_row: Any, y_row: Any, size: Any) -> None:
    """y = x w: addresses, sizes, and distances of rows in bytes; `size` are the bytes of a number."""
    width = _width(like)
    apart, p, panels = width * size, 0, (N + width - 1) // width
    most = AT_ONCE[0] if M == 1 else AT_ONCE[1] if M == 2 else AT_ONCE[2] if M == 3 else 1
    while p < panels:
        g = min(most, panels - p)
        a, b, c, rest = x, w + p * K * apart, y + p * apart, (N - p * width) * size
        if rest >= g * apart:
            _columns(like, g, a, b, c, M, K, x_row, y_row, size)
        else:  # of the last panel as many columns as there are
            spare = _spare(like)
            for i in range(0, M, MANY):
                m = min(MANY, M - i)
                _columns(like, g, a + i * x_row, b, spare, m, K, x_row, g * apart, size)
                for r in range(m):
                    row, of_spare = byte(c + (i + r) * y_row), byte(spare + r * g * apart)
                    for n in range(rest):
                        row[n] = of_spare[n]
        p += g


# --- as loops of the machine ------------------------------------------------------------------------------------------


@loops(FLOATS)
def pack_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`pack` of a matrix of dims[0] rows and dims[1] columns, steps[0] and steps[1] bytes apart."""
    K, N, width, size = dims[0], dims[1], _width(as_kind(data, 0)), size_of(data)
    for p in range((N + width - 1) // width):
        n = min(width, N - p * width)
        for k in range(K):
            row = carray(at(args[1] + (p * K + k) * width * size, data), width)
            place = args[0] + k * steps[0] + p * width * steps[1]
            if n == width and steps[1] == size:
                of_weight = carray(at(place, data), width)
                for j in range(width):
                    row[j] = of_weight[j]
            elif n == width:
                for j in range(width):
                    row[j] = at(place + j * steps[1], data)[0]
            else:
                row[:] = 0
                for j in range(n):
                    row[j] = at(place + j * steps[1], data)[0]


@loops(FLOATS)
def product_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`product`; dims are M, K and N, steps the distances of rows."""
    like, size = as_kind(data, 0), size_of(data)
    _product(like, args[0], args[1], args[2], dims[0], dims[1], dims[2], steps[0], steps[2], size)
