"""What is known of each image that somebody worked on, and how each window takes its own steps back."""

import itertools
from collections import OrderedDict
from dataclasses import dataclass, field

from kshot.errors import SettingError
from kshot.serve.marks import Mark

_STEPS, _SESSIONS = 500, 256


@dataclass(frozen=True, eq=False)
class Labels:
    """The state of one image; a change makes a new one."""

    marks: tuple[Mark, ...] = ()
    """Drawn since the image was opened or last accepted, in order."""
    base: bytes = field(default=b"", repr=False)
    """The answer below the marks, as `Answer.png`; empty without marks, or where there was none."""
    accepted: bytes | None = field(default=None, repr=False)
    """The index mask that a person accepted, as it lies on the disk."""
    support: bool = False
    """Whether its mask is shown to the method as an example."""
    number: int = field(default_factory=itertools.count().__next__, repr=False)
    """Another one for each state."""

    @property
    def is_example(self) -> bool:
        """Whether there is a mask to show."""
        return self.support and (bool(self.marks) or self.accepted is not None)


@dataclass(frozen=True)
class Change:
    """A step that can be taken back."""

    index: int
    before: Labels
    after: Labels


class NothingToUndoError(SettingError):
    """No step is left, or another window has changed the image since."""


class History:
    """The steps of each session, which is a window of a browser; the oldest sessions are forgotten first."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, tuple[list[Change], list[Change]]] = OrderedDict()

    def add(self, session: str, change: Change) -> None:
        """A new step, after which nothing can be redone."""
        done, undone = self._of(session)
        done.append(change)
        del done[:-_STEPS]
        undone.clear()

    def last(self, session: str, *, redo: bool = False) -> Change:
        """The step to take back, or to take again. Raises `NothingToUndoError`."""
        steps = self._of(session)[int(redo)]
        if not steps:
            raise NothingToUndoError(f"nothing to {'redo' if redo else 'undo'} in this window")
        return steps[-1]

    def moved(self, session: str, *, redo: bool = False) -> None:
        """The step that `last` gave was taken."""
        done, undone = self._of(session)
        (done if redo else undone).append((undone if redo else done).pop())

    def forget(self, session: str, *, redo: bool = False) -> None:
        """Drop the step that `last` gave."""
        self._of(session)[int(redo)].pop()

    def counts(self, session: str) -> tuple[int, int]:
        """How many steps can be undone and redone."""
        done, undone = self._sessions.get(session, ((), ()))
        return len(done), len(undone)

    def _of(self, session: str) -> tuple[list[Change], list[Change]]:
        steps = self._sessions.setdefault(session, ([], []))
        self._sessions.move_to_end(session)
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return steps
