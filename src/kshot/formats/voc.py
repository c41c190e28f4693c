"""PASCAL VOC's devkit: JPEGImages, SegmentationClass, SegmentationObject and ImageSets/Segmentation.

Classes other than VOC's own twenty are named in labelmap.txt, as CVAT and datumaro have it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from kshot.annotations.checked_json import check_class_names, read_text_lines
from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export, LabelledImage, paint
from kshot.errors import SupportError
from kshot.formats.base import AnnotationWriter
from kshot.formats.index_masks import MaskFolders
from kshot.formats.png import palette, save_labels
from kshot.io.atomic import write_text
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
_LIST = "labelmap.txt"


class Voc(MaskFolders, AnnotationWriter):
    """A class mask per image, an object mask where objects are known, and lists of the images."""

    images, masks, objects = IMAGES, CLASS_MASKS, OBJECT_MASKS

    layout = "VOC: JPEGImages/x.jpg and SegmentationClass/x.png with the 20 VOC classes, or those of labelmap.txt"
    output = "voc"

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/voc with its images; returns its path. SegmentationObject only where annotations are objects.

        Lossless but for scores and overlaps; an image of more than 254 objects keeps its classes alone. Images keep
        their own kind, whatever JPEGImages says. Raises `OutputError`.
        """
        folder, stems = out / self.output, []
        for image in annotations.images:
            stems.append(image.stem)
            save_labels(image.labels(annotations.classes), below(out, folder / CLASS_MASKS / f"{image.stem}.png"))
            if annotations.objects:
                _save_objects(image, below(out, folder / OBJECT_MASKS / f"{image.stem}.png"))
            image.place_in(folder / IMAGES, export)
        listed = "".join(f"{stem}\n" for stem in stems)
        for name in ("trainval", "train", "val"):
            write_text(folder / LISTS / f"{name}.txt", listed)
        write_text(folder / _LIST, _labelmap(annotations.classes))
        return folder

    def classes_of(self, folder: Path) -> dict[int, str]:
        """{label: class} of its labelmap.txt, else VOC's own. Raises `SupportError` when that is damaged."""
        return _classes(folder / _LIST)


def _save_objects(image: LabelledImage, path: Path) -> None:
    kept = [one for one in image.annotations if not one.ignore]
    if len(kept) >= IGNORE:
        log.warning("%s: %d objects, of which VOC's masks hold 254; it keeps its classes alone", image.name, len(kept))
        return
    ignored = [(one.rle, IGNORE) for one in image.annotations if one.ignore]
    numbered = [(one.rle, number) for number, one in enumerate(kept, start=1)]
    save_labels(paint([*ignored, *numbered], image.size_hw), path)


def _labelmap(classes: Sequence[str]) -> str:
    colours = palette().tolist()
    named = [("background", colours[0]), *zip(classes, colours[1:], strict=False)]
    lines = [f"{name}:{red},{green},{blue}::\n" for name, (red, green, blue) in named]
    return "# label:color_rgb:parts:actions\n" + "".join(lines)


def _classes(path: Path) -> dict[int, str]:
    if not path.is_file():
        return dict(enumerate(CLASSES, start=1))
    # A name may hold colons; what follows it never does.
    names = [line.rsplit(":", 3)[0].strip() for line in read_text_lines(path) if line.strip() and line[0] != "#"]
    if not names or names[0].strip("_").lower() != "background" or len(names) > IGNORE or "" in names:
        raise SupportError(f"{path}: expected lines label:r,g,b:: of background and up to 254 classes")
    check_class_names(path, names)
    return dict(enumerate(names[1:], start=1))


FORMAT = Voc()
