"""What a support's own objects tell: read from numbered masks and from annotations, kept in the task, used by a run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.annotations.model import Annotation, AnnotationSet, Export, LabelledImage
from kshot.annotations.shots import shots_of
from kshot.batch import label_folder
from kshot.errors import SettingError
from kshot.types import Shot
from tests.support.drawing import draw


@pytest.fixture
def picture() -> np.ndarray:
    return draw(1)[0]


def numbered(size_hw: tuple[int, int], side: int = 20) -> np.ndarray:
    """Four squares that touch in pairs, each with a number of its own; one is cut by the border."""
    numbers = np.zeros(size_hw, np.uint16)
    for number, (y, x) in enumerate([(10, 10), (10, 30), (40, 10), (40, 30)], start=300):
        numbers[y : y + side, x : x + side] = number
    numbers[0:3, 0:3] = 7
    return numbers


def areas_of(task: kshot.Task) -> float:
    return float(np.exp(task.object_shapes["cell"].log_area))


def test_a_mask_that_numbers_objects_tells_their_size(toy: kshot.Segmenter, picture: np.ndarray) -> None:
    numbers = numbered(picture.shape[:2])
    task = toy.fit([Shot(picture, mask=numbers, label="cell")])
    assert task.object_shapes["cell"].count == 4 and areas_of(task) == pytest.approx(400)
    plain = toy.fit([Shot(picture, mask=numbers > 7, label="cell")])
    assert plain.object_shapes["cell"].count == 2 and areas_of(plain) == pytest.approx(800)  # two pairs


def test_annotations_tell_it_too(toy: kshot.Segmenter, picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    numbers = numbered(picture.shape[:2])
    found = tuple(Annotation.from_mask(numbers == number, "cell") for number in (300, 301, 302, 303))
    image = LabelledImage("a.png", picture.shape[:2], found, tmp_path / "a.png")
    for objects, area in ((True, 400), (False, 800)):
        shots = shots_of(AnnotationSet(("cell",), [image], objects=objects))
        assert areas_of(toy.fit(shots)) == pytest.approx(area)


def test_a_task_file_keeps_it_and_more_shots_add_to_it(
    toy: kshot.Segmenter, picture: np.ndarray, tmp_path: Path
) -> None:
    task = toy.fit([Shot(picture, mask=numbered(picture.shape[:2]), label="cell")])
    again = kshot.load_task(task.save(tmp_path / "cell.kshot"))
    assert again.object_shapes == task.object_shapes and again.digest() == task.digest()
    more = again.with_shots([Shot(draw(2)[0], mask=numbered(picture.shape[:2]), label="cell")], toy)
    assert more.object_shapes["cell"].count == 8


def test_a_run_takes_objects_apart_by_it_and_says_where_it_cannot(
    toy: kshot.Segmenter, shots: list[Shot], image_folder: Path, tmp_path: Path
) -> None:
    task, export = toy.fit(shots), Export(instances="learned")
    out = tmp_path / "out"
    summary = label_folder(toy, task, image_folder, out, formats=("png", "scores"), export=export, table="o.csv")
    found = [one for pred in toy.predict_many(task, image_folder) for one in pred.instances("learned")]
    assert summary.objects == len(kshot.to_table(out)) <= len(found)
    boxes = toy.fit([Shot(draw(1)[0], boxes=[[10, 10, 60, 60]], label="disc")])
    with pytest.raises(SettingError, match="disc; use watershed"):
        label_folder(toy, boxes, image_folder, tmp_path / "other", export=export)
