"""Eight float32 lanes as one numba value, so that kernels say exactly which vector operations they mean.

LLVM's own vectoriser turns the short, ragged rows of a Gaussian into scalar remainders and reduces accumulators once
a row. These few intrinsics map one to one onto LLVM's vector instructions instead; LLVM splits them where the machine's
registers are narrower. Every lane is computed by the same instruction, so a pixel's value does not depend on the lane
it fell into: rendering is bit-identical for every split into windows.

Eight, not sixteen, even where registers hold sixteen: a strip of eight pixels wastes fewer lanes at a Gaussian's rim
(docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_INTS = ir.VectorType(_INT, LANES)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FAST = ("nnan", "ninf", "nsz", "contract", "afn")


class VectorType(types.Type):  # type: ignore[misc]
    """The numba type of eight float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, type_: Any) -> None:
        super().__init__(manager, type_, _VECTOR)


def _address(context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, index: Any) -> ir.Value:
    data = context.make_array(array_type)(context, builder, array).data
    pointer = builder.gep(data, [index], inbounds=True)
    return builder.bitcast(pointer, _VECTOR.as_pointer())


def _broadcast(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """The lanes ``array[index : index + 8]`` of a contiguous float32 array, without bounds check."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *args), align=4)

    return vector(array, types.uintp), codegen


@intrinsic
def load_number(typing_context: Any, array: Any, index: Any) -> Any:
    """Eight numbers (float32, or unsigned whole ones of 8 or 16 bits) as float32 lanes, without bounds check."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if isinstance(array.dtype, types.Float):
            return builder.load(_address(context, builder, signature.args[0], *args), align=4)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.gep(data, [args[1]], inbounds=True)
        kind = ir.VectorType(ir.IntType(array.dtype.bitwidth), LANES)
        whole = builder.load(builder.bitcast(pointer, kind.as_pointer()), align=1)
        return builder.sitofp(builder.zext(whole, _INTS), _VECTOR)

    return vector(array, types.uintp), codegen


@intrinsic
def prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Ask for the cache line of ``array[row, column]`` of a C-contiguous array; the place need not exist."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        width = builder.extract_value(view.shape, 1)
        at = builder.add(builder.mul(args[1], width), args[2])
        pointer = builder.bitcast(builder.gep(view.data, [at]), ir.IntType(8).as_pointer())
        flags = [ir.Constant(_INT, value) for value in (0, 3, 1)]  # to read, soon and often, data
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), _INT, _INT, _INT])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8"), [pointer, *flags])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write eight lanes to ``array[index : index + 8]``, without bounds check."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.uintp, vector), codegen


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """The same float32 in all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _broadcast(builder, args[0])

    return vector(types.float32), codegen


@intrinsic
def ramp(typing_context: Any) -> Any:
    """The lanes 0, 1, 2, ... 7."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, [float(lane) for lane in range(LANES)])

    return vector(), codegen


@intrinsic
def add(typing_context: Any, a: Any, b: Any) -> Any:
    """``a + b`` in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=_FAST)

    return vector(vector, vector), codegen


@intrinsic
def sub(typing_context: Any, a: Any, b: Any) -> Any:
    """``a - b`` in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fsub(*args, flags=_FAST)

    return vector(vector, vector), codegen


