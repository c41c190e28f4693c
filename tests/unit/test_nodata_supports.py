"""Pixels of a support without data (GeoTIFF) teach nothing: neither background nor class."""

from pathlib import Path

import numpy as np
import pytest

import kshot
from kshot.errors import EmptyMaskError
from kshot.methods.base import Support
from kshot.types import IGNORE, Shot
from tests.support.drawing import draw

pytest.importorskip("rasterio")
from tests.support.scenes import write_scene

PICTURE, DISC = draw(3)  # 96 x 128
HOLE = np.zeros((96, 128), np.bool_)
HOLE[:, :32] = True


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = PICTURE.copy()
    pixels[HOLE] = 0
    return write_scene(tmp_path / "scene.tif", pixels, nodata=0)


def encoded(toy: kshot.Segmenter, shot: Shot) -> Support:
    (support,) = toy.encode([shot], ("disc",))
    return support


def test_a_mask_says_nothing_where_there_is_no_data(scene: Path, toy: kshot.Segmenter) -> None:
    """As if somebody had set those pixels to 255."""
    ignored = np.where(HOLE, IGNORE, DISC).astype(np.uint8)
    one = encoded(toy, Shot(scene, mask=DISC, label="disc"))
    other = encoded(toy, Shot(scene, mask=ignored, label={1: "disc"}))
    columns = one.valid_mask.shape[1]
    assert float(one.valid_mask[:, : columns // 4].max()) < 0.01 and float(one.valid_mask[:-1, -3:-1].min()) > 0.99
    for name in ("masks", "valid_mask", "background"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-6)
    assert one.pixels is not None and other.pixels is not None
    assert bool((one.pixels.places[:, 1] >= 32 * one.pixels.places[:, 1].max() // 128).all())
    assert len(one.crops) == len(other.crops)
    for crop, same in zip(one.crops, other.crops, strict=True):
        np.testing.assert_allclose(crop.valid_mask, same.valid_mask, atol=1e-6)


@pytest.mark.parametrize("marks", [{"boxes": [[20, 10, 100, 90]]}, {"points": [[64, 48]]}, {}])
def test_marks_that_grow_stop_where_there_is_no_data(
    scene: Path, toy: kshot.Segmenter, marks: dict[str, object]
) -> None:
    support = encoded(toy, Shot(scene, label="disc", **marks))
    columns = support.valid_mask.shape[1]
    assert float(support.valid_mask[:, : columns // 4].max()) < 0.01
    assert float(support.masks[0][:, : columns // 4].max()) < 0.01


def test_a_mask_that_lies_where_there_is_no_data_is_refused(scene: Path, toy: kshot.Segmenter) -> None:
    with pytest.raises(EmptyMaskError, match=r"scene\.tif"):
        toy.fit([Shot(scene, mask=HOLE, label="disc")])
