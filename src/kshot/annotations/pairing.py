"""Which mask belongs to which image: the rules that the folder layouts share."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from kshot.errors import MaskError, SupportError
from kshot.io.images import read_mask
from kshot.io.paths import pictures, walk
from kshot.types import IGNORE, ImageLike, Shot

Pair = tuple[Path, Path]
_MASK = "_mask"


def in_two_folders(images: Path, masks: Path) -> list[Pair]:
    """Pairs of images/a/x.jpg and masks/a/x.png (or x_mask.png), sorted; images without a mask are left out.

    Raises `SupportError` for masks without an image, and for two files where one is expected.
    """
    by_stem = _by_stem(images, walk(images))
    pairs: dict[str, Path] = {}
    lost = []
    for stem, mask in sorted(_by_stem(masks, walk(masks)).items()):
        owner = stem if stem in by_stem else stem.removesuffix(_MASK)
        if owner not in by_stem:
            lost.append(mask)
        elif owner in pairs:
            raise SupportError(f"{pairs[owner]} and {mask}: two masks of {by_stem[owner]}; keep one")
        else:
            pairs[owner] = mask
    _refuse_lost(lost, f"in {images}")
    return [(by_stem[stem], pairs[stem]) for stem in sorted(pairs)]


def in_one_folder(folder: Path) -> tuple[list[Pair], list[Path]]:
    """Pairs of x.jpg and x.png, or of x.png and x_mask.png, directly in a folder, and the images without a mask.

    Raises `SupportError` for masks without an image, and for two files where one is expected.
    """
    groups: dict[str, list[Path]] = {}
    for path in pictures(folder):
        groups.setdefault(path.stem, []).append(path)
    # x_mask is the mask of x where there is an x, and a name like any other where there is none.
    owned = {stem for stem in groups if stem.endswith(_MASK) and stem.removesuffix(_MASK) in groups}
    pairs: list[Pair] = []
    alone: list[Path] = []
    for stem in groups.keys() - owned:
        group = groups[stem] + (groups[stem + _MASK] if stem + _MASK in owned else [])
        if len(group) == 1:
            alone += group
        else:
            pairs.append(_as_pair(group, stem))
    # Where masks are called like their images, a PNG that is left alone is a mask whose image went missing.
    same_name = any(image.stem == mask.stem for image, mask in pairs)
    lost = [p for p in alone if _is_png(p) and (same_name or p.stem.endswith(_MASK))]
    _refuse_lost(lost, f"in {folder}")
    return sorted(pairs), sorted(alone)


def index_shots(
    pairs: Iterable[tuple[ImageLike, Path]], classes: Mapping[int, str], *, empty: bool = False
) -> list[Shot]:
    """Shots of index masks; each maps the labels that its mask holds.

    empty: whether a mask without any label makes a shot too, which shows where no class is.
    Raises `MaskError` that names the file and the labels that are not in `classes`.
    """
    shots = []
    for image, mask in pairs:
        # With several classes 255 can but mean ignore; with one it is also how people draw it.
        labels = set(np.unique(read_mask(mask, drawn=len(classes) == 1)).tolist()) - {0, IGNORE}
        unknown = sorted(labels - classes.keys())
        if unknown:
            named = ", ".join(f"{label} = {classes[label]}" for label in sorted(classes)[:5])
            raise MaskError(f"{mask}: holds labels that no class has: {unknown}; the classes are {named}")
        if labels or empty:
            shots.append(Shot(image, mask=mask, label={label: classes[label] for label in sorted(labels)}))
    return shots


def _by_stem(root: Path, paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(paths):
        stem = path.relative_to(root).with_suffix("").as_posix()
        if stem in found:
            raise SupportError(f"{found[stem]} and {path}: two files of one name; keep one")
        found[stem] = path
    return found


def _as_pair(group: list[Path], stem: str) -> Pair:
    masks = [p for p in group if p.stem != stem] or [p for p in group if _is_png(p)]
    if len(group) != 2 or len(masks) != 1:
        raise SupportError(
            f"{', '.join(str(path) for path in group)}: which is the image and which its mask? "
            f"keep two, such as {stem}.jpg and {stem}.png"
        )
    return next(path for path in group if path != masks[0]), masks[0]


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _refuse_lost(masks: list[Path], where: str) -> None:
    if masks:
        some = ", ".join(str(path) for path in sorted(masks)[:5]) + (", ..." if len(masks) > 5 else "")
        raise SupportError(f"{len(masks)} masks without an image {where}: {some}; add the images, or remove the masks")
