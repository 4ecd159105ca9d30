"""Products of bytes, sixteen items at a time, by the instruction that processors have for it.

The bytes of sixteen items stand together: their first four each, then their next four, and so on.
So one instruction (AVX-512 VNNI's ``vpdpbusd``) multiplies four bytes of each of the sixteen with
four of a user, and adds the products of each item up. numba has no way to say that; what it makes
of a loop takes three to eight times as long. Where a processor has no such instruction the same is
done by those that it has. Products of whole numbers are exact, so both find the same.

An item's bytes are 0 to 255, a user's -128 to 127, as the instruction wants them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from headwater.types import Flags, Ints

SIDE = 16
"""Items that stand together."""

QUAD = 4
"""Bytes of an item that are multiplied together."""

_USERS = 4
"""Users whose products with the same items are made together: bytes are read once for all."""

_BYTE, _WORD = ir.IntType(8), ir.IntType(32)
_BYTES, _WORDS = ir.VectorType(_BYTE, SIDE * QUAD), ir.VectorType(_WORD, SIDE)


NOTHING = -(1 << 31)
"""Stands for the product with an item that may not be shown: below all others."""


def shown_of(withheld: Flags) -> np.ndarray:
    """(K,) for each block of (N,) items, the bits of those that may be shown, lowest first; none
    of those behind the last item.
    """
    n_blocks = -(-len(withheld) // SIDE)
    shown = np.zeros(2 * n_blocks, np.uint8)
    packed = np.packbits(withheld, bitorder="little")
    shown[: len(packed)] = ~packed
    words = shown.view(np.uint16)
    if rest := len(withheld) % SIDE:
        words[-1] &= np.uint16((1 << rest) - 1)
    return words


def quads(users: np.ndarray) -> Ints:
    """(B, G) each four of (B, 4 G) signed bytes as one number."""
    return users.view(np.int32)


@njit(cache=True, nogil=True)
def largest_of_blocks(codes: np.ndarray, shown: np.ndarray, users: Ints, found: Ints) -> None:
    """The largest product of each user with those of each block of sixteen items that may be shown.

    Args:
        codes: (K, G, 16, 4) bytes of K blocks.
        shown: (K,) see ``shown_of``.
        users: (B, G) see ``quads``.
        found: (B, K) to be written.
    """
    n_users, n_groups = users.shape
    flat, asked, out = codes.ravel(), users.ravel(), found.ravel()
    n_blocks = len(codes)
    together = n_users - n_users % _USERS
    for block in range(n_blocks):
        at = block * n_groups * SIDE * QUAD
        for user in range(0, together, _USERS):
            place = user * n_blocks + block
            start = user * n_groups
            _store_largest_of_some(
                flat, at, shown, block, asked, start, n_groups, out, place, n_blocks
            )
        for user in range(together, n_users):
            place = user * n_blocks + block
            start = user * n_groups
            _store_largest(flat, at, shown, block, asked, start, n_groups, out, place, n_blocks)


@njit(cache=True, nogil=True)
def products_of_block(
    codes: np.ndarray, shown: np.ndarray, block: int, users: Ints, user: int, found: Ints
) -> None:
    """The products of a user with the sixteen items of a block.

    Args:
        codes: (K, G, 16, 4) bytes of K blocks.
        shown: (K,) see ``shown_of``.
        users: (B, G) see ``quads``.
        found: (16,) to be written.
    """
    n_groups = users.shape[1]
    at = block * n_groups * SIDE * QUAD
    start = user * n_groups
    _store_products(codes.ravel(), at, shown, block, users.ravel(), start, n_groups, found, 0, SIDE)


def _storing(n_users: int, store: Callable[..., None]) -> Any:
    """An intrinsic that stores something of the products of so many users with sixteen items.

    Its arguments: items' bytes and where the sixteen begin, the bits of blocks and which block it
    is, users' quads and where the first one begins, how many quads a user has, where to store, at
    which place, and how far apart.
    """

    @intrinsic
    def stored(  # type: ignore[no-untyped-def]
        typing, codes, at, shown, block, users, user, n_groups, found, place, apart
    ):
        size = types.intp
        signature = types.void(codes, size, shown, size, users, size, size, found, size, size)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            codes, shown, users, found = (
                context.make_array(signature.args[n])(context, builder, arguments[n]).data
                for n in (0, 2, 4, 7)
            )
            at, block, user, n_groups, place, apart = (arguments[n] for n in (1, 3, 5, 6, 8, 9))
            bits = builder.load(builder.gep(shown, [block]))
            may_be_shown = builder.bitcast(bits, ir.VectorType(ir.IntType(1), SIDE))
            nothing = ir.Constant(_WORDS, [NOTHING] * SIDE)
            starts = [
                builder.add(user, builder.mul(n_groups, ir.Constant(user.type, n)))
                for n in range(n_users)
            ]
            # What numba compiles for, which its settings may make less than the processor.
            is_fast = "+avx512vnni" in context.codegen().magic_tuple()[2].split(",")
            multiply = _multiply_fast if is_fast else _multiply
            sums = _add_up(builder, codes, at, users, starts, n_groups, multiply)
            for n, products in enumerate(sums):
                into = builder.add(place, builder.mul(apart, ir.Constant(place.type, n)))
                of_shown = builder.select(may_be_shown, products, nothing)
                store(builder, of_shown, builder.gep(found, [into]))
            return context.get_dummy_value()

        return signature, generate

    return stored


def _add_up(
    builder: Any,
    codes: Any,
    at: Any,
    users: Any,
    starts: list[Any],
    n_groups: Any,
    multiply: Callable[..., Any],
) -> list[Any]:
    """Sixteen products for each of the users whose quads begin at ``starts``."""
    zero = ir.Constant(_WORDS, [0] * SIDE)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in starts]  # type: ignore[no-untyped-call]
    with cgutils.for_range(builder, n_groups) as loop:
        group = builder.mul(loop.index, ir.Constant(loop.index.type, SIDE * QUAD))
        pointer = builder.gep(codes, [builder.add(at, group)])
        of_items = builder.load(builder.bitcast(pointer, _BYTES.as_pointer()))
        of_items.align = 1
        for total, start in zip(sums, starts, strict=True):
            quad = builder.load(builder.gep(users, [builder.add(start, loop.index)]))
            one = builder.insert_element(
                ir.Constant(_WORDS, ir.Undefined), quad, ir.Constant(_WORD, 0)
            )
            everywhere = builder.shuffle_vector(
                one, ir.Constant(_WORDS, ir.Undefined), ir.Constant(_WORDS, [0] * SIDE)
            )
            builder.store(multiply(builder, builder.load(total), of_items, everywhere), total)
    return [builder.load(total) for total in sums]


def _multiply_fast(builder: Any, total: Any, of_items: Any, quad: Any) -> Any:
    function = _named(builder, "llvm.x86.avx512.vpdpbusd.512", _WORDS, [_WORDS, _WORDS, _WORDS])
    return builder.call(function, [total, builder.bitcast(of_items, _WORDS), quad])


def _multiply(builder: Any, total: Any, of_items: Any, quad: Any) -> Any:
    wide = ir.VectorType(_WORD, SIDE * QUAD)
    of_user = builder.sext(builder.bitcast(quad, _BYTES), wide)
    products = builder.mul(builder.zext(of_items, wide), of_user)
    for n in range(QUAD):
        places = ir.Constant(_WORDS, list(range(n, SIDE * QUAD, QUAD)))
        part = builder.shuffle_vector(products, ir.Constant(wide, ir.Undefined), places)
        total = builder.add(total, part)
    return total


def _store_all(builder: Any, products: Any, pointer: Any) -> None:
    builder.store(products, builder.bitcast(pointer, _WORDS.as_pointer())).align = QUAD


def _store_most(builder: Any, products: Any, pointer: Any) -> None:
    function = _named(builder, "llvm.vector.reduce.smax.v16i32", _WORD, [_WORDS])
    builder.store(builder.call(function, [products]), pointer)


def _named(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    signature = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, signature, name)  # type: ignore[no-untyped-call]


_store_largest = _storing(1, _store_most)
_store_largest_of_some = _storing(_USERS, _store_most)
_store_products = _storing(1, _store_all)
