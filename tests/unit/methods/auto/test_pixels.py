"""How much single pixels count: much among drawn lines, nothing where they mislead."""

from pathlib import Path

import numpy as np
import pytest
import torch

import kshot
from kshot.methods.auto.pixels import CANDIDATE_WEIGHTS, PixelEvidence
from kshot.types import Shot

THIN = 2


def lines(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Dark lines on a rough ground, and their mask."""
    rng = np.random.default_rng(seed)
    image = rng.integers(150, 200, (160, 200, 3)).astype(np.uint8)
    mask = np.zeros((160, 200), np.uint8)
    for _ in range(3):
        top = int(rng.integers(5, 150))
        mask[top : top + THIN] = 1
        left = int(rng.integers(5, 190))
        mask[:, left : left + THIN] = 1
    image[mask == 1] = 40
    return image, mask


def fitted(shots: list[Shot], **settings: bool) -> tuple[kshot.Segmenter, kshot.Task]:
    segmenter = kshot.Segmenter(method_settings=settings)
    return segmenter, segmenter.fit(shots)


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("count", [1, 3])
def test_thin_lines_are_found_with_pixels_and_less_without(count: int) -> None:
    shots = [Shot(image, mask=mask, label="line") for image, mask in map(lines, range(count))]
    image, truth = lines(9)
    reached = {}
    for pixels in (False, True):
        segmenter, task = fitted(shots, pixels=pixels)
        reached[pixels] = iou(segmenter.predict(task, image).mask == 1, truth == 1)
    assert reached[True] > max(0.9, reached[False] + 0.25)


def test_colours_that_change_between_supports_do_not_count() -> None:
    """The same disc, each time of another colour on another ground."""
    rng = np.random.default_rng(0)
    shots = []
    for _ in range(4):
        disc, ground = rng.integers(0, 256, (2, 3)).astype(np.uint8)
        rows, columns = np.ogrid[:120, :120]
        mask = ((rows - 60) ** 2 + (columns - 60) ** 2 < 900).astype(np.uint8)
        shots.append(Shot(np.where(mask[..., None] == 1, disc, ground), mask=mask, label="disc"))
    _, task = fitted(shots)
    assert not task.fitted.pixels.weights.any()


def test_supports_without_masks_have_no_pixels(tmp_path: Path) -> None:
    image, mask = lines(0)
    _, task = fitted([Shot(image, boxes=[[20, 20, 90, 90]], label="line")])
    assert task.fitted.pixels is None
    _, task = fitted([Shot(image, mask=mask, label="line")], pixels=False)
    assert task.fitted.pixels is None


def test_a_task_with_pixels_is_saved_whole(tmp_path: Path) -> None:
    shots = [Shot(image, mask=mask, label="line") for image, mask in map(lines, range(2))]
    segmenter, task = fitted(shots)
    again = kshot.load_task(task.save(tmp_path / "line.kshot"))
    assert again.digest() == task.digest()
    image, _ = lines(5)
    first, second = segmenter.predict(task, image), segmenter.predict(again, image)
    assert np.array_equal(first.mask, second.mask) and np.array_equal(first.scores, second.scores)


def test_several_classes_weigh_apart() -> None:
    """Lines, and discs of a colour of their own: a weight for each, and every pixel of one class."""
    shots = []
    for seed in range(3):
        image, mask = lines(seed)
        disc = np.zeros_like(mask)
        disc[60:90, 90:130] = 1
        image[disc == 1] = (200, 60, 60)
        labels = np.where(disc == 1, 2, mask).astype(np.uint8)
        shots.append(Shot(image, mask=labels, label={1: "line", 2: "disc"}))
    segmenter, task = fitted(shots)
    weights = task.fitted.pixels.weights
    assert weights.shape == (2,) and set(weights.tolist()) <= set(CANDIDATE_WEIGHTS.tolist())
    assert set(np.unique(segmenter.predict(task, shots[0].image).mask)) <= {0, 1, 2}


def test_without_weight_the_logits_stay_as_they_are() -> None:
    logits = torch.randn(3, 8, 8)
    evidence = PixelEvidence((None, None), torch.zeros(2))
    assert evidence.add(logits, np.zeros((8, 8, 3), np.uint8)) is logits
