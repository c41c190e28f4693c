"""The machine learning backend of Label Studio: its annotations are the examples, its tasks get masks."""

from pathlib import Path

import numpy as np

import kshot
from kshot.formats.label_studio import decode_brush, encode_brush
from tests.support.served import client, disc, iou, pictures, settled

CONFIG = """<View><Image name="photo" value="$image"/>
<BrushLabels name="what" toName="photo"><Label value="disc"/><Label value="ring"/></BrushLabels></View>"""


def task(number: int) -> dict[str, object]:
    return {"id": 7 + number, "data": {"image": f"/data/upload/1/0a1b2c3d-{number}.png"}}


def brush(mask: np.ndarray, label: str) -> dict[str, object]:
    value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]}
    size = {"original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0}
    return {"id": "a", "type": "brushlabels", "from_name": "what", "to_name": "photo", "value": value} | size


def test_annotations_teach_and_tasks_get_masks(tmp_path: Path, toy: kshot.Segmenter) -> None:
    images = pictures(tmp_path / "images")
    with client(images, tmp_path / "out", toy, label_studio=True) as served:
        assert served.get("/health").json()["status"] == "UP"
        before = served.post("/setup", json={"project": "1.0", "label_config": CONFIG, "hostname": "x"}).json()
        assert [one["name"] for one in served.get("/api/status").json()["classes"]] == ["disc", "ring"]
        asked = {"tasks": [task(1)], "label_config": CONFIG, "project": "1.0", "params": {"context": None}}
        assert served.post("/predict", json=asked).json()["results"][0]["result"] == []
        event = {"action": "ANNOTATION_CREATED", "task": task(0), "annotation": {"result": [brush(disc(0), "disc")]}}
        assert served.post("/webhook", json=event).status_code == 201
        settled(served)
        answer = served.post("/predict", json=asked).json()
        assert answer["model_version"] != before["model_version"]
        (found,) = answer["results"]
        (region,) = found["result"]
        assert (region["from_name"], region["to_name"], region["type"]) == ("what", "photo", "brushlabels")
        assert iou(decode_brush(bytes(region["value"]["rle"]), (96, 128)), disc(1)) > 0.6
        assert 0 < found["score"] <= 1 and region["value"]["brushlabels"] == ["disc"]
        assert served.get("/api/images/0").json()["state"] == "accepted"


def test_boxes_are_drawn_and_images_of_elsewhere_are_not_fetched(tmp_path: Path, toy: kshot.Segmenter) -> None:
    images = pictures(tmp_path / "images")
    with client(images, tmp_path / "out", toy, label_studio=True) as served:
        rows, columns = np.nonzero(disc(0))
        value = {"x": columns.min() / 1.28, "y": rows.min() / 0.96, "rotation": 0, "rectanglelabels": ["disc"]}
        value |= {"width": np.ptp(columns) / 1.28, "height": np.ptp(rows) / 0.96}
        box = {"id": "b", "type": "rectanglelabels", "from_name": "box", "to_name": "photo", "value": value}
        box |= {"original_width": 128, "original_height": 96, "image_rotation": 0}
        event = {"action": "ANNOTATION_UPDATED", "task": task(0), "annotation": {"result": [box]}}
        assert served.post("/webhook", json=event).status_code == 201
        assert served.get("/api/images/0").json()["state"] == "drawn"
        elsewhere = {"id": 1, "data": {"image": "http://example.invalid/secret.png"}}
        refused = served.post("/webhook", json=event | {"task": elsewhere})
        assert refused.status_code == 400 and "is not in" in refused.json()["detail"]
        assert served.post("/predict", json={"tasks": [elsewhere]}).json()["results"][0]["result"] == []
        assert served.post("/webhook", json={"action": "PROJECT_UPDATED"}).json() == {"status": "left out"}
        assert served.post("/setup", json={"label_config": "<View"}).status_code == 400
