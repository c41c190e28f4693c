"""The flow, through the public API."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

import kshot
from kshot.errors import (
    BackboneMismatchError,
    EmptyMaskError,
    ImageReadError,
    MaskError,
    SettingError,
    ShapeError,
    SupportError,
    TaskError,
    TaskFileError,
    TaskVersionError,
    UnknownNameError,
    WeightsNotFoundError,
)
from kshot.io.tensor_file import read_task, write_task
from kshot.types import Shot
from tests.support.drawing import draw


def encoded(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def test_importing_kshot_is_light() -> None:
    code = "import sys, kshot; print([m for m in ('torch', 'transformers', 'PIL', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and done.stderr == ""


def test_the_public_names_are_all_there() -> None:
    for name in kshot.__all__:
        assert getattr(kshot, name) is not None
    assert set(kshot.__all__) <= set(dir(kshot))
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        kshot.Segmentor  # noqa: B018


def test_names_lists_each_family() -> None:
    assert {"classic", "vit-tiny", "dinov2-small", "dinov3-large"} <= set(kshot.names("backbones"))
    assert {"density", "prototype"} <= set(kshot.names("methods"))
    assert kshot.names("refiners") == ["crf", "edges", "none", "sam"]
    assert {"png", "overlay", "scores", "coco"} <= set(kshot.names("formats"))


def test_every_kind_of_image_gives_the_same_mask(toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path) -> None:
    task, (picture, _) = toy.fit(shots), draw(3)
    Image.fromarray(picture).save(tmp_path / "q.png")
    kinds = [picture, encoded(picture), Image.fromarray(picture), tmp_path / "q.png", str(tmp_path / "q.png")]
    first, *rest = [toy.predict(task, kind) for kind in kinds]
    assert first.mask.any() and first.mask.shape == picture.shape[:2] and first.mask.dtype == np.uint8
    assert first.scores.dtype == np.float32
    assert all(np.array_equal(first.mask, other.mask) for other in rest)


def test_predict_many_keeps_the_order(toy: kshot.Segmenter, shots: list[Shot], image_folder: Path) -> None:
    task = toy.fit(shots)
    found = list(toy.predict_many(task, image_folder))
    paths = [image_folder / name for name in ("a.jpg", "b.png", "none.jpg", "sub/a.jpg")]
    assert len(found) == 4
    for one, path in zip(found, paths, strict=True):
        assert np.array_equal(one.mask, toy.predict(task, path).mask)
    assert len(list(toy.predict_many(task, str(image_folder / "*.jpg")))) == 2
    assert len(list(toy.predict_many(task, (draw(i)[0] for i in range(2))))) == 2


def test_ignored_pixels_teach_nothing(toy: kshot.Segmenter) -> None:
    picture, mask = draw(1)
    labels = mask.astype(np.uint8)
    labels[:, :64] = 255
    (support,) = toy.encode([Shot(picture, mask=labels, label="disc")], ("disc",))
    assert float(support.valid_mask[:, :6].sum()) == 0 and float(support.masks[0, :, :6].sum()) == 0
    assert float(support.background[:, :6].sum()) == 0


def test_shots_of_one_image_share_its_encoding(toy: kshot.Segmenter) -> None:
    picture, mask = draw(1)
    other = np.zeros_like(mask)
    other[:16, :16] = True
    supports = toy.encode([Shot(picture, mask=mask, label="a"), Shot(picture, mask=other, label="b")], ("a", "b"))
    assert len(supports) == 1
    (support,) = supports
    assert float(support.masks[1, 0, 0]) == pytest.approx(1, abs=1e-5)
    assert float(support.background[0, 0]) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(support.background + support.masks.sum(0), support.valid_mask)


def test_several_classes_in_one_mask(toy: kshot.Segmenter) -> None:
    picture, mask = draw(1)
    labels = mask.astype(np.uint8) * 7
    labels[:16, :16] = 9
    task = toy.fit([Shot(picture, mask=labels, label={7: "disc", 9: "corner"})])
    assert task.classes == ("disc", "corner")
    with pytest.raises(MaskError, match=r"labels \[9\] are in no class"):
        toy.fit([Shot(picture, mask=labels, label={7: "disc"})])


@pytest.mark.parametrize(
    "prompt",
    [
        {"boxes": "box"},
        {"points": "centre"},
        {"points": "centre", "negative_points": "corner"},
        {"scribbles": "line"},
        {},
    ],
)
def test_every_prompt_finds_the_disc(toy: kshot.Segmenter, prompt: dict) -> None:
    picture, mask = draw(1)
    rows, columns = np.nonzero(mask)
    x0, x1, y0, y1 = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    marks = {
        "box": [x0, y0, x1, y1],
        "centre": [centre],
        "corner": [(1, 1)],
        "line": [[(centre[0] - 10, centre[1]), (centre[0] + 10, centre[1])]],
    }
    shot = Shot(picture, label="disc", **{kind: marks[value] for kind, value in prompt.items()})
    query, truth = draw(3)
    found = toy.predict(toy.fit([shot]), query).mask == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.6


def test_a_task_file_is_read_and_anything_else_refused(toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path) -> None:
    task, query = toy.fit(shots), draw(3)[0]
    path = task.save(tmp_path / "disc.kshot")
    whole = toy.predict(task, query)
    assert np.array_equal(toy.predict(path, query).scores, whole.scores)
    assert np.array_equal(toy.predict(str(path), query).mask, whole.mask)
    assert np.array_equal(next(toy.predict_many(path, [query])).mask, whole.mask)
    with pytest.raises(TaskError, match=r"expected a Task .* got ndarray; the task comes first"):
        toy.predict(query, task)


def test_torch_tensors_are_images_and_masks(toy: kshot.Segmenter) -> None:
    (picture, mask), query = draw(1), draw(3)[0]
    expected = toy.predict(toy.fit([Shot(picture, mask=mask)]), query)
    first, last = torch.from_numpy(picture).permute(2, 0, 1), torch.from_numpy(query)
    task = toy.fit([Shot(first, mask=torch.from_numpy(mask))])
    for tensor in (last, last.permute(2, 0, 1), last.permute(2, 0, 1).double() / 255):
        assert np.array_equal(toy.predict(task, tensor).mask, expected.mask)
    batch = torch.stack([last, last]).permute(0, 3, 1, 2)
    assert len(list(toy.predict_many(task, batch))) == 2
    for wrong, message in (
        (batch, "is a batch: give one image"),
        (last[:3], r"channels first or last; .*permute\(1, 2, 0\)"),
        (last.bfloat16(), "a tensor of torch.bfloat16 cannot be read; give uint8"),
        (last.float() - 9, "expected pixel values of 8 to 16 bits"),
    ):
        with pytest.raises(ShapeError, match=message):
            toy.predict(task, wrong)


def test_a_mask_of_no_patch_is_refused(toy: kshot.Segmenter, tmp_path: Path) -> None:
    picture, mask = draw(1)
    Image.fromarray(picture).save(tmp_path / "dog.jpg")
    with pytest.raises(EmptyMaskError, match=r"dog.jpg: 'dog' marks no pixel; mark the object, or leave"):
        toy.fit([Shot(tmp_path / "dog.jpg", mask=mask & False, label="dog")])
    dot = mask & False
    dot[40:43, 40:43] = True
    with pytest.raises(EmptyMaskError, match=r"covers no 8x8 patch; mark more of the object, raise size"):
        toy.fit([Shot(tmp_path / "dog.jpg", mask=dot, label="dog")])


@pytest.mark.parametrize(
    ("shot", "error", "message"),
    [
        (Shot("nowhere/dog.jpg", label="dog"), ImageReadError, "nowhere/dog.jpg: no such file"),
        (Shot(draw(1)[0], mask="nowhere/dog.png", label="dog"), ImageReadError, "nowhere/dog.png: no such file"),
        (Shot(draw(1)[0], boxes=[500, 500, 600, 600], label="dog"), MaskError, "outside the image of 128 x 96"),
        (Shot(draw(1)[0], points=[[-3, 5]], label="dog"), MaskError, "outside the image"),
        (Shot(text="a dog", label="dog"), SettingError, "reads no words"),
        (Shot(encoded(draw(1)[0]), mask=np.ones((5, 5), bool), label="dog"), MaskError, "5 x 5 pixels"),
    ],
)
def test_wrong_supports_are_refused_at_the_fit(
    toy: kshot.Segmenter, shot: Shot, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        toy.fit([shot])


def test_no_shot_at_all_is_refused(toy: kshot.Segmenter) -> None:
    with pytest.raises(SupportError, match="no shot"):
        toy.fit([])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"backbone": "clasic"}, UnknownNameError, "Did you mean 'classic'"),
        ({"method": "densities"}, UnknownNameError, "no method is called 'densities'"),
        ({"refiner": "edge"}, UnknownNameError, "Choices: crf, edges, none, sam"),
        ({"size": 4}, SettingError, "smaller than one patch"),
        ({"dtype": "float16"}, SettingError, "float32 or bfloat16"),
        ({"device": "tpu0"}, SettingError, "no device is called"),
        ({"layers": (3,)}, SettingError, "layers 1..2"),
        ({"method_settings": {"kapa": 3}}, SettingError, "no setting kapa"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kshot.Segmenter(**({"backbone": "toy"} | settings))


def test_missing_weights_say_what_to_do() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"kshot models pull dinov2-small.*--backbone"):
        kshot.Segmenter(backbone="dinov2-small")


@pytest.mark.parametrize("path", ["/nowhere/vit", "./vit", "~/models/vit", "models/vit/base"])
def test_a_path_to_nowhere_is_not_taken_for_a_hub_id(path: str) -> None:
    with pytest.raises(WeightsNotFoundError, match=f"^{path}: no such folder; check the path"):
        kshot.Segmenter(backbone=path)


def test_a_task_refuses_another_backbone_when_it_predicts(
    toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path
) -> None:
    path = toy.fit(shots).save(tmp_path / "t.kshot")
    other = kshot.Segmenter(backbone="classic", size=96)
    with pytest.raises(BackboneMismatchError, match="use backbone='toy'"):
        other.predict(kshot.load_task(path), draw(3)[0])


def test_for_task_rebuilds_the_segmenter(toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path) -> None:
    task = kshot.load_task(toy.fit(shots).save(tmp_path / "t.kshot"))
    again = kshot.Segmenter.for_task(task)
    assert again.feature_spec == toy.feature_spec
    assert np.array_equal(again.predict(task, draw(3)[0]).scores, toy.predict(task, draw(3)[0]).scores)


def test_damaged_task_files_are_refused(toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path) -> None:
    path = toy.fit(shots).save(tmp_path / "t.kshot")
    data = path.read_bytes()
    cases = {"cut": data[: len(data) // 2], "text": b"not a task", "empty": b""}
    cases["flipped"] = data[:-5] + bytes([data[-5] ^ 255]) + data[-4:]
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TaskFileError, match=name):
            kshot.load_task(tmp_path / name)
    with pytest.raises(TaskFileError, match="no such file; `kshot fit"):
        kshot.load_task(tmp_path / "none.kshot")


def test_a_task_of_another_layout_is_refused(toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path) -> None:
    header, tensors = read_task(toy.fit(shots).save(tmp_path / "t.kshot"))
    for layout in (1, 99):  # of an older version, and of a newer one
        write_task(tmp_path / "other.kshot", header | {"layout": layout}, tensors)
        with pytest.raises(TaskVersionError, match=f"layout {layout}, this kshot reads layout 2; fit again"):
            kshot.load_task(tmp_path / "other.kshot")
    write_task(tmp_path / "odd.kshot", header | {"frames": "none"}, tensors)
    with pytest.raises(TaskFileError, match="damaged header"):
        kshot.load_task(tmp_path / "odd.kshot")


def test_predicting_leaves_no_gradient_and_no_state(toy: kshot.Segmenter, shots: list[Shot]) -> None:
    task = toy.fit(shots)
    first = toy.predict(task, draw(3)[0])
    toy.predict(task, draw(4)[0])
    assert np.array_equal(first.scores, toy.predict(task, draw(3)[0]).scores)
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_vit_tiny_segments_cats(vit_tiny: str, shared: Path) -> None:
    """Real weights on real photographs: five cats as supports, held-out cats as queries."""
    voc = shared / "data" / "VOCdevkit" / "VOC2012"
    segmenter = kshot.Segmenter(backbone=vit_tiny, layers=(10, 12), device="cpu")
    cats = []
    for name in (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split():
        truth = np.array(Image.open(voc / "SegmentationClass" / f"{name}.png"))
        if (truth == 8).mean() > 0.05:
            cats.append((voc / "JPEGImages" / f"{name}.jpg", truth))
    shots = [Shot(path, mask=np.where(truth == 255, 255, truth == 8).astype(np.uint8)) for path, truth in cats[:5]]
    task = segmenter.fit(shots)
    shared_pixels = all_pixels = 0
    for path, truth in cats[5:11]:
        found = segmenter.predict(task, path).mask == 1
        shared_pixels += int((found & (truth == 8)).sum())
        all_pixels += int(((found | (truth == 8)) & (truth != 255)).sum())
    assert shared_pixels / all_pixels > 0.6


def test_a_speck_among_other_classes_is_passed_over(toy: kshot.Segmenter) -> None:
    picture, mask = draw(1)
    labels = mask.astype(np.uint8)
    labels[2:4, 2:4] = 2
    speck = Shot(picture, mask=labels, label={1: "disc", 2: "speck"})
    with pytest.raises(EmptyMaskError, match="every support: 'speck' covers no 8x8 patch"):
        toy.fit([speck])
    shown = draw(2)
    task = toy.fit([speck, Shot(shown[0], mask=shown[1], label="speck")])
    assert task.classes == ("disc", "speck")
    assert float(task.supports[0].masks[1].sum()) == 0 and float(task.supports[0].valid_mask[0, 0]) < 1


def test_the_same_region_in_two_classes_is_refused(toy: kshot.Segmenter) -> None:
    picture, mask = draw(1)
    with pytest.raises(SupportError, match=r"'a' and 'b' cover the same region.*255"):
        toy.fit([Shot(picture, mask=mask, label="a"), Shot(picture, mask=mask, label="b")])


def test_classes_that_touch_are_let_pass(toy: kshot.Segmenter) -> None:
    """A rim two pixels wide that both masks claim."""
    picture, mask = draw(1)
    wider = binary_dilation(mask, iterations=2)
    around = binary_dilation(mask, iterations=12) & ~mask
    assert (wider & around).any()
    task = toy.fit([Shot(picture, mask=wider, label="a"), Shot(picture, mask=around, label="b")])
    assert float(task.supports[0].masks.sum(0).max()) <= 1 + 1e-6
