"""What is measured of one object: its outline and shape in pixels, and the values of the image inside it."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kshot.ops.hulls import Hull


def shape_of(mask: NDArray[np.bool_]) -> dict[str, float]:
    """The shape of a mask (h, w) of at least one pixel; lengths are in pixels.

    perimeter_px: of a line through the centres of the border pixels (Benkrid and Crookes, as scikit-image has it).
    equivalent_diameter_px: of a disc of the same area. major_axis_px, minor_axis_px: of the ellipse of the same second
    moments. solidity: area over that of the convex hull, 0..1.
    """
    # Imported here, since few runs measure.
    from skimage.measure import perimeter

    major, minor = _axes(mask)
    return {
        "perimeter_px": float(perimeter(np.pad(mask, 1))),
        "equivalent_diameter_px": math.sqrt(4 * int(mask.sum()) / math.pi),
        "major_axis_px": major,
        "minor_axis_px": minor,
        "solidity": solidity(mask),
    }


def _axes(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Lengths of the two axes of the ellipse with the second moments of the pixels' centres."""
    place = np.stack(np.nonzero(mask)).astype(np.float64)
    place -= place.mean(1, keepdims=True)
    (a, b), (_, c) = (place @ place.T / place.shape[1]).tolist()
    middle, reach = (a + c) / 2, math.hypot((a - c) / 2, b)
    return 4 * math.sqrt(middle + reach), 4 * math.sqrt(max(0.0, middle - reach))


def solidity(mask: NDArray[np.bool_]) -> float:
    """Area over the area of the convex hull of its pixels' squares, 0..1; exact, and fast for thousands of objects."""
    return float(mask.sum()) / Hull.of(mask).area


def intensities(bands: NDArray[np.generic], mask: NDArray[np.bool_]) -> dict[str, float]:
    """mean_1, std_1, mean_2, ...: of each band of values (h, w, b) inside a mask (h, w), without those that are nan.

    std divides by the number of pixels. nan where no value is left.
    """
    values = bands[mask].astype(np.float64)  # (n, b)
    found = {}
    for number, band in enumerate(values.T, start=1):
        known = band[np.isfinite(band)]
        found[f"mean_{number}"] = float(known.mean()) if known.size else float("nan")
        found[f"std_{number}"] = float(known.std()) if known.size else float("nan")
    return found


def in_units(facts: Mapping[str, float], side: float, unit: str) -> dict[str, float]:
    """The lengths and areas among facts (`..._px`) in a unit: area_um2, perimeter_um, ...; side: of a pixel."""
    found = {}
    for name, value in facts.items():
        if name == "area_px":
            found[f"area_{unit}2"] = value * side * side
        elif name.endswith("_px"):
            found[f"{name.removesuffix('px')}{unit}"] = value * side
    return found
