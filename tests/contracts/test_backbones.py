"""What every backbone promises. A new one enters by being listed by its file, or here when it needs weights."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.backbones.base import Backbone, fingerprint, load_backbone, specs
from kshot.errors import SettingError
from kshot.features import extract, extract_many
from tests.support import tiny_clip, with_heads

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
HUB_MODELS = {
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**_SMALL), add_pooling_layer=False),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**_SMALL)),
    "dinov2-registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**_SMALL, num_register_tokens=4)
    ),
    "dinov3": lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**_SMALL, num_register_tokens=4)),
    "clip-vision": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**_SMALL)),
}
# Whole CLIP models, which read words too, have tests of their own besides.
WHOLE_MODELS = {"clip": tiny_clip.make_clip, "clip-dinoiser": tiny_clip.make_dinoiser, "heads": with_heads.make_headed}
OWN = sorted(name for name, (_, spec) in specs().items() if "/" not in spec.source)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Local folders of tiny models with random weights, one of each kind."""
    made = {}
    for name, build in HUB_MODELS.items():
        torch.manual_seed(0)
        made[name] = tmp_path_factory.mktemp(name)
        build().save_pretrained(made[name])
    return made | {name: make(tmp_path_factory.mktemp(name)) for name, make in WHOLE_MODELS.items()}


@pytest.fixture(params=[*OWN, *HUB_MODELS, *WHOLE_MODELS])
def name(request: pytest.FixtureRequest, folders: dict[str, Path]) -> str:
    return str(folders.get(request.param, request.param))


@pytest.fixture
def backbone(name: str) -> Backbone:
    return load_backbone(name, device="cpu")


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def weights_of(backbone: Backbone) -> dict[str, torch.Tensor]:
    model = getattr(backbone, "model", None)
    tensors = dict(model.state_dict()) if model is not None else {}
    return tensors | {k: v for k, v in vars(backbone).items() if isinstance(v, torch.Tensor)}


def test_the_grid_covers_the_padded_picture(backbone: Backbone) -> None:
    patch = backbone.spec.patch
    dense = backbone.encode(torch.zeros(2, 3, 3 * patch, 5 * patch)).dense
    assert dense.shape[0] == 2 and dense.shape[2:] == (3, 5)


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90))
def test_any_size_and_aspect_ratio_works(height: int, width: int) -> None:
    features = extract(load_backbone("toy"), picture(0, height, width), 48).features
    assert torch.allclose(features.norm(dim=0), torch.ones(features.shape[1:]), atol=1e-5)


