"""The same job on a local Ray of two workers: the same bytes, and failed rows stay failed rows."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import kshot
from kshot.batch import label_folder
from kshot.errors import SettingError
from kshot.types import Shot

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
SCRIPT = """
import sys
from pathlib import Path
import kshot
from kshot.batch import label_folder
from kshot.types import Shot
from tests.conftest import draw

images, out = map(Path, sys.argv[1:])
segmenter = kshot.Segmenter(backbone="toy", size=96, device="cpu")
task = segmenter.fit([Shot(draw(seed)[0], mask=draw(seed)[1], label="disc") for seed in (1, 2)])
for engine, workers in (("local", 1), ("ray", 2)):
    summary = label_folder(segmenter, task, images, out / engine, formats=("overlay", "scores", "coco"),
                           engine=engine, workers=workers)
    assert (summary.processed, summary.failed) == (5, 1), summary
"""


@needs_ray
def test_the_same_bytes_as_a_local_run(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "broken.jpg").write_bytes(b"no image")
    command = [sys.executable, "-c", SCRIPT, str(image_folder), str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    local, ray = (
        {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "timing.jsonl"}
        for out in (tmp_path / "local", tmp_path / "ray")
    )
    assert local == ray and b"not an image" in ray["manifest.jsonl"]


def test_without_ray_it_says_so(
    toy: kshot.Segmenter, shots: list[Shot], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy.fit(shots)
    monkeypatch.setattr("kshot.batch.cluster.find_spec", lambda _: None)
    with pytest.raises(SettingError, match="pip install"):
        label_folder(toy, task, image_folder, tmp_path / "out", engine="ray")
    with pytest.raises(SettingError, match="watch"):
        label_folder(toy, task, image_folder, tmp_path / "out", engine="ray", watch=True)
    with pytest.raises(SettingError, match="engines are local, ray"):
        label_folder(toy, task, image_folder, tmp_path / "out", engine="spark")
