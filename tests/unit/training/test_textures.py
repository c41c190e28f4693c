"""Labelled images of textures: what their labels say is what they show."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kshot.training.textures import _SHAPES, _filled, texture_views
from kshot.training.unlabelled import seeded_rng


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    found = []
    for number in range(6):
        pixels = seeded_rng(number).integers(0, 256, (60, 80, 3)).astype(np.uint8)
        found.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(found[-1])
    return found


def test_views_and_labels_have_the_size_and_the_classes(photos: list[Path]) -> None:
    shown = set()
    for seed in range(6):
        views, labels, classes = texture_views(photos, 4, 64, seeded_rng(seed))
        assert [view.size for view in views] == [(64, 64)] * 4
        assert all(label.shape == (64, 64) and label.dtype == np.uint8 for label in labels)
        assert set(np.unique(np.stack(labels))) <= {0, *classes}
        shown |= {int(value) for label in labels for value in np.unique(label)}
    assert shown >= {0, 1, 2}


def test_a_batch_depends_on_its_seed_alone(photos: list[Path]) -> None:
    first, again, other = (texture_views(photos, 3, 48, seeded_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first[0], again[0], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(first[1], again[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first[0], other[0], strict=True))


def test_the_texture_lies_where_the_label_says(tmp_path: Path) -> None:
    """Grey photographs, so whatever texture there is differs from the view by its light alone: outside it nothing is
    changed but the colours of the whole view."""
    paths = []
    for number in range(8):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (64, 64), (128, 128, 128)).save(paths[-1])
    views, labels, _ = texture_views(paths, 6, 64, seeded_rng(3))
    for view, label in zip(views, labels, strict=True):
        if (label == 0).mean() > 0.5 and label.any():
            outside = np.asarray(view, int)[..., 0][label == 0]
            assert np.median(np.abs(outside - np.median(outside))) == 0


@pytest.mark.parametrize("shape", _SHAPES)
def test_an_area_is_neither_empty_nor_whole(shape: object) -> None:
    assert callable(shape)
    for seed in range(10):
        area = shape(96, seeded_rng(seed))
        assert area.shape == (96, 96) and area.dtype == np.bool_
        assert 0.002 < area.mean() < 0.9


def test_a_texture_fills_the_view_without_gaps() -> None:
    window = np.full((9, 9, 3), 200, np.uint8)
    for seed in range(5):
        filled = np.asarray(_filled(window, 50, seeded_rng(seed)))
        assert filled.shape == (50, 50, 3) and np.ptp(filled) == 0
