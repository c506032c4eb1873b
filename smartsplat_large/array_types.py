"""Names for the arrays that cross module borders; shapes are part of the contract, for readers rather than at run time."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float32, Float64, Int64, UInt8, UInt16
from numpy import ndarray

from smartsplat_large.lattice import Window

Xy = Float64[ndarray, "n 2"]
"""Centres in level-0 pixels; pixel (0, 0) spans [0, 1) x [0, 1), so its centre is (0.5, 0.5)."""

Scale = Float32[ndarray, "n 2"]
"""Standard deviations along the two principal axes, in level-0 pixels, positive."""

Rotation = Float32[ndarray, "n"]
"""Angle of the first principal axis against +x, radians, towards +y."""

Color = Float32[ndarray, "n c"]
"""Peak contribution per channel; 1 is the brightest pixel value. May be negative or above 1."""

Index = Int64[ndarray, "n"]

Pixels = UInt8[ndarray, "h w c"] | UInt16[ndarray, "h w c"]
"""Stored pixel values, channels last, as a source reads and a sink writes them."""

Planes = Float32[ndarray, "c h w"]
"""Pixel values as the renderer and the loss use them: one plane per channel, 1 is the brightest value."""

WholePlanes = UInt8[ndarray, "c h w"] | UInt16[ndarray, "c h w"]
"""Stored pixel values, one plane per channel."""

Moments = Float32[ndarray, "n m"]
"""What a renderer's backward pass adds up for each Gaussian, block by block, before it becomes a gradient."""

PixelReader = Callable[[Window], Pixels]
"""Reads one window of level 0. The caller owns the result."""
