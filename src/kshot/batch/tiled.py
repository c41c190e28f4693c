"""Large pictures tile by tile: the network sees details that it would lose if the whole were shrunk."""

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
    size_hw = picture.shape[0], picture.shape[1]
    scores = np.zeros((len(task.classes) + 1, *size_hw), np.float32)
    present = dict.fromkeys(task.classes, 0.0)
    for rows, columns, weights in tiling.windows(size_hw):
        part = segmenter.predict(task, np.ascontiguousarray(picture[rows, columns]))
        scores[:, rows, columns] += part.scores * weights
        present = {name: max(present[name], part.present[name]) for name in present}
    return Prediction.from_scores(scores, task.classes, present, picture, task.gate)
