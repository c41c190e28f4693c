"""A run of 30 images, opened by the readers of the tools that it was written for: the extra `interop`.

What they find is compared with the run's own objects, to the pixel where they give masks.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kshot.formats.base import read_labels
from tests.support.commands import run
from tests.support.drawing import draw

# labelme leaves the images open that it reads.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
COUNT = 30
SIZE = (96, 256)
Masks = Counter[tuple[str, str, bytes]]
"""How often a mask, as bytes, is there with a class in an image, by its stem."""


def two_discs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a red disc on the left and a blue one on the right, one of them with a hole; and its labels."""
    (left, red), (right, blue) = draw(seed), draw(seed + 100)
    right[blue] = right[blue][:, ::-1]
    picture, labels = np.hstack([left, right]), np.hstack([red * 1, blue * 2]).astype(np.uint8)
    rows, columns = np.nonzero(labels == 1 + seed % 2)
    hole = np.s_[int(rows.mean()) - 10 : int(rows.mean()) + 10, int(columns.mean()) - 10 : int(columns.mean()) + 10]
    picture[hole], labels[hole] = (40, 160, 60), 0
    return picture, labels


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run."""
    place = tmp_path_factory.mktemp("interop")
    for folder in ("images", "support/images", "support/masks"):
        (place / folder).mkdir(parents=True)
    (place / "support" / "classes.txt").write_text("red\nblue\n")
    for seed in (1, 2):
        picture, labels = two_discs(seed)
        Image.fromarray(picture).save(place / "support" / "images" / f"{seed}.png")
        Image.fromarray(labels).save(place / "support" / "masks" / f"{seed}.png")
    for seed in range(3, 3 + COUNT):
        Image.fromarray(two_discs(seed)[0]).save(place / "images" / f"{seed:02}.{'jpg' if seed % 3 else 'png'}")
    chosen = ["--backbone", "toy", "--size", "160", "--instances", "components"]
    chosen += ["--format", "coco,cvat,labelme,label-studio"]
    run("label", place / "support", place / "images", "-o", place / "out", *chosen)
    return place / "out"


@pytest.fixture(scope="module")
def objects(out: Path) -> Masks:
    """The run's own objects."""
    found, _ = read_labels(out)
    masks = Counter(key(i.stem, one.label, one.mask) for i in found.images for one in i.annotations)
    assert len({stem for stem, _, _ in masks}) == COUNT and masks.total() > 1.5 * COUNT
    return masks


def key(name: str, label: str, mask: np.ndarray) -> tuple[str, str, bytes]:
    assert mask.shape == SIZE
    return Path(name).stem, label, np.packbits(mask.astype(bool)).tobytes()


def test_pycocotools(out: Path, objects: Masks) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(out / "coco.json")
    names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
    read: Masks = Counter()
    for one in coco.anns.values():
        read[key(coco.imgs[one["image_id"]]["file_name"], names[one["category_id"]], coco.annToMask(one))] += 1
    assert read == objects


def test_labelme(out: Path, objects: Masks) -> None:
    pytest.importorskip("labelme")
    from labelme._label_file import read_label_file
    from labelme.utils import shapes_to_label

    read: Masks = Counter()
    for path in sorted((out / "labelme").glob("*.json")):
        data = read_label_file(str(path))
        assert (path.parent / data.image_path).exists()
        for shape in data.shapes:
            mask = shapes_to_label(SIZE, [shape], {shape["label"]: 1})[0] > 0
            read[key(data.image_path, shape["label"], mask)] += 1
    assert read == objects


@pytest.mark.parametrize(("kind", "file"), [("coco_instances", "coco.json"), ("cvat", "cvat.xml")])
def test_datumaro(out: Path, objects: Masks, tmp_path: Path, kind: str, file: str) -> None:
    datumaro = pytest.importorskip("datumaro")
    folder = tmp_path / "annotations" if kind == "coco_instances" else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / (f"instances_{file}" if kind == "coco_instances" else file)).symlink_to(out / file)
    (tmp_path / "images").symlink_to(out.with_name("images"))
    data = datumaro.Dataset.import_from(str(tmp_path), kind)
    labels = [category.name for category in data.categories()[datumaro.AnnotationType.label]]
    read: Masks = Counter()
    for item in data:
        # Of COCO it makes the box of each mask too.
        masks = [one for one in item.annotations if one.type == datumaro.AnnotationType.mask]
        assert len(item.annotations) == len(masks) * (2 if kind == "coco_instances" else 1)
        for one in masks:
            read[key(item.id, labels[one.label], one.image)] += 1
    assert read == objects


def test_label_studio(out: Path, objects: Masks) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((out / "label_studio.xml").read_text())
    read: Masks = Counter()
    for task in json.loads((out / "label_studio.json").read_text()):
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction, return_errors=True) == []
            for region in prediction["result"]:
                (label,) = region["value"]["brushlabels"]
                read[key(task["data"]["image"].partition("?d=")[2], label, strokes(brush, region))] += 1
    assert read == objects


def strokes(brush: Any, region: dict[str, Any]) -> np.ndarray:
    pixels = brush.decode_rle(region["value"]["rle"])
    return pixels.reshape(region["original_height"], region["original_width"], 4)[..., 3] > 0
