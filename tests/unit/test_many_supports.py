"""A task of many supports: what it and its file hold is bounded, and what it says of them stays right."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.errors import EmptyMaskError
from kshot.report import save_supports
from kshot.report.supports import read_supports
from kshot.tasks import load_task
from kshot.types import Shot, SupportSet
from tests.support.commands import TOY, run
from tests.support.drawing import draw

MANY = 32


def shots(count: int, first: int = 0) -> list[Shot]:
    return [Shot(picture, mask=mask, label="disc") for picture, mask in map(draw, range(first, first + count))]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture(scope="module")
def task() -> kshot.Task:
    return kshot.Segmenter(backbone="toy", size=96).fit(shots(60))


def test_the_file_of_twice_as_many_supports_is_no_larger(
    tmp_path: Path, toy: kshot.Segmenter, task: kshot.Task
) -> None:
    files = [toy.fit(shots(count)).save(tmp_path / f"{count}.kshot").stat().st_size for count in (MANY, 120)]
    of_60 = task.save(tmp_path / "60.kshot").stat().st_size
    assert files[0] < of_60 and files[1] < 1.15 * of_60
    assert task.support_count == 60 and len(task.supports) == MANY + 1


def test_a_task_file_of_many_supports_scores_as_before_and_takes_more(
    tmp_path: Path, toy: kshot.Segmenter, task: kshot.Task
) -> None:
    read = load_task(task.save(tmp_path / "many.kshot"))
    query, _ = draw(200)
    assert read.digest() == task.digest() and read.support_count == 60
    assert np.array_equal(toy.predict(read, query).scores, toy.predict(task, query).scores)
    more = read.with_shots(shots(10, first=60), toy)
    at_once = toy.fit(shots(70))
    assert more.support_count == 70 and len(more.supports) == MANY + 1
    assert [each.number for each in more.supports] == [each.number for each in at_once.supports]
    assert iou(toy.predict(more, query).mask > 0, toy.predict(at_once, query).mask > 0) > 0.95


def test_a_task_of_many_finds_what_it_is_shown(toy: kshot.Segmenter, task: kshot.Task) -> None:
    for seed in range(300, 304):
        query, mask = draw(seed)
        found = toy.predict(task, query).mask > 0
        assert iou(found, mask) > 0.7


def test_a_new_class_joins_many_supports(toy: kshot.Segmenter, task: kshot.Task) -> None:
    picture, mask = draw(90)
    both = task.with_shots([Shot(255 - picture, mask=mask, label="hole")], toy)
    assert both.classes == ("disc", "hole") and both.support_count == 61
    assert [bool(each.masks[1].any()) for each in both.supports].count(True) == 1


def test_the_report_draws_the_soft_masks_of_the_supports_that_stay(
    tmp_path: Path, toy: kshot.Segmenter, task: kshot.Task
) -> None:
    """The soft mask of each that stays lies on its own image, whatever its place among those that stay."""
    save_supports(tmp_path, SupportSet(shots(60)), task, toy.shot_reader)
    lines, kept = read_supports(tmp_path, task.digest()), {each.number for each in task.supports}
    assert len(lines) == 60
    for place, line in enumerate(lines, start=1):
        picture, mask = draw(place - 1)
        drawn = Image.open(tmp_path / line["overlay"]).resize((128, 96))
        change = np.abs(np.asarray(drawn, float) - picture).mean(2)
        assert (change[mask].mean() > 3 * change[~mask].mean()) == (place in kept), place


def test_no_more_supports_are_held_than_are_kept(toy: kshot.Segmenter) -> None:
    """Supports are encoded one by one, as they are asked for."""
    made = toy.encode_each(shots(3), ("disc",))
    assert isinstance(made, Iterator) and next(made).count == 1
    speck = np.zeros((96, 128), np.uint8)
    speck[0, 0] = 1
    with pytest.raises(EmptyMaskError, match="covers no"):
        list(toy.encode_each([shots(1)[0], Shot(draw(2)[0], mask=speck, label="disc")], ("disc",)))


def test_the_command_counts_all_supports(tmp_path: Path) -> None:
    folder = tmp_path / "support" / "disc"
    folder.mkdir(parents=True)
    for place in range(40):
        picture, mask = draw(place)
        Image.fromarray(picture).save(folder / f"{place}.jpg")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{place}.png")
    facts = json.loads(run("fit", tmp_path / "support", *TOY, "-o", tmp_path / "disc.kshot", "--json").stdout)
    assert facts["supports"] == 40
