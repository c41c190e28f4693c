"""What came out of a case."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from kshot.demo.cases import Case


@dataclass(frozen=True)
class CaseResult:
    """folder: holds support, images and result. objects: regions found.

    ious: {query: {class: IoU with the mask drawn by hand}}, of the classes that the query shows.
    """

    case: Case
    folder: Path
    command: str
    objects: int
    ious: dict[str, dict[str, float]]

    @property
    def iou(self) -> float:
        """Mean over the queries and their classes."""
        return fmean(value for values in self.ious.values() for value in values.values())
