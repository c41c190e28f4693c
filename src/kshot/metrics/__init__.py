"""Metrics of few-shot segmentation: integer counts that add, and scores out of them. Numpy only.

`IoUCounts.from_masks` counts one image, `EpisodeCounts` keeps one row an episode, `fss_miou`, `fb_iou`,
`strict_miou`, `panet_miou` and the presence scores turn rows into a `Score`, `bootstrap` gives its interval.
"""

from kshot.metrics.boundary import boundary_f
from kshot.metrics.calibration import CalibrationCounts
from kshot.metrics.counts import IGNORE, EpisodeCounts, IoUCounts, check_label_map
from kshot.metrics.intervals import Interval, bootstrap, paired_bootstrap
from kshot.metrics.objects import ObjectFigures, ObjectMatches, match_objects, panoptic_quality
from kshot.metrics.scores import (
    Score,
    SizeBin,
    class_presence,
    fb_iou,
    fss_miou,
    mean_per_class,
    panet_miou,
    presence_accuracy,
    size_table,
    strict_miou,
)

__all__ = [
    "IGNORE",
    "CalibrationCounts",
    "EpisodeCounts",
    "Interval",
    "IoUCounts",
    "ObjectFigures",
    "ObjectMatches",
    "Score",
    "SizeBin",
    "bootstrap",
    "boundary_f",
    "check_label_map",
    "class_presence",
    "fb_iou",
    "fss_miou",
    "match_objects",
    "mean_per_class",
    "paired_bootstrap",
    "panet_miou",
    "panoptic_quality",
    "presence_accuracy",
    "size_table",
    "strict_miou",
]
