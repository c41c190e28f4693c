"""YOLO-seg as Ultralytics has it: images/, labels/ with a polygon per object and line, and data.yaml.

A line holds one polygon, so holes and further parts of an object are bridged to its outline by cuts of no width.
Labels of whole classes are split into their connected parts, because a line is one object to those who train on it.
A line may end with the confidence of the model that wrote it; of data sets of poses it holds a box and key points.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.checked_json import Entry, check_class_names, filled, read_text_lines, read_yaml
from kshot.annotations.model import (
    DEFAULT_EXPORT,
    Annotation,
    AnnotationSet,
    Export,
    ImageBuilder,
    LabelledImage,
    LazyImages,
    as_objects,
)
from kshot.annotations.skipped import Skipped
from kshot.errors import SupportError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.io.atomic import write_text
from kshot.io.images import image_size
from kshot.io.names import below
from kshot.io.paths import visible, walk
from kshot.io.stems import unique_stems
from kshot.ops.polygons import bridged, rings

_BEYOND = 0.001  # rounding leads labels this far outside of 0..1


class Yolo(AnnotationReader, AnnotationWriter):
    """A .txt per image, with a class number and fractions of the image's width and height per line."""

    layout = "YOLO: images/x.jpg, labels/x.txt with polygons, boxes or key points, and data.yaml that names the classes"
    output = "yolo"
    holds = frozenset({"boxes"})

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/yolo with its images; returns the path of its data.yaml.

        Without a tolerance the polygons follow every pixel, and nothing is lost but scores and ignored pixels. An image
        without objects gets an empty file, which says so. Raises `OutputError`.
        """
        import yaml  # here, since few runs write this format

        folder = out / self.output
        objects = as_objects(annotations)
        for image in objects.images:
            image.place_in(folder / "images", export)
            lines = "".join(_written(image, annotations.classes, export))
            write_text(below(out, folder / "labels" / f"{image.stem}.txt"), lines)
        # Without a path Ultralytics takes the folder of the file. It wants both sets; whoever trains splits them.
        data = {"train": "images", "val": "images", "names": dict(enumerate(annotations.classes))}
        write_text(folder / "data.yaml", yaml.safe_dump(data, allow_unicode=True, sort_keys=False))
        return folder / "data.yaml"

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """Masks from polygons, boxes from lines of four numbers, boxes and points from lines with key points.

        Of a folder, or of the one around a data.yaml. An image without a file of labels holds none; one with a line
        that cannot be read fails alone. Files of labels without an image are counted and named.
        """
        root = where.parent if where.is_file() and where.suffix.lower() in {".yaml", ".yml"} else where
        places = list(_places(root))
        if not places:
            return None
        layout = _layout(root)
        found = [(image, labels, folder) for folder, labels in places for image in sorted(walk(folder))]
        # Of several sets there are train/images/a.jpg and valid/images/a.jpg.
        names = {i: i.relative_to(root if len(places) > 1 else folder).as_posix() for i, _, folder in found}
        stems = unique_stems(names.values())
        labels_of = {i: (labels / i.relative_to(folder)).with_suffix(".txt") for i, labels, folder in found}
        skipped = Skipped()
        _tell_lost(root, [path for _, labels in places for path in _texts(labels)], set(labels_of.values()), skipped)

        def read(path: Path) -> LabelledImage:
            return _image(path, labels_of[path], layout, skipped).build(names[path], path, stems[names[path]])

        return AnnotationSet(layout.classes, LazyImages(list(names), read, skipped), objects=True, skipped=skipped)


@dataclass(frozen=True)
class _Layout:
    """What data.yaml says of the lines."""

    classes: tuple[str, ...]
    key_points: tuple[int, int] | None = None
    """How many there are in a line, and the numbers of each: x, y and perhaps its visibility."""


@dataclass(frozen=True)
class _Line:
    """One line of a file of labels, as fractions of the image."""

    label: str
    corners: list[float]
    """x, y of a polygon's corners, or the centre and the sides of a box."""
    points: list[list[float]]
    """x, y of the key points that are marked."""
    score: float | None


def _places(root: Path) -> Iterator[tuple[Path, Path]]:
    """Pairs of images/ and labels/ where labels/ holds text: in the folder itself, else in its sets."""
    for folder in (root, *(path for path in visible(root) if path.is_dir())):
        images, labels = folder / "images", folder / "labels"
        if images.is_dir() and labels.is_dir() and any(_texts(labels)):
            yield images, labels
            if folder == root:
                return


def _texts(labels: Path) -> Iterator[Path]:
    """Files of labels; labelImg puts its list of classes among them."""
    return walk(labels, lambda path: path.suffix == ".txt" and path.name != "classes.txt")


def _tell_lost(root: Path, texts: Sequence[Path], owned: set[Path], skipped: Skipped) -> None:
    lost = sorted(path.relative_to(root).as_posix() for path in texts if path not in owned)
    for name in lost:
        skipped.leave_out("file of labels without an image", name)
    if lost:
        skipped.note(f"no image for {', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}")


def _layout(root: Path) -> _Layout:
    for path in visible(root):
        if path.suffix.lower() in {".yaml", ".yml"} and path.is_file():
            data = read_yaml(path)
            if isinstance(data, dict) and "names" in data:
                return _Layout(_names(path, data["names"]), _key_points(path, data))
    path = root / "classes.txt"
    if path.is_file():
        return _Layout(_names(path, read_text_lines(path)))
    raise SupportError(f"{root}: labels of YOLO, but no data.yaml with names, nor classes.txt; add one")


