"""JSON that anybody may have written, as objects that know what they are called in messages."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any

from kshot.errors import SupportError
from kshot.io.images import image_size
from kshot.io.paths import visible, walk

LARGEST = 500_000_000  # pixels; of 20,000 x 20,000 there are 400 millions


@dataclass(frozen=True)
class Item:
    """An object of a JSON file, with the name that it has in messages."""

    called: str
    values: dict[str, Any]

    def wrong(self, what: str) -> SupportError:
        """The error that says what is wrong with this item."""
        return SupportError(f"{self.called}: {what}")

    def get(self, key: str, *kinds: type) -> Any:
        """The value of `key`, of one of these kinds. Raises `SupportError`."""
        value = self.values.get(key)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self.wrong(f"expected {key!r} as {' or '.join(k.__name__ for k in kinds)}, got {short(value)}")
        return value

    def whole(self, key: str) -> int:
        """The value of `key`, a whole number of at least 1. Raises `SupportError`."""
        value = self.get(key, int, float)
        if value != value or value < 1 or value % 1:
            raise self.wrong(f"expected {key!r} as a whole number of pixels, got {value!r}")
        return int(value)


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises `SupportError` that names it."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SupportError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise SupportError(f"{path}: not valid JSON ({error})") from error


def documents(where: Path, suffix: str) -> list[Path]:
    """Files of a suffix in a folder and its annotations/, or the one file itself when it has the suffix."""
    if where.is_file():
        return [where] if where.suffix.lower() == suffix else []
    found = [path for place in (where, where / "annotations") for path in visible(place)]
    return [path for path in found if path.suffix.lower() == suffix and path.is_file()]


class Images:
    """Finds the images that an annotation file speaks of: beside it, in images/, or below when it names no folder."""

    def __init__(self, where: Path, images: Path | None = None):
        self.root = where.parent if where.is_file() else where
        self.places = [images] if images else [self.root, self.root / "images"]
        self.below: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path | None:
        """The path of an image; None when there is none, or when several in other folders have its name."""
        relative = PurePosixPath(name.replace("\\", "/"))
        if relative.is_absolute() or ".." in relative.parts or not relative.parts or "\0" in name:
            return self._by_name(relative.name)
        direct = next((path for path in (place / relative for place in self.places) if is_file(path)), None)
        # train/a.jpg is not val/a.jpg: only a name that says no folder is looked for in all of them.
        return direct or (self._by_name(relative.name) if len(relative.parts) == 1 else None)

    def _by_name(self, name: str) -> Path | None:
        if self.below is None:
            self.below = {}
            place = self.places[0]
            for path in walk(place) if place.is_dir() else ():
                self.below.setdefault(path.name, []).append(path)
        found = self.below.get(name, [])
        return found[0] if len(found) == 1 else None


def size_of(item: Item, keys: tuple[str, str], path: Path | None) -> tuple[int, int]:
    """(h, w) by two keys of an item, which has to be that of the image where there is one. Raises `SupportError`."""
    height, width = item.whole(keys[0]), item.whole(keys[1])
    if path is None:
        if height * width > LARGEST:  # nothing but the file itself vouches for it, and masks of this size are made
            raise item.wrong(f"an image of {width} x {height} pixels, over the limit of {LARGEST:,}")
        return height, width
    real = image_size(path)
    if (height, width) != real:
        raise item.wrong(f"{path} is {real[1]} x {real[0]} pixels as displayed, but the entry says {width} x {height}")
    return real


def score_of(item: Item) -> float | None:
    """Its score in 0..1, where it has one."""
    score = item.values.get("score")
    return float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have has none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for the file system, or with a zero in it
        return False


def polygon(item: Item, values: Any, size_hw: tuple[int, int]) -> list[list[float]]:
    """Corners [[x, y], ...] of a polygon near its image, at least three. Raises `SupportError`."""
    points = points_of(item, values)
    if len(points) < 3:
        raise item.wrong(f"expected a polygon of at least three x, y corners, got {len(points)}")
    height, width = size_hw
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if not (-width <= min(xs) and max(xs) <= 2 * width and -height <= min(ys) and max(ys) <= 2 * height):
        raise item.wrong(f"a polygon lies far outside its image of {width} x {height} pixels")
    return points


def points_of(item: Item, values: Any) -> list[list[float]]:
    """Points [[x, y], ...]. Raises `SupportError`."""
    if not isinstance(values, list):
        raise item.wrong(f"expected points as a list of x, y pairs, got {short(values)}")
    points = [numbers(item, value, "point") for value in values]
    if any(len(point) != 2 for point in points):
        raise item.wrong("expected points as a list of x, y pairs, got one of another length")
    return points


def numbers(item: Item, values: Any, name: str) -> list[float]:
    """A list of numbers below a thousand millions. Raises `SupportError`."""
    if not isinstance(values, list) or not all(type(v) in (int, float) and abs(v) < 1e9 for v in values):
        raise item.wrong(f"expected a {name} as a list of numbers, got {short(values)}")
    return [float(value) for value in values]
