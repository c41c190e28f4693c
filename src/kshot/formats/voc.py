"""PASCAL VOC's devkit: JPEGImages, SegmentationClass, SegmentationObject and ImageSets/Segmentation.

Classes other than VOC's own twenty are named in labelmap.txt, as CVAT and datumaro have it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from kshot.annotations.model import AnnotationSet, Export, LabelledImage, paint
from kshot.annotations.pairing import in_two_folders
from kshot.errors import SupportError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.formats.index_masks import annotations_of_masks, shots_of_masks
from kshot.formats.png import palette, save_labels
from kshot.io.atomic import write_text
from kshot.types import IGNORE, Shot

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


class Voc(AnnotationReader, AnnotationWriter):
    """A class mask per image, an object mask where objects are known, and lists of the images."""

    layout = "VOC: JPEGImages/x.jpg and SegmentationClass/x.png with the 20 VOC classes, or those of labelmap.txt"
    output = "voc"

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export | None = None) -> Path:
        """Write `out`/voc with its images; returns its path. SegmentationObject only where annotations are objects.

        Lossless but for scores and overlaps; an image of more than 254 objects keeps its classes alone. Images keep
        their own kind, whatever JPEGImages says. Raises `OutputError`.
        """
        folder, stems = out / self.output, []
        for image in annotations.images:
            stems.append(image.stem)
            save_labels(image.labels(annotations.classes), folder / CLASS_MASKS / f"{image.stem}.png")
            if annotations.objects:
                _save_objects(image, folder / OBJECT_MASKS / f"{image.stem}.png")
            image.place_in(folder / IMAGES, export or Export())
        listed = "".join(f"{stem}\n" for stem in stems)
        for name in ("trainval", "train", "val"):
            write_text(folder / LISTS / f"{name}.txt", listed)
        write_text(folder / _LIST, _labelmap(annotations.classes))
        return folder

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """All images with a mask, whatever ImageSets says; objects where SegmentationObject has them.

        None without both folders. Raises `SupportError` (masks without images, a damaged labelmap.txt), `MaskError`
        (labels beyond the classes) and `ImageReadError`.
        """
        folder, masks = images or where / IMAGES, where / CLASS_MASKS
        if not (folder.is_dir() and masks.is_dir()):
            return None
        return annotations_of_masks(folder, masks, _classes(where), where / OBJECT_MASKS)

    def read_shots(self, folder: Path) -> list[Shot] | None:
        """Shots of the images whose mask shows a class; each keeps its mask as a path. Raises as `read_annotations`."""
        images, masks = folder / IMAGES, folder / CLASS_MASKS
        if not (images.is_dir() and masks.is_dir()):
            return None
        return shots_of_masks(in_two_folders(images, masks), _classes(folder))


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


def _classes(folder: Path) -> dict[int, str]:
    path = folder / _LIST
    if not path.is_file():
        return dict(enumerate(CLASSES, start=1))
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SupportError(f"{path}: cannot be read ({error})") from error
    # A name may hold colons; what follows it never does.
    names = [line.rsplit(":", 3)[0].strip() for line in lines if line.strip() and line[0] != "#"]
    if not names or names[0].strip("_").lower() != "background" or len(names) > IGNORE or "" in names:
        raise SupportError(f"{path}: expected lines label:r,g,b:: of background and up to 254 classes")
    if len(set(names)) < len(names):
        raise SupportError(f"{path}: a name stands there twice; give each label a name of its own")
    return dict(enumerate(names[1:], start=1))


FORMAT = Voc()