def test_the_token_compares_with_the_cells(backbone: Backbone) -> None:
    patch = backbone.spec.patch
    found = backbone.encode(torch.randn(2, 3, 3 * patch, 5 * patch))
    assert found.token is not None and found.token.shape == found.dense.shape[:2]
    torch.testing.assert_close(found.token.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("size_hw", [(20, 200), (200, 20), (64, 64), (5, 7)])
def test_odd_shapes_keep_unit_length(backbone: Backbone, size_hw: tuple[int, int]) -> None:
    features = extract(backbone, picture(0, *size_hw), 64).features
    assert torch.allclose(features.norm(dim=0), torch.ones(features.shape[1:]), atol=1e-4)


def test_the_same_picture_gives_the_same_bits(backbone: Backbone) -> None:
    first, second = (extract(backbone, picture(1, 40, 56), 64).features for _ in range(2))
    assert torch.equal(first, second)


def test_a_batch_equals_single_runs(backbone: Backbone) -> None:
    pictures = [picture(i, 40, 56) for i in range(3)] + [picture(9, 64, 30)]
    together = extract_many(backbone, pictures, 64, batch_size=3)
    for one, several in zip((extract(backbone, p, 64) for p in pictures), together, strict=True):
        assert one.frame == several.frame
        torch.testing.assert_close(one.features, several.features, atol=1e-5, rtol=1e-4)


def test_weights_hash_unchanged_after_a_forward(backbone: Backbone) -> None:
    before = fingerprint(weights_of(backbone))
    extract(backbone, picture(2, 33, 71), 64)
    assert fingerprint(weights_of(backbone)) == before


def test_a_pickled_copy_gives_the_same_features(backbone: Backbone) -> None:
    copy = pickle.loads(pickle.dumps(backbone))
    assert copy.identity == backbone.identity
    assert torch.equal(
        extract(copy, picture(1, 40, 56), 64).features, extract(backbone, picture(1, 40, 56), 64).features
    )


def test_no_gradient_reaches_the_features(backbone: Backbone) -> None:
    patch = backbone.spec.patch
    encoding = backbone.encode(torch.rand(1, 3, patch * 2, patch * 2, requires_grad=True))
    assert not encoding.dense.requires_grad


def test_identity_is_the_weights_own(name: str, backbone: Backbone) -> None:
    assert load_backbone(name, device="cpu").identity == backbone.identity
    assert len(backbone.identity) == 64


def test_bfloat16_stays_close_to_float32(name: str, backbone: Backbone) -> None:
    half = extract(load_backbone(name, device="cpu", dtype="bfloat16"), picture(3, 48, 48), 64)
    full = extract(backbone, picture(3, 48, 48), 64)
    assert half.features.dtype == torch.float32 and half.identity == full.identity
    assert float((half.features * full.features).sum(0).min()) > 0.97


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_agrees_with_the_cpu(name: str, backbone: Backbone) -> None:
    there = extract(load_backbone(name, device="cuda"), picture(3, 48, 48), 64).features
    torch.testing.assert_close(there, extract(backbone, picture(3, 48, 48), 64).features, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("kind", HUB_MODELS)
def test_hub_features_are_the_modules_own(folders: dict[str, Path], kind: str) -> None:
    """Parity: the last layer is what transformers' own module gives, cut and turned by hand."""
    backbone = load_backbone(str(folders[kind]), device="cpu", layers=(3,))
    pixels = torch.randn(2, 3, 24, 40)
    model = type(backbone.model).from_pretrained(
        folders[kind], **({"add_pooling_layer": False} if kind == "vit" else {})
    )
    extra = {"interpolate_pos_encoding": True} if kind in {"vit", "clip-vision"} else {}
    with torch.no_grad():
        tokens = model(pixel_values=pixels, **extra).last_hidden_state
    if kind == "clip-vision":
        tokens = model.post_layernorm(tokens)
    skipped = {"dinov2-registers": 5, "dinov3": 5}.get(kind, 1)
    expected = torch.nn.functional.normalize(tokens[:, skipped:], dim=-1).reshape(2, 3, 5, 32).permute(0, 3, 1, 2)
    torch.testing.assert_close(backbone.encode(pixels).dense, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", HUB_MODELS)
def test_layers_stand_side_by_side(folders: dict[str, Path], kind: str) -> None:
    pixels = torch.randn(1, 3, 16, 16)
    both = load_backbone(str(folders[kind]), device="cpu", layers=(2, 3)).encode(pixels).dense
    each = [load_backbone(str(folders[kind]), device="cpu", layers=(k,)).encode(pixels).dense for k in (2, 3)]
    torch.testing.assert_close(both, torch.cat(each, 1))
    assert not torch.allclose(each[0], each[1], atol=1e-2)


@pytest.mark.parametrize("facet", ["k", "v"])
@pytest.mark.parametrize("kind", HUB_MODELS)
def test_keys_and_values_are_what_the_attention_sees(folders: dict[str, Path], kind: str, facet: str) -> None:
    """Parity: they are those that a hook catches on their way into the attention."""
    backbone, pixels, caught = (
        load_backbone(str(folders[kind]), device="cpu", layers=(f"{facet}2",)),
        torch.randn(1, 3, 16, 24),
        [],
    )
    block = backbone.model.get_submodule(backbone.kind.blocks)[1]
    handle = getattr(getattr(block, backbone.kind.attention), f"{facet}_proj").register_forward_hook(
        lambda *a: caught.append(a[2])
    )
    dense, token, _ = backbone.encode(pixels)
    handle.remove()
    keys = caught[0].flatten(2) if caught[0].ndim == 4 else caught[0]
    expected = torch.nn.functional.normalize(keys[:, -6:], dim=-1).reshape(1, 2, 3, 32).permute(0, 3, 1, 2)
    torch.testing.assert_close(dense, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(token, torch.nn.functional.normalize(keys[:, 0], dim=-1), atol=1e-5, rtol=1e-4)


def test_a_supervised_vit_takes_several_layers_and_more_pixels_by_itself(folders: dict[str, Path]) -> None:
    vit, dinov2 = (load_backbone(str(folders[name])) for name in ("vit", "dinov2"))
    assert (vit.layers, vit.spec.size) == (("2", "3", "k2", "k3"), 512)
    assert (dinov2.layers, dinov2.spec.size) == (("3",), 448)


def test_a_layer_that_is_not_there_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(SettingError, match=r"layers 1\.\.3, their keys k1\.\.k3 and values v1\.\.v3, got 4"):
        load_backbone(str(folders["vit"]), layers=(4,))


def test_attention_stays_as_sharp_over_more_cells_than_in_training(folders: dict[str, Path]) -> None:
    """Parity: as transformers' own module with its queries multiplied by log n / log trained; never less sharp."""
    backbone = load_backbone(str(folders["vit"]), device="cpu", layers=(3,))
    config = backbone.model.config
    trained = (config.image_size // config.patch_size) ** 2
    for cells_hw in ((1, 2), (6, 7)):
        model = type(backbone.model).from_pretrained(folders["vit"], add_pooling_layer=False)
        factor = max(1.0, math.log(cells_hw[0] * cells_hw[1]) / math.log(trained))
        assert (factor > 1) == (cells_hw[0] > 1)
        for name, parameter in model.named_parameters():
            if ".q_proj." in name:
                parameter.data.mul_(factor)
        pixels = torch.randn(1, 3, cells_hw[0] * config.patch_size, cells_hw[1] * config.patch_size)
        with torch.no_grad():
            tokens = model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        expected = torch.nn.functional.normalize(tokens[:, 1:], dim=-1).reshape(1, *cells_hw, -1).permute(0, 3, 1, 2)
        torch.testing.assert_close(backbone.encode(pixels).dense, expected, atol=1e-5, rtol=1e-4)


def test_a_config_may_give_sides_one_by_one(folders: dict[str, Path]) -> None:
    backbone = load_backbone(str(folders["vit"]), device="cpu", layers=(3,))
    config, pixels = backbone.model.config, torch.randn(1, 3, 48, 56)
    expected = backbone.encode(pixels).dense
    config.image_size, config.patch_size = [config.image_size] * 2, (config.patch_size,) * 2
    torch.testing.assert_close(backbone.encode(pixels).dense, expected)
