"""The whole job over the HTTP API: name, click, watch the others follow, correct, accept, export."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from starlette.testclient import TestClient

import kshot
from kshot.io.images import read_mask
from tests.support.commands import TOY, run
from tests.support.served import client, disc, iou, mask_of, middle, pictures, settled


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return pictures(tmp_path / "images")


@pytest.fixture
def served(images: Path, tmp_path: Path, toy: kshot.Segmenter) -> Iterator[TestClient]:
    with client(images, tmp_path / "out", toy) as made:
        yield made


def click(served: TestClient, index: int, **more: object) -> None:
    answer = served.post(f"/api/images/{index}/marks", json={"kind": "click", **middle(index), **more})
    assert answer.status_code == 200, answer.text


def test_one_click_finds_the_class_in_all_images(served: TestClient) -> None:
    served.post("/api/classes", json={"name": "disc"})
    click(served, 0)
    assert iou(mask_of(served, 0) == 1, disc(0)) > 0.6
    status = settled(served)
    assert status["fits"] == 1 and status["examples"] == [0]
    for index in (1, 2):
        assert iou(mask_of(served, index) == 1, disc(index)) > 0.6
    assert not mask_of(served, 3).any()


def test_the_folder_is_that_of_a_run(served: TestClient, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    served.post("/api/classes", json={"name": "disc"})
    click(served, 0)
    settled(served)
    served.post("/api/images/0/accept", json={})
    settled(served)
    assert [path.name for path in (out / "accepted").iterdir()] == ["0.png"]
    assert np.array_equal(read_mask(out / "masks" / "0.png"), read_mask(out / "accepted" / "0.png"))
    done = served.post("/api/export", json={"format": "coco"})
    assert done.status_code == 200, done.text
    coco = COCO(done.json()["path"])
    assert len(coco.imgs) == 4 and len(coco.anns) >= 3
    served.close()
    run("report", out)
    run("convert", out, "--to", "coco", "-o", tmp_path / "converted")
    assert (tmp_path / "converted" / "coco.json").read_text() == Path(done.json()["path"]).read_text()
    run("fit", "--add", out / "accepted", "-o", tmp_path / "disc.kshot", *TOY)


def test_a_run_goes_on_with_the_command_line(images: Path, tmp_path: Path, toy: kshot.Segmenter) -> None:
    out = tmp_path / "out"
    with client(images, out, toy) as served:
        served.post("/api/classes", json={"name": "disc"})
        click(served, 0)
        settled(served)
        served.post("/api/images/0/accept", json={})
        settled(served)
    accepted = (out / "masks" / "0.png").read_bytes()
    (out / "masks" / "2.png").unlink()
    result = run("predict", out / "task.kshot", images, "-o", out, "--format", "png", "--resume", "--json")
    assert json.loads(result.stdout)["skipped"] == 3
    assert (out / "masks" / "0.png").read_bytes() == accepted and (out / "masks" / "2.png").is_file()


def test_what_was_drawn_and_accepted_is_there_again(images: Path, tmp_path: Path, toy: kshot.Segmenter) -> None:
    out = tmp_path / "out"
    with client(images, out, toy) as served:
        served.post("/api/classes", json={"name": "disc", "colour": "#12ab34"})
        click(served, 0)
        served.post("/api/images/3/reject")
        before = mask_of(served, 0)
    with client(images, out, toy) as served:
        status = settled(served)
        assert status["classes"] == [{"name": "disc", "colour": "#12ab34"}]
        assert status["counts"]["drawn"] == 1 and status["counts"]["rejected"] == 1
        assert np.array_equal(mask_of(served, 0), before)


def test_steps_of_a_window_are_its_own(served: TestClient) -> None:
    served.post("/api/classes", json={"name": "disc"})
    one, two = {"X-Kshot-Session": "one"}, {"X-Kshot-Session": "two"}
    mark = {"kind": "click", **middle(0)}
    served.post("/api/images/0/marks", json=mark, headers=one)
    assert served.post("/api/undo", headers=two).status_code == 409
    served.post("/api/images/0/marks", json=mark | {"on": False, "x": 2, "y": 2}, headers=two)
    refused = served.post("/api/undo", headers=one)
    assert refused.status_code == 409 and "another window" in refused.json()["detail"]
    assert served.post("/api/undo", headers=two).json() == {"index": 0}
    assert len(served.get("/api/images/0").json()["marks"]) == 1


def test_undo_and_redo_go_over_accepted_masks(served: TestClient, tmp_path: Path) -> None:
    served.post("/api/classes", json={"name": "disc"})
    click(served, 0)
    shown = mask_of(served, 0)
    served.post("/api/images/0/accept", json={})
    path = tmp_path / "out" / "accepted" / "0.png"
    kept = path.read_bytes()
    served.post("/api/undo")
    assert not path.exists() and np.array_equal(mask_of(served, 0), shown)
    served.post("/api/undo")
    settled(served)
    assert not mask_of(served, 0).any() and not mask_of(served, 1).any()
    served.post("/api/redo")
    served.post("/api/redo")
    assert path.read_bytes() == kept and np.array_equal(mask_of(served, 0), shown)


def test_the_brush_is_exact_and_the_eraser_too(served: TestClient) -> None:
    served.post("/api/classes", json={"name": "disc"})
    click(served, 0)
    stroke = {"kind": "stroke", "radius": 4, "grow": False}
    served.post("/api/images/0/marks", json=stroke | {"points": [[5, 5], [25, 5]]})
    assert (mask_of(served, 0)[3:8, 5:26] == 1).all()
    served.post("/api/images/0/marks", json=stroke | {"points": [[15, 5]], "on": False})
    assert not mask_of(served, 0)[4:7, 14:17].any() and mask_of(served, 0)[5, 5] == 1
