"""Inference engines give torch's features within the stated tolerance, alone or in a batch, or are not used."""

import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import kshot
from kshot.backbones.base import Backbone, load_backbone
from kshot.cli import app
from kshot.errors import BackboneError, SettingError
from kshot.features import _openvino, accelerate, engines, extract, extract_many, precision_of
from kshot.features._openvino import load
from kshot.io.manifest import read_settings
from kshot.ops.processor import has_matrix_units
from kshot.types import Shot
from tests.support import with_heads
from tests.support.drawing import draw

HAS_AMX = has_matrix_units()
FAST = ["openvino", pytest.param("autocast", marks=pytest.mark.skipif(not HAS_AMX, reason="needs a CPU with AMX"))]


@pytest.fixture(scope="module", autouse=True)
def engine_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled networks of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("KSHOT_INFERENCE_ENGINE", raising=False)
        yield folder / "kshot" / "engines"


@pytest.fixture(scope="module")
def reference() -> Backbone:
    return load_backbone("tiny", device="cpu")


@pytest.fixture(params=FAST)
def fast(request: pytest.FixtureRequest, reference: Backbone) -> Backbone:
    return accelerate(reference, request.param)


def test_features_agree_with_float32(fast: Backbone, reference: Backbone) -> None:
    found = engines.agreement_with(reference, fast.encode)
    assert found.cosine >= 0.999 and found.neighbours >= 0.94
    image = draw(3)[0]
    own, other = extract(reference, image, 208), extract(fast, image, 208)
    assert own.identity == other.identity and own.token is not None and other.token is not None
    assert float(own.token @ other.token) > 0.999
    torch.testing.assert_close(own.objectness, other.objectness, atol=0.05, rtol=0)


@pytest.mark.parametrize("size_hw", [(20, 400), (400, 20), (64, 64), (5, 7)])
def test_any_shape_goes(fast: Backbone, reference: Backbone, size_hw: tuple[int, int]) -> None:
    image = draw(1)[0]
    image = np.resize(image, (*size_hw, 3))
    own, other = (extract(backbone, image, 96).tokens for backbone in (reference, fast))
    assert own.shape == other.shape and float((own * other).sum(1).mean()) > 0.995


def test_a_batch_equals_single_runs_bit_by_bit(fast: Backbone) -> None:
    images = [draw(seed)[0] for seed in range(3)]
    for one, several in zip(
        (extract(fast, image, 96) for image in images), extract_many(fast, images, 96), strict=True
    ):
        assert torch.equal(one.features, several.features)


def test_threads_share_an_engine(fast: Backbone) -> None:
    images = [draw(seed)[0] for seed in range(4)]
    alone = [extract(fast, image, 96).features for image in images]
    found: dict[int, torch.Tensor] = {}

    def run(index: int) -> None:
        found[index] = extract(fast, images[index], 96).features

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[index], one) for index, one in enumerate(alone))


def test_another_process_gets_the_same_engine(fast: Backbone) -> None:
    copy, image = pickle.loads(pickle.dumps(fast)), draw(2)[0]
    assert precision_of(copy) == precision_of(fast) != "torch.float32"
    assert torch.equal(extract(copy, image, 96).features, extract(fast, image, 96).features)


def test_tasks_work_across_engines(tmp_path: Path) -> None:
    shots = [Shot(picture, mask=mask, label="disc") for picture, mask in map(draw, (1, 2))]
    plain, quick = (kshot.Segmenter(backbone="tiny", size=192, engine=engine) for engine in ("torch", "openvino"))
    path = quick.fit(shots).save(tmp_path / "disc.kshot")
    task = kshot.load_task(path)
    assert task.feature_spec.precision == precision_of(quick.backbone)
    picture = draw(5)[0]
    masks = [segmenter.predict(task, picture).mask for segmenter in (plain, quick)]
    assert masks[0].any() and (masks[0] == masks[1]).mean() > 0.99


def test_a_run_says_its_engine_and_goes_on_with_no_other(
    support_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    own = [str(support_folder), str(image_folder), "-o", str(out), "--size", "96", "--workers", "auto"]
    run = CliRunner().invoke(app, ["label", *own, "--inference-engine", "openvino"])
    assert run.exit_code == 0, run.output
    assert read_settings(out)["engine"] == f"openvino.{_openvino.precision()}"
    again = CliRunner().invoke(app, ["label", *own, "--inference-engine", "torch", "--resume"])
    assert again.exit_code and "now it is torch.float32; give the same again (--inference-engine)" in str(
        again.exception
    )


def test_auto_is_the_first_engine_that_agrees(reference: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision_of(accelerate(reference)).startswith("openvino.")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    without = precision_of(accelerate(reference))
    assert without == ("autocast.bfloat16" if HAS_AMX else "torch.float32")
    with pytest.raises(SettingError, match=r"openvino is not installed; pip install 'kshot\[fast\]'"):
        accelerate(reference, "openvino")
    monkeypatch.setenv("KSHOT_INFERENCE_ENGINE", "torch")
    assert accelerate(reference) is reference


def test_an_engine_that_does_not_agree_is_refused_with_its_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A network of which more is asked than any engine can give, on processors with and without bfloat16."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "MIN_COSINE", 1.1)
    backbone = load_backbone("tiny", device="cpu")
    refused = r"tiny: the engine openvino\.\w+ is not used: .*mean cosine (0\.9|1\.0)\d* \(at least 1\.1\)"
    for _ in range(2):  # the second time from what was kept of the first
        with pytest.raises(BackboneError, match=refused):
            accelerate(backbone, "openvino")
    assert accelerate(backbone, "auto") is backbone


def test_what_has_no_network_keeps_torch() -> None:
    classic = load_backbone("classic", device="cpu")
    assert accelerate(classic, "auto") is classic
    with pytest.raises(SettingError, match="classic: has no network that an engine could run"):
        accelerate(classic, "openvino")
    half = load_backbone("tiny", device="cpu", dtype="bfloat16")
    assert accelerate(half, "auto") is half
    with pytest.raises(SettingError, match="the dtype has to be float32"):
        accelerate(half, "openvino")
    with pytest.raises(SettingError, match="no inference engine is called 'onnx'; use auto, torch, openvino, autocast"):
        accelerate(half, "onnx")


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip", "heads"])
def test_other_networks_give_the_same_or_say_why_not(kind: str, tmp_path: Path) -> None:
    """Small networks with random weights: their patch tokens lie close together, so neighbours may change."""
    folder = with_heads.make_headed(tmp_path) if kind == "heads" else with_heads.make(tmp_path, kind)
    backbone = load_backbone(str(folder), device="cpu")
    try:
        found = engines.agreement_with(backbone, accelerate(backbone, "openvino").encode)
    except BackboneError as error:
        assert re.search(r"differ from those of float32: mean cosine (0\.999|1\.0)", str(error)), error
    else:
        assert found.enough


def test_a_damaged_file_is_made_again(
    reference: Backbone, engine_files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = extract(accelerate(reference, "openvino"), draw(1)[0], 96).features
    for path in engine_files.glob("*.compiled"):
        path.write_bytes(path.read_bytes()[:-100])
    assert torch.equal(extract(accelerate(reference, "openvino"), draw(1)[0], 96).features, expected)
    assert "damaged, so it is made again" in caplog.text


def test_nobody_is_told_of_the_import(tmp_path: Path) -> None:
    """OpenVINO's converter reports each import and keeps a number of its user at home, unless it is kept from it."""
    code = (
        "from kshot.features import _openvino as o; o.load().convert_model; import sys, os; print(sorted(os.listdir()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]", done.stdout
    assert load().__name__ == "openvino"
