"""OME-Zarr images as stacks of planes, at their finest level. Needs the extra `zarr`.

An image is a folder whose name ends with .zarr; its planes, over time and then depth, are pages like those of a TIFF.
Versions 0.4 (Zarr 2) and 0.5 (Zarr 3) are read, and older ones whose axes are named. Channels are bands: one image of
several needs a choice. Source: https://ngff.openmicroscopy.org/0.5/
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageReadError, ImageTooLargeError, KshotError
from kshot.io import limits
from kshot.io.bit_depth import converter, extremes
from kshot.io.rasters import BandSelection

SUFFIX = ".zarr"
_AXES = "tczyx"
_METRES = {"angstrom": 1e-10, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2}
_METRES |= {"meter": 1.0, "kilometer": 1e3, "inch": 0.0254, "foot": 0.3048}


def is_zarr(path: Any) -> TypeGuard[str | Path]:
    """Whether a path is that of a folder which is called like a Zarr."""
    return isinstance(path, str | Path) and Path(path).suffix.lower() == SUFFIX and Path(path).is_dir()


@dataclass(frozen=True, eq=False)
class OmeZarr:
    """The finest level of an image."""

    name: str
    """Its path, for messages."""
    array: Any
    """Zarr's, of two to five axes."""
    axes: str
    """The axes' names in their order, such as "tczyx"."""
    metres: Mapping[str, float]
    """By x, y, z: how far apart pixels and planes are, where the file says so."""
    channels: tuple[str, ...]
    """Names of the channels, as far as the file has them."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of a plane, in pixels."""
        return self._length("y"), self._length("x")

    @property
    def planes(self) -> int:
        """How many planes there are, over time and depth."""
        return self._length("t") * self._length("z")

    def plane(self, page: int) -> NDArray[Any]:
        """(c, h, w) values as they are stored; page: from 1. Raises `ImageReadError`."""
        if not 1 <= page <= self.planes:
            raise ImageReadError(f"{self.name}: no plane {page}, it has {self.planes}")
        time, depth = divmod(page - 1, self._length("z"))
        places = {"t": time, "z": depth}
        try:
            _check_lengths(Path(self.name), self.array, [places.get(axis) for axis in self.axes])
            values = np.asarray(self.array[tuple(places.get(axis, slice(None)) for axis in self.axes)])
        except Exception as error:  # each codec has errors of its own
            where = ", ".join(f"{axis} {places[axis]}" for axis in self.axes if axis in places) or "its one plane"
            raise ImageReadError(
                f"{self.name}: the chunks of {where} cannot be read ({type(error).__name__}: {error}); copy it again, "
                "or leave it out"
            ) from error
        kept = [axis for axis in self.axes if axis not in places]
        if "c" not in kept:
            values, kept = values[None], ["c", *kept]
        return values.transpose([kept.index(axis) for axis in "cyx"])

    def image(self, page: int, selection: BandSelection) -> NDArray[np.uint8]:
        """(h, w, 3) of a plane; deep values come to 8 bits as those of a TIFF's page do. Raises `ImageReadError`s."""
        planes = self.plane(page)[[band - 1 for band in self._bands(selection)]]
        to_8_bits = converter(planes.dtype, lambda: extremes(planes), self.name, selection.stretch)
        shown = np.broadcast_to(to_8_bits(planes), (3, *planes.shape[1:]))
        return np.ascontiguousarray(shown.transpose(1, 2, 0))

    def _bands(self, selection: BandSelection) -> tuple[int, ...]:
        count = self._length("c")
        named = f" ({', '.join(self.channels)})" if self.channels else ""
        if count > 1 and not selection.bands:
            raise ImageReadError(
                f"{self.name}: {count} channels{named}; choose one, or three as red, green and blue: bands (--bands 1)"
            )
        wrong = [band for band in selection.bands if band > count]
        if wrong:
            raise ImageReadError(f"{self.name}: no channel {wrong[0]}, it has {count}{named}; choose bands (--bands)")
        return selection.bands or (1,)

    def _length(self, axis: str) -> int:
        return int(self.array.shape[self.axes.index(axis)]) if axis in self.axes else 1


def opened(path: str | Path, max_pixels: int | None = None) -> OmeZarr:
    """The finest level of an OME-Zarr; its values are not read yet. max_pixels: by default as `limits.PIXELS` says.

    Raises `ImageReadError` (no zarr, no OME-Zarr, several images in one, a damaged description) and
    `ImageTooLargeError`.
    """
    name, zarr = str(path), _load(str(path))
    with _in_our_words(name):
        group = zarr.open_group(Path(path), mode="r")
        about = _multiscales(group, name)
        array = group[str(about["datasets"][0]["path"])]
        axes = _axes(about, array.ndim, name)
        found = OmeZarr(name, array, axes, _sizes(about, axes), _channels(group))
    limit = limits.PIXELS.value if max_pixels is None else max_pixels
    for said, (height, width) in (("planes", found.size_hw), ("chunks", (int(np.prod(array.chunks)), 1))):
        if height * width > limit:
            raise ImageTooLargeError(
                f"{name}: {said} of {height * width:,} pixels, over the limit of {limit:,}; take a coarser level, or "
                f"raise max_pixels (--max-pixels, or {limits.PIXELS.variable})"
            )
    if 0 in array.shape:
        raise ImageReadError(f"{name}: the image is empty ({' x '.join(map(str, array.shape))})")
    return found


