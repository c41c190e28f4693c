"""Large pictures tile by tile: the network sees details that it would lose if the whole were shrunk."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from kshot.features.tiles import Tiling
from kshot.methods.base import Task
from kshot.segmenter import Segmenter
from kshot.types import Prediction


def predict_tiled(segmenter: Segmenter, task: Task, tiling: Tiling, picture: NDArray[np.uint8]) -> Prediction:
    """Masks of a picture (h, w, 3) from tiles whose scores are blended, so that no seam shows.

    A class is present when some tile shows it. A picture that fits one tile is predicted as it is without tiles.
    """
    present = dict.fromkeys(task.classes, 0.0)

    def part(rows: slice, columns: slice) -> NDArray[np.float32]:
        found = segmenter.predict(task, np.ascontiguousarray(picture[rows, columns]))
        present.update({name: max(present[name], found.present[name]) for name in present})
        return found.scores

    size_hw = picture.shape[0], picture.shape[1]
    scores = np.empty((len(task.classes) + 1, *size_hw), np.float32)
    top = 0
    for strip in blended(tiling, size_hw, len(task.classes), part):
        scores[:, top : top + strip.shape[1]] = strip
        top += strip.shape[1]
    return Prediction.from_scores(scores, task.classes, present, picture, task.gate)


def blended(
    tiling: Tiling, size_hw: tuple[int, int], ways: int, part: Callable[[slice, slice], NDArray[np.float32]]
) -> Iterator[NDArray[np.float32]]:
    """Blended scores (N+1, r, w) of the next rows, from top to bottom; a strip holds until the next is asked for.

    part: the scores (N+1, th, tw) of a tile at rows and columns. No more than a row of tiles is in memory.
    """
    height, width = size_hw
    down, across = tiling.spans(height), tiling.spans(width)
    ends = [rows.start for rows, _ in down[1:]] + [height]
    strip = np.zeros((ways + 1, min(tiling.tile, height), width), np.float32)
    for (rows, fall), end in zip(down, ends, strict=True):
        for columns, along in across:
            strip[:, :, columns] += part(rows, columns) * (fall[:, None] * along)
        done, left = end - rows.start, rows.stop - end
        yield strip[:, :done]
        # Class by class: a copy of what is left of all would be a second strip where tiles overlap by half.
        for plane in strip:
            plane[:left] = plane[done:].copy()
            plane[left:] = 0
