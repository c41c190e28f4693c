"""The same picture under another name is found; another picture is not."""

from pathlib import Path

import numpy as np
from PIL import Image

from kshot.training.twins import without
from tests.support.drawing import draw


def test_another_size_and_compression_hide_nothing(tmp_path: Path) -> None:
    for name in ("photos", "tests/below"):
        (tmp_path / name).mkdir(parents=True)
    for seed in range(4):
        Image.fromarray(draw(seed, (96, 128))[0]).save(tmp_path / "photos" / f"{seed}.png")
    Image.fromarray(draw(2, (96, 128))[0]).resize((320, 200)).save(tmp_path / "tests" / "below" / "x.jpg", quality=60)
    photos = sorted((tmp_path / "photos").iterdir())
    assert [path.name for path in without(photos, [tmp_path / "tests"])] == ["0.png", "1.png", "3.png"]
    assert without(photos, []) == photos


def test_pictures_of_one_colour_are_alike_to_nothing(tmp_path: Path) -> None:
    for name in ("photos", "tests"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / name / "flat.png")
    photos = list((tmp_path / "photos").iterdir())
    assert without(photos, [tmp_path / "tests"]) == photos
