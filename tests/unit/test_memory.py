"""A task over frames in their order: what earlier frames add, and what they never do."""

import numpy as np
import pytest
import torch

import kshot
from kshot.errors import SettingError
from kshot.memory import FrameMemory
from tests.support.drawing import draw


@pytest.fixture(scope="module")
def shot_of_film() -> list[np.ndarray]:
    """A camera that moves over one image."""
    picture, _ = draw(3, size_hw=(120, 160))
    noise = np.random.default_rng(0)
    moved = [picture[:, 4 * i : 4 * i + 128] for i in range(6)]
    return [np.clip(one + noise.normal(0, 8, one.shape), 0, 255).astype(np.uint8) for one in moved]


@pytest.fixture(scope="module")
def task(toy: kshot.Segmenter) -> kshot.Task:
    return toy.fit([kshot.Shot(*draw(3, size_hw=(120, 160)), label="disc")])


def scores(toy: kshot.Segmenter, film: FrameMemory, frames: list[np.ndarray]) -> list[np.ndarray]:
    return [toy.predict_frame(film, frame).scores for frame in frames]


def test_no_memory_predicts_each_frame_by_itself(toy, task, shot_of_film) -> None:
    for found, frame in zip(scores(toy, FrameMemory(task, 0), shot_of_film), shot_of_film, strict=True):
        np.testing.assert_array_equal(found, toy.predict(task, frame).scores)


def test_a_result_depends_on_the_frames_within_the_memory_alone(toy, task, shot_of_film) -> None:
    whole = scores(toy, FrameMemory(task, 2), shot_of_film)
    late = scores(toy, FrameMemory(task, 2), shot_of_film[2:])
    np.testing.assert_array_equal(whole[-1], late[-1])
    assert any((a != b).any() for a, b in zip(whole[2:], late, strict=True))


def test_the_memory_never_outvotes_the_supports(toy, task, shot_of_film) -> None:
    film, earlier = FrameMemory(task, 3), []
    for frame in shot_of_film:
        features = toy.features(frame)
        own, logits = task.score(features, frame), film.score(features, frame)
        if earlier:
            added = 2 * logits - own  # what the memory would have to say if it had half of the votes
            low, high = (torch.stack(earlier).amin((0, 2, 3)), torch.stack(earlier).amax((0, 2, 3)))
            least, most = torch.minimum(own, low[:, None, None]), torch.maximum(own, high[:, None, None])
            assert (added >= least - 1e-4).all() and (added <= most + 1e-4).all()
        earlier = [*earlier, own][-3:]


def test_another_shot_begins_without_a_memory(toy, task, shot_of_film) -> None:
    other = np.random.default_rng(1).integers(0, 255, shot_of_film[0].shape, np.uint8)
    film = FrameMemory(task, 4)
    found = scores(toy, film, [*shot_of_film[:3], other])
    np.testing.assert_array_equal(found[-1], toy.predict(task, other).scores)
    assert film.cuts == 1
    np.testing.assert_array_equal(
        scores(toy, film, [shot_of_film[0][:100]])[0], toy.predict(task, shot_of_film[0][:100]).scores
    )


def test_a_still_film_stays_as_it_is(toy, task, shot_of_film) -> None:
    alone = toy.predict(task, shot_of_film[0])
    for prediction in toy.stream([shot_of_film[0]] * 3, task, memory=2):
        np.testing.assert_allclose(prediction.scores, alone.scores, atol=1e-5)
        assert prediction.present == pytest.approx(alone.present, abs=1e-5)


@pytest.mark.parametrize("frames", [-1, 65])
def test_a_memory_is_bounded(task, frames) -> None:
    with pytest.raises(SettingError, match=r"expected 0\.\.64"):
        FrameMemory(task, frames)
