"""Tiles: they cover, they blend without seams, and one tile is no tile."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kshot
from kshot.batch import label_folder
from kshot.batch.large_images import predict_tiled
from kshot.errors import SettingError
from kshot.features.tiles import Tiling
from kshot.types import Shot
from tests.support.drawing import draw


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 900), tile=st.integers(16, 200), share=st.floats(0, 0.5))
def test_weights_sum_to_one_everywhere(length: int, tile: int, share: float) -> None:
    tiling = Tiling(tile, int(share * tile))
    total = np.zeros(length)
    spans = tiling.spans(length)
    for span, weights in spans:
        assert len(weights) == span.stop - span.start == min(tile, length) and (weights > 0).all()
        total[span] += weights
    assert np.allclose(total, 1, atol=1e-5)
    for (left, _), (right, _) in pairwise(spans):
        assert left.stop - right.start >= tiling.overlap


def test_weights_by_hand() -> None:
    (first, low), (second, high) = Tiling(16, 4).spans(28)
    assert (first, second) == (slice(0, 16), slice(12, 28))
    assert np.allclose(low[10:], [1, 1, 0.875, 0.625, 0.375, 0.125])
    assert np.allclose(high[:5], [0.125, 0.375, 0.625, 0.875, 1])


def test_a_picture_that_fits_is_predicted_as_without_tiles(toy: kshot.Segmenter, shots: list[Shot]) -> None:
    task, picture = toy.fit(shots), draw(3)[0]
    plain, tiled = toy.predict(task, picture), predict_tiled(toy, task, Tiling(128, 16), picture)
    assert np.array_equal(plain.scores, tiled.scores) and np.array_equal(plain.mask, tiled.mask)
    assert plain.present == tiled.present


def test_tiles_leave_no_seam_and_find_what_is_there(toy: kshot.Segmenter, shots: list[Shot]) -> None:
    task = toy.fit(shots)
    picture, truth = draw(3, (300, 420))
    found = predict_tiled(toy, task, Tiling(128, 32), picture)
    assert np.allclose(found.scores.sum(0), 1, atol=1e-4)
    inside = (found.mask == 1) & truth
    assert inside.sum() / ((found.mask == 1) | truth).sum() > 0.8
    # Along the edges of the tiles scores change no more than elsewhere, the disc's own rim left out.
    steps = np.abs(np.diff(found.scores[1], axis=1))
    flat = ~(truth[:, 1:] ^ truth[:, :-1])
    edges = [span.start - 1 for span, _ in Tiling(128, 32).spans(420)[1:]]
    assert steps[:, edges][flat[:, edges]].mean() < 3 * steps[flat].mean() + 1e-3


def test_tiles_of_a_run_are_kept_and_bind(
    toy: kshot.Segmenter, shots: list[Shot], image_folder: Path, tmp_path: Path
) -> None:
    task = toy.fit(shots)
    assert label_folder(toy, task, image_folder, tmp_path / "out", tiling=Tiling(64, 8)).processed == 4
    with pytest.raises(SettingError, match="--tile"):
        label_folder(toy, task, image_folder, tmp_path / "out", resume=True)


@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (64, 33), (64, -1)])
def test_impossible_tiles_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(SettingError, match="half a tile"):
        Tiling(tile, overlap)
