"""What marks make of the mask of the open image, where masks of other classes are there already."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import kshot
from kshot.serve.quick import OpenImage
from tests.support.drawing import draw as draw_picture
from tests.support.served import client, disc, mask_of, middle, pictures


@pytest.fixture
def served(tmp_path: Path, toy: kshot.Segmenter) -> Iterator[TestClient]:
    """Image 0 with its disc accepted as class 0; class 1 is the ground."""
    with client(pictures(tmp_path / "images"), tmp_path / "out", toy) as made:
        for name in ("disc", "ground"):
            made.post("/api/classes", json={"name": name})
        file = BytesIO()
        Image.fromarray(disc(0).astype(np.uint8)).save(file, "PNG")
        made.put("/api/images/0/mask", content=file.getvalue(), headers={"Content-Type": "image/png"})
        yield made


def draw(served: TestClient, **mark: object) -> np.ndarray:
    assert served.post("/api/images/0/marks", json=mark).status_code == 200
    return mask_of(served, 0)


def test_what_grows_beside_an_accepted_mask_leaves_it_whole(served: TestClient) -> None:
    found = draw(served, kind="click", class_index=1, x=4, y=4)
    assert np.array_equal(found == 1, disc(0)) and (found == 2).mean() > 0.2
    found = draw(served, kind="stroke", class_index=1, points=[[4, 90], [120, 90]], radius=2)
    assert np.array_equal(found == 1, disc(0))


def test_a_box_beside_it_leaves_it_whole_too(served: TestClient) -> None:
    found = draw(served, kind="box", class_index=1, box_xyxy=[0, 0, 128, 30])
    assert np.array_equal(found == 1, disc(0)) and (found == 2).any()


def test_a_mark_in_the_mask_of_another_class_takes_it_over(served: TestClient) -> None:
    found = draw(served, kind="click", class_index=1, **middle(0))
    assert (found[disc(0)] == 2).mean() > 0.5


def test_the_brush_paints_over_any_class(served: TestClient) -> None:
    x, y = middle(0)["x"], middle(0)["y"]
    found = draw(served, kind="stroke", class_index=1, points=[[x - 4, y], [x + 4, y]], radius=2, grow=False)
    assert (found[round(y), round(x) - 3 : round(x) + 4] == 2).all() and (found == 1).sum() > 0.5 * disc(0).sum()


def test_specks_that_nobody_marked_are_left_out(tmp_path: Path, toy: kshot.Segmenter) -> None:
    opened = OpenImage(toy.features(draw_picture(0)[0]), draw_picture(0)[0]).prepared()
    plane = np.zeros((96, 128), np.float32)
    plane[10:50, 10:50] = plane[70:72, 70:72] = plane[80:82, 100:102] = 1
    opened._drop_specks(plane, np.array([[100.5, 80.5]]))
    assert (plane[10:50, 10:50] == 1).all() and (plane[70:72, 70:72] < 0.5).all() and (plane[80:82, 100:102] == 1).all()
