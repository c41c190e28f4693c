"""Where the image of an annotation is looked for."""

from pathlib import Path

import pytest

from kshot.annotations.pairing import ImageFinder, path_below
from tests.support.files import picture


@pytest.mark.parametrize("name", ["a.jpg", "images/b.jpg", "deep/c.jpg", "deep/er/c.jpg", "deep/er/only.jpg"])
def test_a_name_with_its_folder_is_found_there(name: str, tmp_path: Path) -> None:
    for other in ("a.jpg", "images/b.jpg", "deep/c.jpg", "deep/er/c.jpg", "deep/er/only.jpg"):
        picture(tmp_path / other)
    assert ImageFinder(tmp_path).find(name) == tmp_path / name
    assert ImageFinder(tmp_path).find(name.replace("/", "\\")) == tmp_path / name


def test_a_bare_name_is_found_in_images_or_in_the_one_folder_that_has_it(tmp_path: Path) -> None:
    for name in ("images/b.jpg", "deep/c.jpg", "deep/er/c.jpg", "deep/er/only.jpg"):
        picture(tmp_path / name)
    finder = ImageFinder(tmp_path / "labels.json")
    assert ImageFinder(tmp_path).find("b.jpg") == tmp_path / "images/b.jpg"
    assert ImageFinder(tmp_path).find("only.jpg") == tmp_path / "deep/er/only.jpg"
    assert ImageFinder(tmp_path).find("c.jpg") is None  # two have this name
    assert ImageFinder(tmp_path).find("other/only.jpg") is None  # another folder says another image
    assert finder.find("a.jpg") is None


def test_an_address_elsewhere_counts_by_its_name_alone(tmp_path: Path) -> None:
    picture(tmp_path / "deep/a.jpg")
    for name in ("/home/somebody/a.jpg", "../a.jpg", "..\\pictures\\a.jpg"):
        assert path_below(name) is None and ImageFinder(tmp_path).find(name) == tmp_path / "deep/a.jpg"
    assert path_below("") is None and path_below("x\0.jpg") is None


def test_given_folders_replace_those_beside_the_labels(tmp_path: Path) -> None:
    picture(tmp_path / "labels/a.jpg")
    picture(tmp_path / "elsewhere/a.jpg")
    picture(tmp_path / "a.jpg")
    finder = ImageFinder(tmp_path / "labels", tmp_path / "elsewhere")
    assert finder.find("a.jpg") == tmp_path / "elsewhere/a.jpg"
    assert finder.find("../a.jpg", first=tmp_path / "labels") == tmp_path / "labels/../a.jpg"
