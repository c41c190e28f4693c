"""A Ray cluster leaves what a local run leaves. A real one of two workers, started once."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import kshot
from kshot.annotations.model import Export
from kshot.batch import label_folder, ray_engine
from kshot.batch.inputs import Input
from kshot.batch.stages import Stages
from kshot.cli import app
from kshot.errors import OutputError, SettingError
from kshot.formats.base import load_format
from kshot.types import Shot
from tests.support.drawing import draw
from tests.support.runs import contents

FORMATS = ("png", "overlay", "scores", "coco", "yolo")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="needs the extra ray")
    ray = ray_engine.load()
    assert ray_engine._connect(ray, 2)
    yield ray
    ray.shutdown()


@pytest.fixture
def task(toy: kshot.Segmenter, shots: list[Shot]) -> kshot.Task:
    return toy.fit(shots)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray warns of its own affairs
def test_a_cluster_leaves_what_a_local_run_leaves(
    cluster: Any,
    toy: kshot.Segmenter,
    task: kshot.Task,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (image_folder / "broken.jpg").write_bytes(b"no image")
    pages = [Image.fromarray(draw(seed)[0]) for seed in (8, 9)]
    pages[0].save(image_folder / "scan.tif", save_all=True, append_images=pages[1:])
    (image_folder / "näme \N{SNOWMAN}.jpg").write_bytes((image_folder / "a.jpg").read_bytes())
    how: dict[str, Any] = {"formats": FORMATS, "export": Export(instances="components")}
    label_folder(toy, task, image_folder, tmp_path / "local", **how)
    out, images = Path("out"), Path(image_folder.name)  # relative: actors work elsewhere
    summary = label_folder(toy, task, images, out, engine=ray_engine.on_ray, workers=2, **how)
    assert (summary.processed, summary.failed, summary.total) == (8, 1, 8)
    assert contents(out) == contents(tmp_path / "local")
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [r["input"] for r in records] == sorted(r["input"] for r in records)
    assert ["not an image" in r["reason"] for r in records if r["status"] == "failed"] == [True]
    assert {"read", "infer", "write"} <= json.loads((out / "timing.jsonl").read_text().splitlines()[0]).keys()

    (out / "masks" / "b.png").unlink()
    again = label_folder(toy, task, images, out, engine=ray_engine.on_ray, workers=1, resume=True, **how)
    assert (again.processed, again.skipped) == (2, 6)  # the missing one and the failed one
    assert contents(out) == contents(tmp_path / "local")


def test_a_disk_that_takes_no_more_ends_the_run(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "sub").write_text("a file where a folder belongs")
    stages = Stages(lambda _, image, *__: toy.predict(task, image), {"png": load_format("png")}, tmp_path, 10**6)
    inputs = [Input(name, image_folder / name, name.removesuffix(".jpg")) for name in ("a.jpg", "sub/a.jpg")]
    (rows,) = ray_engine._Labeller(stages)({"input": [ray_engine._packed(each) for each in inputs]})
    results = ray_engine._results({name: column[i] for name, column in rows.items()} for i in range(2))
    assert next(results).record["mask"] == "masks/a.png"
    with pytest.raises(OutputError, match="cannot be written"):
        next(results)


def test_without_ray_the_way_to_get_it_is_named(
    support_folder: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["label", str(support_folder), str(image_folder), "-o", str(tmp_path / "out"), "--backbone", "toy"]
    wrong = CliRunner().invoke(app, [*command, "--engine", "ray"])
    assert wrong.exit_code == 1 and isinstance(wrong.exception, SettingError)
    assert "pip install 'kshot[ray]'" in str(wrong.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "why"), [(["--engine", "dask"], "local, ray"), (["--engine", "ray", "--watch"], "--watch")]
)
def test_engines_that_cannot_be_are_refused(
    options: list[str], why: str, support_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    command = ["label", str(support_folder), str(image_folder), "-o", str(tmp_path / "out"), "--backbone", "toy"]
    wrong = CliRunner().invoke(app, [*command, *options])
    assert wrong.exit_code == 1 and why in str(wrong.exception)


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ray:
        @staticmethod
        def is_initialized() -> bool:
            return False

        @staticmethod
        def init(**_: Any) -> None:
            raise ConnectionError("nobody there")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(SettingError, match=r"RAY_ADDRESS=10\.0\.0\.1:6379: no cluster answers"):
        ray_engine._connect(Ray, 2)
