"""Which image a mask, or an entry of an annotation file, belongs to: the rules that all layouts share."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from kshot.errors import SupportError
from kshot.io.paths import image_files, walk

ImageAndMask = tuple[Path, Path]
MASK_ENDING = "_mask"  # x_mask.png is the mask of x.jpg
_DRIVE = re.compile("[A-Za-z]:")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the names of uploaded files


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
    """Finds the images that an annotation file speaks of: beside it, in images/, or below.

    A name may be a path of another machine, an address (`/data/local-files/?d=a.jpg`), percent-coded,
    or have what Label Studio puts before uploads (eight hex digits and a dash). It counts as it is first.
    """

    def __init__(self, where: Path, images: Path | None = None):
        self.root = where.parent if where.is_file() else where
        self.places = [images] if images else [self.root, self.root / "images"]
        self.below: dict[str, list[Path]] | None = None

    def find(self, name: str, first: Path | None = None) -> Path | None:
        """The path of an image; None when there is none, or when several fit equally well.

        first: a folder where the name counts before all others, wherever it leads from there.
        """
        if first and is_file(first / name):
            return first / name
        names = list(readings(name))
        there = (self.beside(relative) for text in names if (relative := path_below(text)))
        return next((path for path in there if path), None) or next(
            (path for text in names if (path := self._by_end(text, first))), None
        )

    def beside(self, relative: PurePosixPath) -> Path | None:
        """The path of an image that lies where its name says."""
        return next((path for path in (place / relative for place in self.places) if is_file(path)), None)

    def _by_end(self, name: str, first: Path | None) -> Path | None:
        """The one file whose path ends most like the name: its case and its accents' encoding count last."""
        named = tuple(part for part in name.split("/") if part not in ("", "."))
        if not named or "\0" in name:
            return None
        ranks: dict[Path, tuple[bool, int, int]] = {}
        for path in self._called(named[-1]):
            home = next((place for place in [first, *self.places] if place and path.is_relative_to(place)), self.root)
            parts = path.relative_to(home).parts
            shared = _shared_end(named, parts)
            # train/a.jpg is not val/a.jpg: below this folder, a name and a path may only differ in what one leaves out.
            if shared == min(len(named), len(parts)) or path_below(name) is None:
                alike = sum(a == b for a, b in zip(reversed(named), reversed(parts), strict=False))
                ranks[path] = (path.parent == first, shared, alike)
        best = [path for path, rank in ranks.items() if rank == max(ranks.values())]
        return best[0] if len(best) == 1 else None

    def _called(self, name: str) -> list[Path]:
        """All images below of a name, whatever its case."""
        if self.below is None:
            self.below = {}
            place = self.places[0]
            for path in sorted(walk(place)) if place.is_dir() else ():
                self.below.setdefault(_folded(path.name), []).append(path)
        return self.below.get(_folded(name), [])


def readings(name: str) -> Iterator[str]:
    """What an image's name may mean, most literal first, with / between folders."""
    plain = name.replace("\\", "/")
    said = [plain]
    if "?d=" in plain or "&d=" in plain:  # a local file of Label Studio
        said.append(unquote(re.split(r"[?&]d=", plain, maxsplit=1)[1].partition("&")[0]))
    elif "://" in plain:
        said.append(unquote(re.split("[?#]", plain, maxsplit=1)[0].partition("://")[2]))
    elif "%" in plain:
        said.append(unquote(plain))
    yield from (text.replace("\\", "/") for text in said)
    for text in said:
        folder, slash, file = text.replace("\\", "/").rpartition("/")
        if _UPLOADED.match(file):
            yield folder + slash + _UPLOADED.sub("", file)


def path_below(name: str) -> PurePosixPath | None:
    """The path that a name says, with either slash; None when it is empty or leads out of the folder."""
    relative = PurePosixPath(name.replace("\\", "/"))
    outside = relative.is_absolute() or _DRIVE.match(name) or ".." in relative.parts
    return None if outside or not relative.parts or "\0" in name else relative


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shared_end(first: Sequence[str], second: Sequence[str]) -> int:
    """How many parts two paths have in common at their ends."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if _folded(a) != _folded(b)), min(len(first), len(second)))


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
