"""The encoder inside the package, encoders of one's own in folders, and the network behind them."""

import contextlib
import dataclasses
import json
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.backbones import tiny
from kshot.backbones.base import DEFAULT, load_backbone, specs
from kshot.backbones.tiny import Block, Net
from kshot.errors import BackboneError, SettingError
from tests.support.nets import SMALL


def test_it_is_the_default_and_needs_nothing_else() -> None:
    assert DEFAULT == "tiny"
    assert load_backbone("tiny", device="cpu").spec is tiny.SPECS["tiny"]


def test_it_takes_less_than_twelve_megabytes() -> None:
    assert resources.files("kshot.backbones").joinpath("tiny.safetensors").stat().st_size <= 12_000_000


def test_it_tells_objects_and_the_whole_image() -> None:
    found = load_backbone("tiny", device="cpu").encode(torch.randn(2, 3, 144, 112))
    assert found.dense.shape == (2, 384, 9, 7)
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
    assert one.encode(torch.zeros(1, 3, 32, 48)).dense.shape == (1, SMALL.dim, 2, 3)
    assert str(folder) not in specs()


def test_weights_of_another_plan_are_refused(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"grid": 3', '"grid": 4'))
    with pytest.raises(BackboneError, match="no encoder of these sizes"):
        load_backbone(str(folder), device="cpu")


def test_damaged_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BackboneError, match="train or copy it again"):
        load_backbone(str(folder), device="cpu")


ODD = st.sampled_from([None, True, -1, 0, 10**9, 10**30, 1.5, "x", [], {}, [1, 2], [[1]], "\ud800"])


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(["model_type", "plan", *(field.name for field in dataclasses.fields(SMALL))]),
    value=ODD,
    at=st.integers(0, 3000),
    flip=st.integers(1, 255),
    of=st.sampled_from(["value", "config.json", "model.safetensors"]),
)
def test_damaged_files_are_a_backbones_error(key: str, value: object, at: int, flip: int, of: str) -> None:
    with TemporaryDirectory() as place:
        folder = tiny.save(Net(SMALL), Path(place), {})
        config = json.loads((folder / "config.json").read_text())
        (config if key in config else config["plan"])[key] = value
        if of == "value":
            (folder / "config.json").write_text(json.dumps(config))
        else:
            data = bytearray((folder / of).read_bytes())
            data[at % len(data)] ^= flip
            (folder / of).write_bytes(data)
        with contextlib.suppress(BackboneError):
            load_backbone(str(folder), device="cpu")


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_every_grid_of_sixteen_pixels_works(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    out = Net(SMALL).eval()(torch.randn(2, 3, 16 * rows, 16 * columns))
    assert out.dense.shape == (2, 12, rows, columns)
    assert out.token.shape == (2, 12) and out.objectness.shape == (2, rows, columns)


def test_attention_is_the_same_in_training_and_in_use() -> None:
    torch.manual_seed(0)
    block, tokens = Block(16, 2), torch.randn(2, 7, 16)
    with torch.inference_mode():
        fused = block(tokens, torch.tensor(0.3))
    torch.testing.assert_close(block(tokens, torch.tensor(0.3)), fused, atol=1e-5, rtol=1e-5)


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    net = Net(SMALL)
    out = net(torch.randn(2, 3, 48, 32))
    (out.dense.square().mean() + out.token.square().mean() + out.objectness.square().mean()).backward()
    idle = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_a_traced_network_gives_the_same() -> None:
    """What an exporter does first; nothing in the network hangs on values of tensors."""
    torch.manual_seed(0)
    net, pixels = Net(SMALL).eval(), torch.randn(1, 3, 48, 40)
    exported = torch.export.export(net, (pixels,)).module()
    torch.testing.assert_close(exported(pixels)[0], net(pixels).dense)
