"""images/ and masks/ where the labels of a mask are listed in a file beside them."""

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from reprlib import repr as short
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.checked_json import check_class_names, read_json, read_text_lines
from kshot.annotations.model import DEFAULT_EXPORT, Annotation, AnnotationSet, Export, LabelledImage, LazyImages
from kshot.annotations.pairing import ImageAndMask, in_two_folders
from kshot.errors import MaskError, SupportError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.formats.png import save_labels
from kshot.io.atomic import write_text
from kshot.io.images import read_mask
from kshot.io.names import below
from kshot.io.stems import unique_stems
from kshot.types import IGNORE, ImageLike, Shot, check_same_size

CLASS_FILES = ("classes.json", "classes.txt")


class MaskFolders(AnnotationReader):
    """A folder of images and one of index masks, whose labels are named somewhere."""

    images: ClassVar[str]
    """The folder of images."""
    masks: ClassVar[str]
    """The folder of index masks, which are called like their images."""
    objects: ClassVar[str | None] = None
    """A folder of masks that tell objects apart."""

    @abstractmethod
    def classes_of(self, folder: Path) -> dict[int, str] | None:
        """{label: class}; None when nothing names the labels. Raises `SupportError`."""

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """All images with a mask. None without both folders and names of the labels.

        Raises `SupportError` (damaged names, or masks without images), `MaskError` (labels beyond the classes) and
        `ImageReadError`.
        """
        folder, masks = images or where / self.images, where / self.masks
        classes = self.classes_of(where) if folder.is_dir() and masks.is_dir() else None
        if classes is None:
            return None
        return annotations_of_masks(folder, masks, classes, where / self.objects if self.objects else None)

    def read_shots(self, folder: Path) -> list[Shot] | None:
        """Shots of the images whose mask shows a class; each keeps its mask as a path. Raises as `read_annotations`."""
        images, masks = folder / self.images, folder / self.masks
        classes = self.classes_of(folder) if images.is_dir() and masks.is_dir() else None
        return None if classes is None else shots_of_masks(in_two_folders(images, masks), classes)


class IndexMasks(MaskFolders, AnnotationWriter):
    """images/, masks/ and a file that names the labels."""

    layout = 'index masks: images/x.jpg, masks/x.png, and classes.json ({"1": "cat"}) or classes.txt (a class per line)'
    images, masks = "images", "masks"
    output = None

    def classes_of(self, folder: Path) -> dict[int, str] | None:
        """{label: class} of its classes.json or classes.txt; None without either. Raises `SupportError`."""
        found = [folder / name for name in CLASS_FILES if (folder / name).is_file()]
        if len(found) > 1:
            raise SupportError(f"{folder}: both classes.json and classes.txt; keep one")
        return read_classes(found[0]) if found else None

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/masks, `out`/images and `out`/classes.json; returns `out`.

        Lossless but for scores and for where one object ends and the next of its class begins. Raises `OutputError`.
        """
        for image in annotations.images:
            save_labels(image.labels(annotations.classes), below(out, out / "masks" / f"{image.stem}.png"))
            image.place_in(out / "images", export)
        names = {str(label): name for label, name in enumerate(annotations.classes, start=1)}
        write_text(out / "classes.json", json.dumps(names, indent=2) + "\n")
        return out


def annotations_of_masks(
    images: Path, masks: Path, classes: Mapping[int, str], objects: Path | None = None
) -> AnnotationSet:
    """Images with a mask, those that show nothing too. objects: a folder of masks that tell objects apart.

    Raises `SupportError` at once, and when an image is asked for `MaskError` and `ImageReadError`.
    """
    pairs = in_two_folders(images, masks)
    names = {pair: pair[0].relative_to(images).as_posix() for pair in pairs}
    stems = unique_stems(names.values())
    apart = objects if objects and objects.is_dir() else None

    def read(pair: ImageAndMask) -> LabelledImage:
        mask = _mask(pair[1], classes)
        found = tuple(_annotations(mask, classes, apart and apart / pair[1].relative_to(masks)))
        return LabelledImage(names[pair], (mask.shape[0], mask.shape[1]), found, pair[0], stems[names[pair]])

    ordered = tuple(classes[label] for label in sorted(classes))
    return AnnotationSet(ordered, LazyImages(pairs, read), objects=apart is not None)


def shots_of_masks(
    pairs: Iterable[tuple[ImageLike, Path]], classes: Mapping[int, str], *, empty: bool = False
) -> list[Shot]:
    """Shots of index masks; each maps the labels that its mask holds.

    empty: whether a mask without any label makes a shot too, which shows where no class is.
    Raises `MaskError` that names the file and the labels that are not in `classes`.
    """
    shots = []
    for image, path in pairs:
        labels = set(np.unique(_mask(path, classes)).tolist()) - {0, IGNORE}
        if labels or empty:
            shots.append(Shot(image, mask=path, label={label: classes[label] for label in sorted(labels)}))
    return shots


def _mask(path: Path, classes: Mapping[int, str]) -> NDArray[np.uint8]:
    # With several classes 255 can but mean ignore; with one it is also how people draw it.
    mask = read_mask(path, drawn=len(classes) == 1)
    unknown = sorted(set(np.unique(mask).tolist()) - {0, IGNORE} - classes.keys())
    if unknown:
        named = ", ".join(f"{label} = {classes[label]}" for label in sorted(classes)[:5])
        raise MaskError(f"{path}: holds labels that no class has: {unknown}; the classes are {named}")
    return mask


def _annotations(mask: NDArray[np.uint8], classes: Mapping[int, str], objects: Path | None) -> Iterator[Annotation]:
    if (mask == IGNORE).any():
        yield Annotation.from_mask(mask == IGNORE, "", ignore=True)
    apart = read_mask(objects, drawn=False) if objects and objects.is_file() else None
    if apart is not None:
        check_same_size(apart.shape, mask.shape, str(objects))
    for label in (label for label in np.unique(mask).tolist() if label in classes):
        of_class = mask == label
        for number in [0] if apart is None else np.unique(apart[of_class]).tolist():
            yield Annotation.from_mask(of_class if apart is None else of_class & (apart == number), classes[label])


def read_classes(path: Path) -> dict[int, str]:
    """{label: class} of a classes.json ({"1": "cat"}) or a classes.txt (line 1 = label 1); background is left out.

    In a classes.txt a first line `background` has the label 0. Raises `SupportError` that names the file.
    """
    classes = _from_json(path) if path.suffix == ".json" else _from_lines(path)
    if not classes:
        raise SupportError(f"{path}: names no class")
    check_class_names(path, list(classes.values()))
    return classes


def _from_json(path: Path) -> dict[int, str]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise SupportError(f'{path}: expected {{"1": "cat", "2": "dog"}}, got {short(data)}')
    classes = {}
    for key, name in data.items():
        label = int(key) if key.isascii() and key.isdigit() else -1
        if not 0 <= label < IGNORE or not isinstance(name, str) or not name.strip():
            raise SupportError(f"{path}: expected labels in 1..254 with their names, got {key!r}: {short(name)}")
        if label:
            classes[label] = name.strip()
    return classes


def _from_lines(path: Path) -> dict[int, str]:
    names = [line.strip() for line in read_text_lines(path)]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise SupportError(f"{path}: line {names.index('') + 1} is empty; the line number is the label, so name each")
    first = 0 if names and names[0].strip("_").lower() == "background" else 1
    if len(names) + first > IGNORE:
        raise SupportError(f"{path}: {len(names)} classes; an index mask holds at most 254")
    return {label: name for label, name in enumerate(names, start=first) if label}


FORMAT = IndexMasks()
