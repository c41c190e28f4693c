"""The examples in docstrings run and print what they say."""

import doctest

import numpy as np
import pytest

import kshot.objects
from kshot.types import Prediction


def one_cell() -> Prediction:
    """A cell of 4 x 2 pixels with its corner at (1, 1), as the docstrings say."""
    scores = np.full((2, 4, 6), 0.2, np.float32)
    scores[1, 1:3, 1:5] = 0.8
    scores[0] = 1 - scores[1]
    return Prediction.from_scores(scores, ["cell"], image=np.full((4, 6, 3), 100, np.uint8))


@pytest.mark.filterwarnings("ignore:OpenCV")
@pytest.mark.parametrize("module", [kshot.objects], ids=lambda module: module.__name__)
def test_examples_of_docstrings_run(module: object) -> None:
    found = doctest.testmod(module, extraglobs={"pred": one_cell()})  # type: ignore[arg-type]
    assert found.attempted > 5 and not found.failed
