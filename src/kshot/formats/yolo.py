"""YOLO-seg as Ultralytics has it: images/, labels/ with a polygon per object and line, and data.yaml.

A line holds one polygon, so holes and further parts of an object are bridged to its outline by cuts of no width.
Labels of whole classes are split into their connected parts, because a line is one object to those who train on it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from kshot.annotations import rle
from kshot.annotations.checked_json import Entry, check_class_names, read_text_lines, read_yaml
from kshot.annotations.model import (
    DEFAULT_EXPORT,
    Annotation,
    AnnotationSet,
    Export,
    ImageBuilder,
    LabelledImage,
    LazyImages,
    split_into_instances,
)
from kshot.annotations.polygons import bridged, rings
from kshot.errors import SupportError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.io.atomic import write_text
from kshot.io.images import image_size
from kshot.io.paths import unique_stems, visible, walk

_BEYOND = 0.001  # rounding leads labels this far outside of 0..1


class Yolo(AnnotationReader, AnnotationWriter):
    """A .txt per image, with a class number and fractions of the image's width and height per line."""

    layout = "YOLO: images/x.jpg, labels/x.txt with polygons or boxes, and data.yaml that names the classes"
    output = "yolo"

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/yolo with its images; returns the path of its data.yaml.

        Without a tolerance the polygons follow every pixel, and nothing is lost but scores and ignored pixels. An image
        without objects gets an empty file, which says so. Raises `OutputError`.
        """
        folder = out / self.output
        objects = annotations if annotations.objects else split_into_instances(annotations, "components")
        for image in objects.images:
            image.place_in(folder / "images", export)
            lines = "".join(_written(image, annotations.classes, export))
            write_text(folder / "labels" / f"{image.stem}.txt", lines)
        # Without a path Ultralytics takes the folder of the file. It wants both sets; whoever trains splits them.
        data = {"train": "images", "val": "images", "names": dict(enumerate(annotations.classes))}
        write_text(folder / "data.yaml", yaml.safe_dump(data, allow_unicode=True, sort_keys=False))
        return folder / "data.yaml"

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """Masks from polygons, boxes from lines of four numbers; of a folder, or of the one around a data.yaml.

        An image without a file of labels holds none.
        """
        root = where.parent if where.is_file() and where.suffix.lower() in {".yaml", ".yml"} else where
        places = list(_places(root))
        if not places:
            return None
        classes = _classes(root)
        found = [(image, labels, folder) for folder, labels in places for image in sorted(walk(folder))]
        # Of several sets there are train/images/a.jpg and valid/images/a.jpg.
        names = {i: i.relative_to(root if len(places) > 1 else folder).as_posix() for i, _, folder in found}
        stems = unique_stems(names.values())
        labels_of = {i: (labels / i.relative_to(folder)).with_suffix(".txt") for i, labels, folder in found}

        def read(path: Path) -> LabelledImage:
            return _image(path, labels_of[path], classes).build(names[path], path, stems[names[path]])

        return AnnotationSet(classes, LazyImages(list(names), read), objects=True)


def _places(root: Path) -> Iterator[tuple[Path, Path]]:
    """Pairs of images/ and labels/ where labels/ holds text: in the folder itself, else in its sets."""
    for folder in (root, *(path for path in visible(root) if path.is_dir())):
        images, labels = folder / "images", folder / "labels"
        if images.is_dir() and labels.is_dir() and any(walk(labels, lambda path: path.suffix == ".txt")):
            yield images, labels
            if folder == root:
                return


def _classes(root: Path) -> tuple[str, ...]:
    for path in visible(root):
        if path.suffix.lower() in {".yaml", ".yml"} and path.is_file():
            data = read_yaml(path)
            if isinstance(data, dict) and "names" in data:
                return _names(path, data["names"])
    path = root / "classes.txt"
    if path.is_file():
        return _names(path, read_text_lines(path))
    raise SupportError(f"{root}: labels of YOLO, but no data.yaml with names, nor classes.txt; add one")


def _names(path: Path, names: Any) -> tuple[str, ...]:
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise SupportError(f"{path}: expected names as a list, or as {{0: cat, 1: dog}}, got {short(names)}")
    check_class_names(path, names)
    return tuple(names)


def _image(path: Path, labels: Path, classes: tuple[str, ...]) -> ImageBuilder:
    builder = ImageBuilder(image_size(path))
    height, width = builder.size_hw
    for number, line in enumerate(read_text_lines(labels) if labels.is_file() else (), start=1):
        if line.strip():
            entry = Entry(f"{labels}: line {number}", {})
            label, fractions = _line(entry, line.split(), classes)
            pixels = [[x * width, y * height] for x, y in zip(fractions[::2], fractions[1::2], strict=True)]
            if len(pixels) == 2:
                (x, y), (across, down) = pixels
                corners = [[x - across / 2, y - down / 2], [x + across / 2, y + down / 2]]
                builder.prompts.add_box(entry, label, corners)
            else:
                builder.add(Annotation(label, rle.encode_polygon(pixels, builder.size_hw)))
    return builder


def _line(entry: Entry, words: list[str], classes: tuple[str, ...]) -> tuple[str, list[float]]:
    try:
        index, fractions = float(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise entry.wrong(
            f"expected a class number and fractions of the image, got {short(' '.join(words))}"
        ) from error
    if index % 1 or not 0 <= index < len(classes):
        raise entry.wrong(f"the class {words[0]}, but data.yaml names 0..{len(classes) - 1}")
    if len(fractions) != 4 and (len(fractions) < 6 or len(fractions) % 2):
        raise entry.wrong(
            f"expected a box of 4 numbers or a polygon of at least 3 corners, got {len(fractions)} numbers"
        )
    if not all(-_BEYOND <= fraction <= 1 + _BEYOND for fraction in fractions):
        raise entry.wrong("expected fractions of the image in 0..1; numbers beyond that may be pixels")
    return classes[int(index)], [min(max(fraction, 0.0), 1.0) for fraction in fractions]


def _written(image: LabelledImage, classes: Sequence[str], export: Export) -> Iterator[str]:
    height, width = image.size_hw
    for annotation in image.annotations:
        if not annotation.ignore:
            corners = _outline(annotation, export.tolerance) / (width, height)
            yield f"{classes.index(annotation.label)} {' '.join(f'{number:.8f}' for number in corners.ravel())}\n"


def _outline(annotation: Annotation, tolerance: float) -> NDArray[np.float64]:
    left, top, mask = annotation.crop
    corners: NDArray[np.float64] = bridged(rings(mask, tolerance)) + np.array([left, top])
    return corners


FORMAT = Yolo()
