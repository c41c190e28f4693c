"""A Ray cluster leaves what a local run leaves. A real one of two workers, started once."""

import json
import os
import signal
import sys
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import kshot
from kshot.annotations.model import Export
from kshot.batch import label_folder, ray_engine
from kshot.batch.inputs import Input
from kshot.batch.stages import ImageResult, Stages
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
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
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


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_an_image_that_kills_its_actors_fails_and_no_other(
    cluster: Any, toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    def deadly(source: Input, image: Any, *_: Any) -> kshot.Prediction:
        if source.name == "b.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return toy.predict(task, image)

    def engine(inputs: Iterable[Input | None], stages: Stages, workers: int | None) -> Generator[ImageResult]:
        return ray_engine.on_ray(inputs, replace(stages, predict=deadly), workers)

    summary = label_folder(toy, task, image_folder, tmp_path / "out", engine=engine, workers=2)
    assert (summary.processed, summary.failed) == (4, 1)
    assert [failure["input"] for failure in summary.failures] == ["b.png"]
    assert "3 actors died at this image alone" in summary.failures[0]["reason"]


def test_a_batch_at_which_an_actor_died_is_done_in_halves_until_one_image_is_left() -> None:
    inputs = [Input(str(number), Path(str(number)), str(number)) for number in range(5)]
    again = ray_engine._Batch(inputs).again()
    assert [[each.name for each in batch.inputs] for batch in again] == [["0", "1"], ["2", "3", "4"]]
    (second,) = ray_engine._Batch(inputs[:1]).again()
    (third,) = second.again()
    assert third.again() == []


@pytest.fixture
def labeller(toy: kshot.Segmenter, task: kshot.Task, tmp_path: Path) -> ray_engine._Labeller:
    """As an actor is once it has the stages; its output folder holds the settings `{}`."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_bytes(b"{}")
    made = ray_engine._Labeller([], b"{}", {})
    made.stages = Stages(
        lambda _, image, *__: toy.predict(task, image), {"png": load_format("png")}, tmp_path / "out", 10**6
    )
    return made


def test_a_disk_that_takes_no_more_ends_the_run(
    labeller: ray_engine._Labeller, image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "masks").mkdir()
    (tmp_path / "out" / "masks" / "sub").write_text("a file where a folder belongs")
    names = ("a.jpg", "sub/a.jpg")
    results, problem = labeller.label([Input(name, image_folder / name, name.removesuffix(".jpg")) for name in names])
    assert [result.record["mask"] for result in results] == ["masks/a.png"]
    assert isinstance(problem, OutputError) and "cannot be written" in str(problem)


def test_a_machine_that_lacks_a_shared_folder_writes_nothing(
    labeller: ray_engine._Labeller, image_folder: Path, tmp_path: Path
) -> None:
    results, problem = labeller.label([Input("a.jpg", tmp_path / "elsewhere" / "a.jpg", "a")])
    assert not results and isinstance(problem, SettingError)
    assert f"no folder of images {tmp_path / 'elsewhere'} on " in str(problem)
    (tmp_path / "out" / "settings.json").write_bytes(b'{"another": "run"}')
    results, problem = labeller.label([Input("a.jpg", image_folder / "a.jpg", "a")])
    assert not results and isinstance(problem, SettingError)
    assert f"output folder {tmp_path / 'out'} on " in str(problem)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["settings.json"]


def test_a_machine_with_another_kshot_is_named(labeller: ray_engine._Labeller) -> None:
    with pytest.raises(SettingError, match=r"has kshot .*, and this run is of 9\.9"):
        labeller.start("9.9")


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
