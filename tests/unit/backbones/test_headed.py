"""Heads over other backbones than CLIP: what they read, how they are kept, and when they are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from kshot.backbones import headed
from kshot.backbones.base import TextEncoder, load_backbone
from kshot.errors import BackboneError, SettingError
from tests.support.with_heads import make, put_heads


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip", "classic", "toy"])
def test_cells_are_means_of_those_that_belong_together(tmp_path: Path, kind: str) -> None:
    plain = make(tmp_path / "model", kind)
    backbone = load_backbone(put_heads(tmp_path / "heads", plain), device="cpu")
    state = load_file(tmp_path / "heads" / headed.WEIGHTS)
    patch = backbone.spec.patch
    pixels = torch.randn(1, 3, 3 * patch, 5 * patch)
    dense, token, inner = headed.head_backbone(load_backbone(plain, device="cpu")).encode_inner(pixels)
    padded = F.pad(inner, (1, 1, 1, 1), mode="replicate")
    keys = F.conv2d(padded, state["obj_proj.weight"], state["obj_proj.bias"])[0].flatten(1).T
    alike = F.normalize(keys, dim=1) @ F.normalize(keys, dim=1).T
    alike[alike < 0.2] = 0
    expected = F.normalize(alike @ dense[0].flatten(1).T / alike.sum(1, keepdim=True), dim=1)
    found = backbone.encode(pixels)
    torch.testing.assert_close(found.dense[0].flatten(1).T, expected, atol=1e-5, rtol=1e-3)
    objects = F.conv2d(F.normalize(inner, dim=1), state["bkg_decoder.weight"], state["bkg_decoder.bias"])
    torch.testing.assert_close(found.objectness, objects[:, 0].sigmoid(), atol=1e-5, rtol=1e-4)
    assert token is not None and torch.equal(found.token, token)
    assert isinstance(backbone, TextEncoder) == (kind == "clip")


def test_cells_may_stay_as_they_are(tmp_path: Path) -> None:
    pooled = load_backbone(put_heads(tmp_path, "toy"), device="cpu")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pools": False}))
    backbone, plain = load_backbone(str(tmp_path), device="cpu"), load_backbone("toy", device="cpu")
    pixels = torch.randn(1, 3, 32, 48)
    found = backbone.encode(pixels)
    torch.testing.assert_close(found.dense, F.normalize(plain.encode(pixels).dense, dim=1))
    assert torch.equal(found.objectness, pooled.encode(pixels).objectness)
    assert len({backbone.identity, pooled.identity, plain.identity}) == 3


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_heads_read_the_third_block_from_the_end(tmp_path: Path, kind: str) -> None:
    """Parity with transformers' own hidden states, behind the model's last norm."""
    plain = load_backbone(make(tmp_path, kind), device="cpu", layers=("4",))
    pixels = torch.randn(2, 3, 16, 24)
    more = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    with torch.no_grad():
        states = plain.model(pixel_values=pixels, output_hidden_states=True, **more).hidden_states
        expected = plain.model.layernorm(states[2])[:, 1:].transpose(1, 2).reshape(2, 32, 2, 3)
    dense, token, inner = plain.encode_inner(pixels)
    torch.testing.assert_close(inner, expected)
    torch.testing.assert_close(dense, plain.encode(pixels).dense)
    torch.testing.assert_close(token, plain.encode(pixels).token)


def test_layers_of_the_backbone_are_kept(tmp_path: Path) -> None:
    backbone = load_backbone(put_heads(tmp_path / "h", make(tmp_path / "m"), ("2", "k3")), device="cpu")
    assert backbone.spec.layers == ("2", "k3")
    assert backbone.encode(torch.randn(1, 3, 16, 16)).dense.shape == (1, 64, 2, 2)
    with pytest.raises(SettingError, match="the layers were chosen when the heads were trained"):
        load_backbone(str(tmp_path / "h"), device="cpu", layers=("3",))


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    name = make(tmp_path / "m")
    put_heads(tmp_path / "h", name)
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    key = next(iter(tensors))
    save_file(tensors | {key: tensors[key] + 1}, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"/m has other weights \([0-9a-f]{12}\) than those that the heads"):
        load_backbone(str(tmp_path / "h"), device="cpu")


def test_a_backbone_that_was_moved_is_told(tmp_path: Path) -> None:
    put_heads(tmp_path / "h", make(tmp_path / "m"))
    (tmp_path / "m").rename(tmp_path / "n")
    with pytest.raises(BackboneError, match=r'which is not there; put it back, or its new place behind "carrier"'):
        load_backbone(str(tmp_path / "h"), device="cpu")
    config = tmp_path / "h" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"carrier": str(tmp_path / "n")}))
    assert load_backbone(str(tmp_path / "h"), device="cpu").spec.name == str(tmp_path / "h")


def test_damaged_folders_are_told(tmp_path: Path) -> None:
    put_heads(tmp_path, "classic")
    whole = (tmp_path / headed.WEIGHTS).read_bytes()
    (tmp_path / headed.WEIGHTS).write_bytes(whole[:500])
    with pytest.raises(BackboneError, match=r"heads\.safetensors: no heads can be read"):
        load_backbone(str(tmp_path), device="cpu")
    save_file({"obj_proj.bias": torch.zeros(256)}, tmp_path / headed.WEIGHTS)
    with pytest.raises(BackboneError, match=r"missing bkg_decoder\.bias, bkg_decoder\.weight, obj_proj\.weight"):
        load_backbone(str(tmp_path), device="cpu")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": headed.KIND}))
    with pytest.raises(BackboneError, match="names no backbone for the heads"):
        load_backbone(str(tmp_path), device="cpu")


def test_a_shallow_transformer_carries_none(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="a transformer of 2 blocks"):
        headed.head_backbone(load_backbone(make(tmp_path, depth=2), device="cpu")).encode_inner(
            torch.zeros(1, 3, 16, 16)
        )
