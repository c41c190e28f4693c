"""What every refiner promises."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kshot import _plugins
from kshot.ops.geometry import Frame
from tests.support.drawing import draw


class Refiner:
    """A refiner with its settings: of a SAM, the tiny one."""

    def __init__(self, name: str, sam_folder: Path):
        self.module = _plugins.load("refiners", name)
        self.settings = self.module.Settings(**({"model": str(sam_folder)} if name == "sam" else {}))

    def refine(self, logits: torch.Tensor, frame: Frame, picture: np.ndarray) -> torch.Tensor:
        return self.module.refine(logits, frame, picture, self.settings)


@pytest.fixture(params=_plugins.names("refiners"))
def refiner(request: pytest.FixtureRequest, sam_folder: Path) -> Refiner:
    return Refiner(request.param, sam_folder)


def logits_of(mask: np.ndarray, frame: Frame, height: float = 4.0) -> torch.Tensor:
    from kshot.ops.geometry import to_grid

    plane = (to_grid(torch.from_numpy(mask).float(), frame) - 0.5) * 2 * height
    return torch.stack([torch.zeros_like(plane), plane])


@pytest.mark.parametrize("size_hw", [(96, 128), (37, 301), (8, 8), (1, 50)])
def test_scores_come_back_at_the_images_size(refiner: Refiner, size_hw: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    frame = Frame.fit(size_hw, 96, 8)
    fine = refiner.refine(torch.randn(3, *frame.grid_hw), frame, picture)
    assert tuple(fine.shape) == (3, *size_hw)
    assert torch.isfinite(fine).all()


def test_a_clear_answer_is_kept(refiner: Refiner) -> None:
    picture, mask = draw(3, (192, 256))
    frame = Frame.fit(mask.shape, 192, 8)
    fine = refiner.refine(logits_of(mask, frame), frame, picture)
    found = (fine[1] > fine[0]).numpy()
    assert (found & mask).sum() / (found | mask).sum() > 0.9


def test_nothing_stays_nothing(refiner: Refiner) -> None:
    picture, mask = draw(3)
    frame = Frame.fit(mask.shape, 96, 8)
    fine = refiner.refine(logits_of(mask & False, frame), frame, picture)
    assert not (fine[1] > fine[0]).any()


def test_it_does_not_change_its_input(refiner: Refiner) -> None:
    picture, mask = draw(3)
    frame = Frame.fit(mask.shape, 96, 8)
    logits, before = logits_of(mask, frame), picture.copy()
    kept = logits.clone()
    refiner.refine(logits, frame, picture)
    assert torch.equal(logits, kept) and np.array_equal(picture, before)


def test_the_background_stays_zero(refiner: Refiner) -> None:
    picture, mask = draw(3)
    frame = Frame.fit(mask.shape, 96, 8)
    fine = refiner.refine(logits_of(mask, frame), frame, picture)
    assert torch.equal(fine[0], torch.zeros(mask.shape))


@pytest.mark.parametrize("better", ["edges", "crf"])
def test_contours_meet_the_picture_better_than_plain_upsampling(better: str) -> None:
    picture, mask = draw(3, (192, 256))
    frame = Frame.fit(mask.shape, 192, 16)
    ious = {}
    for name in ("none", better):
        module = _plugins.load("refiners", name)
        fine = module.refine(logits_of(mask, frame, 2.0), frame, picture, module.Settings())
        found = (fine[1] > fine[0]).numpy()
        ious[name] = (found & mask).sum() / (found | mask).sum()
    assert ious[better] > ious["none"]
