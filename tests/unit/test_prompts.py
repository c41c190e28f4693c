"""From shots to supports: each image is read once, and every mask of pixels takes the same way to the grid."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kshot
from kshot import prompts
from kshot.errors import ImageReadError
from kshot.ops.geometry import Frame, coverage
from kshot.prompts import ShotReader, grid_mask
from kshot.report import save_supports
from kshot.types import Shot, SupportSet
from tests.support.drawing import draw


def test_a_support_image_is_decoded_once_for_fit_and_report(
    toy: kshot.Segmenter, support_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    real = prompts.read_image
    monkeypatch.setattr(prompts, "read_image", lambda image, **facts: read.append(image) or real(image, **facts))
    support = SupportSet.from_folder(support_folder)
    task = toy.fit(support)
    save_supports(tmp_path / "out", support, task, toy.shot_reader)
    assert sorted(Path(str(image)).name for image in read) == ["1.jpg", "2.jpg"]


def test_an_image_that_changed_is_read_again(tmp_path: Path) -> None:
    reader, path = ShotReader(), tmp_path / "a.png"
    for seed in (1, 2):
        pixels = draw(seed)[0][: 60 + seed]
        Image.fromarray(pixels).save(path)
        ((found, shots),) = reader.by_image([Shot(path), Shot(str(path))], lambda image, _: image)
        np.testing.assert_array_equal(found, pixels)
        assert len(shots) == 2


def test_images_are_distinct_when_their_pixels_are() -> None:
    first, second = draw(1)[0], draw(2)[0]
    shots = [Shot(first, label="a"), Shot(second, label="a"), Shot(first.copy(), label="b"), Shot(text="a", label="a")]
    groups = ShotReader().by_image(shots, lambda image, name: name)
    assert groups == [("the image array", [shots[0], shots[2]]), ("the image array", [shots[1]])]


def test_a_missing_image_is_named_and_a_reader_travels_without_its_images(tmp_path: Path) -> None:
    reader = ShotReader(max_pixels=1000)
    with pytest.raises(ImageReadError, match="nowhere"):
        reader.by_image([Shot(tmp_path / "nowhere.png")], lambda image, name: name)
    assert pickle.loads(pickle.dumps(reader)).max_pixels == 1000


def test_a_mask_covers_the_fraction_of_each_patch_that_it_marks() -> None:
    frame = Frame((8, 12), (8, 12), 8)  # the second column of patches is half padding
    mask = np.zeros((8, 12), bool)
    mask[:4, :8] = mask[:, 8:] = True
    assert grid_mask(mask, frame).tolist() == [[0.5, 0.5]]
    stacked = torch.from_numpy(np.stack([mask, ~mask]))
    assert grid_mask(stacked, frame).tolist() == [[[0.5, 0.5]], [[0.5, 0.0]]]


@pytest.mark.parametrize("width", [*range(97, 400, 37), 500])
def test_a_patch_is_never_covered_by_more_than_itself(width: int) -> None:
    frame = Frame.fit((240, width), 96, 8)
    shares, whole = grid_mask(np.ones((240, width), bool), frame), coverage(frame)
    assert bool((shares <= whole).all())  # sums of products may come out just above one
    torch.testing.assert_close(shares, whole, atol=1e-6, rtol=0)
