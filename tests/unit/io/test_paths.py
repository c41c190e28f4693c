import pytest

from kshot.errors import InputError
from kshot.io.paths import list_images
from tests.support.files import picture, text


def stems(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_images_of_a_folder_come_sorted_from_all_depths_without_hidden_ones(tmp_path):
    for name in ("b.jpg", "a/z.PNG", "a/b/c.webp", ".hidden.jpg", ".git/x.jpg", "a-b.tif"):
        picture(tmp_path / name)
    text(tmp_path / "a/notes.txt", "no image")
    (tmp_path / "folder.jpg").mkdir()
    assert stems(list_images(tmp_path), tmp_path) == ["a-b.tif", "a/b/c.webp", "a/z.PNG", "b.jpg"]
    assert list_images(str(tmp_path)) == list_images(tmp_path)


def test_looped_and_broken_links_are_survived_and_each_folder_is_read_once(tmp_path):
    picture(tmp_path / "real/a.jpg")
    (tmp_path / "real/up").symlink_to(tmp_path)
    (tmp_path / "real/self").symlink_to(tmp_path / "real")
    (tmp_path / "real/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert stems(list_images(tmp_path), tmp_path) == ["real/a.jpg"]
    assert stems(list_images(f"{tmp_path}/**/*.jpg"), tmp_path) == ["real/a.jpg"]


def test_links_to_folders_and_files_elsewhere_are_followed(tmp_path):
    picture(tmp_path / "elsewhere/a.jpg")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/b.jpg").symlink_to(tmp_path / "elsewhere/a.jpg")
    assert stems(list_images(tmp_path / "images"), tmp_path / "images") == ["b.jpg", "more/a.jpg"]


def test_a_glob_gives_the_images_that_match(tmp_path):
    for name in ("1.jpg", "2.jpg", "2.png", "sub/2.jpg", ".2.jpg"):
        picture(tmp_path / name)
    text(tmp_path / "2.txt", "no image")
    assert stems(list_images(f"{tmp_path}/2.*"), tmp_path) == ["2.jpg", "2.png"]
    assert stems(list_images(tmp_path / "**" / "2.jpg"), tmp_path) == ["2.jpg", "sub/2.jpg"]


def test_a_single_file_is_itself_also_with_brackets_in_its_name(tmp_path):
    path = picture(tmp_path / "img[1].jpg")
    assert list_images(path) == [path]


@pytest.mark.parametrize(
    ("name", "says"),
    [("gone", "no such file"), ("*.jpg", "looked for .*jpg"), ("**.jpg", r"\*\*"), (".", "looked for")],
)
def test_no_image_at_all_is_refused_with_what_was_looked_for(name, says, tmp_path):
    text(tmp_path / "notes.txt", "no image")
    with pytest.raises(InputError, match=says):
        list_images(tmp_path / name)