def _multiscales(group: Any, name: str) -> Any:
    """The description of the image; of one that Bio-Formats wrote, that of its only series (group "0")."""
    own = _description(group)
    if "bioformats2raw.layout" in own:
        if "1" in group:
            raise ImageReadError(f"{name}: holds several images (0, 1, ...); save each as an OME-Zarr of its own")
        group = group["0"]
        own = _description(group)
        own = {"multiscales": [_below("0", each) for each in own.get("multiscales", [])]}
    if own.get("multiscales"):
        return own["multiscales"][0]
    kind = "a plate with many images: give" if "plate" in own else "no OME-Zarr image (no multiscales); give"
    raise ImageReadError(f"{name}: {kind} the folder of one image, called {SUFFIX}")


def _below(folder: str, about: Any) -> Any:
    datasets = [{**each, "path": f"{folder}/{each['path']}"} for each in about["datasets"]]
    return {**about, "datasets": datasets}


def _description(group: Any) -> dict[str, Any]:
    """What OME says of a group: its attributes, or in version 0.5 those under `ome`."""
    attributes = dict(group.attrs)
    return dict(attributes.get("ome", attributes))


def _axes(about: Any, count: int, name: str) -> str:
    """The names of the axes, in their order. Raises `ImageReadError` unless they are such as tczyx, x and y last."""
    given = about.get("axes", list(_AXES) if count == len(_AXES) else [])
    names = [str(axis["name"] if isinstance(axis, dict) else axis).lower() for axis in given]
    known = len(set(names)) == len(names) == count and set(names) <= set(_AXES)
    if not known or not {"x", "y"} <= set(names):
        said = ", ".join(names) or "without names"
        raise ImageReadError(f"{name}: axes {said} of an array of {count}; expected y, x, and some of t, c, z")
    return "".join(names)


def _sizes(about: Any, axes: str) -> dict[str, float]:
    """How many metres pixels are apart along x, y and z; nothing where the unit is not known."""
    scale = np.ones(len(axes))
    for each in (about["datasets"][0], about):
        for step in each.get("coordinateTransformations", []):
            if step.get("type") == "scale" and len(step.get("scale", ())) == len(axes):
                scale = scale * np.asarray(step["scale"], np.float64)
    sizes = {}
    for axis, given, step in zip(axes, about.get("axes", ()), scale.tolist(), strict=False):
        unit = given.get("unit") if isinstance(given, dict) else None
        if axis in "xyz" and unit in _METRES and 0 < step < float("inf"):
            sizes[axis] = step * _METRES[unit]
    return sizes


def _channels(group: Any) -> tuple[str, ...]:
    own = _description(group)
    return tuple(str(each.get("label", "?")) for each in own.get("omero", {}).get("channels", []))


def _check_lengths(root: Path, array: Any, places: Sequence[int | None]) -> None:
    """Raise `ValueError` for a chunk of Blosc that is cut off: numcodecs 0.16 unpacks it into whatever follows.

    places: along each axis, where one is read alone. Blosc's header holds the length in its last four of 16 bytes.
    """
    if '"blosc"' not in json.dumps(array.metadata.to_dict(), default=str) or getattr(array, "shards", None):
        return
    spans = [
        range(-(-length // chunk)) if place is None else [place // chunk]
        for place, length, chunk in zip(places, array.shape, array.chunks, strict=True)
    ]
    for place in product(*spans):
        path = root / array.path / array.metadata.encode_chunk_key(place)
        if path.is_file():  # one that is not there is of the fill value
            with path.open("rb") as file:
                head = file.read(16)
            if len(head) < 16 or int.from_bytes(head[12:], "little") > path.stat().st_size:
                raise ValueError(f"{path.relative_to(root)} is cut off")


@contextmanager
def _in_our_words(name: str) -> Iterator[None]:
    """Turn what a description that is none leads to into an error that names the image."""
    try:
        yield
    except KshotError:
        raise
    except Exception as error:  # any JSON may stand there, and zarr raises of many kinds
        raise ImageReadError(
            f"{name}: no OME-Zarr that can be read ({type(error).__name__}: {error}); save it again, or leave it out"
        ) from error


def _load(name: str) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImageReadError(f"{name}: an OME-Zarr is read by zarr; pip install 'kshot[zarr]'") from error
    return zarr
