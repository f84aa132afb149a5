"""Compare 64 numbers with one at once, in the processor's widest registers.

The intrinsic is written for LLVM through llvmlite, whose interface changes between versions; that
is why `above` exists twice and the plain one takes over where this one does not compile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PACK = np.uint64(0x0102040810204080)


def scratch(vectorised: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint64]] | None:
    """Return what `above` needs to choose and to run its vectorised or its plain form."""
    if vectorised:
        return None
    flags = np.zeros(64, np.uint8)
    return flags, flags.view(np.uint64)


def above(values: Any, first: Any, threshold: Any, scratch: Any) -> Any:
    """Tell which of ``values[first:first + 64]`` are above the threshold, as bits of a uint64.

    For use in compiled code; `values` is float32, C-contiguous, and long enough.
    """
    raise TypeError("above() is for compiled code only")


@overload(above, inline="always")
def _above(values, first, threshold, scratch):  # type: ignore[no-untyped-def]
    if scratch == types.none:
        return _above_vectorised
    return _above_plain


def _above_vectorised(values, first, threshold, scratch):  # type: ignore[no-untyped-def]
    return _compare(values, first, threshold)


def _above_plain(values, first, threshold, scratch):  # type: ignore[no-untyped-def]
    flags, words = scratch
    for i in range(np.uint64(64)):
        flags[i] = values[first + i] > threshold
    bits = np.uint64(0)
    for j in range(np.uint64(8)):
        # The product has the lowest bits of the word's eight bytes in its highest byte.
        bits |= ((words[j] * _PACK) >> np.uint64(56)) << (np.uint64(8) * j)
    return bits


@intrinsic
def _compare(typing_context, values, first, threshold):  # type: ignore[no-untyped-def]
    """Compile to one comparison of a vector of 64 floats."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir  # type: ignore[import-untyped]

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        number, bit = ir.FloatType(), ir.IntType(32)
        lanes = ir.VectorType(number, 64)
        pointer = builder.gep(array.data, [arguments[1]])
        loaded = builder.load(builder.bitcast(pointer, lanes.as_pointer()))
        loaded.align = 4
        empty = ir.Constant(lanes, ir.Undefined)
        one = builder.insert_element(empty, arguments[2], ir.Constant(bit, 0))
        spread = ir.Constant(ir.VectorType(bit, 64), [0] * 64)
        limit = builder.shuffle_vector(one, empty, spread)
        return builder.bitcast(builder.fcmp_ordered(">", loaded, limit), ir.IntType(64))

    return types.uint64(values, types.uint64, types.float32), generate


def compiled(function: Any) -> Any:
    """Compile for calls without the interpreter's lock, and keep the machine code on disk."""
    options = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder that numba may write to: compile anew in every process.
        return numba.njit(**options)(function)
