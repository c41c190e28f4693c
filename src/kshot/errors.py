"""Everything that kshot raises on purpose, and how its messages count.

The tree; whoever catches `KshotError` catches all of it::

    KshotError
    ├── InputError            (also a ValueError) something handed in is wrong
    │   ├── ImageReadError        not an image, damaged, or missing
    │   │   └── ImageTooLargeError    over the pixel limit
    │   ├── ShapeError            an array of another shape or kind than expected
    │   ├── MaskError             labels that nobody declared, or another size than the image
    │   │   └── EmptyMaskError        marks no patch of the backbone's grid
    │   ├── SupportError          an empty support set, a class without a shot, an unknown folder layout
    │   │   └── DamagedFilesError     annotation files of which none can be read
    │   ├── DatasetError          a data set that is not there or not what it says
    │   ├── SettingError          a setting out of its range
    │   └── UnknownNameError      no such backbone, method, refiner, format or data set
    ├── BackboneError         a backbone that cannot be loaded
    │   └── WeightsNotFoundError  its weights are neither here nor reachable
    ├── TaskError             a task that cannot be used
    │   ├── TaskFileError         damaged, or not a task file
    │   ├── TaskVersionError      written by a newer kshot
    │   └── BackboneMismatchError fitted on features of another backbone
    ├── PluginError           a method, backbone or format that is not kshot's own and cannot be used
    ├── TrainingError         a training run that cannot start or go on
    └── OutputError           (also an OSError) a result that cannot be written
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class KshotError(Exception):
    """Root of the tree."""


class InputError(KshotError, ValueError):
    """Something handed in is wrong; the message names it and the way out."""


class ImageReadError(InputError):
    """Not an image, damaged, or missing."""


class ImageTooLargeError(ImageReadError):
    """More pixels than the limit allows."""


class ShapeError(InputError):
    """An array of another shape or kind than expected; the message prints both."""


class MaskError(InputError):
    """Labels that nobody declared, or another size than the image."""


class EmptyMaskError(MaskError):
    """A mask that marks no patch of the backbone's grid."""


class SupportError(InputError):
    """An empty support set, a class without a shot, or an unknown folder layout."""


class DamagedFilesError(SupportError):
    """Annotation files of which none can be read; the message is that of the first."""

    def __init__(self, errors: Sequence[InputError]):
        super().__init__(str(errors[0]))
        self.errors = tuple(errors)
        """One for each file."""


class DatasetError(InputError):
    """A data set that is not there, or not what it says."""


class SettingError(InputError):
    """A setting out of its range."""


class UnknownNameError(InputError):
    """No member of a family has this name; the message lists the choices."""

    def __init__(self, family: str, name: str, choices: Iterable[str]):
        listed = sorted(choices)
        close = get_close_matches(name, listed, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"no {family.rstrip('s')} is called {name!r}.{hint} Choices: {', '.join(listed)}")
        self.family, self.name, self.choices = family, name, listed


class BackboneError(KshotError):
    """A backbone that cannot be loaded."""


class WeightsNotFoundError(BackboneError):
    """Weights that are neither on this machine nor reachable."""


class TaskError(KshotError):
    """A task that cannot be used."""


class TaskFileError(TaskError):
    """A damaged file, or one that is not a task."""


class TaskVersionError(TaskError):
    """A task file in a layout that this version does not read."""


class BackboneMismatchError(TaskError):
    """A task fitted on features of another backbone."""


class PluginError(KshotError):
    """A method, backbone or format that is not kshot's own and cannot be used; the message names where it is from."""


class TrainingError(KshotError):
    """A training run that cannot start or go on; what was saved before is kept."""


class OutputError(KshotError, OSError):
    """A result that cannot be written."""


def plural(count: int, one: str, several: str = "") -> str:
    """A count with its word: "1 image", "2 images"; several: the word for all counts but one, by default with an s."""
    return f"{count} {one if count == 1 else several or one + 's'}"
