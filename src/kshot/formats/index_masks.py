"""Index masks: images/, masks/, and a file beside them that names the class of each label."""

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as short
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.checked_json import check_class_names, read_json, read_text_lines
from kshot.annotations.model import DEFAULT_EXPORT, Annotation, AnnotationSet, Export, LabelledImage, LazyImages
from kshot.annotations.pairing import ImageAndMask, in_two_folders
from kshot.annotations.shots import ShotList
from kshot.annotations.skipped import Skipped
from kshot.errors import ImageReadError, MaskError, SupportError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.formats.png import save_labels
from kshot.io.atomic import write_text
from kshot.io.colour_masks import Colour, read_colours
from kshot.io.images import read_mask
from kshot.io.names import below
from kshot.io.stems import unique_stems
from kshot.types import IGNORE, ImageLike, Shot, check_same_size

CLASS_FILES = ("classes.json", "classes.txt")


@dataclass(frozen=True)
class LabelNames:
    """What the labels in masks mean."""

    classes: Mapping[int, str]
    """{label: class}, without the background."""
    colours: Mapping[Colour, int] = field(default_factory=dict)
    """The label of each colour, 0 for the background; empty where masks hold labels alone."""
    indexed: bool = True
    """Whether a mask may hold the labels themselves."""
    source: str = ""
    """What names the colours, for messages."""


class MaskFolders(AnnotationReader):
    """A folder of images and one of index masks, whose labels are named somewhere."""

    images: ClassVar[str]
    """The folder of images."""
    masks: ClassVar[str]
    """The folder of index masks, which are called like their images."""
    objects: ClassVar[str | None] = None
    """A folder of masks that tell objects apart."""

    @abstractmethod
    def names_of(self, folder: Path) -> LabelNames | None:
        """The classes of the labels; None when nothing names them. Raises `SupportError`."""

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """All images with a mask. None without both folders and names of the labels.

        A mask that cannot be read fails alone. Raises `SupportError` (damaged names, or masks without images) and
        `MaskError` (labels beyond the classes).
        """
        folder, masks = images or where / self.images, where / self.masks
        names = self.names_of(where) if folder.is_dir() and masks.is_dir() else None
        if names is None:
            return None
        return annotations_of_masks(folder, masks, names, where / self.objects if self.objects else None)

    def read_shots(self, folder: Path) -> list[Shot] | None:
        """Shots of the images whose mask shows a class; masks of indices stay paths. Raises as `read_annotations`."""
        images, masks = folder / self.images, folder / self.masks
        names = self.names_of(folder) if images.is_dir() and masks.is_dir() else None
        return None if names is None else shots_of_masks(in_two_folders(images, masks), names)


class IndexMasks(MaskFolders, AnnotationWriter):
    """images/, masks/ and a file that names the labels."""

    layout = 'index masks: images/x.jpg, masks/x.png, and classes.json ({"1": "cat"}) or classes.txt (a class per line)'
    images, masks = "images", "masks"
    output = None
    holds = frozenset({"ignored areas"})

    def names_of(self, folder: Path) -> LabelNames | None:
        """The classes of its classes.json or classes.txt; None without either. Raises `SupportError`."""
        found = [folder / name for name in CLASS_FILES if (folder / name).is_file()]
        if len(found) > 1:
            raise SupportError(f"{folder}: both classes.json and classes.txt; keep one")
        return LabelNames(read_classes(found[0])) if found else None

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
    images: Path, masks: Path, label_names: LabelNames, objects: Path | None = None
) -> AnnotationSet:
    """Images with a mask, those that show nothing too. objects: a folder of masks that tell objects apart.

    A mask that cannot be read fails alone. Raises `SupportError` at once, and when an image is asked for `MaskError`.
    """
    pairs = in_two_folders(images, masks)
    names = {pair: pair[0].relative_to(images).as_posix() for pair in pairs}
    stems = unique_stems(names.values())
    apart = objects if objects and objects.is_dir() else None

    def read(pair: ImageAndMask) -> LabelledImage:
        mask, _ = read_labels(pair[1], label_names)
        found = tuple(_annotations(mask, classes, apart and apart / pair[1].relative_to(masks)))
        return LabelledImage(names[pair], (mask.shape[0], mask.shape[1]), found, pair[0], stems[names[pair]])

    classes = label_names.classes
    ordered = tuple(classes[label] for label in sorted(classes))
    skipped = Skipped()
    lazy = LazyImages(pairs, read, skipped, ImageReadError)
    return AnnotationSet(ordered, lazy, objects=apart is not None, skipped=skipped)


def shots_of_masks(pairs: Iterable[tuple[ImageLike, Path]], names: LabelNames, *, empty: bool = False) -> ShotList:
    """Shots of index masks; each maps the labels that its mask holds.

    empty: whether a mask without any label makes a shot too, which shows where no class is.
    A mask that cannot be read fails alone, unless there is no other. Raises `MaskError` that names the file and the
    labels or colours that no class has, and `ImageReadError`.
    """
    shots = ShotList()
    for image, path in pairs:
        with shots.skipped.alone(ImageReadError):
            mask, indices = read_labels(path, names)
            labels = sorted(set(np.unique(mask).tolist()) - {0, IGNORE})
            if labels or empty:
                shown = {label: names.classes[label] for label in labels}
                shots.append(Shot(image, mask=path if indices else mask, label=shown))
    if not shots:
        shots.skipped.raise_first()
    return shots


