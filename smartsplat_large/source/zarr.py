"""Plain zarr arrays and OME-Zarr multiscale images (0.4 and 0.5), zarr format 2 and 3, from a folder or an address."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from smartsplat_large.array_types import Pixels, WholePlanes
from smartsplat_large.errors import SmartSplatError, SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.native_threads import unpacked_by_zarrs, zarr_alone
from smartsplat_large.ome_zarr import EXTRA_KEY
from smartsplat_large.places import Place, is_url
from smartsplat_large.remote_zarr import zarr_store
from smartsplat_large.source.base import (
    Closing,
    ImageMeta,
    require_supported,
    require_window,
    stored_levels,
    windows_are_cheap,
)

_TOO_MANY_AXES = "give an array of (height, width), (height, width, channels) or (channels, height, width)"


class ZarrSource(Closing):
    """One image of a zarr hierarchy. Of several times or depths the first is read. A chunk that is not stored is 0."""

    def __init__(self, path: Place, name: str) -> None:
        self._path, self._name = path, name
        try:
            arrays, axes, self._format, extra = _open(path, name)
        except SmartSplatError:
            raise
        except Exception as error:  # zarr and its codecs raise many kinds, all of them about these bytes
            raise SourceError(f"{name}: not a readable zarr image: {error}", hint="write it again") from error
        self._axes = axes
        sizes = stored_levels([self._size(array) for array in arrays])
        self._arrays = [unpacked_by_zarrs(array) for array in arrays[: len(sizes)]]
        self.meta = self._meta(sizes, extra)

    def __reduce__(self) -> tuple[object, ...]:
        return (ZarrSource, (self._path, self._name))

    def read(self, window: Window, level: int = 0) -> Pixels:
        values, axes = self._values(window, level)
        pixels = values.transpose([axes.index(axis) for axis in "yxc" if axis in axes])
        return np.require(pixels if pixels.ndim == 3 else pixels[:, :, None], self.meta.dtype, ["C", "W"])

    def planes(self, window: Window, level: int = 0) -> WholePlanes:
        values, axes = self._values(window, level)
        planes = values.transpose([axes.index(axis) for axis in "cyx" if axis in axes])
        return np.require(planes if planes.ndim == 3 else planes[None], self.meta.dtype, ["C"])

    def _values(self, window: Window, level: int) -> tuple[np.ndarray, str]:
        """A window as it is stored, and its axes."""
        require_window(self.meta, window, level)
        wanted: dict[str, Any] = {
            "y": slice(window.y, window.y_end),
            "x": slice(window.x, window.x_end),
            "c": slice(None),
        }
        try:
            # From afar, chunks of a window come side by side: they are waited for, not computed.
            with contextlib.nullcontext() if is_url(self._path) else zarr_alone:
                values = np.asarray(self._arrays[level][tuple(wanted.get(axis, 0) for axis in self._axes)])
        except MemoryError:
            raise
        except Exception as error:
            message = f"{self._name}: level {level}, window {window}: {type(error).__name__}: {error}"
            raise SourceError(message, hint="a chunk is damaged; copy it again") from error
        return values, "".join(axis for axis in self._axes if axis in wanted)

    def _size(self, array: Any) -> Size:
        return Size(array.shape[self._axes.index("x")], array.shape[self._axes.index("y")])

    def _meta(self, sizes: tuple[Size, ...], extra: Mapping[str, Any]) -> ImageMeta:
        first = self._arrays[0]
        channels = first.shape[self._axes.index("c")] if "c" in self._axes else 1
        tile = (first.chunks[self._axes.index("y")], first.chunks[self._axes.index("x")])
        profile, resolution = extra.get("icc_profile"), extra.get("pixels_per_cm")
        return ImageMeta(
            name=self._name,
            format=self._format,
            levels=sizes,
            dtype=require_supported(self._name, first.dtype, channels),
            channels=channels,
            tile=tile,
            cheap_windows=windows_are_cheap(sizes[0], tile),
            icc_profile=base64.b64decode(profile) if profile else None,
            pixels_per_cm=(float(resolution[0]), float(resolution[1])) if resolution else None,
        )


def _open(path: Place, name: str) -> tuple[list[Any], str, str, Mapping[str, Any]]:
    """Arrays by level, one letter for each of their axes, the format's name, what our own writer added."""
    import zarr

    node = zarr.open(store=zarr_store(path, read_only=True), mode="r")
    if isinstance(node, zarr.Array):
        return [node], _plain_axes(node, name), "zarr", {}
    attributes = node.attrs.asdict()
    multiscales = attributes.get("ome", attributes).get("multiscales")
    if not multiscales:
        arrays = [array for _, array in node.arrays()]
        if len(arrays) != 1:
            raise SourceError(
                f"{name}: a zarr group of {len(arrays)} arrays without multiscales metadata",
                hint="name the folder of one array inside it",
            )
        return arrays, _plain_axes(arrays[0], name), "zarr", {}
    arrays = [node[dataset["path"]] for dataset in multiscales[0]["datasets"]]
    axes = _ome_axes(multiscales[0].get("axes"), arrays[0], name)
    return arrays, axes, "ome-zarr", attributes.get(EXTRA_KEY, {})


def _ome_axes(listed: list[Any] | None, array: Any, name: str) -> str:
    names = [axis if isinstance(axis, str) else axis["name"] for axis in listed or "tczyx"[-array.ndim :]]
    if len(names) != array.ndim or not {"x", "y"} <= set(names) or any(len(axis) != 1 for axis in names):
        raise SourceError(
            f"{name}: axes {names} of an array of shape {array.shape} are not an image's", hint=_TOO_MANY_AXES
        )
    return "".join(names)


def _plain_axes(array: Any, name: str) -> str:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise SourceError(f"{name}: an array of shape {array.shape} is no image", hint=_TOO_MANY_AXES)
    named = getattr(array.metadata, "dimension_names", None)
    if named and sorted(map(str, named)) == sorted("yxc"[: array.ndim]):
        return "".join(named)
    if array.ndim == 2:
        return "yx"
    return "yxc" if array.shape[2] <= 4 or array.shape[0] > 4 else "cyx"
