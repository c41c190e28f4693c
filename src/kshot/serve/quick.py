"""The quick answer: what marks on one image make of its mask, within tens of milliseconds.

The mask of the moment, which a task predicted or a person accepted, stays where nothing is marked. Marks on a class
where the mask lacks it grow as prompts do (`ops.prompt_masks`) and are added; marks off the classes where the mask has
one grow likewise and are taken away; what the brush and the eraser touch becomes exactly that. The graph of an image's
patches, the costly part, is built once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kshot.ops.components import connected_components
from kshot.ops.geometry import FeatureMap
from kshot.ops.prompt_masks import grow_boxes, grow_marks
from kshot.ops.random_walker import FeatureGraph, build_feature_graph
from kshot.refiners import edges
from kshot.serve.answers import CERTAIN, EVEN, Answer
from kshot.serve.marks import Box, Mark, Stroke, painted, points_of
from kshot.types import Thresholds

_TINY = 1e-4


@dataclass(frozen=True, eq=False)
class OpenImage:
    """An image that somebody works on: its features, and a copy of it at the size of the answers."""

    features: FeatureMap
    view: NDArray[np.uint8]
    """(h, w, 3)."""

    @cached_property
    def graph(self) -> FeatureGraph:
        """Similarities of its patches."""
        with torch.inference_mode():
            return build_feature_graph(self.features)

    @cached_property
    def grey(self) -> NDArray[np.uint8]:
        """(h, w): the view without its colours, which contours follow."""
        return np.asarray(Image.fromarray(self.view).convert("L"))

    def prepared(self) -> "OpenImage":
        """The image, when what all answers need is made."""
        _ = self.graph, self.grey
        return self

    @property
    def scale(self) -> float:
        """Pixels of the view for one of the image."""
        return float(self.view.shape[0] / self.features.frame.size_hw[0])

    def answer(self, marks: Sequence[Mark], base: Answer, classes: int) -> Answer:
        """The mask after some marks, in the order in which they were made; base: before them, of the view's size."""
        with torch.inference_mode():
            grown = self._grown(marks, base, classes)
        labels, certainty = (base.labels.copy(), base.certainty.copy()) if grown is None else grown
        for stroke in (mark for mark in marks if isinstance(mark, Stroke)):
            touched = painted(stroke, base.size_hw, self.scale)
            labels[touched] = stroke.class_index + 1 if stroke.on else 0
            certainty[touched] = CERTAIN if stroke.on else 0
        return Answer(labels, certainty)

    def _grown(
        self, marks: Sequence[Mark], base: Answer, classes: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Labels and certainties after what grows from marks; None when nothing does."""
        size_hw, shown = self.features.frame.size_hw, base.mask(EVEN)
        off = points_of((mark for mark in marks if not isinstance(mark, Box) and not mark.on), size_hw)
        on = [
            points_of((m for m in marks if m.class_index == i and getattr(m, "on", False)), size_hw)
            for i in range(classes)
        ]
        soft = torch.zeros(classes, *self.features.grid_hw)
        kept = np.zeros((classes, *base.size_hw), bool)
        for index in range(classes):
            found = [mark.box_xyxy for mark in marks if isinstance(mark, Box) and mark.class_index == index]
            boxes = np.array(found, np.float64).reshape(-1, 4)
            against = np.concatenate([off, *(points for other, points in enumerate(on) if other != index)])
            soft[index] = self._added(boxes, on[index], against, shown != index + 1)
            if bool(soft[index].any()):
                kept[index] = self._others(shown, index + 1, on[index], boxes)
        wrong = off[self._at(shown > 0, off)]
        if not bool(soft.any()) and not len(wrong):
            return None
        added = np.where(kept, 0, self._pixels(soft)).astype(np.float32)  # (N, h, w)
        for plane, points in zip(added, on, strict=True):
            self._drop_specks(plane, points)
        best = added.argmax(0) if classes > 1 else np.zeros(base.size_hw, np.intp)
        top = added.max(0) if classes > 1 else added[0]
        certainty = np.rint(255 * top).astype(np.uint8)
        wins = certainty > base.certainty
        wins |= (certainty >= EVEN) & (best + 1 != base.labels)  # a mark is newer than the mask below it
        labels = np.where(wins, best + 1, base.labels).astype(np.uint8)
        certainty = np.where(wins, certainty, base.certainty).astype(np.uint8)
        if len(wrong):
            keep = np.concatenate(on)
            taken = self._pixels(grow_marks(self.features, wrong, keep, self.graph)[None])[0]
            gone = (taken > 0.5) & (shown > 0)
            certainty[gone] = np.minimum(certainty[gone], np.rint(255 * (1 - taken[gone]))).astype(np.uint8)
        return labels, certainty

    def _added(
        self,
        boxes: NDArray[np.float64],
        points: NDArray[np.float64],
        against: NDArray[np.float64],
        lacking: NDArray[np.bool_],
    ) -> Tensor:
        """(gh, gw) in 0..1: what boxes and points of a class add where the mask lacks it."""
        found = torch.zeros(self.features.grid_hw)
        if len(boxes):
            inside = np.zeros(len(points), bool)
            for x0, y0, x1, y1 in boxes:
                inside |= (points >= (x0, y0)).all(1) & (points <= (x1, y1)).all(1)
            found = grow_boxes(self.features, boxes, points[inside], against, self.graph)
            points = points[~inside]
        missed = points[self._at(lacking, points)]
        if len(missed):
            found = torch.maximum(found, grow_marks(self.features, points, against, self.graph))
        return found

    def _others(
        self, shown: NDArray[np.uint8], label: int, points: NDArray[np.float64], boxes: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """(h, w): what a class does not grow into: components of other classes that none of its marks lies in."""
        found = np.zeros(shown.shape, bool)
        marked = np.zeros(shown.shape, bool)
        marked[self._places(points, (shown.shape[0], shown.shape[1]))] = True
        for x0, y0, x1, y1 in (boxes * self.scale).astype(int).clip(0):
            marked[(y0 + y1) // 2 : (y0 + y1) // 2 + 1, (x0 + x1) // 2 : (x0 + x1) // 2 + 1] = True
        for place, inside in connected_components((shown > 0) & (shown != label)):
            if not (marked[place] & inside).any():
                found[place] |= inside
        return found

    def _drop_specks(self, plane: NDArray[np.float32], points: NDArray[np.float64]) -> None:
        """Bring components that a run would not keep either, and that nobody marked, below even odds."""
        if not plane.any():
            return
        height, width = plane.shape
        least = Thresholds().least_pixels((height, width), height * width / np.prod(self.features.grid_hw))
        marked = np.zeros(plane.shape, bool)
        marked[self._places(points, (height, width))] = True
        for place, inside in connected_components(plane > 0.5):
            if inside.sum() < least and not (marked[place] & inside).any():
                plane[place][inside] = (EVEN - 1) / 255

    def _places(
        self, points: NDArray[np.float64], size_hw: tuple[int, int]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the view under points (n, 2) of the image."""
        x, y = (points * self.scale).astype(np.intp).T
        return y.clip(0, size_hw[0] - 1), x.clip(0, size_hw[1] - 1)

    def _at(self, plane: NDArray[np.bool_], points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,): the values of a plane of the view under points (n, 2) of the image."""
        found: NDArray[np.bool_] = plane[self._places(points, (plane.shape[0], plane.shape[1]))]
        return found

    def _pixels(self, soft: Tensor) -> NDArray[np.float32]:
        """(N, h, w): soft masks (N, gh, gw) at the view's size, each against the background, along its edges."""
        frame = replace(self.features.frame, size_hw=(self.view.shape[0], self.view.shape[1]))
        soft = soft.clamp(_TINY, 1 - _TINY)
        planes = []
        for plane in soft:  # apart, as what one class gains is no loss of another here
            logits = torch.stack([torch.zeros_like(plane), plane.logit()])
            planes.append(edges.refine(logits, frame, self.grey, edges.Settings())[1].sigmoid().numpy())
        return np.stack(planes)
