"""Which image a mask, or an entry of an annotation file, belongs to: the rules that all layouts share."""

from pathlib import Path, PurePosixPath

from kshot.errors import SupportError
from kshot.io.paths import image_files, walk

ImageAndMask = tuple[Path, Path]
MASK_ENDING = "_mask"  # x_mask.png is the mask of x.jpg


def in_two_folders(images: Path, masks: Path) -> list[ImageAndMask]:
    """Pairs of images/a/x.jpg and masks/a/x.png (or x_mask.png), sorted; images without a mask are left out.

    Raises `SupportError` for masks without an image, and for two files where one is expected.
    """
    by_name = by_stem(images)
    pairs: dict[str, Path] = {}
    lost = []
    for stem, mask in sorted(by_stem(masks).items()):
        owner = stem if stem in by_name else stem.removesuffix(MASK_ENDING)
        if owner not in by_name:
            lost.append(mask)
        elif owner in pairs:
            raise SupportError(f"{pairs[owner]} and {mask}: two masks of {by_name[owner]}; keep one")
        else:
            pairs[owner] = mask
    _refuse_lost(lost, f"in {images}")
    return [(by_name[stem], pairs[stem]) for stem in sorted(pairs)]


def in_one_folder(folder: Path) -> tuple[list[ImageAndMask], list[Path]]:
    """Pairs of x.jpg and x.png, or of x.png and x_mask.png, directly in a folder, and the images without a mask.

    Raises `SupportError` for masks without an image, and for two files where one is expected.
    """
    groups: dict[str, list[Path]] = {}
    for path in image_files(folder):
        groups.setdefault(path.stem, []).append(path)
    # x_mask is the mask of x where there is an x, and a name like any other where there is none.
    owned = {stem for stem in groups if stem.endswith(MASK_ENDING) and stem.removesuffix(MASK_ENDING) in groups}
    pairs: list[ImageAndMask] = []
    alone: list[Path] = []
    for stem in groups.keys() - owned:
        group = groups[stem] + (groups[stem + MASK_ENDING] if stem + MASK_ENDING in owned else [])
        if len(group) == 1:
            alone += group
        else:
            pairs.append(_as_pair(group, stem))
    # Where masks are called like their images, a PNG that is left alone is a mask whose image went missing.
    same_name = any(image.stem == mask.stem for image, mask in pairs)
    lost = [p for p in alone if _is_png(p) and (same_name or p.stem.endswith(MASK_ENDING))]
    _refuse_lost(lost, f"in {folder}")
    return sorted(pairs), sorted(alone)


def by_stem(root: Path) -> dict[str, Path]:
    """{path below the folder, without suffix: file} of all images in a folder and below.

    Raises `SupportError` for two files where one is expected.
    """
    found: dict[str, Path] = {}
    for path in sorted(walk(root)):
        stem = path.relative_to(root).with_suffix("").as_posix()
        if stem in found:
            raise SupportError(f"{found[stem]} and {path}: two files of one name; keep one")
        found[stem] = path
    return found


class ImageFinder:
    """Finds the images that an annotation file speaks of: beside it, in images/, or below when it names no folder."""

    def __init__(self, where: Path, images: Path | None = None):
        self.root = where.parent if where.is_file() else where
        self.places = [images] if images else [self.root, self.root / "images"]
        self.below: dict[str, list[Path]] | None = None

    def find(self, name: str, first: Path | None = None) -> Path | None:
        """The path of an image; None when there is none, or when several in other folders have its name.

        first: a folder where the name counts before all others, wherever it leads from there.
        """
        if first and is_file(first / name):
            return first / name
        relative = path_below(name)
        if relative is None:
            return self._by_name(PurePosixPath(name.replace("\\", "/")).name)
        # train/a.jpg is not val/a.jpg: only a name that says no folder is looked for in all of them.
        return self.beside(relative) or (self._by_name(relative.name) if len(relative.parts) == 1 else None)

    def beside(self, relative: PurePosixPath) -> Path | None:
        """The path of an image that lies where its name says."""
        return next((path for path in (place / relative for place in self.places) if is_file(path)), None)

    def _by_name(self, name: str) -> Path | None:
        if self.below is None:
            self.below = {}
            place = self.places[0]
            for path in walk(place) if place.is_dir() else ():
                self.below.setdefault(path.name, []).append(path)
        found = self.below.get(name, [])
        return found[0] if len(found) == 1 else None


def path_below(name: str) -> PurePosixPath | None:
    """The path that a name says, with either slash; None when it is empty or leads out of the folder."""
    relative = PurePosixPath(name.replace("\\", "/"))
    outside = relative.is_absolute() or ".." in relative.parts or not relative.parts or "\0" in name
    return None if outside else relative


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have has none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for the file system, or with a zero in it
        return False


def _as_pair(group: list[Path], stem: str) -> ImageAndMask:
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
