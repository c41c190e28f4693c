"""OME-Zarrs, written with zarr alone as the standard describes them."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr

KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write_zarr(
    path: Path,
    values: np.ndarray,
    axes: str,
    *,
    version: str = "0.4",
    scale: dict[str, float] | None = None,
    unit: str = "micrometer",
    **more: Any,
) -> Path:
    """Values with these axes at two levels, a chunk for each plane; scale: by axis, in `unit`."""
    form = 2 if version == "0.4" else 3
    group = zarr.open_group(path, mode="w", zarr_format=form)
    chunks = tuple(size if axis in "yx" else 1 for size, axis in zip(values.shape, axes, strict=True))
    half = values[tuple(slice(None, None, 2) if axis in "yx" else slice(None) for axis in axes)]
    for name, level in (("0", values), ("1", half)):
        group.create_array(name, data=np.ascontiguousarray(level), chunks=tuple(map(min, chunks, level.shape)))
    sizes = [(scale or {}).get(axis, 1.0) for axis in axes]
    named = [{"name": axis, "type": KINDS[axis]} | ({"unit": unit} if scale and axis in scale else {}) for axis in axes]
    datasets = [{"path": name, "coordinateTransformations": [{"type": "scale", "scale": sizes}]} for name in ("0", "1")]
    multiscales = [{"version": version, "axes": named, "datasets": datasets}]
    about = {"multiscales": multiscales, **more}
    group.attrs.put(about if form == 2 else {"ome": {"version": version, **about}})
    return path
