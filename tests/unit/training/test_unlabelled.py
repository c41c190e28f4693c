"""Photographs to learn from: which are found, and the views of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kshot.errors import KshotError, TrainingError
from kshot.training.unlabelled import (
    color_jitter,
    crop_resize,
    find_photos,
    mask_of,
    random_resized_crop_box,
    seeded_rng,
    split_held_out,
    to_pixels,
)
from tests.support.drawing import draw
from tests.support.photographs import folder_of


def test_damaged_files_are_left_out_and_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_of(tmp_path, 3)
    (folder / "a" / "broken.jpg").write_bytes(b"no picture")
    found, _ = find_photos(folder)
    assert sorted(path.name for path in found) == ["0.png", "1.png", "2.png"]
    assert "broken.jpg" in caplog.text


def test_the_order_hangs_on_names_alone(tmp_path: Path) -> None:
    here, there = folder_of(tmp_path / "x", 6), folder_of(tmp_path / "y", 6)
    assert [p.relative_to(here) for p in find_photos(here)[0]] == [p.relative_to(there) for p in find_photos(there)[0]]


@pytest.mark.parametrize("name", ["missing", "empty", "broken"])
def test_nothing_to_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(KshotError, match=name):
        find_photos(tmp_path / name)


def test_few_are_held_out_and_none_is_both() -> None:
    paths = [Path(f"{n}.png") for n in range(100)]
    held_out, learned = split_held_out(paths)
    assert len(held_out) == 4 and len(learned) == 96 and not set(held_out) & set(learned)
    with pytest.raises(TrainingError, match="1 readable"):
        split_held_out(paths[:1])


@given(height=st.integers(1, 400), width=st.integers(1, 400), seed=st.integers(0, 99), least=st.floats(0.1, 1))
def test_boxes_lie_in_the_image(height: int, width: int, seed: int, least: float) -> None:
    left, top, right, bottom = random_resized_crop_box((height, width), seeded_rng(seed), least)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_views_are_pure_in_their_seed() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)

    def view(seed: int) -> np.ndarray:
        rng = seeded_rng(seed, 7)
        return np.asarray(color_jitter(crop_resize(image, random_resized_crop_box((50, 60), rng, 0.3), 32), rng))

    assert np.array_equal(view(1), view(1)) and not np.array_equal(view(1), view(2))


def test_pixels_are_normalised_by_hand() -> None:
    white = Image.new("RGB", (2, 2), (255, 255, 255))
    pixels = to_pixels([white], (0.5, 0.25, 1.0), (0.5, 0.5, 0.5))
    assert pixels.shape == (1, 3, 2, 2) and pixels[0, :, 0, 0].tolist() == [1.0, 1.5, 0.0]


def test_a_mask_has_the_place_and_name_of_its_photograph(tmp_path: Path) -> None:
    (tmp_path / "masks" / "a").mkdir(parents=True)
    Image.fromarray(np.full((4, 4), 1, np.uint8)).save(tmp_path / "masks" / "a" / "1.png")
    found = mask_of(tmp_path / "photos" / "a" / "1.jpg", tmp_path / "photos", tmp_path / "masks")
    assert found is not None and found.sum() == 16
    assert mask_of(tmp_path / "photos" / "2.jpg", tmp_path / "photos", tmp_path / "masks") is None


def test_another_size_and_compression_hide_no_near_duplicate(tmp_path: Path) -> None:
    for name in ("photos", "tests/below"):
        (tmp_path / name).mkdir(parents=True)
    for seed in range(4):
        Image.fromarray(draw(seed, (96, 128))[0]).save(tmp_path / "photos" / f"{seed}.png")
    Image.fromarray(draw(2, (96, 128))[0]).resize((320, 200)).save(tmp_path / "tests" / "below" / "x.jpg", quality=60)
    found, near_duplicates = find_photos(tmp_path / "photos", without=[tmp_path / "tests"])
    assert sorted(path.name for path in found) == ["0.png", "1.png", "3.png"] and near_duplicates == 1
    assert len(find_photos(tmp_path / "photos")[0]) == 4


def test_images_of_one_colour_are_near_duplicates_of_nothing(tmp_path: Path) -> None:
    for name in ("photos", "tests"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / name / "flat.png")
    assert find_photos(tmp_path / "photos", without=[tmp_path / "tests"]) == ([tmp_path / "photos" / "flat.png"], 0)