def _key_points(path: Path, data: Mapping[str, Any]) -> tuple[int, int] | None:
    match data.get("kpt_shape"):
        case None:
            return None
        case [int(count), int(numbers)] if count > 0 and numbers in {2, 3}:
            return count, numbers
        case other:
            raise SupportError(f"{path}: expected kpt_shape as [points, 2 or 3], got {short(other)}")


def _names(path: Path, names: Any) -> tuple[str, ...]:
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise SupportError(f"{path}: expected names as a list, or as {{0: cat, 1: dog}}, got {short(names)}")
    check_class_names(path, names)
    return tuple(names)


def _image(path: Path, labels: Path, layout: _Layout, skipped: Skipped) -> ImageBuilder:
    builder = ImageBuilder(image_size(path))
    height, width = builder.size_hw
    for number, line in enumerate(read_text_lines(labels) if labels.is_file() else (), start=1):
        if line.strip():
            entry = Entry(f"{labels}: line {number}", {})
            parsed = _line(entry, line.split(), layout)
            corners = parsed.corners
            pixels = [[x * width, y * height] for x, y in zip(corners[::2], corners[1::2], strict=True)]
            if len(pixels) > 2:
                mask = filled(entry, pixels, builder.size_hw)
                builder.add(Annotation(parsed.label, mask, parsed.score))
                continue
            (x, y), (across, down) = pixels
            upright = [[x - across / 2, y - down / 2], [x + across / 2, y + down / 2]]
            builder.prompts.add_box(entry, parsed.label, upright)
            if parsed.points:
                builder.prompts.add_points(parsed.label, [[x * width, y * height] for x, y in parsed.points])
            if parsed.score is not None:
                skipped.leave_out("confidence of a box", entry.called)
    return builder


def _line(entry: Entry, words: list[str], layout: _Layout) -> _Line:
    try:
        index, numbers = float(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise entry.wrong(
            f"expected a class number and fractions of the image, got {short(' '.join(words))}"
        ) from error
    if index % 1 or not 0 <= index < len(layout.classes):
        raise entry.wrong(f"the class {words[0]}, but data.yaml names 0..{len(layout.classes) - 1}")
    corners, points = _shape(entry, numbers, layout)
    if layout.key_points is None and _like_key_points(words[1:]):
        raise entry.wrong("reads like a box and key points; say how many there are by kpt_shape in data.yaml")
    used = len(corners) + sum(map(len, points))
    score = numbers[used] if len(numbers) > used else None
    marked = [point[:2] for point in points if (point[2] > 0 if len(point) == 3 else any(point))]
    inside = [*corners, *(number for point in marked for number in point), *([] if score is None else [score])]
    if not all(-_BEYOND <= fraction <= 1 + _BEYOND for fraction in inside):
        raise entry.wrong("expected fractions of the image in 0..1; numbers beyond that may be pixels")
    clipped = [min(max(fraction, 0.0), 1.0) for fraction in corners]
    return _Line(layout.classes[int(index)], clipped, marked, score if score is None else min(max(score, 0.0), 1.0))


def _shape(entry: Entry, numbers: list[float], layout: _Layout) -> tuple[list[float], list[list[float]]]:
    """The corners, or the centre and sides of a box, and the key points; what is left is a confidence."""
    count = len(numbers)
    if count in {4, 5}:
        return numbers[:4], []
    if layout.key_points is None:
        if count < 6:
            raise entry.wrong(f"expected a box of 4 numbers or a polygon of at least 3 corners, got {count} numbers")
        return numbers[: count - count % 2], []
    points, each = layout.key_points
    if count - 4 - points * each not in {0, 1}:
        raise entry.wrong(f"expected a box and {points} key points of {each} numbers (kpt_shape), got {count} numbers")
    return numbers[:4], [numbers[i : i + each] for i in range(4, 4 + points * each, each)]


def _like_key_points(words: Sequence[str]) -> bool:
    """Whether a box is followed by points within it, each with a visibility of 0, 1 or 2."""
    if len(words) < 7 or (len(words) - 4) % 3 or not set(words[6::3]) <= {"0", "1", "2"}:
        return False
    x, y, across, down = (float(word) for word in words[:4])
    points = zip(map(float, words[4::3]), map(float, words[5::3]), words[6::3], strict=True)
    seen = [(px, py) for px, py, visible in points if visible != "0"]
    return bool(seen) and all(
        2 * abs(px - x) <= across + _BEYOND and 2 * abs(py - y) <= down + _BEYOND for px, py in seen
    )


def _written(image: LabelledImage, classes: Sequence[str], export: Export) -> Iterator[str]:
    height, width = image.size_hw
    for annotation in image.annotations:
        if not annotation.ignore:
            corners = _outline(annotation, export.tolerance) / (width, height)
            yield _row(classes.index(annotation.label), corners.ravel().tolist())
    for label, boxes in image.prompts.boxes.items():
        for row in boxes:  # of a box over the edge, what is in the image: fractions end at 1
            (x0, x1), (y0, y1) = np.clip(row[::2], 0, width) / width, np.clip(row[1::2], 0, height) / height
            box = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
            yield _row(classes.index(label), box)


def _row(index: int, numbers: Sequence[float]) -> str:
    return f"{index} {' '.join(f'{number:.8f}' for number in numbers)}\n"


def _outline(annotation: Annotation, tolerance: float) -> NDArray[np.float64]:
    left, top, mask = annotation.crop
    corners: NDArray[np.float64] = bridged(rings(mask, tolerance)) + np.array([left, top])
    return corners


FORMAT = Yolo()
