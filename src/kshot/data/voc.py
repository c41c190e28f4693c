"""PASCAL VOC 2012 and PASCAL-5i, and data sets of other classes in VOC's layout, with a labelmap.txt.

Everingham et al. 2012; the folds of Shaban et al. 2017 (OSLSM): fold i tests the 0-based classes 5i..5i+4. The pairs
of a fold are generated from the masks of the val list: a class counts where it has at least 2 * 32 * 32 pixels
(PFENet, Tian et al. 2020, util/dataset.py), which gives 346, 451, 725 and 346 pairs on the whole set.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from kshot.data._report import Problem, check_problems, read_list, split_samples
from kshot.data.base import Dataset, Labels, Sample
from kshot.errors import DatasetError, MaskError, SettingError, SupportError
from kshot.formats.index_masks import LabelNames, read_labels
from kshot.formats.voc import CLASS_MASKS, CLASSES, IMAGES, LABELMAP, LISTS, read_label_names
from kshot.io.images import read_mask
from kshot.io.paths import image_files
from kshot.types import IGNORE

LOOKS_FOR = (
    "voc: JPEGImages/ and SegmentationClass/ or SegmentationClassAug/, with lists in ImageSets/Segmentation/, "
    "in the folder itself, in VOC2012/ or in VOCdevkit/VOC2012/"
)
MIN_AREA = 2 * 32 * 32
VAL_IMAGES, FOLD_PAIRS = 1449, (346, 451, 725, 346)
_FOLDS = tuple(tuple(range(5 * i + 1, 5 * i + 6)) for i in range(4))
_MASKS = ("SegmentationClassAug", CLASS_MASKS)
_OBJECTS = "SegmentationObject"


def load(
    root: Path, fold: int | None = None, strict: bool = False, cache: Path | None = None, masks: str = "auto"
) -> Dataset:
    """Open VOC 2012.

    masks: `SegmentationClass`, `SegmentationClassAug`, or `auto`, the latter with the former to fill in.
    Protocol `seed` is defined on `SegmentationClass`. Raises `DatasetError` and `SettingError`.
    """
    home = locate(root)
    if home is None:
        raise DatasetError(f"{root}: no VOC here; looked for {LOOKS_FOR}")
    if masks not in {"auto", *_MASKS}:
        raise SettingError(f"expected masks as auto, {' or '.join(_MASKS)}, got {masks!r}")
    names = _label_names(home)
    classes = tuple(names.classes[label] for label in sorted(names.classes))
    published = classes == CLASSES
    samples, lost = _samples(home, _MASKS if masks == "auto" else (masks,), names)
    splits, problems = _splits(home, samples)
    tested = next((name for name in ("val", "trainval", "train") if name in splits), next(iter(splits)))
    return Dataset(
        name="voc",
        family="voc",
        root=home,
        layout=f"{'VOC 2012' if published else 'VOC'}, masks from {_folders_used(samples)}",
        classes=classes,
        samples=samples,
        splits=splits,
        query_split=tested,
        support_split="train" if "train" in splits else tested,
        folds=_FOLDS if published else (),
        fold=fold,
        min_area=MIN_AREA if published else 1,
        episodes={"pfenet": 5000} if published else {},
        problems=check_problems(home, strict, [*problems, Problem("masks without an image", lost)]),
        shortfalls=_shortfalls,
        cache=cache,
    )


def locate(root: Path) -> Path | None:
    """The folder that the layout starts in, or None."""
    for home in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (home / IMAGES).is_dir() and any((home / name).is_dir() for name in _MASKS):
            return home
    return None


def _label_names(home: Path) -> LabelNames:
    try:
        return read_label_names(home / LABELMAP)
    except SupportError as error:
        raise DatasetError(str(error)) from error


def _read(path: Path, names: LabelNames) -> Labels:
    """(h, w) labels of a mask of the classes of a labelmap.txt, by indices or colours."""
    try:
        return read_labels(path, names)[0]
    except MaskError as error:
        raise DatasetError(str(error)) from error


def _read_objects(path: Path) -> Labels:
    """(h, w) numbers of the objects of a mask of SegmentationObject, 0 where nobody decided."""
    numbers = read_mask(path, drawn=False)
    return np.where(numbers == IGNORE, np.uint8(0), numbers)


def _samples(home: Path, folders: Iterable[str], names: LabelNames) -> tuple[dict[str, Sample], tuple[str, ...]]:
    """Every image with a mask, and the masks without an image; the first folder that has a mask gives it."""
    images = {path.stem: path for path in image_files(home / IMAGES)}
    masks: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((home / folder).glob("*.png")):
            masks.setdefault(path.stem, path)
    # The augmented masks are grey images of indices: a grey 255 is still ignore.
    read = partial(_read, names=names) if (home / LABELMAP).is_file() else partial(read_mask, drawn=False)
    objects = {path.stem: partial(_read_objects, path) for path in (home / _OBJECTS).glob("*.png")}
    samples = {
        stem: Sample(images[stem], partial(read, path), path, objects.get(stem))
        for stem, path in sorted(masks.items())
        if stem in images
    }
    return samples, tuple(sorted(masks.keys() - images.keys()))


def _splits(home: Path, samples: dict[str, Sample]) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """{split: its ids}, and what is missing; without lists every mask is in `val`."""
    paths = sorted((home / LISTS).glob("*.txt"))
    if not paths:
        missing = Problem("list of ImageSets/Segmentation is missing; val is every mask", ("val",))
        return {"val": tuple(samples)}, [missing]
    # Some lists of the augmented set give paths (/JPEGImages/2007_000033.jpg) instead of ids.
    lists = {path.stem: list(dict.fromkeys(Path(entry).stem for entry in read_list(path))) for path in paths}
    return split_samples(lists, samples)


def _folders_used(samples: dict[str, Sample]) -> str:
    return " and ".join(sorted({sample.source.parent.name for sample in samples.values()})) or "nowhere"


def _shortfalls(dataset: Dataset) -> tuple[str, ...]:
    """Why a score here is no PASCAL-5i score; nothing when the set is whole, or has other classes."""
    if dataset.classes != CLASSES:
        return ()
    areas = dataset.areas()
    present, size = len({pair.class_id for pair in areas}), len(dataset.ids())
    if present < len(CLASSES):
        return (f"{present} of {len(CLASSES)} classes present; not a PASCAL-5i score",)
    if dataset.query_split != "val" or size != VAL_IMAGES:
        return (f"{size} of {VAL_IMAGES} val images present; not a PASCAL-5i score",)
    found = tuple(len(dataset.pairs(fold=fold)) for fold in range(len(_FOLDS)))
    if found != FOLD_PAIRS:
        return (
            f"the folds have {found} pairs instead of {FOLD_PAIRS}: these are not the published masks; "
            "not a PASCAL-5i score",
        )
    return ()