def read_labels(path: Path, names: LabelNames) -> tuple[NDArray[np.uint8], bool]:
    """The labels (h, w) of a mask, and whether they are its own values rather than those of its colours.

    Raises `MaskError` that names the file and the labels or colours that no class has.
    """
    by_colour = _by_colour(path, names) if names.colours else None
    if by_colour is not None:
        return by_colour, False
    if not names.indexed:
        raise MaskError(
            f"{path}: holds indices or greys, but {names.source} lists colours, and not the background first"
        )
    # With several classes 255 can but mean ignore; with one it is also how people draw it.
    mask = read_mask(path, drawn=len(names.classes) == 1)
    unknown = sorted(set(np.unique(mask).tolist()) - {0, IGNORE} - names.classes.keys())
    if unknown:
        named = ", ".join(f"{label} = {names.classes[label]}" for label in sorted(names.classes)[:5])
        raise MaskError(f"{path}: holds labels that no class has: {unknown}; the classes are {named}")
    return mask, True


def _by_colour(path: Path, names: LabelNames) -> NDArray[np.uint8] | None:
    """The labels of a mask by its colours; None where its values are labels."""
    found = read_colours(path)
    if found is None:
        return None
    table = np.zeros(max(found.colours) + 1, np.uint8)
    unlisted = []
    for number, colour in found.colours.items():
        if colour in names.colours:
            table[number] = names.colours[colour]
        elif found.palette and number == IGNORE:
            table[number] = IGNORE
        else:
            unlisted.append(colour)
    if not unlisted:
        labels: NDArray[np.uint8] = table[found.numbers]
        # Where both say the same, as in what the devkit and kshot write, the file itself is the mask.
        return None if found.palette and names.indexed and np.array_equal(labels, found.numbers) else labels
    if names.indexed and (found.palette or found.grey):
        return None
    some = "; ".join(",".join(map(str, colour)) for colour in unlisted[:5])
    raise MaskError(f"{path}: colours that {names.source} does not list: {some}")


def _annotations(mask: NDArray[np.uint8], classes: Mapping[int, str], objects: Path | None) -> Iterator[Annotation]:
    if (mask == IGNORE).any():
        yield Annotation.from_mask(mask == IGNORE, "", ignore=True)
    apart = _objects(objects) if objects and objects.is_file() else None
    if apart is not None:
        check_same_size(apart.shape, mask.shape, str(objects))
    for label in (label for label in np.unique(mask).tolist() if label in classes):
        of_class = mask == label
        for number in [0] if apart is None else np.unique(apart[of_class]).tolist():
            yield Annotation.from_mask(of_class if apart is None else of_class & (apart == number), classes[label])


def _objects(path: Path) -> NDArray[np.integer]:
    """A mask (h, w) of which every value, or colour, is another object."""
    coloured = read_colours(path)
    return read_mask(path, drawn=False) if coloured is None or coloured.palette else coloured.numbers


def read_classes(path: Path) -> dict[int, str]:
    """{label: class} of a classes.json or a classes.txt (line 1 = label 1); background is left out.

    A classes.json holds {"1": "cat"}, or a list as {"names": ["background", "cat"]}, where "ignore" may say 255. In a
    list a first name `background` has the label 0. Raises `SupportError` that names the file.
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
    if isinstance(data.get("names"), list):
        return _from_list(path, data)
    classes = {}
    for key, name in data.items():
        label = int(key) if key.isascii() and key.isdigit() else -1
        if not 0 <= label < IGNORE or not isinstance(name, str) or not name.strip():
            raise SupportError(f"{path}: expected labels in 1..254 with their names, got {key!r}: {short(name)}")
        if label:
            classes[label] = name
    return classes


def _from_lines(path: Path) -> dict[int, str]:
    names = [line.strip() for line in read_text_lines(path)]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise SupportError(f"{path}: line {names.index('') + 1} is empty; the line number is the label, so name each")
    return _numbered(path, names)


def _from_list(path: Path, data: dict[str, object]) -> dict[int, str]:
    names, unknown = data["names"], sorted(data.keys() - {"names", "ignore"})
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise SupportError(f"{path}: expected a list of names, got {short(names)}")
    if unknown or data.get("ignore", IGNORE) != IGNORE:
        raise SupportError(f"{path}: expected names, and {IGNORE} as the label to ignore, got {short(data)}")
    return _numbered(path, [name.strip() for name in names])


def _numbered(path: Path, names: list[str]) -> dict[int, str]:
    """{label: class} of names in the order of their labels."""
    first = 0 if names and names[0].strip("_").lower() == "background" else 1
    if len(names) + first > IGNORE:
        raise SupportError(f"{path}: {len(names)} classes; an index mask holds at most 254")
    return {label: name for label, name in enumerate(names, start=first) if label}


FORMAT = IndexMasks()
