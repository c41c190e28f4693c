"""From --support, --box, --point and --text to shots."""

from collections.abc import Sequence

from kshot.cli.options import Prompts
from kshot.errors import SupportError
from kshot.types import Shot, SupportSet


def read_supports(folder: str | None, prompts: Prompts) -> SupportSet:
    """A support set from a folder, or from --support, --box, --point and --text. Raises `SupportError`."""
    classes = prompts.class_ or []
    if folder is not None:
        if prompts:
            raise SupportError("give a support folder or --support/--box/--point/--text, not both")
        return SupportSet.from_folder(folder, classes=tuple(classes))
    if len(classes) > 1:
        raise SupportError("several classes: name each support's own with NAME=, as in --box cat=a.jpg:10,20,90,80")
    label = classes[0] if classes else "object"
    shots = [_mask_shot(text, label) for text in prompts.support or ()]
    shots += [_box_shot(text, label) for text in prompts.box or ()]
    shots += _point_shots(prompts.point or (), label)
    shots += [_text_shot(text, classes[0] if classes else text) for text in prompts.text or ()]
    return SupportSet(shots, source="the command line")


def _text_shot(text: str, label: str) -> Shot:
    name, words = _named(text, label)
    return Shot(text=words, label=name)


def _mask_shot(text: str, label: str) -> Shot:
    label, rest = _named(text, label)
    image, found, mask = rest.rpartition(":")
    if not found or (len(image) == 1 and mask[:1] in "/\\"):  # C:\images\a.jpg is one path
        return Shot(rest, label=label)
    return Shot(image, mask=mask, label=label)


def _box_shot(text: str, label: str) -> Shot:
    label, image, numbers = _located(text, label, "--box", "IMAGE:x0,y0,x1,y1")
    if len(numbers) != 4:
        raise SupportError(f"--box {text}: expected IMAGE:x0,y0,x1,y1")
    return Shot(image, boxes=[numbers], label=label)


def _point_shots(texts: Sequence[str], label: str) -> list[Shot]:
    """Points on the same image and class make one shot."""
    groups: dict[tuple[str, str], tuple[list[list[float]], list[list[float]]]] = {}
    for text in texts:
        off = text.endswith(",-")
        name, image, numbers = _located(text.removesuffix(",-").removesuffix(",+"), label, "--point", "IMAGE:x,y")
        if len(numbers) != 2:
            raise SupportError(f"--point {text}: expected IMAGE:x,y or IMAGE:x,y,-")
        groups.setdefault((name, image), ([], []))[off].append(numbers)
    return [
        Shot(image, points=on or None, negative_points=off or None, label=name)
        for (name, image), (on, off) in groups.items()
    ]


def _located(text: str, label: str, flag: str, form: str) -> tuple[str, str, list[float]]:
    """Class, image and numbers of "[NAME=]IMAGE:1,2"."""
    label, rest = _named(text, label)
    image, _, numbers = rest.rpartition(":")
    try:
        return label, image, [float(number) for number in numbers.split(",")]
    except ValueError as error:
        raise SupportError(f"{flag} {text}: expected {form}") from error


def _named(text: str, label: str) -> tuple[str, str]:
    """The class of "NAME=REST", or `label` where none is named, and the rest."""
    name, found, rest = text.partition("=")
    # A path may hold "=", but a class name never holds a slash, a dot or a colon.
    return (name, rest) if found and not set(name) & set("/\\.:") else (label, text)
