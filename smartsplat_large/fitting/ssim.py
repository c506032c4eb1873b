"""Sum of SSIM and its gradient, on every pixel or on every other one each way.

The window is 11 x 11, Gaussian of sigma 1.5; C1 = 0.01^2, C2 = 0.03^2, and zeros lie outside the image. SSIM is a smooth map:
a blur of sigma 1.5 leaves 1.5e-5 of what varies from pixel to pixel. Taken at every other row and column, where both
coordinates in the image are even, it has the same mean to within noise, and its gradient still reaches every pixel, for
38 % of the arithmetic.

The work goes by parts of the image that stay in the second-level cache, and in each by rows of eight lanes:

    fill       x, y, x^2 + y^2 and x y of every row; even columns apart from odd ones
    down       the four blurred down the columns, at the rows of the lattice
    across     and along the rows, at the columns of the lattice: SSIM there, and its derivatives by the blurred moments
    back       the three derivatives blurred along the rows to all columns, then down the columns to all rows

A row's columns are kept in as many *phases* as the lattice has columns between its points, so that eight lattice columns
are eight neighbouring numbers. Kernels take the phases as a tuple of zeros: its length is then known when they are compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, uintp

from smartsplat_large import simd

HALO = 5
_TAPS_N = 2 * HALO + 1
_gauss = np.exp(-((np.arange(_TAPS_N) - HALO) ** 2) / (2 * 1.5**2))
TAPS = tuple(np.float32(t) for t in _gauss / _gauss.sum())
STABILISERS = _C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)
PART_HEIGHT, PART_WIDTH = 64, 128
"""Largest core of a part, in pixels: its scratch stays in the second-level cache, eleven of its rows in the first."""
_PAD = simd.LANES  # columns of zeros left of a phase's pixels; at least as many right of them
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(inline="always", error_model="numpy")
def _phase_pitch(phases: Any) -> Any:
    """Floats of a phase of a row: the part, its halo, and a pixel more where it begins between two lattice columns."""
    longest = (PART_WIDTH + 2 * HALO + 1) // len(phases) + 1
    return uintp(_PAD + (longest + simd.LANES - 1) // simd.LANES * simd.LANES + _PAD)


@njit(inline="always", error_model="numpy")
def _scratch_rows(phases: Any) -> Any:
    """Rows of a part and of the zeros around it, and lattice rows with the zeros around them."""
    rows = PART_HEIGHT + 4 * HALO + 2
    return uintp(rows), uintp(rows // len(phases) + 1)


@njit(cache=True, nogil=True, error_model="numpy")
def scratch(phases: Any) -> Any:
    """Planes x, y, xx + yy, xy of a part; their moments in one row; derivatives in one row, and blurred along rows."""
    phase = _phase_pitch(phases)
    pitch = phase * uintp(len(phases))
    rows, lattice_rows = _scratch_rows(phases)
    return (
        np.zeros(uintp(4) * rows * pitch, np.float32),
        np.zeros(uintp(4) * pitch, np.float32),
        np.zeros(uintp(3) * phase, np.float32),
        np.zeros(uintp(3) * lattice_rows * pitch, np.float32),
        np.zeros(pitch + uintp(2 * simd.LANES), np.float32),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def similarity(
    rendered: Any, target: Any, scale: Any, plane: Any, outer: Any, core: Any, origin: Any, phases: Any, weight: Any,
    gradient: Any, scratch: Any,
) -> tuple[float, int]:  # fmt: skip
    """Sum of SSIM over a part's lattice points in one channel, and their number; ``weight`` times its gradient is added up.

    Parameters
    ----------
    rendered, target, gradient
        All planes as one flat array. Rendered values are clamped to [0, 1], and the gradient passes straight through that;
        the target's are in units of ``scale``, a float32.
    plane
        Where the channel's plane begins in them, and its width.
    outer, core
        First and last rows, first and last columns (exclusive) of the plane: those to look at, and among them those whose
        SSIM counts, at most :data:`PART_HEIGHT` x :data:`PART_WIDTH`. ``outer`` is :data:`HALO` pixels wider on all sides,
        less only at the image's border.
    origin
        Row and column of the plane's corner in the image.
    phases
        One zero for every pixel from one lattice point to the next: ``(0,)`` or ``(0, 0)``.
    """
    step = len(phases)
    y_first, y_end, x_first, x_end = outer
    # Row 0 and column 0 of the scratch are lattice lines: the part's own first ones, or those just before.
    lead_y, lead_x = (origin[0] + y_first) % step, (origin[1] + x_first) % step
    height = y_end - y_first + lead_y
    top, bottom = _lattice(core[0] - y_first + lead_y, step), _lattice(core[1] - y_first + lead_y, step)
    left, right = _lattice(core[2] - x_first + lead_x, step), _lattice(core[3] - x_first + lead_x, step)
    phase, (plane_rows, lattice_rows) = _phase_pitch(phases), _scratch_rows(phases)
    pitch = phase * uintp(step)
    layer, spread_layer = plane_rows * pitch, lattice_rows * pitch
    planes, moments, partials, spread, line = scratch
    first, count = uintp(plane[0] + y_first * plane[1] + x_first), x_end - x_first
    _blank(planes, HALO, HALO + lead_y, pitch, layer, 4)
    for row in range(y_end - y_first):
        at = uintp(row + lead_y + HALO) * pitch
        _fill(rendered, target, first + uintp(row * plane[1]), count, scale, lead_x, phases, planes, at, layer)
    _blank(planes, HALO + height, 2 * HALO + height, pitch, layer, 4)
    margin = HALO // step
    _blank(spread, margin, margin + top, pitch, spread_layer, 3)
    partials[:] = 0
    columns = uintp(_lattice(count + lead_x, step))
    total = 0.0
    for row in range(top, bottom):
        for p in range(step):
            _down(planes, uintp(row * step) * pitch, uintp(p) * phase + uintp(_PAD), columns, pitch, layer, moments)
        for j in range(uintp(_PAD + left), uintp(_PAD + right), uintp(simd.LANES)):
            total += _across(moments, pitch, phase, j, float(_PAD + right - j), step, partials)
        _spread(partials, phase, columns, step, spread, uintp(row + margin) * pitch, spread_layer)
    _blank(spread, margin + bottom, _lattice(height, step) + 2 * margin + 1, pitch, spread_layer, 3)
    for row in range(lead_y, height):
        at = uintp(row // step) * pitch
        here = uintp(row + HALO) * pitch
        if row % step:
            _gather(spread, at, spread_layer, pitch, phase, columns, step, 1, planes, here, layer, line)
        else:
            _gather(spread, at, spread_layer, pitch, phase, columns, step, 0, planes, here, layer, line)
        _add_row(gradient, first + uintp((row - lead_y) * plane[1]), uintp(count), weight, line, uintp(lead_x))
    return total, (bottom - top) * (right - left)


@njit(inline="always", error_model="numpy")
def _lattice(pixel: Any, step: Any) -> Any:
    """Lattice lines before a pixel's."""
    return (pixel + step - 1) // step


