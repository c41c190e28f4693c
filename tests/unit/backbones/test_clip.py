"""CLIP against the papers' formulas written down with transformers' own modules, on random weights."""

import json
import pickle
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from kshot.backbones.base import load_backbone, text_backbones
from kshot.backbones.clip import TEMPLATES, Clip
from kshot.backbones.hub import HubBackbone
from kshot.errors import BackboneError, SettingError
from kshot.features import extract_words
from tests.support import tiny_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return load_backbone(str(folder), device="cpu")


@pytest.fixture(scope="module")
def model(folder: Path) -> transformers.CLIPModel:
    return transformers.CLIPModel.from_pretrained(folder).eval()


def hidden_states(model: transformers.CLIPModel, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    out = model.vision_model(pixel_values=pixels, interpolate_pos_encoding=True, output_hidden_states=True)
    return out.hidden_states


@pytest.mark.parametrize("size_hw", [(48, 48), (24, 64), (56, 40)])
def test_dense_features_are_maskclips(clip: Clip, model: transformers.CLIPModel, size_hw: tuple[int, int]) -> None:
    """x + out(v), then + MLP(ln_2), ln_post, projection: cell by cell, with einsum for every linear map."""
    pixels = torch.randn(2, 3, *size_hw)
    with torch.no_grad():
        x = hidden_states(model, pixels)[-2]
        block = model.vision_model.encoder.layers[-1]
        normed = F.layer_norm(x, (32,), block.layer_norm1.weight, block.layer_norm1.bias, 1e-5)
        attention = block.self_attn
        v = torch.einsum("btc,dc->btd", normed, attention.v_proj.weight) + attention.v_proj.bias
        x = x + torch.einsum("btc,dc->btd", v, attention.out_proj.weight) + attention.out_proj.bias
        x = x + block.mlp(block.layer_norm2(x))
        joint = torch.einsum("btc,dc->btd", model.vision_model.post_layernorm(x), model.visual_projection.weight)
    expected = F.normalize(joint[:, 1:], dim=-1).reshape(2, size_hw[0] // 8, size_hw[1] // 8, 24).permute(0, 3, 1, 2)
    torch.testing.assert_close(clip.encode(pixels).dense, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size_hw", [(48, 48), (24, 64)])
def test_the_token_is_clips_image_embedding(
    clip: Clip, model: transformers.CLIPModel, size_hw: tuple[int, int]
) -> None:
    pixels = torch.randn(2, 3, *size_hw)
    with torch.no_grad():
        out = model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(clip.encode(pixels).token, F.normalize(out, dim=-1), atol=1e-5, rtol=1e-4)


def test_inner_features_are_what_the_second_norm_gives(clip: Clip, model: transformers.CLIPModel) -> None:
    pixels, caught = torch.randn(1, 3, 24, 40), []
    norm = model.vision_model.encoder.layers[-3].layer_norm2
    handle = norm.register_forward_hook(lambda *arguments: caught.append(arguments[2]))
    with torch.no_grad():
        hidden_states(model, pixels)
    handle.remove()
    expected = caught[0][:, 1:].reshape(1, 3, 5, 32).permute(0, 3, 1, 2)
    torch.testing.assert_close(clip.encode_inner(pixels)[2], expected, atol=1e-5, rtol=1e-4)


def test_text_is_the_mean_over_the_templates(clip: Clip, model: transformers.CLIPModel, folder: Path) -> None:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    expected = []
    for word in ("cat", "rust spot"):
        each = []
        for template in TEMPLATES:  # one by one: no padding is involved
            tokens = tokenizer(template.format(word), return_tensors="pt")
            with torch.no_grad():
                each.append(F.normalize(model.get_text_features(**tokens).pooler_output, dim=-1))
        expected.append(F.normalize(torch.cat(each).mean(0), dim=0))
    found = clip.encode_text(["cat", "rust spot"])
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_there_are_eighty_different_templates() -> None:
    assert len(set(TEMPLATES)) == len(TEMPLATES) == 80
    assert all(template.count("{}") == 1 and template.endswith(".") for template in TEMPLATES)
    assert {"a photo of a {}.", "itap of my {}.", "the toy {}.", "a photo of the hard to see {}."} <= set(TEMPLATES)


def test_facts_come_from_the_folder(clip: Clip, folder: Path) -> None:
    assert (clip.spec.patch, clip.spec.dim, clip.spec.text) == (8, 24, True)
    assert clip.spec.mean_rgb == (0.48145466, 0.4578275, 0.40821073)
    assert text_backbones() == ["clip-dinoiser", "clip-vit-b16", "clip-vit-b16-laion2b"]


def test_layers_ask_for_the_vision_tower(folder: Path) -> None:
    tower = load_backbone(str(folder), device="cpu", layers=(2, "k4"))
    assert isinstance(tower, HubBackbone)
    encoding = tower.encode(torch.randn(1, 3, 16, 24))
    assert encoding.dense.shape == (1, 64, 2, 3) and encoding.token.shape == (1, 64)


def test_a_pickled_copy_reads_the_same_words(clip: Clip) -> None:
    copy = pickle.loads(pickle.dumps(clip))
    assert torch.equal(copy.encode_text(["dog"]), clip.encode_text(["dog"]))


def test_words_become_a_row_of_cells(clip: Clip) -> None:
    row = extract_words(clip, ["cat", "sky", "dog"])
    assert row.grid_hw == (1, 3) and row.identity == clip.identity
    torch.testing.assert_close(row.tokens, clip.encode_text(["cat", "sky", "dog"]))


def test_a_text_that_is_too_long_is_refused(clip: Clip) -> None:
    with pytest.raises(SettingError, match=r"has \d+ tokens, the backbone reads 77; shorten it"):
        clip.encode_text(["cat " * 80])


def test_without_a_tokenizer_it_sees_and_does_not_read(tmp_path: Path) -> None:
    folder = tiny_clip.make_clip(tmp_path)
    (folder / "merges.txt").unlink()
    silent = load_backbone(str(folder), device="cpu")
    assert silent.encode(torch.zeros(1, 3, 16, 16)).dense.shape == (1, 24, 2, 2)
    with pytest.raises(BackboneError, match=r"no tokenizer .*kshot models pull"):
        silent.encode_text(["cat"])


def test_missing_weights_are_not_filled_with_chance(tmp_path: Path) -> None:
    folder = tiny_clip.make_clip(tmp_path)
    kept = {n: t for n, t in load_file(folder / "model.safetensors").items() if not n.startswith("text_model")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"a CLIPModel without weights for text_model\.\S+ and \d+ more"):
        load_backbone(str(folder), device="cpu")


def test_old_files_of_tensors_are_read_too(clip: Clip, tmp_path: Path) -> None:
    folder = tiny_clip.make_clip(tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load_backbone(str(folder), device="cpu").encode(torch.zeros(1, 3, 8, 8)).dense.shape == (1, 24, 1, 1)


def test_another_model_under_the_name_is_refused(tmp_path: Path) -> None:
    from kshot.backbones import clip as module

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(BackboneError, match="'siglip', expected a whole CLIP model"):
        module.load(str(tmp_path), torch.device("cpu"), torch.float32, None)
