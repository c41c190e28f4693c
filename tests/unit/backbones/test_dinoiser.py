"""CLIP-DINOiser's heads against torch's convolutions and a pooling written out cell by cell."""

import hashlib
import urllib.request
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from kshot.backbones import dinoiser
from kshot.backbones.base import load_backbone
from kshot.backbones.headed import HeadedTextEncoder, git_blob_hash, read_checkpoint
from kshot.errors import BackboneError, SettingError, WeightsNotFoundError
from kshot.io import hub
from tests.support import tiny_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.make_dinoiser(tmp_path_factory.mktemp("dinoiser"))


@pytest.fixture(scope="module")
def backbone(folder: Path) -> HeadedTextEncoder:
    return load_backbone(str(folder), device="cpu")


def test_features_and_objectness_are_the_papers(backbone: HeadedTextEncoder, folder: Path) -> None:
    state = torch.load(folder / "last.pt", weights_only=True)
    pixels = torch.randn(1, 3, 24, 40)
    dense, token, inner = backbone.backbone.encode_inner(pixels)
    padded = F.pad(inner, (1, 1, 1, 1), mode="replicate")
    keys = F.conv2d(padded, state["obj_proj.weight"], state["obj_proj.bias"])[0].flatten(1).T  # (15, 256)
    cells, expected = dense[0].flatten(1).T, []
    for key in keys:
        alike = torch.stack([F.cosine_similarity(key, other, dim=0) for other in keys])
        alike[alike < 0.2] = 0
        expected.append((alike[:, None] * cells).sum(0) / alike.sum())
    objects = F.conv2d(F.normalize(inner, dim=1), state["bkg_decoder.weight"], state["bkg_decoder.bias"])
    found = backbone.encode(pixels)
    torch.testing.assert_close(
        found.dense[0].flatten(1).T, F.normalize(torch.stack(expected), dim=1), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(found.objectness, torch.sigmoid(objects)[:, 0], atol=1e-6, rtol=1e-5)
    assert torch.equal(found.token, token)


def test_pooling_changes_what_it_should(backbone: HeadedTextEncoder) -> None:
    pixels = torch.randn(1, 3, 48, 48)
    plain = backbone.backbone.encode(pixels).dense
    assert float((plain * backbone.encode(pixels).dense).sum(1).min()) < 0.999


def test_a_batch_of_three_is_three_single_runs(backbone: HeadedTextEncoder) -> None:
    pixels = torch.randn(3, 3, 32, 24)
    together = backbone.encode(pixels)
    for index in range(3):
        alone = backbone.encode(pixels[index : index + 1])
        for one, several in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], several[index], atol=1e-5, rtol=1e-4)


def test_words_are_clips_own(backbone: HeadedTextEncoder) -> None:
    assert torch.equal(backbone.encode_text(["cat"]), backbone.backbone.encode_text(["cat"]))


def test_identity_knows_the_heads(backbone: HeadedTextEncoder, tmp_path: Path) -> None:
    folder = tiny_clip.make_dinoiser(tmp_path)
    assert load_backbone(str(folder), device="cpu").identity == backbone.identity
    tiny_clip.make_heads(folder / "last.pt", **{"bkg_decoder.bias": torch.ones(1)})
    assert load_backbone(str(folder), device="cpu").identity != backbone.identity


def test_wrong_keys_are_named(tmp_path: Path) -> None:
    tiny_clip.make_heads(tmp_path / "x.pt", **{"obj_proj.bias": None, "extra.weight": torch.zeros(2)})
    with pytest.raises(BackboneError, match=r"x\.pt: .*missing obj_proj\.bias, foreign extra\.weight"):
        read_checkpoint(tmp_path / "x.pt", 32)


def test_wrong_shapes_are_printed(tmp_path: Path) -> None:
    tiny_clip.make_heads(tmp_path / "x.pt", width=16)
    with pytest.raises(BackboneError, match=r"obj_proj\.weight \(256, 16, 3, 3\), not \(256, 32, 3, 3\)"):
        read_checkpoint(tmp_path / "x.pt", 32)


def test_the_official_shapes_fit(tmp_path: Path) -> None:
    tiny_clip.make_heads(tmp_path / "x.pt", width=768)
    heads = read_checkpoint(tmp_path / "x.pt", 768)
    assert tuple(heads.obj_proj.weight.shape) == (256, 768, 3, 3)
    assert heads.obj_proj.padding_mode == "replicate"
    assert tuple(heads.bkg_decoder.weight.shape) == (1, 768, 1, 1)


@pytest.mark.parametrize("wrapper", ["model_state_dict", "state_dict"])
def test_a_wrapped_checkpoint_is_unwrapped(tmp_path: Path, wrapper: str) -> None:
    state = tiny_clip.make_heads(tmp_path / "x.pt")
    torch.save({wrapper: state, "epoch": 3}, tmp_path / "x.pt")
    assert torch.equal(read_checkpoint(tmp_path / "x.pt", 32).obj_proj.bias, state["obj_proj.bias"])


class _Code:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"obj_proj.weight": _Code()}, tmp_path / "x.pt")
    with pytest.raises(BackboneError, match="not a checkpoint of tensors alone"):
        read_checkpoint(tmp_path / "x.pt", 32)
    assert capsys.readouterr().out == ""
    (tmp_path / "x.pt").write_bytes(b"<html>not found</html>")
    with pytest.raises(BackboneError, match="not a checkpoint of tensors alone"):
        read_checkpoint(tmp_path / "x.pt", 32)
    torch.save([torch.zeros(1)], tmp_path / "x.pt")
    with pytest.raises(BackboneError, match="not a dict of tensors"):
        read_checkpoint(tmp_path / "x.pt", 32)


def test_layers_and_shallow_models_are_refused(folder: Path) -> None:
    with pytest.raises(SettingError, match="no layers to choose from"):
        load_backbone(str(folder), device="cpu", layers=(2,))


def test_the_hash_is_gits() -> None:
    """`printf 'hello\\n' | git hash-object --stdin` says ce013625030ba8dba906f756967f9e9ca394464a."""
    assert git_blob_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    return tmp_path


class _Answer:
    def __init__(self, data: bytes):
        self.data = data

    def __enter__(self) -> "_Answer":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def read(self) -> bytes:
        return self.data


def test_a_download_with_another_hash_is_not_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: _Answer(b"other"))
    with pytest.raises(BackboneError, match=f"git blob {git_blob_hash(b'other')}, expected {dinoiser.BLOB}"):
        dinoiser.fetch_heads("clip-dinoiser")
    assert not dinoiser.heads_path().exists()


def test_a_download_with_the_right_hash_is_kept_and_checked_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"the heads"
    expected = hashlib.sha1(b"blob 9\0the heads", usedforsecurity=False).hexdigest()
    monkeypatch.setattr(dinoiser, "BLOB", expected)
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: _Answer(data))
    path = dinoiser.fetch_heads("clip-dinoiser")
    assert path.read_bytes() == data and path == dinoiser.fetch_heads("clip-dinoiser")
    path.write_bytes(b"damaged")
    with pytest.raises(BackboneError, match="delete it and run `kshot models pull clip-dinoiser`"):
        dinoiser.fetch_heads("clip-dinoiser")


def test_offline_it_says_where_to_put_them(home: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"no heads at .*last\.pt"):
        dinoiser.fetch_heads("clip-dinoiser")
    assert not dinoiser.is_here("clip-dinoiser")
