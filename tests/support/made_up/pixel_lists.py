"""A made-up format: pixels.json with each image's size and, of each object, the class and the numbers of its pixels."""

import json
from pathlib import Path

import numpy as np

from kshot.annotations.checked_json import Entry, read_json
from kshot.annotations.model import DEFAULT_EXPORT, Annotation, AnnotationSet, Export, ImageBuilder, LabelledImage
from kshot.annotations.pairing import ImageFinder
from kshot.errors import SupportError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.io.atomic import write_text


class PixelLists(AnnotationReader, AnnotationWriter):
    """One .json for a folder of images."""

    layout = "pixel lists: pixels.json, with the images beside it or in images/"
    output = "pixels.json"

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """The pixels of a pixels.json, or of the one in a folder. Raises `SupportError`."""
        path = where if where.name == self.output else where / self.output
        if not path.is_file():
            return None
        data, finder = read_json(path), ImageFinder(where, images)
        if not isinstance(data, dict) or not isinstance(data.get("images"), dict):
            raise SupportError(f"{path}: expected images and classes")
        read = [_image(Entry(f"{path}: {name}", about), name, finder) for name, about in data["images"].items()]
        return AnnotationSet(tuple(data["classes"]), read)

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/pixels.json; returns its path. Raises `OutputError`."""
        images = {}
        for image in annotations.images:
            objects = [[one.label, np.flatnonzero(one.mask).tolist()] for one in image.annotations if not one.ignore]
            images[image.name] = {"height": image.size_hw[0], "width": image.size_hw[1], "objects": objects}
        write_text(out / self.output, json.dumps({"classes": annotations.classes, "images": images}))
        return out / self.output


def _image(entry: Entry, name: str, finder: ImageFinder) -> LabelledImage:
    builder = ImageBuilder((entry.whole("height"), entry.whole("width")))
    for label, pixels in entry.get("objects", list):
        mask = np.zeros(builder.size_hw, bool)
        mask.flat[pixels] = True
        builder.add(Annotation.from_mask(mask, label))
    return builder.build(name, finder.find(name), "")


FORMAT = PixelLists()
