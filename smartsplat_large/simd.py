"""Sixteen float32 lanes as one numba value, so that kernels say exactly which vector operations they mean.

LLVM's own vectoriser turns the short, ragged rows of a Gaussian into scalar remainders and reduces accumulators once
a row. These few intrinsics map one to one onto LLVM's vector instructions instead; LLVM splits them where the machine's
registers are narrower. Every lane is computed by the same instruction, so a pixel's value does not depend on the lane
it fell into: rendering is bit-identical for every split into windows.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FAST = ("nnan", "ninf", "nsz", "contract", "afn")


class VectorType(types.Type):  # type: ignore[misc]
    """The numba type of sixteen float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, type_: Any) -> None:
        super().__init__(manager, type_, _VECTOR)


def _widen(builder: ir.IRBuilder) -> None:
    """Ask LLVM for the full register width in the function being built; some CPUs are tuned to half of it."""
    attributes = builder.function.attributes
    for name in ("prefer-vector-width", "min-legal-vector-width"):
        set.add(attributes, f'"{name}"="512"')


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
    """The lanes ``array[index : index + 16]`` of a contiguous float32 array, without bounds check."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _widen(builder)
        return builder.load(_address(context, builder, signature.args[0], *args), align=4)

    return vector(array, types.uintp), codegen


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write sixteen lanes to ``array[index : index + 16]``, without bounds check."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.uintp, vector), codegen


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """The same float32 in all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _widen(builder)
        return _broadcast(builder, args[0])

    return vector(types.float32), codegen


@intrinsic
def ramp(typing_context: Any) -> Any:
    """The lanes 0, 1, 2, ... 15."""

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
def where_positive(typing_context: Any, condition: Any, value: Any) -> Any:
    """``value`` in the lanes where ``condition > 0``, else 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], zero)

    return vector(vector, vector), codegen


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
