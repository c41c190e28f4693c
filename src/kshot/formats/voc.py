"""PASCAL VOC's devkit: JPEGImages, SegmentationClass, SegmentationObject and ImageSets/Segmentation.

Classes other than VOC's own twenty are named in labelmap.txt, as CVAT and datumaro have it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.model import Export, LabelledImage, LabelTree
from kshot.annotations.pairing import in_two_folders, index_shots
from kshot.errors import SupportError
from kshot.formats._index_trees import index_tree
from kshot.formats.png import palette, save_labels
from kshot.io.atomic import write_text
from kshot.types import IGNORE, Shot

log = logging.getLogger(__name__)
FOLDER_OUT = "voc"
LAYOUT = "VOC: JPEGImages/x.jpg and SegmentationClass/x.png with the 20 VOC classes, or those of labelmap.txt"
CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_LIST = "labelmap.txt"


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/voc with its images; returns its path. SegmentationObject only where the parts are objects.

    Lossless but for scores and overlaps; an image of more than 254 objects keeps its classes alone. Images keep their
    own kind, whatever JPEGImages says. Raises `OutputError`.
    """
    folder, stems = out / FOLDER_OUT, []
    for image in tree.images:
        stems.append(image.stem)
        save_labels(image.labels(tree.classes), folder / "SegmentationClass" / f"{image.stem}.png")
        if tree.objects:
            _save_objects(image, folder / "SegmentationObject" / f"{image.stem}.png")
        image.place(folder / "JPEGImages", how)
    listed = "".join(f"{stem}\n" for stem in stems)
    for name in ("trainval", "train", "val"):
        write_text(folder / "ImageSets" / "Segmentation" / f"{name}.txt", listed)
    write_text(folder / _LIST, _labelmap(tree.classes))
    return folder


def read_shots(folder: Path) -> list[Shot] | None:
    """Shots of all images with a mask, whatever ImageSets says; each maps the classes that its mask shows.

    None without both folders. Raises `SupportError` (masks without images, a damaged labelmap.txt), `MaskError` (labels
    beyond the classes) and `ImageReadError`.
    """
    images, masks = folder / "JPEGImages", folder / "SegmentationClass"
    if not (images.is_dir() and masks.is_dir()):
        return None
    return index_shots(in_two_folders(images, masks), _classes(folder))


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """All images with a mask; objects where SegmentationObject has them. Raises as `read_shots` does."""
    folder, masks = images or where / "JPEGImages", where / "SegmentationClass"
    if not (folder.is_dir() and masks.is_dir()):
        return None
    return index_tree(folder, masks, _classes(where), where / "SegmentationObject")


def _save_objects(image: LabelledImage, path: Path) -> None:
    kept = [part for part in image.parts if not part.ignore]
    if len(kept) >= IGNORE:
        log.warning("%s: %d objects, of which VOC's masks hold 254; it keeps its classes alone", image.name, len(kept))
        return
    mask: NDArray[np.uint8] = np.zeros(image.size_hw, np.uint8)
    for part in (part for part in image.parts if part.ignore):
        mask[part.mask] = IGNORE
    order = sorted(range(len(kept)), key=lambda index: -kept[index].area)
    for index in order:
        mask[kept[index].mask] = index + 1
    save_labels(mask, path)


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
