"""Which image a mask, or an entry of an annotation file, belongs to: the rules that all layouts share."""

import re
import unicodedata
from collections.abc import Container, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from kshot.errors import SupportError, plural
from kshot.io.names import safe
from kshot.io.paths import image_files, is_there, walk

ImageAndMask = tuple[Path, Path]
# x_mask.png is a mask of x.jpg, and so is x_mask_1.png.
_KINDS = "cp_masks|masks?|segmentation|seg|labels?|gt|groundtruth|annotation"
_ENDING = re.compile(rf"[_-](?P<kind>{_KINDS})(?P<number>[_-]?\d+| ?\(\d+\))?$", re.I)
_DRIVE = re.compile("[A-Za-z]:")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the names of uploaded files


def ending_of(stem: str) -> str | None:
    """What the end of a name says of a mask (`mask`, `labels`, ...); None of other names."""
    found = _ENDING.search(stem)
    return found["kind"].lower() if found else None


def without_ending(stem: str) -> str:
    """A name without what marks it as a mask."""
    return _ENDING.sub("", stem)


def owner_of(stem: str, images: Container[str]) -> str:
    """The stem of the image that a mask belongs to: its own, or without its ending where there is such an image."""
    shorter = without_ending(stem)
    return shorter if shorter in images and stem not in images else stem


def in_two_folders(images: Path, masks: Path, *, several: bool = False) -> list[ImageAndMask]:
    """Pairs of images/a/x.jpg and masks/a/x.png (or x_mask.png), sorted; images without a mask are left out.

    several: whether an image may have numbered masks, x_mask.png and x_mask_1.png, each a pair of its own.
    Raises `SupportError` for masks without an image, and for two files where one is expected.
    """
    by_name = {_nfc(stem): path for stem, path in by_stem(images).items()}
    owned: dict[str, list[Path]] = {}
    for stem, mask in sorted(by_stem(masks).items()):
        owned.setdefault(owner_of(_nfc(stem), by_name), []).append(mask)
    _refuse_lost([path for stem, paths in owned.items() if stem not in by_name for path in paths], f"in {images}")
    for stem, paths in owned.items():
        if len(paths) > 1 and not (several and _are_numbered(paths)):
            raise SupportError(f"{paths[0]} and {paths[1]}: two masks of {by_name[stem]}; keep one")
    return [(by_name[stem], mask) for stem in sorted(owned) for mask in owned[stem]]


def in_one_folder(folder: Path) -> tuple[list[ImageAndMask], list[Path]]:
    """Pairs of x.jpg and x.png, or of x.png and x_mask.png, directly in a folder, and the images without a mask.

    Each of several numbered masks, x_mask.png and x_mask_1.png, makes a pair. Raises `SupportError` for masks without
    an image, and for two files where one is expected.
    """
    groups: dict[str, list[Path]] = {}
    for path in image_files(folder):
        groups.setdefault(_nfc(path.stem), []).append(path)
    pairs: list[ImageAndMask] = []
    alone: list[Path] = []
    # x_mask is the mask of x where there is an x, and a name like any other where there is none.
    endings = {stem: owner for stem in groups if (owner := without_ending(stem)) != stem and owner in groups}
    for stem in groups.keys() - endings.keys():
        masks = [path for ending, owner in sorted(endings.items()) if owner == stem for path in groups[ending]]
        if len(groups[stem] + masks) == 1:
            alone += groups[stem]
        else:
            pairs += _as_pairs(groups[stem], masks, stem)
    # Where masks are called like their images, a PNG that is left alone is a mask whose image went missing.
    same_name = any(_nfc(image.stem) == _nfc(mask.stem) for image, mask in pairs)
    lost = [p for p in alone if (_is_png(p) and (same_name or ending_of(p.stem))) or ending_of(p.stem) == "mask"]
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

    def name_of(self, name: str, found: Path | None) -> str:
        """What an image is called in what is written, whatever its file says: always a path below a folder.

        The name as it stands; of a path of another machine, where `find` found it here, else what of it is safe.
        Raises `SupportError` for a name that is empty or holds ".." or a zero.
        """
        relative = path_below(name)
        if relative is not None:
            return relative.as_posix()
        if not name.strip() or "\0" in name or ".." in name.replace("\\", "/").split("/"):
            raise SupportError(f"expected the name of an image below the folder, got {name!r}")
        for place in [self.root / "images", self.root, *self.places] if found else ():
            if found is not None and found.is_relative_to(place):
                return found.relative_to(place).as_posix()
        return found.name if found else safe(name)

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
            for path in sorted(walk(place)) if is_folder(place) else ():
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
    return _nfc(_nfc(name).casefold())


def _shared_end(first: Sequence[str], second: Sequence[str]) -> int:
    """How many parts two paths have in common at their ends."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if _folded(a) != _folded(b)), min(len(first), len(second)))


def is_file(path: Path) -> bool:
    """Whether there is such a file, or OME-Zarr; a name that no file can have has none."""
    try:
        return is_there(path)
    except (OSError, ValueError):  # too long for the file system, or with a zero in it
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; a name that none can have has none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _as_pairs(images: list[Path], masks: list[Path], stem: str) -> list[ImageAndMask]:
    """Pairs of one image and its masks: those marked in their names, else the PNG of two files of one name."""
    marked = masks or [path for path in images if _is_png(path)]
    others = images if masks else [path for path in images if path not in marked]
    if len(others) != 1 or not (len(marked) == 1 or (masks and _are_numbered(masks))):
        raise SupportError(
            f"{', '.join(str(path) for path in images + masks)}: which is the image and which its mask? "
            f"keep two, such as {stem}.jpg and {stem}.png, or number the masks: {stem}_mask.png, {stem}_mask_1.png"
        )
    return [(others[0], mask) for mask in marked]


def _are_numbered(masks: list[Path]) -> bool:
    """Whether masks of one image are called alike but for a number, which the first may lack."""
    found = [_ENDING.search(path.stem) for path in masks]
    numbers = [match["number"] for match in found if match]
    return len({match and match["kind"].lower() for match in found}) == 1 and len(set(numbers)) == len(masks)


def _nfc(name: str) -> str:
    """One form of letters with accents, which some systems store as two characters."""
    return unicodedata.normalize("NFC", name)


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _refuse_lost(masks: list[Path], where: str) -> None:
    if masks:
        some = ", ".join(str(path) for path in sorted(masks)[:5]) + (", ..." if len(masks) > 5 else "")
        raise SupportError(
            f"{plural(len(masks), 'mask')} without an image {where}: {some}; add the images, or remove the masks"
        )
