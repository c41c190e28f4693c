"""PASCAL VOC as a support folder: JPEGImages and SegmentationClass."""

from pathlib import Path

from kshot.formats._pairs import in_two_folders, index_shots
from kshot.types import Shot

LAYOUT = "VOC: JPEGImages/x.jpg and SegmentationClass/x.png with the 20 VOC classes"
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


def read_shots(folder: Path) -> list[Shot] | None:
    """Shots of all images with a mask, whatever ImageSets says; each maps the classes that its mask shows.

    None without both folders. Raises `SupportError` (masks without images), `MaskError` (labels beyond the 20
    classes) and `ImageReadError`.
    """
    images, masks = folder / "JPEGImages", folder / "SegmentationClass"
    if not (images.is_dir() and masks.is_dir()):
        return None
    return index_shots(in_two_folders(images, masks), dict(enumerate(CLASSES, start=1)))
