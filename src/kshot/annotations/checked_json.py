"""Annotation files that anybody may have written: every value is checked, and errors name the file and the entry."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

from kshot.annotations import rle
from kshot.annotations.rle import Rle
from kshot.annotations.skipped import Skipped
from kshot.errors import DamagedFilesError, InputError, SupportError
from kshot.io import limits
from kshot.io.images import image_size
from kshot.io.paths import visible

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """An object of a JSON file, an element of an XML or a line of text."""

    called: str
    """What messages call it: the file, and which entry it is."""
    values: dict[str, Any]

    def wrong(self, what: str) -> SupportError:
        """The error that says what is wrong with this entry."""
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
        return json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise SupportError(f"{path}: not valid JSON ({error})") from error


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises `SupportError` that names it."""
    import yaml  # here, since few layouts need it

    try:
        return yaml.safe_load(_bytes(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SupportError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def read_text_lines(path: Path) -> list[str]:
    """The lines of a text file, without a byte order mark. Raises `SupportError` that names it."""
    try:
        return _bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SupportError(f"{path}: not text ({error})") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SupportError(f"{path}: cannot be read ({error.strerror})") from error


def check_class_names(path: Path, names: Sequence[str]) -> None:
    """Raise `SupportError` when a class list names a class twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SupportError(f"{path}: {', '.join(twice)} stands there twice; give each class a name of its own")


def documents(where: Path, suffix: str) -> list[Path]:
    """Files of a suffix in a folder and its annotations/, or the one file itself when it has the suffix."""
    if where.is_file():
        return [where] if where.suffix.lower() == suffix else []
    found = [path for place in (where, where / "annotations") for path in visible(place)]
    return [path for path in found if path.suffix.lower() == suffix and path.is_file()]


def each_alone(paths: Sequence[Path], read: Callable[[Path], T | None], skipped: Skipped) -> Iterator[tuple[Path, T]]:
    """Each of some files with its content; those that cannot be read are kept as failures where others can.

    read: gives None for a file of another kind. Raises `DamagedFilesError` where that leaves none but damaged ones.
    """
    found_any, errors = False, list[InputError]()
    for path in paths:
        try:
            content = read(path)
        except SupportError as error:
            errors.append(error)
            continue
        if content is not None:
            found_any = True
            yield path, content
    if errors and not found_any:
        raise DamagedFilesError(errors)
    for refused in errors:
        skipped.fail(refused)


def the_only(where: Path, found: Iterable[tuple[Path, T]], kind: str) -> tuple[Path, T] | None:
    """The one file that was found, with its content; None without any. Raises `SupportError` when there are several."""
    listed = list(found)
    if len(listed) > 1:
        raise SupportError(f"{where}: several {kind} ({', '.join(str(path) for path, _ in listed)}); keep one")
    return listed[0] if listed else None


def size_of(entry: Entry, keys: tuple[str, str], image: Path | bytes | None) -> tuple[int, int]:
    """(h, w) by two keys of an entry, which has to be that of the image where there is one. Raises `SupportError`."""
    height, width = entry.whole(keys[0]), entry.whole(keys[1])
    if image is None:
        # Nothing but the file itself vouches for the size, and masks of it are made.
        most = limits.LABEL_PIXELS
        if height * width > most.value:
            raise entry.wrong(
                f"an image of {width} x {height} pixels, over the limit of {most.value:,}; raise {most.variable}"
            )
        return height, width
    real = image_size(image)
    if (height, width) != real:
        called = image if isinstance(image, Path) else "the image in it"
        raise entry.wrong(
            f"{called} is {real[1]} x {real[0]} pixels as displayed, but the entry says {width} x {height}"
        )
    return real


def score_of(entry: Entry) -> float | None:
    """Its score in 0..1, where it has one."""
    score = entry.values.get("score")
    return float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None


def polygon(entry: Entry, values: Any, size_hw: tuple[int, int]) -> list[list[float]]:
    """Corners [[x, y], ...] of a polygon near its image, at least three. Raises `SupportError`."""
    points = points_of(entry, values)
    if len(points) < 3:
        raise entry.wrong(f"expected a polygon of at least three x, y corners, got {len(points)}")
    check_near_image(entry, points, size_hw)
    return points


def filled(entry: Entry, corners: list[list[float]], size_hw: tuple[int, int]) -> Rle:
    """The run lengths of a polygon's inside. Raises `SupportError` that names the entry."""
    try:
        return rle.encode_polygon(corners, size_hw)
    except SupportError as error:
        raise entry.wrong(str(error)) from error


def check_near_image(entry: Entry, points: Iterable[Sequence[float]], size_hw: tuple[int, int]) -> None:
    """Refuse a polygon that leaves its image by more than the image's size: filling it could take any memory.

    Raises `SupportError`.
    """
    height, width = size_hw
    xs, ys = zip(*points, strict=True)
    if not (-width <= min(xs) and max(xs) <= 2 * width and -height <= min(ys) and max(ys) <= 2 * height):
        raise entry.wrong(f"a polygon lies far outside its image of {width} x {height} pixels")


def points_of(entry: Entry, values: Any) -> list[list[float]]:
    """Points [[x, y], ...]. Raises `SupportError`."""
    if not isinstance(values, list):
        raise entry.wrong(f"expected points as a list of x, y pairs, got {short(values)}")
    points = [numbers(entry, value, "point") for value in values]
    if any(len(point) != 2 for point in points):
        raise entry.wrong("expected points as a list of x, y pairs, got one of another length")
    return points


def numbers(entry: Entry, values: Any, name: str) -> list[float]:
    """A list of numbers below a thousand millions. Raises `SupportError`."""
    if not isinstance(values, list) or not all(type(v) in (int, float) and abs(v) < 1e9 for v in values):
        raise entry.wrong(f"expected a {name} as a list of numbers, got {short(values)}")
    return [float(value) for value in values]
