"""PASCAL VOC's devkit: JPEGImages, SegmentationClass, SegmentationObject and ImageSets/Segmentation.

Classes other than VOC's own twenty are named in labelmap.txt with their colours, as CVAT and datumaro have it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from kshot.annotations.checked_json import check_class_names, read_text_lines
from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export, LabelledImage, paint
from kshot.errors import SupportError
from kshot.formats.base import AnnotationWriter, refuse_names
from kshot.formats.index_masks import LabelNames, MaskFolders
from kshot.formats.png import palette, save_labels
from kshot.io.atomic import write_text
from kshot.io.colour_masks import Colour
from kshot.io.names import below
from kshot.types import IGNORE

log = logging.getLogger(__name__)
# fmt: off
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
IMAGES, CLASS_MASKS, OBJECT_MASKS = "JPEGImages", "SegmentationClass", "SegmentationObject"
LISTS = "ImageSets/Segmentation"
LABELMAP = "labelmap.txt"


class Voc(MaskFolders, AnnotationWriter):
    """A class mask per image, an object mask where objects are known, and lists of the images."""

    images, masks, objects = IMAGES, CLASS_MASKS, OBJECT_MASKS

    layout = "VOC: JPEGImages/x.jpg and SegmentationClass/x.png with the 20 VOC classes, or those of labelmap.txt"
    output = "voc"
    holds = frozenset({"ignored areas"})

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/voc with its images; returns its path. SegmentationObject only where annotations are objects.

        Lossless but for scores and overlaps; an image of more than 254 objects keeps its classes alone. Images keep
        their own kind, whatever JPEGImages says. Raises `OutputError`, also for a name that labelmap.txt cannot hold.
        """
        folder, stems = out / self.output, []
        refuse_names(folder / LABELMAP, (name for name in annotations.classes if not _fits(name)))
        for image in annotations.images:
            stems.append(image.stem)
            save_labels(image.labels(annotations.classes), below(out, folder / CLASS_MASKS / f"{image.stem}.png"))
            if annotations.objects:
                _save_objects(image, below(out, folder / OBJECT_MASKS / f"{image.stem}.png"))
            image.place_in(folder / IMAGES, export)
        listed = "".join(f"{stem}\n" for stem in stems)
        for name in ("trainval", "train", "val"):
            write_text(folder / LISTS / f"{name}.txt", listed)
        write_text(folder / LABELMAP, _labelmap(annotations.classes))
        return folder

    def names_of(self, folder: Path) -> LabelNames:
        """The classes and colours of its labelmap.txt, else VOC's own. Raises `SupportError` when that is damaged."""
        return read_label_names(folder / LABELMAP)


def _save_objects(image: LabelledImage, path: Path) -> None:
    kept = [one for one in image.annotations if not one.ignore]
    if len(kept) >= IGNORE:
        log.warning("%s: %d objects, of which VOC's masks hold 254; it keeps its classes alone", image.name, len(kept))
        return
    ignored = [(one.rle, IGNORE) for one in image.annotations if one.ignore]
    numbered = [(one.rle, number) for number, one in enumerate(kept, start=1)]
    save_labels(paint([*ignored, *numbered], image.size_hw), path)


def _fits(name: str) -> bool:
    """Whether a line of a labelmap gives the name back, and not a comment, the background, or something shorter."""
    return name.splitlines() == [name.strip()] and name[0] != "#" and name.strip("_").lower() != "background"


def _labelmap(classes: Sequence[str]) -> str:
    colours = palette().tolist()
    named = [("background", colours[0]), *zip(classes, colours[1:], strict=False)]
    lines = [f"{name}:{red},{green},{blue}::\n" for name, (red, green, blue) in named]
    return "# label:color_rgb:parts:actions\n" + "".join(lines)


def read_label_names(path: Path) -> LabelNames:
    """The classes and colours of a labelmap.txt; VOC's own where there is none.

    Labels are numbered in the order of the lines, without the background. Raises `SupportError`.
    """
    colours = [_colour(row.tolist()) for row in palette()]
    if not path.is_file():
        listed = {colour: label for label, colour in enumerate(colours[: len(CLASSES) + 1])}
        return LabelNames(dict(enumerate(CLASSES, start=1)), listed | {colours[IGNORE]: IGNORE}, source="VOC")
    # A name may hold colons; what follows it never does.
    lines = [line.rsplit(":", 3) for line in read_text_lines(path) if line.strip() and line[0] != "#"]
    names = [line[0].strip() for line in lines]
    ground = [place for place, name in enumerate(names) if name.strip("_").lower() == "background"]
    if len(ground) != 1 or len(names) > IGNORE or "" in names:
        raise SupportError(f"{path}: expected lines label:r,g,b:: of one background and up to 254 classes")
    check_class_names(path, names)
    labels = [*range(1, ground[0] + 1), 0, *range(ground[0] + 1, len(names))]
    listed = {}
    for line, label in zip(lines, labels, strict=True):
        colour = _colour_of(line)
        if colour in listed:
            raise SupportError(f"{path}: the colour {line[1]} stands there twice; give each label its own")
        if colour is not None:
            listed[colour] = label
    if not listed and ground[0]:
        raise SupportError(f"{path}: without colours the background has to come first; the line number is the label")
    classes = {label: name for label, name in zip(labels, names, strict=True) if label}
    whole = {colours[IGNORE]: IGNORE} | listed if listed else {}
    return LabelNames(classes, whole, indexed=not ground[0], source=str(path))


def _colour_of(line: Sequence[str]) -> Colour | None:
    """The colour r,g,b of a line of a labelmap; None where it gives none."""
    parts = line[1].split(",") if len(line) > 1 else []
    if len(parts) != 3 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        return None
    return _colour([int(part) for part in parts])


def _colour(bands: Sequence[int]) -> Colour:
    red, green, blue = bands
    return red, green, blue


FORMAT = Voc()
