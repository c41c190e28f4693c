"""What a reader saw and did not use, and what a writer had no place for: so that it can be said."""

from collections.abc import Iterator
from contextlib import contextmanager

from kshot.errors import InputError, SupportError

_SHOWN = 10  # failures that are told one by one


class Skipped:
    """What was left out, by kind, and which items could not be read.

    Every count belongs to a place, such as a shape of a file, so that reading an image again counts nothing twice.
    """

    def __init__(self) -> None:
        self._left_out: dict[str, dict[str, int]] = {}
        self._failures: dict[str, InputError] = {}
        self._notes: dict[str, None] = {}

    def leave_out(self, kind: str, where: str, count: int = 1) -> None:
        """Count something that is not used, by its kind and its place."""
        self._left_out.setdefault(kind, {})[where] = count

    def fail(self, error: InputError) -> None:
        """Keep the error of an item that could not be read, while the others are."""
        self._failures.setdefault(str(error), error)

    def note(self, text: str) -> None:
        """Keep a sentence about how the labels were read."""
        self._notes[text] = None

    @contextmanager
    def alone(self, kind: type[InputError] = InputError) -> Iterator[None]:
        """Let one item fail alone: an error of this kind within is kept, and the work goes on behind the block."""
        try:
            yield
        except kind as error:
            self.fail(error)

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind were left out."""
        return {kind: sum(places.values()) for kind, places in self._left_out.items()}

    @property
    def failures(self) -> tuple[str, ...]:
        """The errors of the items that could not be read."""
        return tuple(self._failures)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about how the labels were read."""
        return tuple(self._notes)

    @property
    def lines(self) -> list[str]:
        """All of it, in sentences for people."""
        listed = ", ".join(f"{kind} ({count})" for kind, count in self.counts.items())
        failed = [f"failed: {failure}" for failure in self.failures[:_SHOWN]]
        rest = len(self.failures) - _SHOWN
        more = [f"failed: {rest} more"] if rest > 0 else []
        return [*self._notes, *([f"left out: {listed}"] if listed else []), *failed, *more]

    def raise_first(self) -> None:
        """Raise what explains a result without anything in it: the first failure, else the first thing left out."""
        for error in self._failures.values():
            raise error
        for kind, places in self._left_out.items():
            raise SupportError(f"{next(iter(places))}: {kind}, which is not read")
