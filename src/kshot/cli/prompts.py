"""From --support, --box, --point, --scribble and --text to shots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kshot.cli.options import Prompts
from kshot.errors import SettingError
from kshot.io.paths import is_image, is_there
from kshot.types import Shot, SupportSet


def read_supports(folder: str | None, prompts: Prompts) -> SupportSet:
    """A support set from a folder, or from prompts.

    Raises `SettingError` for a prompt of another form, and `SupportError`.
    """
    classes = prompts.class_ or []
    if folder is not None:
        if prompts:
            raise SettingError("give a support folder or --support/--box/--point/--scribble/--text, not both")
        return SupportSet.from_folder(folder, classes=tuple(classes))
    if len(classes) > 1:
        raise SettingError("several classes: name each support's own with NAME=, as in --box cat=a.jpg:10,20,90,80")
    label = classes[0] if classes else "object"
    shots = [_mask_shot(text, label) for text in prompts.support or ()]
    shots += [_box_shot(text, label) for text in prompts.box or ()]
    shots += _point_shots(prompts.point or (), label)
    shots += _scribble_shots(prompts.scribble or (), label)
    shots += [_text_shot(text, classes[0] if classes else text) for text in prompts.text or ()]
    return SupportSet(shots, source="the command line")


def _text_shot(text: str, label: str) -> Shot:
    name, words = _named(text, label)
    return Shot(text=words, label=name)


def _mask_shot(text: str, label: str) -> Shot:
    label, rest = _named(text, label)
    image, mask = _image_and_mask(rest, text)
    return Shot(image, mask=mask, label=label)


def _image_and_mask(rest: str, text: str) -> tuple[str, str | None]:
    """The paths of "IMAGE:MASK", or of "IMAGE" alone; names may hold colons, so what exists decides."""
    places = [place for place, letter in enumerate(rest) if letter == ":"]
    pairs = [(rest[:place], rest[place + 1 :]) for place in places]
    there = [pair for pair in pairs if all(is_there(Path(part)) for part in pair)]
    if len(there) > 1:
        raise SettingError(f"--support {text}: may be {' or '.join(' and '.join(pair) for pair in there)}; rename one")
    if there:
        return there[0]
    # Nothing of it exists, or the image alone: the error is about the likeliest.
    image, found, mask = rest.rpartition(":")
    return (image, mask) if found and not is_there(Path(rest)) and is_image(Path(image)) else (rest, None)


def _box_shot(text: str, label: str) -> Shot:
    label, image, (numbers,) = _located(text, label, "--box", "IMAGE:x0,y0,x1,y1")
    return Shot(image, boxes=[numbers], label=label)


def _point_shots(texts: Sequence[str], label: str) -> list[Shot]:
    """Points on the same image and class make one shot."""
    groups = _Groups()
    for text in texts:
        name, image, (point,) = _located(text.removesuffix(",-").removesuffix(",+"), label, "--point", "IMAGE:x,y")
        groups[name, image][text.endswith(",-")].append(point)
    return [
        Shot(image, points=on or None, negative_points=off or None, label=name)
        for (name, image), (on, off) in groups.items()
    ]


def _scribble_shots(texts: Sequence[str], label: str) -> list[Shot]:
    """Lines on the same image and class make one shot."""
    groups = _Groups()
    for text in texts:
        name, image, line = _located(text.removesuffix(";-"), label, "--scribble", "IMAGE:x,y;x,y", lines=True)
        groups[name, image][text.endswith(";-")].append(line)
    return [
        Shot(image, scribbles=on or None, negative_scribbles=off or None, label=name)
        for (name, image), (on, off) in groups.items()
    ]


class _Groups(dict[tuple[str, str], tuple[list[Any], list[Any]]]):
    """Of each class and image: marks on the class, and marks off it."""

    def __missing__(self, key: tuple[str, str]) -> tuple[list[Any], list[Any]]:
        return self.setdefault(key, ([], []))


def _located(text: str, label: str, flag: str, form: str, lines: bool = False) -> tuple[str, str, list[list[float]]]:
    """Class, image and rows of numbers of "[NAME=]IMAGE:1,2", or with `lines` of "[NAME=]IMAGE:1,2;3,4".

    Each row has as many numbers as `form`.
    """
    label, rest = _named(text, label)
    image, _, numbers = rest.rpartition(":")
    wanted = form.partition(":")[2].partition(";")[0].count(",") + 1
    try:
        rows = [[float(number) for number in row.split(",")] for row in numbers.split(";")]
    except ValueError as error:
        raise SettingError(f"{flag} {text}: expected {form}") from error
    if {len(row) for row in rows} != {wanted} or (len(rows) > 1) != lines or not image:
        raise SettingError(f"{flag} {text}: expected {form}")
    return label, image, rows


def _named(text: str, label: str) -> tuple[str, str]:
    """The class of "NAME=REST", or `label` where none is named, and the rest."""
    name, found, rest = text.partition("=")
    # A path may hold "=", but a class name never holds a slash, a dot or a colon.
    return (name, rest) if found and not set(name) & set("/\\.:") else (label, text)
