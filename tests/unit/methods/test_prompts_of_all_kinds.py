"""Words, whole images, masks and mixtures through the public API, on tiny CLIP models with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

import kshot
from kshot.backbones.base import Backbone
from kshot.errors import SettingError, SupportError
from kshot.features import extract, extract_many, prepare
from kshot.methods import _class_embeddings
from kshot.ops.geometry import FeatureMap, Frame
from kshot.ops.prompt_masks import salient
from kshot.prompts import BACKGROUND_WORDS
from kshot.types import Shot
from tests.support import tiny_clip
from tests.support.drawing import draw
from tests.support.hand import random_support, support

SAYS = Shot(text="cat", label="disc")
READERS = ("text", "image-prompt", "clip-dinoiser")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = {"clip": tiny_clip.make_clip, "dinoiser": tiny_clip.make_dinoiser}
    return {name: str(make(tmp_path_factory.mktemp(name))) for name, make in made.items()}


@pytest.fixture(params=["clip", "dinoiser"], scope="module")
def backbone(request: pytest.FixtureRequest, folders: dict[str, str]) -> Backbone:
    return kshot.Segmenter(backbone=folders[request.param], size=64, device="cpu").backbone


def shots_of(kind: str) -> list[Shot]:
    (picture, mask), (other, _) = draw(1), draw(2)
    kinds = {
        "text": [SAYS],
        "whole": [Shot(picture, label="disc")],
        "mask": [Shot(picture, mask=mask, label="disc")],
        "text + whole": [SAYS, Shot(picture, label="disc")],
        "all": [Shot(picture, mask=mask, label="disc"), Shot(other, label="disc"), Shot(text="dog", label="dog"), SAYS],
    }
    return kinds[kind]


@pytest.mark.parametrize("method", READERS)
@pytest.mark.parametrize("kind", ["text", "whole", "mask", "text + whole", "all"])
def test_every_kind_of_prompt_gives_a_prediction(backbone: Backbone, method: str, kind: str) -> None:
    seg = kshot.Segmenter(backbone=backbone, method=method, size=64)
    task = seg.fit(shots_of(kind))
    found = seg.predict(task, draw(3)[0])
    assert found.mask.shape == (96, 128) and np.isfinite(found.scores).all()
    assert float(task.score(seg.features(draw(3)[0]))[0].abs().max()) == 0


def test_supports_say_what_they_are(backbone: Backbone) -> None:
    seg = kshot.Segmenter(backbone=backbone, method="text", size=64)
    supports = seg.fit(shots_of("all")).supports
    assert [support.kind for support in supports] == ["mask", "image", "text", "text", "text"]
    dog, cat, ground = supports[2:]
    assert dog.masks.flatten().tolist() == [0, 1] and cat.masks.flatten().tolist() == [1, 0]
    torch.testing.assert_close(cat.features.tokens, backbone.encode_text(["cat"]))
    assert ground.features.grid_hw == (1, len(BACKGROUND_WORDS)) and not ground.masks.any()


@pytest.mark.parametrize("method", READERS)
def test_a_task_with_words_comes_back_from_its_file(backbone: Backbone, method: str, tmp_path: Path) -> None:
    seg = kshot.Segmenter(backbone=backbone, method=method, size=64)
    task = seg.fit([*shots_of("all"), Shot(text="spot", label="disc", weight=2.5)])
    again = kshot.load_task(task.save(tmp_path / "x.kshot"))
    features = seg.features(draw(3)[0])
    assert torch.equal(again.score(features), task.score(features)) and again.digest() == task.digest()
    assert [(s.kind, s.weight) for s in again.supports] == [(s.kind, s.weight) for s in task.supports]


@pytest.mark.parametrize("method", READERS)
def test_words_later_equal_words_at_once(backbone: Backbone, method: str) -> None:
    seg = kshot.Segmenter(backbone=backbone, method=method, size=64)
    shots, features = shots_of("all"), seg.features(draw(3)[0])
    whole = seg.fit(shots)
    for first in (1, 3):
        grown = seg.fit(shots[:first]).with_shots(shots[first:], seg)
        assert grown.classes == whole.classes
        torch.testing.assert_close(grown.score(features), whole.score(features), atol=1e-3, rtol=1e-3)


def test_the_words_decide(backbone: Backbone) -> None:
    seg = kshot.Segmenter(backbone=backbone, method="text", size=64)
    features = seg.features(draw(3)[0])
    one, two = (seg.fit([Shot(text=word, label="x")]).score(features) for word in ("cat", "rust"))
    assert not torch.allclose(one, two, atol=1e-2)


def test_text_scores_are_clips_softmax(backbone: Backbone) -> None:
    """The probability of a class is its share in softmax(100 cos) over the class and the background words."""
    seg = kshot.Segmenter(backbone=backbone, method="text", size=64)
    features = seg.features(draw(3)[0])
    vectors = torch.cat([backbone.encode_text(["cat"]), backbone.encode_text(list(BACKGROUND_WORDS[1:]))])
    ground = backbone.encode_text([BACKGROUND_WORDS[0]])
    expected = (100 * features.tokens @ torch.cat([vectors, ground]).T).softmax(1)[:, 0]
    found = seg.fit([SAYS]).score(features).softmax(0)[1].flatten()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_a_batch_of_three_decides_each_image_alone(folders: dict[str, str]) -> None:
    """The background of one image is no business of another's (the published code is right for one at a time)."""
    seg = kshot.Segmenter(backbone=folders["dinoiser"], method="clip-dinoiser", size=64, device="cpu")
    task, pictures = seg.fit([SAYS]), [draw(seed)[0] for seed in (3, 4, 5)]
    for picture, features in zip(pictures, extract_many(seg.backbone, pictures, 64, batch_size=3), strict=True):
        assert features.objectness is not None
        torch.testing.assert_close(task.score(features), task.score(seg.features(picture)), atol=1e-3, rtol=1e-3)


