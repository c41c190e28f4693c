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


@pytest.mark.parametrize(
    ("name", "on_disk"),
    [
        ("D:\\field\\spring 24\\leaf_01.jpg", "leaf_01.jpg"),
        ("\\\\server\\share\\leaf_01.jpg", "images/leaf_01.jpg"),
        ("/home/x/set/train/leaf_01.jpg", "train/leaf_01.jpg"),
        ("Pr\u00fcfung_01.jpg", "Pru\u0308fung_01.jpg"),
        ("Pru\u0308fung_01.jpg", "images/Pr\u00fcfung_01.jpg"),
        ("IMG_1.jpg", "IMG_1.JPG"),
        ("Train/img_1.jpg", "train/IMG_1.jpg"),
        ("/data/local-files/?d=set/a%20b.jpg", "set/a b.jpg"),
        ("/data/local-files/?d=home%5Cset%5Ca.jpg", "set/a.jpg"),
        ("/data/upload/3/0a1b2c3d-a.jpg", "a.jpg"),
        ("images/0a1b2c3d-a.jpg", "images/a.jpg"),
        ("https://host/files/a%20b.jpg?token=1", "a b.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        ("50%25.jpg", "50%.jpg"),
        ("dataset/images/a.jpg", "images/a.jpg"),
        ("er/a.jpg", "deep/er/a.jpg"),
    ],
)
def test_one_file_by_all_the_names_that_tools_give_it(name: str, on_disk: str, tmp_path: Path) -> None:
    picture(tmp_path / on_disk)
    picture(tmp_path / "other.jpg")
    assert ImageFinder(tmp_path).find(name) == tmp_path / on_disk


@pytest.mark.parametrize(
    ("name", "right", "others"),
    [
        ("50%25.jpg", "50%25.jpg", ["50%.jpg"]),  # a literal name counts first
        ("50%2525.jpg", "50%25.jpg", ["50%.jpg"]),  # decoded once
        ("0a1b2c3d-a.jpg", "0a1b2c3d-a.jpg", ["a.jpg"]),
        ("/x/set/val/a.jpg", "val/a.jpg", ["train/a.jpg", "more/a.jpg"]),
        ("C:\\set\\val\\a.jpg", "val/a.jpg", ["train/a.jpg", "set/train/a.jpg"]),
        ("a.JPG", "a.JPG", ["a.jpg", "deep/A.jpg"]),
        ("A.jpg", None, ["a.jpg", "deep/a.JPG"]),  # two fit equally well
        ("train/a.jpg", None, ["val/a.jpg"]),
        ("/x/a.jpg", None, ["val/a.jpg", "train/a.jpg"]),
    ],
)
def test_of_several_files_the_one_that_fits_best_or_none(
    name: str, right: str | None, others: list[str], tmp_path: Path
) -> None:
    for file in (*others, *filter(None, [right])):
        picture(tmp_path / file)
    assert ImageFinder(tmp_path).find(name) == (tmp_path / right if right else None)


def test_the_picture_beside_its_file_counts_before_others_of_its_name(tmp_path: Path) -> None:
    for file in ("one/a.jpg", "two/a.jpg"):
        picture(tmp_path / file)
    finder = ImageFinder(tmp_path)
    assert finder.find("D:/field/a.jpg", first=tmp_path / "two") == tmp_path / "two/a.jpg"
    assert finder.find("D:/field/a.jpg", first=tmp_path / "three") is None
