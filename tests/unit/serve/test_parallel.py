"""Many requests at once: none fails, and the steps of windows stay apart."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kshot
from tests.support.served import client, pictures, settled


def test_two_hundred_requests_at_once_fail_nowhere_and_mix_up_nothing(tmp_path: Path, toy: kshot.Segmenter) -> None:
    images = pictures(tmp_path / "images")
    with client(images, tmp_path / "out", toy) as served:
        served.post("/api/classes", json={"name": "disc"})

        def ask(number: int) -> int:
            window, index = f"window {number % 2}", number % 2
            if number % 5 == 0:
                mark = {"kind": "stroke", "grow": False, "radius": 2, "points": [[number % 100, 10 + index]]}
                headers = {"X-Kshot-Session": window}
                return served.post(f"/api/images/{index}/marks", json=mark, headers=headers).status_code
            path = (f"images/{number % 4}/mask", "images?limit=3", "status", f"images/{number % 4}/image")[number % 4]
            return served.get(f"/api/{path}").status_code

        with ThreadPoolExecutor(40) as pool:
            assert set(pool.map(ask, range(200))) == {200}
        settled(served)
        for index in (0, 1):
            assert len(served.get(f"/api/images/{index}").json()["marks"]) == 20
        for index in (0, 1):
            headers = {"X-Kshot-Session": f"window {index}"}
            undone = [served.post("/api/undo", headers=headers).json() for _ in range(20)]
            assert undone == [{"index": index}] * 20
            assert served.post("/api/undo", headers=headers).status_code == 409
        assert all(served.get(f"/api/images/{index}").json()["marks"] == [] for index in (0, 1))
