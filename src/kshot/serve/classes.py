"""The classes of the page: their names, which are text whatever they hold, and their colours."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kshot.errors import SupportError
from kshot.formats.overlay import hex_colour_of
from kshot.types import MAX_CLASSES


@dataclass(frozen=True)
class ServedClass:
    """A class as the page shows it."""

    name: str
    colour: str
    """#rrggbb."""


class ServedClasses:
    """In the order of their labels, from 1."""

    def __init__(self, names: Sequence[str] = ()):
        self._all = [ServedClass(name, hex_colour_of(label)) for label, name in enumerate(names, 1)]

    def __iter__(self) -> Iterator[ServedClass]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all."""
        return tuple(one.name for one in self._all)

    def add(self, name: str, colour: str | None = None) -> int:
        """Name a new class; returns its place. Raises `SupportError`."""
        name = self._checked(name)
        if len(self) >= MAX_CLASSES:
            raise SupportError(f"{MAX_CLASSES} classes are the most that an index mask holds")
        self._all.append(ServedClass(name, colour or hex_colour_of(len(self) + 1)))
        return len(self) - 1

    def edit(self, place: int, name: str | None = None, colour: str | None = None) -> dict[str, str]:
        """Rename a class or give it another colour; returns {old name: new name}. Raises `SupportError`."""
        if not 0 <= place < len(self):
            raise SupportError(f"there is no class {place}: {len(self)} are named")
        one = self._all[place]
        new = one.name if name is None or name.strip() == one.name else self._checked(name)
        self._all[place] = ServedClass(new, colour or one.colour)
        return {one.name: new} if new != one.name else {}

    def restore(self, kept: Iterable[Mapping[str, Any]]) -> None:
        """Take the classes that were kept on the disk."""
        self._all = [ServedClass(str(one["name"]), str(one["colour"])) for one in kept]

    def _checked(self, name: str) -> str:
        name = name.strip()
        if not name or len(name) > 100 or any(ord(letter) < 32 for letter in name):
            raise SupportError("a class name has 1 to 100 characters, on one line")
        if name in self.names:
            raise SupportError(f"there is a class {name!r} already; choose another name")
        return name
