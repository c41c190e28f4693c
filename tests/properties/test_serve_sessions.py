"""Any order of strokes, undo, accepting and exporting, in two windows: what is on the disk is what was accepted."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import kshot
from kshot.io.images import read_mask
from tests.support.served import client, mask_of, pictures, settled

IMAGES = st.integers(0, 2)
WINDOWS = st.sampled_from(["one", "two"])


class Sessions(RuleBasedStateMachine):
    """Beside the server, a model: the accepted mask of each image, and the steps of each window."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.out = self.place / "out"
        segmenter = kshot.Segmenter(backbone="toy", size=64, method="prototype")
        self.context = client(pictures(self.place / "images", 3), self.out, segmenter)
        self.served = self.context.__enter__()
        self.served.post("/api/classes", json={"name": "disc"})
        self.accepted: dict[int, np.ndarray] = {}
        self.steps: dict[str, list[tuple[int, np.ndarray | None]]] = {"one": [], "two": []}
        self.changed: dict[int, list[str]] = {}
        """The windows whose changes of an image hold, in order; only the last one's can be taken back."""

    def teardown(self) -> None:
        self.context.__exit__(None, None, None)
        shutil.rmtree(self.place)

    def did(self, window: str, index: int) -> None:
        self.steps[window].append((index, self.accepted.get(index)))
        self.changed.setdefault(index, []).append(window)

    def post(self, path: str, window: str, body: object = None) -> int:
        return self.served.post(path, json=body, headers={"X-Kshot-Session": window}).status_code

    @rule(index=IMAGES, window=WINDOWS, x=st.integers(0, 127), y=st.integers(0, 95), on=st.booleans())
    def paint(self, index: int, window: str, x: int, y: int, on: bool) -> None:
        self.did(window, index)
        stroke = {"kind": "stroke", "on": on, "radius": 6, "grow": False, "points": [[x, y], [x + 9, y]]}
        assert self.post(f"/api/images/{index}/marks", window, stroke) == 200

    @rule(index=IMAGES, window=WINDOWS, threshold=st.sampled_from([64, 128, 200]))
    def accept(self, index: int, window: str, threshold: int) -> None:
        about = self.served.get(f"/api/images/{index}").json()
        if about["marks"] or about["state"] not in {"accepted", "rejected"}:
            self.did(window, index)
        assert self.post(f"/api/images/{index}/accept", window, {"threshold": threshold}) == 200
        self.accepted[index] = mask_of(self.served, index)

    @rule(index=IMAGES, window=WINDOWS)
    def reject(self, index: int, window: str) -> None:
        self.did(window, index)
        assert self.post(f"/api/images/{index}/reject", window) == 200
        self.accepted[index] = np.zeros((96, 128), np.uint8)

    @precondition(lambda self: any(self.steps.values()))
    @rule(window=WINDOWS)
    def undo(self, window: str) -> None:
        code = self.post("/api/undo", window)
        if not self.steps[window]:
            assert code == 409
            return
        index, before = self.steps[window].pop()
        if self.changed[index][-1:] != [window]:
            assert code == 409
            return
        if code == 409:  # a step of the other window lies between
            return
        assert code == 200
        self.changed[index].pop()
        if before is None:
            self.accepted.pop(index, None)
        else:
            self.accepted[index] = before

    @precondition(lambda self: self.accepted)
    @rule()
    def export(self) -> None:
        settled(self.served)
        done = self.served.post("/api/export", json={"format": "coco", "overwrite": True, "accepted_only": True})
        assert done.status_code == 200, done.text
        images = json.loads(Path(done.json()["path"]).read_text())["images"]
        assert {image["file_name"] for image in images} == {f"{index}.png" for index in self.accepted}

    @invariant()
    def the_disk_holds_what_was_accepted(self) -> None:
        found = {int(path.stem): read_mask(path, drawn=False) for path in (self.out / "accepted").glob("*.png")}
        assert found.keys() == self.accepted.keys()
        assert all(np.array_equal(found[index], self.accepted[index]) for index in found)


Sessions.TestCase.settings = settings(
    max_examples=8, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSessions = Sessions.TestCase
