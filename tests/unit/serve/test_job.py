"""The whole job over the HTTP API: name, click, watch the others follow, correct, accept, export."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from starlette.testclient import TestClient

import kshot
from kshot.io.images import read_mask
from tests.support.commands import TOY, run
from tests.support.drawing import draw
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


def test_a_window_is_a_part_of_the_image_at_its_own_sharpness(
    tmp_path: Path, toy: kshot.Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8), 16, 0), 16, 1)
    for name in ("small.png", "large.tif"):
        Image.fromarray(pixels).save(images / name)
    monkeypatch.setattr("kshot.serve.images._LARGE", 2**16)  # the TIFF is read in windows
    with client(images, tmp_path / "out", toy) as served:
        names = {row["index"]: row["name"] for row in served.get("/api/images").json()["images"]}
        for index in names:
            answer = served.get(f"/api/images/{index}/window", params={"x0": 64, "y0": 32, "x1": 320, "y1": 192})
            part = np.asarray(Image.open(BytesIO(answer.content))).astype(float)
            assert part.shape == (160, 256, 3) and abs(part - pixels[32:192, 64:320]).mean() < 12, names[index]
            beyond = served.get(f"/api/images/{index}/window", params={"x0": 630, "y0": 470, "x1": 900, "y1": 900})
            assert Image.open(BytesIO(beyond.content)).size == (10, 10)
            outside = served.get(f"/api/images/{index}/window", params={"x0": 700, "y0": 0, "x1": 900, "y1": 9})
            assert outside.status_code == 404 and "has no pixels" in outside.json()["detail"]
            copy = served.get(f"/api/images/{index}/image?side=64")
            assert Image.open(BytesIO(copy.content)).size == (64, 48)


def test_pages_of_a_tiff_are_images(tmp_path: Path, toy: kshot.Segmenter) -> None:
    images = tmp_path / "images"
    images.mkdir()
    first, *more = (Image.fromarray(draw(seed)[0]) for seed in range(3))
    first.save(images / "film.tif", save_all=True, append_images=more)
    with client(images, tmp_path / "out", toy) as served:
        served.post("/api/classes", json={"name": "disc"})
        click(served, 0)
        settled(served)
        names = [row["name"] for row in served.get("/api/images?sort=name").json()["images"]]
        assert len(names) == 3 and all(name.startswith("film.tif") for name in names)
        assert iou(mask_of(served, 2) == 1, disc(2)) > 0.6
        assert served.post("/api/images/1/accept", json={}).status_code == 200
    assert len(list((tmp_path / "out" / "accepted").rglob("*.png"))) == 1


def test_an_accepted_image_that_is_drawn_on_again_is_exported(served: TestClient, tmp_path: Path) -> None:
    served.post("/api/classes", json={"name": "disc"})
    served.post("/api/images/0/reject")  # no class is shown, so no task writes the others' masks
    stroke = {"kind": "stroke", "radius": 4, "grow": False, "points": [[15, 5]], "on": False}
    assert served.post("/api/images/0/marks", json=stroke).status_code == 200
    settled(served)
    done = served.post("/api/export", json={"format": "coco", "accepted_only": True})
    assert done.status_code == 200, done.text
    assert done.json()["images"] == 1
    assert not np.asarray(Image.open(tmp_path / "out" / "masks" / "0.png")).any()