def test_the_border_of_a_padded_picture_is_repeated(backbone: Backbone) -> None:
    """A picture of whole patches meets no padding; one row short of it, the last row stands twice."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mean, std = (torch.tensor(part)[:, None, None] for part in (backbone.spec.mean_rgb, backbone.spec.std_rgb))
    pixels = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std
    whole = backbone.encode(pixels[None])
    found = extract(backbone, picture, 64)
    torch.testing.assert_close(found.features, whole.dense[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.token, whole.token[0], atol=1e-4, rtol=1e-3)
    short = np.concatenate([picture[:57], picture[56:57].repeat(7, 0)])
    frame = Frame((57, 64), (57, 64), 8)
    padded = prepare(picture[:57], frame, backbone.spec)
    torch.testing.assert_close(
        padded, (torch.from_numpy(short).permute(2, 0, 1) / 255 - mean) / std, atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("method", ["density", "prototype"])
def test_other_methods_say_who_reads(folders: dict[str, str], method: str) -> None:
    seg = kshot.Segmenter(backbone=folders["clip"], method=method, size=64, device="cpu")
    with pytest.raises(SettingError, match=f"method {method} cannot use words .* clip-dinoiser, image-prompt, text"):
        seg.fit([SAYS])


@pytest.mark.parametrize("name", ["toy", "classic"])
def test_other_backbones_say_who_reads(name: str) -> None:
    seg = kshot.Segmenter(backbone=name, method="text", size=64)
    with pytest.raises(SettingError, match=rf"backbone {name} reads no words; these do: clip-dinoiser, clip-vit"):
        seg.fit([SAYS])


@pytest.mark.parametrize("settings", [{"text_share": 1.5}, {"prompt": "half"}])
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=r"text_share 1\.5|prompt 'half'"):
        kshot.Segmenter(backbone="toy", method="image-prompt", method_settings=settings)


def test_a_probability_that_says_nothing_is_refused() -> None:
    with pytest.raises(SettingError, match=r"delta 0\.3"):
        kshot.Segmenter(backbone="toy", method="clip-dinoiser", method_settings={"delta": 0.3})


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "much"])
def test_a_weight_is_above_zero(weight: object) -> None:
    with pytest.raises(SupportError, match="expected a weight above 0"):
        Shot(text="cat", weight=weight)


def test_blank_words_are_no_shot() -> None:
    with pytest.raises(SupportError, match="a shot needs an image"):
        Shot(text="  ", label="cat")


@pytest.mark.parametrize("name", ["toy", "classic"])
@pytest.mark.parametrize("prompt", ["whole", "object", "mask"])
def test_whole_images_find_the_disc_without_a_mask(name: str, prompt: str) -> None:
    seg = kshot.Segmenter(backbone=name, method="image-prompt", size=96, method_settings={"prompt": prompt})
    task = seg.fit([Shot(draw(seed)[0], label="disc") for seed in (1, 2)])
    picture, mask = draw(3)
    found = seg.predict(task, picture).mask == 1
    assert (found & mask).sum() / (found | mask).sum() > 0.7
    assert not seg.predict(task, draw(6, disc=False)[0]).mask.any()


def test_a_mask_is_not_read_unless_it_is_the_prompt() -> None:
    (picture, mask), features = draw(1), None
    scores = {}
    for prompt in ("whole", "object", "mask"):
        seg = kshot.Segmenter(backbone="toy", method="image-prompt", size=96, method_settings={"prompt": prompt})
        features = seg.features(draw(3)[0])
        small = mask & (np.arange(128) > np.nonzero(mask)[1].mean())
        with_mask, with_half = (seg.fit([Shot(picture, mask=m, label="x")]).score(features) for m in (mask, small))
        scores[prompt] = torch.equal(with_mask, with_half)
    assert scores == {"whole": True, "object": True, "mask": False}


def test_salience_is_sought_in_those_images_alone_that_show_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[FeatureMap] = []

    def noted(features: FeatureMap) -> torch.Tensor:
        seen.append(features)
        return salient(features)

    monkeypatch.setattr(_class_embeddings, "salient", noted)
    shown, empty = (support(random_support(1).features, [part] * 20 + [0.0] * 40) for part in (1.0, 0.0))
    marked, bare = _class_embeddings.with_salient_masks(shown), _class_embeddings.with_salient_masks(empty)
    assert seen == [shown.features]
    assert torch.equal(marked.masks[0], salient(shown.features))
    assert not bare.masks.any() and torch.equal(bare.background, torch.ones(1, 60))
