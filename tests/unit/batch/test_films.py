"""Films and stacks in a run: the memory, and that a run in several goes leaves what one in one go leaves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.batch import Shard, label_folder
from kshot.errors import SettingError
from kshot.features.tiles import Tiling
from kshot.io.images import read_mask
from tests.support.drawing import draw
from tests.support.films import film
from tests.support.runs import contents


@pytest.fixture
def task(toy: kshot.Segmenter) -> kshot.Task:
    return toy.fit([kshot.Shot(*draw(3, size_hw=(120, 160)), label="disc")])


def pan(count: int) -> list[np.ndarray]:
    """A camera that moves over an image, with noise of its own in each frame."""
    picture, noise = draw(3, size_hw=(120, 160))[0], np.random.default_rng(0)
    moved = [picture[:112, 4 * i : 4 * i + 112] for i in range(count)]
    return [np.clip(one + noise.normal(0, 25, one.shape), 0, 255).astype(np.uint8) for one in moved]


def masks(out: Path) -> list[np.ndarray]:
    return [read_mask(path, drawn=False) for path in sorted((out / "masks").rglob("*.png"))]


@pytest.mark.parametrize("lost", [["000000"], ["000004"], ["000002", "000006"], ["000007"]])
def test_a_film_that_is_gone_on_with_gives_what_it_gives_in_one_go(lost, toy, task, tmp_path) -> None:
    path = film(tmp_path / "film.mp4", pan(8))
    label_folder(toy, task, path, tmp_path / "whole", memory=2)
    label_folder(toy, task, path, tmp_path / "out", memory=2)
    for name in lost:
        (tmp_path / f"out/masks/film/{name}.png").unlink()
    again = label_folder(toy, task, path, tmp_path / "out", memory=2, resume=True)
    assert (again.processed, again.skipped) == (len(lost), 8 - len(lost))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_frames_have_a_memory_and_pages_where_one_is_asked_for(toy, task, tmp_path) -> None:
    frames = pan(6)
    Image.fromarray(frames[0]).save(
        tmp_path / "stack.tif", save_all=True, append_images=[Image.fromarray(one) for one in frames[1:]]
    )
    (tmp_path / "slices").mkdir()
    for index, one in enumerate(frames):
        Image.fromarray(one).save(tmp_path / f"slices/{index}.png")
    with_memory = [one.mask for one in toy.stream(frames, task)]
    alone = [toy.predict(task, one).mask for one in frames]
    assert any((a != b).any() for a, b in zip(with_memory, alone, strict=True))
    runs = {
        "stack": ({"memory": 5}, with_memory),
        "scan": ({}, alone),
        "slices": ({"sequence": True}, with_memory),
        "images": ({"memory": 0}, alone),
    }
    for name, (how, expected) in runs.items():
        images = tmp_path / ("stack.tif" if name in {"stack", "scan"} else "slices")
        label_folder(toy, task, images, tmp_path / f"of_{name}", thresholds=kshot.types.Thresholds(min_area=0), **how)
        for found, mask in zip(masks(tmp_path / f"of_{name}"), expected, strict=True):
            np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize("how", [{"tiling": Tiling(64, 8), "memory": 3}, {"shard": Shard(1, 2), "sequence": True}])
def test_a_memory_needs_whole_images_in_their_order(how, toy, task, tmp_path) -> None:
    Image.fromarray(pan(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(SettingError, match="--memory"):
        label_folder(toy, task, tmp_path / "a.png", tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_all_frames_of_a_film_are_of_one_shard(toy, task, tmp_path) -> None:
    (tmp_path / "films").mkdir()
    for name in ("a", "aa", "b", "walk"):
        film(tmp_path / "films" / f"{name}.mp4", pan(3))
    parts = [set(), set()]
    for part in (1, 2):
        label_folder(
            toy,
            task,
            tmp_path / "films",
            tmp_path / "out",
            shard=Shard(part, 2),
            progress=lambda record, *_, part=part: parts[part - 1].add(record["input"]),
        )
    films = [{name.partition("#")[0] for name in part} for part in parts]
    assert not films[0] & films[1] and films[0] and films[1]
    assert sum(map(len, parts)) == 3 * sum(map(len, films)) == 12


def test_a_memory_of_more_than_is_bounded_is_refused_before_anything_is_written(toy, task, tmp_path) -> None:
    clip = film(tmp_path / "clip.avi", [draw(seed)[0] for seed in range(2)])
    with pytest.raises(SettingError, match=r"a memory of 65 frames; expected 0\.\.64"):
        label_folder(toy, task, clip, tmp_path / "out", memory=65)
    assert not (tmp_path / "out" / "masks").exists()
