"""support.yaml: shots with any kind of prompt, one entry each.

::

    - {image: a.jpg, mask: a.png, label: cat}
    - {image: b.jpg, boxes: [[10, 20, 90, 80]], label: cat}
    - {image: c.jpg, points: [[40, 50]], negative_points: [[5, 5]], label: dog}
    - {text: a brown dog, label: dog}
"""

from pathlib import Path
from reprlib import repr as short
from typing import Any

from kshot.annotations.checked_json import read_yaml
from kshot.errors import InputError, SupportError
from kshot.formats.base import SupportReader
from kshot.types import Shot

_FILE = "support.yaml"
_PATHS = ("image", "mask")
_KEYS = (
    *_PATHS,
    "label",
    "boxes",
    "points",
    "negative_points",
    "scribbles",
    "negative_scribbles",
    "text",
)


class SupportYaml(SupportReader):
    """A list of shots that a person writes."""

    layout = "support.yaml: a list of shots with image and mask, boxes, points, scribbles or text, and label"

    def read_shots(self, folder: Path) -> list[Shot] | None:
        """Shots in the order of the list; paths count from the folder. None without a support.yaml.

        Raises `SupportError` that names the shot by its place, from 1.
        """
        path = folder / _FILE
        if not path.is_file():
            return None
        entries = read_yaml(path)
        if not isinstance(entries, list):
            raise SupportError(
                f"{path}: expected a list of shots, such as '- {{image: a.jpg, mask: a.png, label: cat}}'"
            )
        return [_shot(folder, entry, f"{path}: shot {i}") for i, entry in enumerate(entries, start=1)]


def _shot(folder: Path, entry: Any, called: str) -> Shot:
    if not isinstance(entry, dict):
        raise SupportError(f"{called}: expected keys and values, got {short(entry)}")
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise SupportError(f"{called}: unknown key {', '.join(unknown)}; the keys are {', '.join(_KEYS)}")
    values = {key: value for key, value in entry.items() if value is not None}
    for key in _PATHS:
        if key in values:
            values[key] = _path(folder, values[key], f"{called}: {key}")
    if not isinstance(values.get("text", ""), str):
        raise SupportError(f"{called}: expected text as words, got {short(values['text'])}")
    if not isinstance(values.get("label", ""), str | dict):
        raise SupportError(f"{called}: expected label as a name in quotes, got {short(values['label'])}")
    try:
        return Shot(**values)
    except InputError as error:
        raise SupportError(f"{called}: {error}") from error
    except (TypeError, AttributeError) as error:
        raise SupportError(f"{called}: a value of the wrong kind ({error})") from error


def _path(folder: Path, name: Any, called: str) -> Path:
    if not isinstance(name, str) or not name:
        raise SupportError(f"{called}: expected a path, got {short(name)}")
    path = folder / name
    if not path.is_file():
        raise SupportError(f"{called}: no such file {path}; paths count from the folder of support.yaml")
    return path


FORMAT = SupportYaml()
