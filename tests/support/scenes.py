"""GeoTIFFs: photographs and labels with a place on earth."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

# Of pixels of half a metre, in UTM zone 32 north; and of a thousandth of a degree, 0.5 N to the south.
HALF_METRE = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
MILLIDEGREE = rasterio.Affine(0.001, 0, 9, 0, -0.001, 50)


def write_scene(
    path: Path, pixels: np.ndarray, crs: str = "EPSG:32632", transform: rasterio.Affine = HALF_METRE, **how: Any
) -> Path:
    """Pixels (h, w) or (h, w, b) as a GeoTIFF."""
    planes = np.atleast_3d(pixels).transpose(2, 0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = dict(zip(("count", "height", "width"), planes.shape, strict=True))
    with rasterio.open(
        path, "w", driver="GTiff", crs=crs, transform=transform, dtype=planes.dtype, **shape, **how
    ) as file:
        file.write(planes)
    return path
