"""Stacks: the labels of all pages of a TIFF, or of a folder of slices, as one TIFF with its source's physical sizes.

The file is a stack of ImageJ (a TIFF whose description says so), as Fiji, napari and scikit-image read it. Sizes come
from the source's resolution, from its description by ImageJ or OME, or from the scale of an OME-Zarr.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import Image

from kshot.annotations.films import Film, films_of
from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export
from kshot.errors import ImageReadError
from kshot.formats.base import AnnotationWriter
from kshot.io import ome_zarr
from kshot.io.atomic import atomic_path
from kshot.io.images import opened_image
from kshot.io.names import below
from kshot.io.ome_zarr import is_zarr
from kshot.types import IGNORE

log = logging.getLogger(__name__)
_DESCRIPTION, _PER_X, _PER_Y, _UNIT = 270, 282, 283, 296  # tags of TIFF 6.0
_NAMES = {"\u00b5m": "micron", "\u03bcm": "micron", "um": "micron"}  # what ImageJ calls a micrometre


class Stack(AnnotationWriter):
    """A .tif for each stack or film, with a page of labels for each slice."""

    output = "stacks"
    holds = frozenset({"ignored areas"})

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/stacks/<stem>.tif, a slice in memory at a time; returns the folder.

        A slice of another size than the first is left undecided (255), and said. Raises `OutputError`.
        """
        for film in films_of(annotations):
            path = below(out, out / self.output / f"{film.stem}.tif")
            pages = _pages(film, annotations.classes, path)
            with atomic_path(path) as beside:
                opening = next(pages)
                kept: dict[str, Any] = {"tiffinfo": _tags(film), "compression": "tiff_adobe_deflate"}
                opening.save(beside, format="TIFF", save_all=True, append_images=pages, **kept)
        return out / self.output


def _pages(film: Film, classes: tuple[str, ...], path: Path) -> Iterator[Image.Image]:
    size_hw = film.frames[0].size_hw
    for slice_ in film.frames:
        if slice_.size_hw == size_hw:
            yield Image.fromarray(slice_.labels(classes))
        else:
            log.warning("%s: %s is of another size than the first slice, and left undecided there", path, slice_.name)
            yield Image.fromarray(np.full(size_hw, IGNORE, np.uint8))


def _tags(film: Film) -> dict[int, Any]:
    """Tags of the new file: ImageJ's description, and the resolution of the source."""
    source = film.path or film.frames[0].path
    text, tags, of_zarr = "", dict[int, Any](), dict[str, str]()
    if source is not None:
        try:
            if is_zarr(source):
                of_zarr = _of_metres(ome_zarr.opened(source).metres)
            else:
                with opened_image(source) as file:
                    given = getattr(file, "tag_v2", {})
                    text = str(given.get(_DESCRIPTION, ""))
                    tags = {tag: given[tag] for tag in (_PER_X, _PER_Y, _UNIT) if tag in given}
        except ImageReadError:
            pass
    count, lines = len(film.frames), ["ImageJ=1.54f"]
    lines += [f"images={count}", f"slices={count}", "loop=false"]
    sizes: dict[str, str] = of_zarr or _of_ome(text) or dict(re.findall(r"^(unit|spacing)=(.+?)\s*$", text, re.M))
    if "x" in sizes:
        tags |= {_PER_X: 1 / float(sizes["x"]), _PER_Y: 1 / float(sizes.get("y", sizes["x"])), _UNIT: 1}
    lines += [f"{name}={sizes[name]}" for name in ("unit", "spacing") if name in sizes]
    return tags | {_DESCRIPTION: "\n".join(lines) + "\n"}


def _of_metres(metres: Mapping[str, float]) -> dict[str, str]:
    """x, y and spacing in micrometres."""
    sizes = {new: repr(metres[old] * 1e6) for new, old in (("x", "x"), ("y", "y"), ("spacing", "z")) if old in metres}
    return {**sizes, "unit": "micron"} if sizes else {}


def _of_ome(text: str) -> dict[str, str]:
    """x, y, spacing and unit of OME's description; none of another text."""
    if "OME" not in text[:1000]:
        return {}
    try:
        root = fromstring(text.encode())
    except (SyntaxError, ValueError, DefusedXmlException):
        return {}
    for node in root.iter():
        if node.tag.endswith("Pixels"):
            sizes = {new: node.get(f"PhysicalSize{old}", "") for new, old in (("x", "X"), ("y", "Y"), ("spacing", "Z"))}
            unit = node.get("PhysicalSizeXUnit", "\u00b5m")
            return {name: size for name, size in sizes.items() if _is_size(size)} | {"unit": _NAMES.get(unit, unit)}
    return {}


def _is_size(text: str) -> bool:
    try:
        return 1e-9 < float(text) < 1e9
    except ValueError:
        return False


FORMAT = Stack()
