"""Who may ask, and what is refused: names of other hosts, other sites, missing tokens, and bad input of every kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import kshot
from kshot.errors import InputError, OutputError, SettingError
from kshot.serve.guard import Guard
from kshot.serve.server import opened
from tests.support.served import client, disc, middle, pictures, settled

MARK = {"kind": "click", "x": 10, "y": 10}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return pictures(tmp_path / "images")


@pytest.fixture
def served(images: Path, tmp_path: Path, toy: kshot.Segmenter) -> Iterator[TestClient]:
    with client(images, tmp_path / "out", toy) as made:
        made.post("/api/classes", json={"name": "disc"})
        yield made


@pytest.fixture(params=["", "secret"])
def guarded(images: Path, tmp_path: Path, toy: kshot.Segmenter, request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(images, tmp_path / "out", toy, cache=tmp_path) as app, TestClient(app):
        yield TestClient(Guard(app, {"127.0.0.1:8765"}, request.param), "http://127.0.0.1:8765"), request.param


def test_other_hosts_and_other_sites_are_refused(guarded: tuple[TestClient, str]) -> None:
    asker, token = guarded
    own = {"Authorization": f"Bearer {token}"}
    assert asker.get("/api/status", headers=own).status_code == 200
    assert asker.get("/api/status", headers=own | {"Host": "evil.example:8765"}).status_code == 421
    assert asker.get("/api/status", headers=own | {"Origin": "http://evil.example"}).status_code == 403
    assert asker.post("/api/undo", headers=own | {"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert asker.post("/api/look", content="x", headers=own | {"Content-Type": "text/plain"}).status_code == 415
    assert asker.post("/api/look", content=b"x" * (33 * 2**20), headers=own).status_code == 413


def test_behind_an_address_for_all_the_token_decides_alone(images: Path, tmp_path: Path, toy: kshot.Segmenter) -> None:
    with opened(images, tmp_path / "out", toy, cache=tmp_path) as app, TestClient(app):
        asker = TestClient(Guard(app, set(), "secret"), "http://lab.example:8765")
        own = {"Authorization": "Bearer secret"}
        assert asker.get("/api/status").status_code == 401
        assert asker.get("/api/status", headers=own | {"Origin": "http://lab.example:8765"}).status_code == 200
        assert asker.get("/api/status", headers=own | {"Origin": "http://evil.example"}).status_code == 403


def test_a_token_is_asked_for_and_kept_as_a_cookie(guarded: tuple[TestClient, str]) -> None:
    asker, token = guarded
    assert asker.get("/api/status").status_code == (401 if token else 200)
    assert asker.get("/api/status", headers={"Authorization": "Bearer wrong"}).status_code == (401 if token else 200)
    first = asker.get(f"/?token={token}")
    assert first.status_code == 200 and ("set-cookie" in first.headers) == bool(token)
    assert asker.get("/api/status").status_code == 200  # the cookie
    if token:
        assert "HttpOnly" in first.headers["set-cookie"] and "SameSite=Strict" in first.headers["set-cookie"]


def test_every_answer_carries_a_strict_policy(guarded: tuple[TestClient, str]) -> None:
    asker, _ = guarded
    for path in ("/", "/api/status", "/nothing"):
        policy = asker.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy


def test_no_path_of_a_request_reaches_the_disk(served: TestClient) -> None:
    for path in ("/page/..%2fapp.py", "/page/../app.py", "/page/%2e%2e/app.py", "/api/images/..%2f0"):
        assert served.get(path).status_code in {404, 422}


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("{", 422, "JSON"),
        ('{"kind": "wave"}', 422, "wave"),
        ('{"kind": "click", "x": 1e9, "y": 1}', 422, "less than"),
        ('{"kind": "click", "x": NaN, "y": 1}', 422, ""),
        ('{"kind": "click", "x": 5000, "y": 1}', 400, "128 x 96"),
        ('{"kind": "click", "x": 1, "y": 1, "class_index": 7}', 400, "name it first"),
        ('{"kind": "box", "box_xyxy": [9, 9, 3, 3]}', 400, "no area"),
        ('{"kind": "stroke", "points": []}', 422, "at least 1"),
        (f'{{"kind": "stroke", "points": {[[1, 1]] * 10_000}}}', 422, "at most 4000"),
        ('{"kind": "stroke", "points": [[900, 900]]}', 400, "outside"),
        ('{"kind": "click", "x": 1, "y": 1, "path": "/etc/passwd"}', 422, "path"),
    ],
)
def test_bad_marks_get_a_clear_answer_and_change_nothing(served: TestClient, body: str, code: int, told: str) -> None:
    answer = served.post("/api/images/0/marks", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == code and told in answer.json()["detail"], answer.text
    assert served.get("/api/images/0").json()["marks"] == []


def test_class_names_are_text_whatever_they_hold(served: TestClient, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    assert served.post("/api/classes", json={"name": evil}).json()["classes"][1]["name"] == evil
    assert served.post("/api/classes", json={"name": evil}).status_code == 400
    assert served.post("/api/classes", json={"name": "a\nb"}).status_code == 400
    assert served.post("/api/classes", json={"name": "   "}).status_code == 400
    assert served.patch("/api/classes/9", json={"name": "x"}).status_code == 400
    assert served.post("/api/classes", json={"name": "x", "colour": "red"}).status_code == 422


def png(mask: np.ndarray) -> bytes:
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_masks_made_elsewhere_are_checked(served: TestClient, tmp_path: Path) -> None:
    def put(data: bytes) -> Any:
        return served.put("/api/images/0/mask", content=data, headers={"Content-Type": "image/png"})

    assert "not a PNG" in put(b"GIF89a").json()["detail"]
    assert "their image" not in put(png(disc(0))).text
    assert put(png(disc(0)[:50])).status_code == 400
    assert "label 3" in put(png(disc(0) * 3)).json()["detail"]
    assert put(png(np.zeros((96, 128, 3)))).status_code == 400
    assert put(png(disc(0))).status_code == 200
    assert served.get("/api/images/0").json()["state"] == "accepted"


def test_an_image_that_vanishes_costs_itself_alone(served: TestClient, images: Path) -> None:
    settled(served)
    (images / "2.png").unlink()
    assert served.get("/api/images/2/image?side=300").status_code in {200, 404}  # it may still be in memory
    served.post("/api/images/0/marks", json={"kind": "click", **middle(0)})
    assert settled(served)["counts"]["drawn"] == 1


def test_a_full_disk_loses_nothing_that_is_accepted(
    served: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.post("/api/images/0/marks", json={"kind": "click", **middle(0)})
    served.post("/api/images/0/accept", json={})
    settled(served)
    path = tmp_path / "out" / "accepted" / "0.png"
    kept = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for what, body in (("0/marks", MARK | {"on": False, **middle(0)}), ("1/reject", None), ("1/accept", {})):
        refused = served.post(f"/api/images/{what}", json=body)
        assert refused.status_code == 507 and "No space left" in refused.json()["detail"], what
    monkeypatch.undo()
    assert path.read_bytes() == kept and served.get("/api/images/0").json()["state"] == "accepted"
    assert served.post("/api/images/1/accept", json={}).status_code == 200


def test_a_mask_that_changed_since_is_not_accepted_unseen(served: TestClient) -> None:
    settled(served)
    seen = int(served.get("/api/images/0/mask").headers["x-kshot-revision"])
    served.post("/api/images/0/marks", json={"kind": "click", **middle(0)}, headers={"X-Kshot-Session": "other"})
    assert served.post("/api/images/0/accept", json={"revision": seen}).status_code == 409


def test_what_cannot_be_served_says_why(tmp_path: Path, images: Path, toy: kshot.Segmenter) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no image there"), opened(empty, tmp_path / "out", toy):
        pass
    with (
        pytest.raises(SettingError, match="--read-only shows results"),
        opened(images, tmp_path / "out", toy, read_only=True),
    ):
        pass
    with (
        client(images, tmp_path / "out", toy),
        pytest.raises(OutputError, match="another run is writing"),
        opened(images, tmp_path / "out", toy),
    ):
        pass
    (tmp_path / "mine" / "masks").mkdir(parents=True)
    (tmp_path / "mine" / "masks" / "x.png").write_bytes(b"mine")
    with pytest.raises(SettingError, match="no run of kshot made"), opened(images, tmp_path / "mine", toy):
        pass


def test_a_page_that_only_shows_changes_nothing(images: Path, tmp_path: Path, toy: kshot.Segmenter) -> None:
    out = tmp_path / "out"
    with client(images, out, toy) as served:
        served.post("/api/classes", json={"name": "disc"})
        served.post("/api/images/0/marks", json={"kind": "click", **middle(0)})
        settled(served)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with client(images, out, toy, read_only=True) as served:
        assert served.get("/api/status").json()["read_only"]
        assert served.get("/api/images/1").json()["areas"]["disc"] > 0.02
        for path, body in (("marks", MARK), ("accept", {}), ("reject", None), ("clear", None)):
            assert served.post(f"/api/images/1/{path}", json=body).status_code == 403
        assert served.post("/api/export", json={"format": "coco"}).status_code == 403
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
