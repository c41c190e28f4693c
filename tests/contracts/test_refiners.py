"""What every refiner promises."""

import numpy as np
import pytest
import torch

from kshot import _plugins
from kshot.ops.geometry import Frame
from tests.conftest import draw


@pytest.fixture(params=_plugins.names("refiners"))
def refiner(request: pytest.FixtureRequest) -> object:
    return _plugins.load("refiners", request.param)


def logits_of(mask: np.ndarray, frame: Frame, height: float = 4.0) -> torch.Tensor:
    from kshot.ops.geometry import to_grid

    plane = (to_grid(torch.from_numpy(mask).float(), frame) - 0.5) * 2 * height
    return torch.stack([torch.zeros_like(plane), plane])


@pytest.mark.parametrize("size_hw", [(96, 128), (37, 301), (8, 8), (1, 50)])
def test_scores_come_back_at_the_images_size(refiner: object, size_hw: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    frame = Frame.fit(size_hw, 96, 8)
    fine = refiner.refine(torch.randn(3, *frame.grid_hw), frame, picture, refiner.Settings())
    assert tuple(fine.shape) == (3, *size_hw)
    assert torch.isfinite(fine).all()


def test_a_clear_answer_is_kept(refiner: object) -> None:
    picture, mask = draw(3, (192, 256))
    frame = Frame.fit(mask.shape, 192, 8)
    fine = refiner.refine(logits_of(mask, frame), frame, picture, refiner.Settings())
    found = (fine[1] > fine[0]).numpy()
    assert (found & mask).sum() / (found | mask).sum() > 0.9


def test_nothing_stays_nothing(refiner: object) -> None:
    picture, mask = draw(3)
    frame = Frame.fit(mask.shape, 96, 8)
    fine = refiner.refine(logits_of(mask & False, frame), frame, picture, refiner.Settings())
    assert not (fine[1] > fine[0]).any()


def test_it_does_not_change_its_input(refiner: object) -> None:
    picture, mask = draw(3)
    frame = Frame.fit(mask.shape, 96, 8)
    logits, before = logits_of(mask, frame), picture.copy()
    kept = logits.clone()
    refiner.refine(logits, frame, picture, refiner.Settings())
    assert torch.equal(logits, kept) and np.array_equal(picture, before)


def test_edges_meet_the_picture_better_than_plain_upsampling() -> None:
    picture, mask = draw(3, (192, 256))
    frame = Frame.fit(mask.shape, 192, 16)
    ious = {}
    for name in ("none", "edges"):
        module = _plugins.load("refiners", name)
        fine = module.refine(logits_of(mask, frame, 2.0), frame, picture, module.Settings())
        found = (fine[1] > fine[0]).numpy()
        ious[name] = (found & mask).sum() / (found | mask).sum()
    assert ious["edges"] > ious["none"]
