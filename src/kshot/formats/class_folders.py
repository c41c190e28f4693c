"""A folder per class: the name of the folder is the class."""

from collections.abc import Sequence
from pathlib import Path

from kshot.annotations.one_class import check_masks
from kshot.annotations.pairing import ImageAndMask, in_one_folder, in_two_folders
from kshot.annotations.shots import ShotList
from kshot.errors import SupportError
from kshot.formats.base import SupportReader
from kshot.io.paths import image_files, visible, walk
from kshot.types import Shot

# Folders of the other layouts, which half of such a layout must not turn into classes.
_OTHERS = {"images", "masks", "annotations", "labels", "jpegimages", "segmentationclass", "imagesets"}
# Names that may be of classes, but not beside each other.
_IMAGES, _MASKS = {"image", "img", "imgs", "images"}, {"mask", "label", "gt", "masks", "labels"}
_TRAIN, _REST = {"train"}, {"val", "valid", "validation", "test"}


class ClassFolders(SupportReader):
    """Images and masks of a class in a folder of its name."""

    layout = (
        "class folders: <class>/x.jpg and <class>/x.png (or x_mask.png, x_mask_1.png), or images/<class>/x.jpg and "
        "masks/<class>/x.png, or pairs of x.jpg and x.png of one class, or <class>/x.jpg alone"
    )

    def read_shots(self, folder: Path) -> list[Shot] | None:
        """Shots of each class folder; None when there is none, and no pair in the folder itself.

        A class folder without any mask gives shots without a prompt; where some images have masks, the others are left
        out. What is white, or has any label but 0, is the class. Raises `SupportError` for masks without images, and
        for images that belong to no class; and `MaskError` for masks that show several classes.
        """
        if (folder / "images").is_dir() and (folder / "masks").is_dir():
            return _or_why(_images_and_masks(folder, ShotList()))
        classes = [path for path in visible(folder) if path.name.lower() not in _OTHERS and image_files(path)]
        names = {path.name.lower() for path in visible(folder) if path.is_dir()}
        if (names & _IMAGES and names & _MASKS) or (names & _TRAIN and names & _REST):
            return None
        loose = image_files(folder)
        if classes and loose:
            raise SupportError(f"{loose[0]}: an image beside the class folders; move it into its class's folder")
        if classes:
            shots = ShotList()
            for path in classes:
                _add_class(shots, path)
            return _or_why(shots)
        pairs, _ = in_one_folder(folder)
        label = folder.resolve().name or "object"
        return _or_why(_add_masks(ShotList(), pairs, label, folder)) if pairs else None


def _or_why(shots: ShotList) -> ShotList:
    """The shots; raises why there is none, when none of the masks can be read."""
    if not shots:
        shots.skipped.raise_first()
    return shots


def _add_class(shots: ShotList, folder: Path) -> None:
    pairs, alone = in_one_folder(folder)
    _add_masks(shots, pairs, folder.name, folder)
    if not pairs:
        shots += [Shot(image, label=folder.name) for image in alone]


def _add_masks(shots: ShotList, pairs: Sequence[ImageAndMask], label: str, folder: Path) -> ShotList:
    """Add a shot of each pair whose mask can be read; several masks of one image are several shots."""
    readable = set(check_masks([mask for _, mask in pairs], str(folder), shots.skipped))
    shots += [Shot(image, mask=mask, label=label) for image, mask in pairs if mask in readable]
    return shots


def _images_and_masks(folder: Path, shots: ShotList) -> ShotList:
    images, masks = folder / "images", folder / "masks"
    loose = image_files(images) + image_files(masks)
    if loose:
        raise SupportError(
            f"{folder}: images/ and masks/, but no classes.json or classes.txt that names the labels in the masks; "
            f'write classes.json with {{"1": "{folder.resolve().name}"}}, or sort both by class: '
            f"images/<class>/{loose[0].name}"
        )
    for name in sorted({path.name for root in (images, masks) for path in visible(root) if path.is_dir()}):
        pairs = in_two_folders(images / name, masks / name, several=True)
        _add_masks(shots, pairs, name, masks / name)
        if not pairs:
            shots += [Shot(image, label=name) for image in sorted(walk(images / name))]
    return shots


FORMAT = ClassFolders()
