"""The encoder inside the package, and encoders of one's own in folders."""

import dataclasses
from importlib import resources
from pathlib import Path

import pytest
import torch

from kshot.backbones import tiny
from kshot.backbones._net import Net
from kshot.backbones.base import DEFAULT, load_backbone, specs
from kshot.errors import BackboneError, SettingError
from tests.support.nets import SMALL


def test_it_is_the_default_and_needs_nothing_else() -> None:
    assert DEFAULT == "tiny"
    assert load_backbone("tiny", device="cpu").spec is tiny.SPECS["tiny"]


def test_it_takes_less_than_twelve_megabytes() -> None:
    assert resources.files("kshot.backbones").joinpath("tiny.safetensors").stat().st_size <= 12_000_000


def test_it_tells_objects_and_the_whole_image() -> None:
    found = load_backbone("tiny", device="cpu").encode(torch.randn(2, 3, 72, 56))
    assert found.dense.shape == (2, 192, 9, 7)
    assert found.objectness is not None and found.objectness.shape == (2, 9, 7)
    assert float(found.objectness.min()) >= 0 and float(found.objectness.max()) <= 1


def test_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny.SPECS, "tiny", dataclasses.replace(tiny.SPECS["tiny"], sha256="0" * 64))
    with pytest.raises(BackboneError, match=r"tiny\.safetensors.*install kshot again"):
        load_backbone("tiny", device="cpu")


def test_it_has_no_layers_to_choose_from() -> None:
    with pytest.raises(SettingError, match="no layers"):
        load_backbone("tiny", device="cpu", layers=("1",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return tiny.save(Net(SMALL), tmp_path / "mine", {"licence": "of the house"})


def test_an_encoder_of_ones_own_is_a_backbone(folder: Path) -> None:
    one, other = (load_backbone(str(folder), device="cpu") for _ in range(2))
    assert one.spec.dim == SMALL.dim and one.spec.licence == "of the house"
    assert one.identity == other.identity != load_backbone("tiny", device="cpu").identity
    assert one.encode(torch.zeros(1, 3, 16, 24)).dense.shape == (1, SMALL.dim, 2, 3)
    assert str(folder) not in specs()


def test_weights_of_another_plan_are_refused(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"eighth": 6', '"eighth": 8'))
    with pytest.raises(BackboneError, match="no encoder of this plan"):
        load_backbone(str(folder), device="cpu")


def test_damaged_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BackboneError, match="train or copy it again"):
        load_backbone(str(folder), device="cpu")
