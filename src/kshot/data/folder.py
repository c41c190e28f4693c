"""One's own data: images/ and masks/ with a list of classes, or a folder per class with pairs of x.jpg and x.png."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from kshot.data import fss1000
from kshot.data._report import Problem, complain, read_list
from kshot.data.base import Dataset, Item, Labels, LabelType, label_type
from kshot.errors import DatasetError, SupportError
from kshot.formats.index_masks import read_classes
from kshot.io.images import read_mask
from kshot.io.paths import pictures, visible, walk
from kshot.types import IGNORE

LOOKS_FOR = (
    "folder: images/x.jpg and masks/x.png (or x_mask.png) with index masks and classes.json or classes.txt, or "
    "<class>/x.jpg and <class>/x.png; train.txt and val.txt beside them split it"
)
_LISTS = ("classes.json", "classes.txt")
_SPLITS = ("train", "val", "test")
_MASK = "_mask"


def detect(root: Path) -> bool:
    """Whether one of the two layouts lies here."""
    if _has_index_masks(root):
        return True
    # FSS-1000 is a folder per class too, but with masks and splits of its own.
    return not fss1000.detect(root) and any(_pairs(path) for path in islice(_class_folders(root), 5))


def locate(root: Path) -> Path | None:
    """The folder that the layout starts in, or None."""
    return root if detect(root) else None


def load(
    root: Path, fold: int | None = None, strict: bool = False, cache: Path | None = None, min_area: int = 1
) -> Dataset:
    """Open a folder. min_area: pixels that a class needs in an image to be counted there.

    The classes have no folds: all are tested. Raises `DatasetError`.
    """
    if _has_index_masks(root):
        layout, (classes, items, problems) = "images/ + masks/ with a list of classes", _index_masks(root)
    else:
        layout, (classes, items, problems) = "one folder per class", _by_class(root)
    if not items:
        raise DatasetError(f"{root}: no image with a mask here; looked for {LOOKS_FOR}")
    splits, absent = _splits(root, items)
    tested = next((name for name in ("test", "val", "all") if name in splits), "train")
    return Dataset(
        name=root.resolve().name,
        family="folder",
        root=root,
        layout=layout,
        classes=classes,
        items=items,
        splits=splits,
        query_split=tested,
        support_split="train" if "train" in splits else tested,
        fold=fold,
        min_area=min_area,
        problems=complain(root, strict, [*problems, *absent]),
        cache=cache,
    )


def read_index(path: Path, n_classes: int) -> Labels:
    """(h, w) labels of an index mask; only a mask of a single class may be drawn in 0 and 255."""
    return read_mask(path, drawn=n_classes == 1)


def read_drawn(path: Path, class_id: int, kind: LabelType) -> Labels:
    """(h, w) labels of a mask of one class: black and white, or 0, 1 and 255. Raises `DatasetError`."""
    mask = read_mask(path)
    wrong = sorted(set(np.unique(mask).tolist()) - {0, 1, IGNORE})
    if wrong:
        raise DatasetError(
            f"{path}: holds labels outside the class list: {wrong}; expected 0 and 1, or black and white"
        )
    table = np.zeros(IGNORE + 1, kind)
    table[1] = class_id
    # Beyond 254 classes there is no ignore, and 255 would be a class.
    table[IGNORE] = IGNORE if kind is np.uint8 else 0
    return np.asarray(table[mask])


_Parts = tuple[tuple[str, ...], dict[str, Item], list[Problem]]


def _has_index_masks(root: Path) -> bool:
    return all((root / name).is_dir() for name in ("images", "masks")) and any((root / n).is_file() for n in _LISTS)


def _index_masks(root: Path) -> _Parts:
    classes = _classes(next(root / name for name in _LISTS if (root / name).is_file()))
    images, masks = _by_stem(root / "images"), _by_stem(root / "masks")
    # x_mask is the mask of x where there is an x, and a name like any other where there is none.
    owned = {stem if stem in images else stem.removesuffix(_MASK): path for stem, path in masks.items()}
    items = {
        stem: Item(images[stem], partial(read_index, owned[stem], len(classes)), owned[stem])
        for stem in sorted(images.keys() & owned.keys())
    }
    return classes, items, _unpaired(images, owned)


def _by_class(root: Path) -> _Parts:
    folders = list(_class_folders(root))
    classes = tuple(folder.name for folder in folders)
    items: dict[str, Item] = {}
    alone: list[str] = []
    for class_id, folder in enumerate(folders, start=1):
        pairs = _pairs(folder)
        for stem, (image, mask) in pairs.items():
            read = partial(read_drawn, mask, class_id, label_type(len(classes)))
            items[f"{folder.name}/{stem}"] = Item(image, read, mask)
        taken = {path for pair in pairs.values() for path in pair}
        alone += [f"{folder.name}/{path.name}" for path in pictures(folder) if path not in taken]
    return classes, items, [Problem("pictures without a mask, or masks without a picture", tuple(alone))]


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """{stem: (image, mask)} of x.jpg and x.png, or of x.* and x_mask.png."""
    masks = {path.stem: path for path in pictures(folder) if path.suffix.lower() == ".png"}
    pairs = {}
    for image in pictures(folder):
        named, drawn = masks.get(image.stem), masks.get(image.stem + _MASK)
        mask = drawn or (named if named != image else None)
        if mask is not None:
            pairs[image.stem] = (image, mask)
    return pairs


def _class_folders(root: Path) -> Iterator[Path]:
    """Sub-folders that hold pictures, in the order of their names."""
    return (path for path in visible(root) if path.is_dir() and pictures(path))


def _classes(path: Path) -> tuple[str, ...]:
    try:
        named = read_classes(path)
    except SupportError as error:
        raise DatasetError(str(error)) from error
    gaps = sorted(set(range(1, max(named) + 1)) - named.keys())
    if gaps:
        raise DatasetError(f"{path}: labels without a class: {gaps[:8]}; name 1..{max(named)} without a gap")
    return tuple(named[label] for label in sorted(named))


def _by_stem(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(walk(root)):
        stem = path.relative_to(root).with_suffix("").as_posix()
        if stem in found:
            raise DatasetError(f"{found[stem]} and {path}: two files of one name; keep one")
        found[stem] = path
    return found


def _unpaired(images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[Problem]:
    return [
        Problem("images without a mask", tuple(sorted(images.keys() - masks.keys()))),
        Problem("masks without an image", tuple(sorted(masks.keys() - images.keys()))),
    ]


def _splits(root: Path, items: Mapping[str, Item]) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """The lists beside the data, or everything as `all`."""
    lists = {name: read_list(root / f"{name}.txt") for name in _SPLITS if (root / f"{name}.txt").is_file()}
    if not lists:
        return {"all": tuple(items)}, []
    absent = [
        Problem(f"images of {name}.txt without a picture or a mask", tuple(i for i in ids if i not in items))
        for name, ids in lists.items()
    ]
    return {name: tuple(i for i in ids if i in items) for name, ids in lists.items()}, absent
