"""Predictions of squares, drawn: two classes, objects of several sizes and scores, and specks."""

import numpy as np
import pytest

import kshot

CLASSES = ("a", "b")
# Class, top, left, side and score of each square in an image of 96 x 128 pixels; the last two of each class are specks.
SQUARES = (
    (1, 4, 4, 30, 0.9),
    (1, 50, 4, 10, 0.6),
    (1, 80, 4, 3, 0.95),
    (1, 90, 20, 2, 0.95),
    (2, 4, 60, 20, 0.7),
    (2, 50, 60, 9, 0.9),
    (2, 90, 60, 2, 0.9),
)
PRESENT = {"a": 0.9, "b": 0.6}


def predict_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every Segmenter find the squares in any image of 96 x 128 pixels, whatever it shows."""
    scores = np.zeros((3, 96, 128), np.float32)
    for label, top, left, side, score in SQUARES:
        scores[label, top : top + side, left : left + side] = score
    scores[0] = 1 - scores.sum(0)

    def decide(self, task, features, image):
        return kshot.Prediction.from_scores(scores, CLASSES, PRESENT, image)

    monkeypatch.setattr(kshot.Segmenter, "decide", decide)
