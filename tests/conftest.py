"""Fixtures for all tests: drawn pictures, tiny random transformers, and the development data when it is there."""

import os
import runpy
from pathlib import Path

# Set before the Hub's library is imported anywhere: no test may wait for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# xdist runs one process a core: more threads in each would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Numbers that tests compare must not depend on the processor; tests of the engines ask for them.
os.environ.setdefault("KSHOT_INFERENCE_ENGINE", "torch")

import numpy as np
import pytest
import torch
from PIL import Image

import kshot
from kshot.types import Shot
from tests.support.drawing import draw

# Backbones for tests alone, such as `toy`: here, and in every process that a test starts.
EXTRA = Path(__file__).parent / "support" / "extra"
os.environ["PYTHONPATH"] = os.pathsep.join([str(EXTRA), *filter(None, [os.environ.get("PYTHONPATH")])])
runpy.run_path(str(EXTRA / "sitecustomize.py"))

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which methods the contract tests are about."""
    parser.addoption("--method", action="append", help="a name, or a Python file; by default all that are installed")


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the development data in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def vit_tiny(shared: Path) -> str:
    return str(shared / "weights" / "vit-tiny-patch16-224")


@pytest.fixture
def shots() -> list[Shot]:
    pairs = [draw(seed) for seed in (1, 2)]
    return [Shot(picture, mask=mask, label="disc") for picture, mask in pairs]


@pytest.fixture(scope="session")
def toy() -> kshot.Segmenter:
    return kshot.Segmenter(backbone="toy", size=96)


@pytest.fixture
def support_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "support"
    (folder / "disc").mkdir(parents=True)
    for seed in (1, 2):
        picture, mask = draw(seed)
        Image.fromarray(picture).save(folder / "disc" / f"{seed}.jpg", quality=95)
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "disc" / f"{seed}.png")
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for seed, name in ((3, "a.jpg"), (4, "b.png"), (5, "sub/a.jpg")):
        Image.fromarray(draw(seed)[0]).save(folder / name)
    Image.fromarray(draw(6, disc=False)[0]).save(folder / "none.jpg", quality=95)
    return folder


@pytest.fixture(scope="session")
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SAM with random weights, of 64 pixels a side."""
    import transformers

    torch.manual_seed(0)
    width = {"hidden_size": 16}
    config = transformers.SamConfig(
        vision_config={
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "output_channels": 16,
            "mlp_dim": 16,
            "window_size": 4,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
            **width,
        },
        prompt_encoder_config={"image_size": 64, "patch_size": 8, **width},
        mask_decoder_config={"mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16, **width},
    )
    folder = tmp_path_factory.mktemp("sam")
    transformers.SamModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def comparison_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small head of `dense-comparison`, trained here for some steps on discs of many colours."""
    from tests.support.disc_episodes import trained_head

    return trained_head(tmp_path_factory.mktemp("head"))


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)