@intrinsic
def mul(typing_context: Any, a: Any, b: Any) -> Any:
    """``a * b`` in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args, flags=_FAST)

    return vector(vector, vector), codegen


@intrinsic
def div(typing_context: Any, a: Any, b: Any) -> Any:
    """``a / b`` in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fdiv(*args)

    return vector(vector, vector), codegen


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` in every lane, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32"), args)

    return vector(vector, vector, vector), codegen


def _extremum(comparison: str) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(comparison, *args, flags=_FAST), *args)

    return codegen


@intrinsic
def minimum(typing_context: Any, a: Any, b: Any) -> Any:
    """The smaller of ``a`` and ``b`` in every lane."""
    return vector(vector, vector), _extremum("<")


@intrinsic
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger of ``a`` and ``b`` in every lane."""
    return vector(vector, vector), _extremum(">")


@intrinsic
def sqrt(typing_context: Any, a: Any) -> Any:
    """The square root in every lane, correctly rounded."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32"), args)

    return vector(vector), codegen


@intrinsic
def times_power_of_two(typing_context: Any, value: Any, exponent: Any) -> Any:
    """``value * 2**n`` where ``exponent`` is ``MAGIC + n``: shifts n out of the float's low bits into the exponent of value.

    Nothing is checked: value and result must be normal numbers.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits, shift = builder.bitcast(args[1], _INTS), ir.Constant(_INTS, [23] * LANES)
        return builder.bitcast(builder.add(builder.bitcast(args[0], _INTS), builder.shl(bits, shift)), _VECTOR)

    return vector(vector, vector), codegen


MAGIC = np.float32(1.5 * 2**23)
"""Added to a small float, it rounds it to a whole number and leaves that in the low bits."""


@intrinsic
def store_ints(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write eight lanes, cut to whole numbers, to ``array[index : index + 8]`` of int32, without bounds check."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]], inbounds=True), _INTS.as_pointer())
        builder.store(builder.fptosi(args[2], _INTS), pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.uintp, vector), codegen


@intrinsic
def where_above(typing_context: Any, condition: Any, floor: Any, value: Any) -> Any:
    """``value`` in the lanes where ``condition > floor``, else 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], zero)

    return vector(vector, vector, vector), codegen


def _shuffle(lanes: list[int]) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.shuffle_vector(*args, ir.Constant(_INTS, lanes))

    return codegen


@intrinsic
def evens(typing_context: Any, a: Any, b: Any) -> Any:
    """Lanes 0, 2, 4, ... of the sixteen that ``a`` and ``b`` are together."""
    return vector(vector, vector), _shuffle(list(range(0, 2 * LANES, 2)))


@intrinsic
def odds(typing_context: Any, a: Any, b: Any) -> Any:
    """Lanes 1, 3, 5, ... of the sixteen that ``a`` and ``b`` are together."""
    return vector(vector, vector), _shuffle(list(range(1, 2 * LANES, 2)))


@intrinsic
def zip_low(typing_context: Any, a: Any, b: Any) -> Any:
    """The lower lanes of ``a`` and ``b`` in turn: what :func:`evens` and :func:`odds` took apart, first half."""
    return vector(vector, vector), _shuffle([lane // 2 + lane % 2 * LANES for lane in range(LANES)])


@intrinsic
def zip_high(typing_context: Any, a: Any, b: Any) -> Any:
    """The upper lanes of ``a`` and ``b`` in turn."""
    return vector(vector, vector), _shuffle([lane // 2 + lane % 2 * LANES for lane in range(LANES, 2 * LANES)])


@intrinsic
def sums_of_eight(typing_context: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """The horizontal sums of eight vectors as the lanes of one: a transposition and its additions interleaved."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows = list(args)
        # Each round adds neighbours within halves, quarters, ... of what is left: 7 additions instead of 24.
        for stride in (4, 2, 1):
            half = len(rows) // 2
            rows = [_merge(builder, rows[i], rows[i + half], stride) for i in range(half)]
        return rows[0]

    return vector(*[vector] * 8), codegen


def _merge(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, stride: int) -> ir.Value:
    """Lanes of ``x`` where ``lane & stride`` is 0, of ``y`` elsewhere, each plus its partner ``stride`` lanes away."""
    keep = [lane if not lane & stride else lane + LANES for lane in range(LANES)]
    swap = [(lane ^ stride) + (0 if not lane & stride else LANES) for lane in range(LANES)]
    kept, swapped = (builder.shuffle_vector(x, y, ir.Constant(_INTS, list(lanes))) for lanes in (keep, swap))
    return builder.fadd(kept, swapped)


@intrinsic
def horizontal_sum(typing_context: Any, value: Any) -> Any:
    """The sum of all lanes, as a tree."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (lanes,), width = args, LANES
        while width > 1:
            width //= 2
            half = ir.VectorType(_FLOAT, width)
            index = ir.VectorType(ir.IntType(32), width)
            low, high = (
                builder.shuffle_vector(lanes, ir.Constant(lanes.type, ir.Undefined), ir.Constant(index, list(span)))
                for span in (range(width), range(width, 2 * width))
            )
            lanes = builder.fadd(low, high)
            assert lanes.type == half
        return builder.extract_element(lanes, ir.Constant(ir.IntType(32), 0))

    return types.float32(vector), codegen