@njit(inline="always", error_model="numpy")
def _blank(planes: Any, first: Any, end: Any, pitch: Any, layer: Any, count: Any) -> None:
    for p in range(count):
        planes[uintp(p) * layer + uintp(first) * pitch : uintp(p) * layer + uintp(end) * pitch] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(
    rendered: Any,
    target: Any,
    first: Any,
    count: int,
    scale: Any,
    lead: int,
    phases: Any,
    planes: Any,
    at: Any,
    layer: Any,
) -> None:
    """One row of the planes, and zeros behind it. Vectors of all phases; the last ones overlap those before."""
    step = len(phases)
    phase, group = _phase_pitch(phases), step * simd.LANES
    base = at + uintp(_PAD)
    for k in range(4):
        planes[base + uintp(k) * layer] = _ZERO
    last = count - group - (count - group + lead) % step
    done = lead
    for i in range(lead, count if last >= lead else 0, group):
        pixel = min(i, last)
        out = base + uintp((pixel + lead) // step)
        _put_group(rendered, target, first + uintp(pixel), scale, step, planes, out, phase, layer)
        done = pixel + group
    if lead:
        _put_one(rendered, target, first, scale, planes, base + phase, layer)
    for pixel in range(done, count):
        out = base + phase * uintp((pixel + lead) % step) + uintp((pixel + lead) // step)
        _put_one(rendered, target, first + uintp(pixel), scale, planes, out, layer)
    for p in range(step):
        behind = base + phase * uintp(p) + uintp((count + lead - p + step - 1) // step)
        for k in range(4):
            simd.store(planes, behind + uintp(k) * layer, simd.splat(_ZERO))


@njit(inline="always", error_model="numpy")
def _put_group(
    rendered: Any, target: Any, source: Any, scale: Any, step: Any, planes: Any, out: Any, phase: Any, layer: Any
) -> None:
    zero, one, scales = simd.splat(_ZERO), simd.splat(_ONE), simd.splat(scale)
    x0, y0 = simd.load(rendered, source), simd.load_number(target, source)
    if step == 2:
        after = source + uintp(simd.LANES)
        x1, y1 = simd.load(rendered, after), simd.load_number(target, after)
        x0, x1 = simd.evens(x0, x1), simd.odds(x0, x1)
        y0, y1 = simd.evens(y0, y1), simd.odds(y0, y1)
        _put(simd.minimum(simd.maximum(x1, zero), one), simd.mul(y1, scales), planes, out + phase, layer)
    _put(simd.minimum(simd.maximum(x0, zero), one), simd.mul(y0, scales), planes, out, layer)


@njit(inline="always", error_model="numpy")
def _put(x: Any, y: Any, planes: Any, out: Any, layer: Any) -> None:
    simd.store(planes, out, x)
    simd.store(planes, out + layer, y)
    simd.store(planes, out + uintp(2) * layer, simd.fma(x, x, simd.mul(y, y)))
    simd.store(planes, out + uintp(3) * layer, simd.mul(x, y))


@njit(inline="always", error_model="numpy")
def _put_one(rendered: Any, target: Any, source: Any, scale: Any, planes: Any, out: Any, layer: Any) -> None:
    x, y = min(max(rendered[source], _ZERO), _ONE), np.float32(target[source]) * scale
    planes[out], planes[out + layer] = x, y
    planes[out + uintp(2) * layer], planes[out + uintp(3) * layer] = x * x + y * y, x * y


@njit(inline="always", error_model="numpy")
def _down(planes: Any, at: Any, first: Any, columns: Any, pitch: Any, layer: Any, moments: Any) -> None:
    """Eleven taps down the columns of all four planes, from row ``at`` on; at least eight columns of zeros follow."""
    for j in range(first, first + columns + uintp(HALO), uintp(simd.LANES)):
        first = simd.splat(TAPS[0])
        start = at + j
        a, b = simd.mul(first, simd.load(planes, start)), simd.mul(first, simd.load(planes, start + layer))
        c = simd.mul(first, simd.load(planes, start + uintp(2) * layer))
        d = simd.mul(first, simd.load(planes, start + uintp(3) * layer))
        for t in range(1, _TAPS_N):
            tap, here = simd.splat(TAPS[t]), start + uintp(t) * pitch
            a = simd.fma(tap, simd.load(planes, here), a)
            b = simd.fma(tap, simd.load(planes, here + layer), b)
            c = simd.fma(tap, simd.load(planes, here + uintp(2) * layer), c)
            d = simd.fma(tap, simd.load(planes, here + uintp(3) * layer), d)
        simd.store(moments, j, a)
        simd.store(moments, j + pitch, b)
        simd.store(moments, j + uintp(2) * pitch, c)
        simd.store(moments, j + uintp(3) * pitch, d)


@njit(inline="always", error_model="numpy")
def _blur(row: Any, at: Any, phase: Any, step: Any) -> Any:
    """Eleven taps along a row, at eight lattice columns: every tap finds them side by side in one phase."""
    total = simd.splat(_ZERO)
    for t in range(_TAPS_N):
        # Columns to the right, plus as many whole steps as keep it positive.
        right = t - HALO + step * HALO
        where = at + phase * uintp(right % step) + uintp(right // step) - uintp(HALO)
        total = simd.fma(simd.splat(TAPS[t]), simd.load(row, where), total)
    return total


@njit(inline="always", error_model="numpy")
def _across(moments: Any, pitch: Any, phase: Any, j: Any, valid: float, step: Any, partials: Any) -> Any:
    """SSIM at eight lattice columns and its derivatives by the blurred x, xx and xy; lanes from ``valid`` on are zero."""
    mx, my = _blur(moments, j, phase, step), _blur(moments, j + pitch, phase, step)
    e_squares = _blur(moments, j + uintp(2) * pitch, phase, step)
    exy = _blur(moments, j + uintp(3) * pitch, phase, step)
    minus, two = simd.splat(np.float32(-1)), simd.splat(np.float32(2))
    one, c1, c2 = simd.splat(_ONE), simd.splat(_C1), simd.splat(_C2)
    product, squares = simd.mul(mx, my), simd.fma(mx, mx, simd.mul(my, my))
    a1 = simd.fma(two, product, c1)
    a2 = simd.fma(two, simd.fma(minus, product, exy), c2)
    b1 = simd.add(squares, c1)
    b2 = simd.add(simd.fma(minus, squares, e_squares), c2)
    over = simd.div(one, simd.mul(b1, b2))
    s = simd.mul(simd.mul(a1, a2), over)
    nothing = simd.splat(_ZERO)
    inside = simd.fma(minus, simd.ramp(), simd.splat(np.float32(valid)))
    d_xx = simd.mul(simd.mul(minus, s), simd.mul(over, b1))
    d_xy = simd.mul(simd.mul(two, a1), over)
    across = simd.mul(simd.mul(two, my), simd.mul(simd.fma(minus, a1, a2), over))
    d_x = simd.fma(simd.mul(simd.mul(two, mx), s), simd.mul(over, simd.fma(minus, b2, b1)), across)
    simd.store(partials, j, simd.where_above(inside, nothing, d_x))
    simd.store(partials, j + phase, simd.where_above(inside, nothing, d_xx))
    simd.store(partials, j + phase + phase, simd.where_above(inside, nothing, d_xy))
    return simd.horizontal_sum(simd.where_above(inside, nothing, s))


@njit(inline="always", error_model="numpy")
def _spread(partials: Any, phase: Any, columns: Any, step: Any, spread: Any, at: Any, spread_layer: Any) -> None:
    """The transpose of :func:`_blur`, for all three derivatives: from the lattice's columns to those of every phase."""
    for k in range(3):
        source, out = phase * uintp(k) + uintp(_PAD), at + spread_layer * uintp(k) + uintp(_PAD)
        for i in range(uintp(0), columns, uintp(simd.LANES)):
            simd.store(spread, out + i, _unblur(partials, source + i, uintp(1), step, 0))
            if step == 2:
                simd.store(spread, out + phase + i, _unblur(partials, source + i, uintp(1), step, 1))


@njit(inline="always", error_model="numpy")
def _unblur(lattice: Any, at: Any, pitch: Any, step: Any, between: Any) -> Any:
    """The taps that reach a pixel ``between`` pixels after lattice line ``at``, from lines ``pitch`` apart."""
    total = simd.splat(_ZERO)
    for t in range(_TAPS_N):
        right = between + t - HALO + step * HALO
        if right % step == 0:
            where = at + pitch * uintp(right // step) - pitch * uintp(HALO)
            total = simd.fma(simd.splat(TAPS[t]), simd.load(lattice, where), total)
    return total


@njit(inline="always", error_model="numpy")
def _gather(
    spread: Any, at: Any, spread_layer: Any, pitch: Any, phase: Any, columns: Any, step: Any, between: Any, planes: Any,
    here: Any, layer: Any, line: Any,
) -> None:  # fmt: skip
    """One row of the gradient: the derivatives blurred down to it, times what they are derivatives of."""
    margin = pitch * uintp(HALO // step)
    for i in range(uintp(0), columns, uintp(simd.LANES)):
        j = uintp(_PAD) + i
        even = _chain(spread, at + margin + j, spread_layer, pitch, step, between, planes, here + j, layer)
        if step == 2:
            j += phase
            odd = _chain(spread, at + margin + j, spread_layer, pitch, step, between, planes, here + j, layer)
            simd.store(line, i + i, simd.zip_low(even, odd))
            simd.store(line, i + i + uintp(simd.LANES), simd.zip_high(even, odd))
        else:
            simd.store(line, i, even)


@njit(inline="always", error_model="numpy")
def _chain(
    spread: Any, from_: Any, spread_layer: Any, pitch: Any, step: Any, between: Any, planes: Any, here: Any, layer: Any
) -> Any:
    d_xx = _unblur(spread, from_ + spread_layer, pitch, step, between)
    d_xy = _unblur(spread, from_ + spread_layer + spread_layer, pitch, step, between)
    total = _unblur(spread, from_, pitch, step, between)
    total = simd.fma(simd.add(d_xx, d_xx), simd.load(planes, here), total)
    return simd.fma(d_xy, simd.load(planes, here + layer), total)


@njit(inline="always", error_model="numpy")
def _add_row(gradient: Any, first: Any, count: Any, weight: Any, line: Any, lead: Any) -> None:
    for i in range(count):
        gradient[first + i] += weight * line[lead + i]
