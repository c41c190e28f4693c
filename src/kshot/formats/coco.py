"""COCO JSON: one annotation per part of an image, as compressed RLE or as polygons, with its score."""

from pathlib import Path

from kshot.annotations.model import Export, LabelledImage, LabelTree, Part
from kshot.formats import _coco_read
from kshot.formats._coco_write import save
from kshot.types import Prediction, Shot

FILE = "coco.json"
WRITES = (".json",)
LAYOUT = "COCO: one COCO .json in the folder or in annotations/, with the images beside it or in images/"


def write(prediction: Prediction, path: Path) -> None:
    """Write one prediction; the image is called by the path's stem, as a prediction does not know its file.

    The score of an annotation is the mean score of its class over its pixels. Raises `OutputError`.
    """
    found = [
        Part.of(prediction.mask == index, name, float(prediction.scores[index][prediction.mask == index].mean()))
        for index, name in enumerate(prediction.classes, start=1)
        if (prediction.mask == index).any()
    ]
    save(LabelTree(prediction.classes, [LabelledImage(path.stem, prediction.size_hw, tuple(found))]), path)


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/coco.json; polygons lose by their tolerance, RLE loses nothing. Returns its path."""
    save(tree, out / FILE, how)
    return out / FILE


def read_shots(folder: Path) -> list[Shot] | None:
    """Shots of the annotated images, a mask with a label per class; None when there is no COCO file.

    Crowds become 255, ignore; where instances overlap the smaller is on top. Images whose annotations have boxes
    alone become box shots, one per class. Raises `SupportError` that names the file and the item.
    """
    return _coco_read.read_shots(folder)


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """All images and objects of a COCO file, or of the one in a folder. Raises `SupportError`."""
    return _coco_read.read_tree(where, images)
