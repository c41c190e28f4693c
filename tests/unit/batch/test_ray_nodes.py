"""Two nodes of a Ray cluster, which share no folder but those of the run; one of them dies in the middle.

Both are on this machine, each with its own working directory, home, cache and folder of temporary files.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import kshot
from kshot.batch import label_folder, ray_engine
from kshot.batch.inputs import Input
from kshot.batch.stages import ImageResult, Predict, Stages
from kshot.types import Prediction, Shot
from tests.support.drawing import draw
from tests.support.runs import contents

_TRIES = 300  # a fifth of a second each


def _until(condition: Callable[[], bool]) -> bool:
    for _ in range(_TRIES):
        if condition():
            return True
        time.sleep(0.2)
    return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _start_node(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """A raylet in a process group of its own, and nothing of this process's places in its environment."""
    places = {name: folder / name.lower() for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for place in (*places.values(), folder / "cwd"):
        place.mkdir(parents=True)
    environment = os.environ | {name: str(place) for name, place in places.items()} | {"NODE": folder.name}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--num-cpus=1", "--object-store-memory=100000000", *options],
            cwd=folder / "cwd",
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes, to which this process is connected."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    if sys.platform != "linux":
        pytest.skip("Ray has clusters of several nodes on Linux alone")
    # Short, because the sockets of Ray lie in it.
    folder = tmp_path_factory.mktemp("n")
    address = f"127.0.0.1:{_free_port()}"
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false"]
    head += [f"--ray-client-server-port={_free_port()}", f"--temp-dir={folder / 'r1'}", "--node-ip-address=127.0.0.1"]
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    groups = [_start_node(folder / "first", *head)]
    try:
        if not _until(lambda: _answers(address)):
            pytest.skip(f"no Ray head starts here: {(folder / 'first' / 'log').read_text()[-300:]}")
        second = [f"--address={address}", f"--temp-dir={folder / 'r2'}", "--node-ip-address=127.0.0.1"]
        groups.append(_start_node(folder / "second", *second))
        assert ray_engine._connect(ray, 0)
        if not _until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2):
            pytest.skip(f"no second Ray node starts here: {(folder / 'second' / 'log').read_text()[-300:]}")
        yield ray
    finally:
        ray.shutdown()
        for group in groups:
            os.killpg(group.pid, signal.SIGKILL)
            group.wait()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as tried:
        return tried.connect_ex((host, int(port))) == 0


@dataclass
class _Meeting:
    """Predicts once both nodes have an image; the second one then dies at it, raylet and all."""

    predict: Predict
    folder: Path

    def __call__(self, source: Input, *image: Any) -> Prediction:
        facts = {"cwd": str(Path.cwd()), "home": os.environ["HOME"], "flush": os.environ.get("KSHOT_FLUSH")}
        node = self.folder / os.environ["NODE"]
        node.write_text(json.dumps(facts))
        assert _until(lambda: len(list(self.folder.iterdir())) == 2)
        if node.name == "second":
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.predict(source, *image)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray warns of its own affairs
def test_nodes_share_the_folders_of_the_run_alone_and_one_may_die(
    nodes: Any, toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, met, task = tmp_path / "images", tmp_path / "met", toy.fit(shots)
    for folder in (images, met):
        folder.mkdir()
    for seed in range(10):
        Image.fromarray(draw(seed)[0]).save(images / f"{seed}.jpg")
    label_folder(toy, task, images, tmp_path / "local")
    monkeypatch.setenv("KSHOT_FLUSH", "0")
    nodes.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def meeting(inputs: Iterable[Input | None], stages: Stages, workers: int | None) -> Generator[ImageResult]:
        return ray_engine.on_ray(inputs, replace(stages, predict=_Meeting(stages.predict, met)), workers)

    monkeypatch.chdir(tmp_path)
    summary = label_folder(toy, task, Path("images"), Path("out"), engine=meeting)
    assert (summary.processed, summary.failed) == (10, 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "local")
    assert _until(lambda: sum(node["Alive"] for node in nodes.nodes()) == 1)
    first, second = (json.loads((met / name).read_text()) for name in ("first", "second"))
    assert first["flush"] == second["flush"] == "0"
    assert len({str(tmp_path), first["cwd"], second["cwd"]}) == 3
    assert len({os.environ["HOME"], first["home"], second["home"]}) == 3
