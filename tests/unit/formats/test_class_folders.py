import pytest

from kshot.errors import SupportError
from kshot.formats import class_folders
from tests.support.files import mask, picture, square, text


def read(root):
    """(class, image, mask) of each shot, by names relative to the folder."""
    shots = class_folders.FORMAT.read_shots(root)
    names = [[path and path.relative_to(root).as_posix() for path in (s.image, s.mask)] for s in shots]
    return [(shot.label, *pair) for shot, pair in zip(shots, names, strict=True)]


def make(root, *names):
    for name in names:
        if name.endswith(".jpg"):
            picture(root / name)
        else:
            mask(root / name, square())
    return root


def test_the_folder_of_a_pair_is_its_class(tmp_path):
    make(tmp_path, "dog/b.jpg", "dog/b.png", "cat/a.jpg", "cat/a.png", "dog/a.jpg", "dog/a.png")
    assert read(tmp_path) == [
        ("cat", "cat/a.jpg", "cat/a.png"),
        ("dog", "dog/a.jpg", "dog/a.png"),
        ("dog", "dog/b.jpg", "dog/b.png"),
    ]


@pytest.mark.parametrize("image", ["x.jpg", "x.png"])
def test_a_mask_may_be_marked_in_its_name(image, tmp_path):
    make(tmp_path, f"cat/{image}", "cat/x_mask.png")
    assert read(tmp_path) == [("cat", f"cat/{image}", "cat/x_mask.png")]


def test_a_name_that_happens_to_end_in_mask_is_a_name_like_any_other(tmp_path):
    make(tmp_path, "face/surgical_mask.jpg", "face/surgical_mask.png")
    assert read(tmp_path) == [("face", "face/surgical_mask.jpg", "face/surgical_mask.png")]


def test_images_and_masks_may_stand_in_two_trees(tmp_path):
    make(tmp_path, "images/cat/a.jpg", "masks/cat/a.png", "images/cat/b.jpg", "images/cat/s/c.jpg")
    make(tmp_path, "masks/cat/s/c_mask.png", "images/dog/d.jpg")
    assert read(tmp_path) == [
        ("cat", "images/cat/a.jpg", "masks/cat/a.png"),
        ("cat", "images/cat/s/c.jpg", "masks/cat/s/c_mask.png"),
        ("dog", "images/dog/d.jpg", None),
    ]


def test_pairs_in_the_folder_itself_are_one_class_of_its_name(tmp_path):
    make(tmp_path / "rust", "a.jpg", "a.png", "b.jpg")
    assert read(tmp_path / "rust") == [("rust", "a.jpg", "a.png")]


def test_images_without_any_mask_are_shots_without_a_prompt(tmp_path):
    make(tmp_path, "cat/b.jpg", "cat/a.jpg", "dog/c.png")
    assert read(tmp_path) == [("cat", "cat/a.jpg", None), ("cat", "cat/b.jpg", None), ("dog", "dog/c.png", None)]
    assert {shot.prompt for shot in class_folders.FORMAT.read_shots(tmp_path)} == {"none"}


def test_beside_images_with_masks_those_without_are_left_out(tmp_path):
    make(tmp_path, "cat/a.png", "cat/a_mask.png", "cat/b.png")
    assert read(tmp_path) == [("cat", "cat/a.png", "cat/a_mask.png")]


def test_hidden_files_and_other_files_are_no_shots(tmp_path):
    make(tmp_path, "cat/a.jpg", "cat/a.png", "cat/.b.jpg", ".dog/a.jpg")
    text(tmp_path / "cat/a.txt", "notes")
    text(tmp_path / "readme.md", "notes")
    (tmp_path / "nothing").mkdir()
    assert read(tmp_path) == [("cat", "cat/a.jpg", "cat/a.png")]


@pytest.mark.parametrize("names", [[], ["a.jpg", "b.jpg"], ["images/a.jpg"], ["masks/a.png"], ["sub/deeper/a.jpg"]])
def test_a_folder_of_another_layout_is_left_to_others(names, tmp_path):
    assert class_folders.FORMAT.read_shots(make(tmp_path, *names)) is None


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["cat/a.jpg", "cat/a.png", "cat/b.png"], r"1 masks without an image in .*cat: .*b\.png"),
        (["cat/a.jpg", "cat/b_mask.png"], r"without an image.*b_mask\.png"),
        (["images/cat/a.jpg", "masks/cat/b.png"], r"without an image.*b\.png"),
        (["images/cat/a.jpg", "masks/dog/a.png"], r"without an image.*dog"),
        (["cat/a.jpg", "cat/a.png", "cat/a_mask.png"], r"a\.jpg.*which is the image"),
        (["images/cat/a.jpg", "masks/cat/a.png", "masks/cat/a_mask.png"], "two masks of"),
        (["images/cat/a.jpg", "images/cat/a.png", "masks/cat/a.png"], "two files of one name"),
        (["cat/a.jpg", "stray.jpg"], r"stray\.jpg: an image beside the class folders"),
        (["images/a.jpg", "masks/a.png"], r"no classes\.json or classes\.txt"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(names, says, tmp_path):
    with pytest.raises(SupportError, match=says):
        class_folders.FORMAT.read_shots(make(tmp_path, *names))


def test_two_images_of_one_name_and_no_png_are_refused(tmp_path):
    picture(tmp_path / "cat/a.jpg")
    picture(tmp_path / "cat/a.bmp")
    with pytest.raises(SupportError, match="which is the image"):
        class_folders.FORMAT.read_shots(tmp_path)


def test_at_most_five_lost_masks_are_listed(tmp_path):
    make(tmp_path, "images/cat/a.jpg", *(f"masks/cat/{i}.png" for i in range(7)))
    with pytest.raises(SupportError, match=r"7 masks without.*4\.png, \.\.\.;") as refused:
        class_folders.FORMAT.read_shots(tmp_path)
    assert "5.png" not in str(refused.value)
