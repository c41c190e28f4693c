"""The figures of a run: each is computed from the rows, so halves, resumed runs and several processes agree."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kshot.evaluation.records import Row, matches_of, rows_sha256
from kshot.metrics import (
    CalibrationCounts,
    EpisodeCounts,
    Interval,
    ObjectFigures,
    ObjectMatches,
    Score,
    SizeBin,
    bootstrap,
    class_presence,
    fb_iou,
    fss_miou,
    mean_per_class,
    panet_miou,
    panoptic_quality,
    presence_accuracy,
    size_table,
    strict_miou,
)

PRESENCE_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Result:
    """The figures of a run."""

    rows: tuple[Row, ...] = field(repr=False)
    """One per episode, in order."""
    class_names: tuple[str, ...] = field(repr=False)
    """The data set's."""
    classes: tuple[int, ...]
    """Class ids that the main figure is the mean of."""
    settings: Mapping[str, Any]
    """All that the figures depend on, the protocol's name first."""
    warnings: tuple[str, ...] = ()
    """What to know before citing the figures."""
    forwards: int = 0
    """Images that this call had to encode; a second run on the same cache has none."""

    @cached_property
    def counts(self) -> EpisodeCounts:
        """Integer counts, a row an episode."""
        table = np.array([row["table"] for row in self.rows], np.int64)
        return EpisodeCounts.from_table(table, int(self.settings["way"]))

    @property
    def score(self) -> Score:
        """The protocol's main figure: mIoU for one way, strict mIoU with background for several."""
        if self.settings["way"] == 1 and self.settings["protocol"] != "fs-cs":
            return fss_miou(self.counts, self.classes)
        return strict_miou(self.counts, self.classes)

    @property
    def miou(self) -> float:
        """The main figure, 0..1."""
        return self.score.value

    @property
    def strict_miou(self) -> float:
        """Mean IoU over classes and background, false alarms of absent ways counted, 0..1."""
        return strict_miou(self.counts, self.classes).value

    @property
    def fb_iou(self) -> float:
        """Mean of foreground and background IoU, 0..1."""
        return fb_iou(self.counts).value

    @property
    def panet_miou(self) -> float:
        """PANet's own mIoU, to which false alarms of absent ways are free, 0..1."""
        return panet_miou(self.counts, self.classes).value

    @property
    def per_class(self) -> dict[str, float]:
        """{class: IoU}, background included where the main figure includes it; nan for a class never seen."""
        names = ("background", *self.class_names)
        return {names[int(label)]: value for label, value in self.score.parts.items()}

    @property
    def presence_accuracy(self) -> float:
        """Fraction of episodes whose set of present classes was found exactly, 0..1."""
        return presence_accuracy(self.counts, self._present()).value

    @property
    def class_presence(self) -> float:
        """Fraction of ways whose presence or absence was found, averaged over classes, 0..1."""
        return class_presence(self.counts, self._present(), self.classes).value

    @property
    def boundary(self) -> float:
        """Boundary F-score, 0..1 (Csurka et al. 2013), averaged over images, then classes."""
        return mean_per_class("boundary F", self.counts, self._boundary(), self.classes).value

    @cached_property
    def confidence_interval(self) -> Interval:
        """95 % bootstrap interval of the main figure over episodes."""
        return bootstrap(self.score)

    @cached_property
    def calibration(self) -> CalibrationCounts:
        """Binned scores against truth, over all pixels."""
        total = sum(np.array(row["calibration"], np.int64) for row in self.rows)
        return CalibrationCounts.from_array(np.asarray(total))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the scores, 0..1 (Guo et al. 2017)."""
        return self.calibration.error

    @cached_property
    def objects(self) -> ObjectFigures | None:
        """PQ, SQ, RQ, AP50 and count error, means over classes; None of a run without instances."""
        found = self._matches
        if found is None:
            return None
        return ObjectFigures.of([row[label] for row in found if label in row] for label in self.classes)

    @cached_property
    def pq_score(self) -> Score | None:
        """PQ with the counts it is made of, for intervals; None of a run without instances."""
        found = self._matches
        return None if found is None else panoptic_quality(self.counts.index, self.classes, found)

    @cached_property
    def pq_interval(self) -> Interval | None:
        """95 % bootstrap interval of PQ over episodes; None of a run without instances."""
        return None if self.pq_score is None else bootstrap(self.pq_score)

    @cached_property
    def _matches(self) -> list[dict[int, ObjectMatches]] | None:
        """Of each episode: {class: its objects}."""
        if "instances" not in self.settings:
            return None
        return [
            {label: matches_of(values) for label, values in zip(ways, row["objects"], strict=True)}
            for row, ways in zip(self.rows, self.counts.classes.tolist(), strict=True)
        ]

    @property
    def sizes(self) -> tuple[SizeBin, ...]:
        """IoU against object size."""
        return size_table(self.counts)

    def episode_ious(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(E,) mean IoU of the ways that occur in each episode's truth or mask; 1 when all are rightly absent."""
        union, shared = self.counts.counts.union[:, 1:], self.counts.counts.intersection[:, 1:]
        seen = union > 0
        ratio = np.where(seen, shared / np.maximum(union, 1), 0.0).sum(1)
        return np.where(seen.any(1), ratio / np.maximum(seen.sum(1), 1), 1.0)

    def summary(self) -> dict[str, Any]:
        """Everything but the rows, ready for JSON; what does not exist is None."""
        interval = self.confidence_interval
        figures = {
            "miou": self.miou,
            "interval": [interval.low, interval.high],
            "metric": self.score.name,
            "fb_iou": self.fb_iou,
            "strict_miou": self.strict_miou,
            "panet_miou": self.panet_miou,
            "boundary_f": self.boundary,
            "presence_accuracy": self.presence_accuracy,
            "class_presence": self.class_presence,
            "calibration_error": self.calibration_error,
            "per_class": self.per_class,
            "sizes": [asdict(row) for row in self.sizes],
            **(asdict(self.objects) if self.objects else {}),
            **({"pq_interval": [self.pq_interval.low, self.pq_interval.high]} if self.pq_interval else {}),
            "episodes": len(self.rows),
            "rows_sha256": rows_sha256(self.rows),
        }
        return {"settings": dict(self.settings), **plain(figures), "remarks": list(self.warnings)}

    def _present(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.array([row["present"] for row in self.rows]) >= PRESENCE_THRESHOLD

    def _boundary(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([row["boundary"] for row in self.rows], np.float64)  # None becomes nan


def plain(value: Any) -> Any:
    """The same value with nan as None, because JSON has no nan."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
