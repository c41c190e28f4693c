import numpy as np
import pytest
from PIL import Image

from kshot.errors import MaskError, SupportError
from kshot.formats import class_folders
from kshot.formats.base import read_labels, read_support
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


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["a.jpg", "b.jpg"],
        ["images/a.jpg"],
        ["masks/a.png"],
        ["sub/deeper/a.jpg"],
        ["image/a.jpg", "mask/a.png"],
        ["train/a.jpg", "val/b.jpg"],
    ],
)
def test_a_folder_of_another_layout_is_left_to_others(names, tmp_path):
    assert class_folders.FORMAT.read_shots(make(tmp_path, *names)) is None


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["cat/a.jpg", "cat/a.png", "cat/b.png"], r"1 mask without an image in .*cat: .*b\.png"),
        (["cat/a.jpg", "cat/b_mask.png"], r"without an image.*b_mask\.png"),
        (["images/cat/a.jpg", "masks/cat/b.png"], r"without an image.*b\.png"),
        (["images/cat/a.jpg", "masks/dog/a.png"], r"without an image.*dog"),
        (["cat/a.jpg", "cat/a.png", "cat/a_mask.png"], r"a\.jpg.*which is the image"),
        (["cat/a.jpg", "cat/a_mask.png", "cat/a_seg.png"], r"a_mask\.png.*a_seg\.png: which is the image"),
        (["cat/a.jpg", "cat/a_mask.png", "cat/a_segmentation_1.png"], "which is the image"),
        (["cat/a.jpg", "cat/a_seg.png", "cat/b_seg.png"], r"1 mask without an image.*b_seg\.png"),
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


@pytest.mark.parametrize(
    "ending", ["mask", "segmentation", "seg", "cp_masks", "labels", "masks", "Mask", "mask (1)", "gt"]
)
def test_endings_that_tools_give_to_masks(ending, tmp_path):
    make(tmp_path, "cell/x.jpg", f"cell/x_{ending}.png", "images/cell/s/y.jpg", f"masks/cell/s/y_{ending}.png")
    expected = [("cell", "images/cell/s/y.jpg", f"masks/cell/s/y_{ending}.png")]
    assert read(tmp_path) == expected
    assert [shot.mask.name for shot in class_folders.FORMAT.read_shots(tmp_path / "cell")] == [f"x_{ending}.png"]


@pytest.mark.parametrize("folders", [("lesion", "lesion"), ("images/lesion", "masks/lesion")])
def test_all_numbered_masks_of_an_image_count(folders, tmp_path):
    images, masks = (tmp_path / folder for folder in folders)
    picture(images / "scan (1).png", (20, 30))
    for place, name in enumerate(["scan (1)_mask.png", "scan (1)_mask_1.png", "scan (1)_mask_2.png"]):
        drawn = np.zeros((20, 30), np.uint8)
        drawn[2:10, 10 * place : 10 * place + 5] = 255
        mask(masks / name, drawn, "L")
    annotations, _ = read_labels(tmp_path)
    (image,) = annotations.images
    assert (image.labels(annotations.classes) == 1).sum() == 3 * 40


def objects(count, dtype=np.uint8):
    """`count` objects of 4 pixels, numbered from 1."""
    numbers = np.zeros(-(-count // 20) * 20, dtype)
    numbers[:count] = np.arange(1, count + 1)
    return np.kron(numbers.reshape(-1, 20), np.ones((2, 2), dtype))


def folder_of(root, **masks):
    """A class folder with an image to each mask."""
    for name, drawn in masks.items():
        picture(root / f"{name}.jpg", drawn.shape)
        Image.fromarray(drawn).save(root / f"{name}_mask.png")
    return root


def test_label_images_of_objects_are_of_the_class_and_said(tmp_path):
    folder_of(tmp_path / "cell", a=objects(200), b=objects(2), c=objects(1), d=objects(300, np.uint16))
    annotations, _ = read_labels(tmp_path)
    areas = [(image.labels(annotations.classes) == 1).sum() for image in annotations.images]
    assert areas == [800, 8, 4, 1200]
    (told,) = annotations.skipped.lines
    assert told.endswith("cell: 4 masks, up to 300 labels in one, which are taken as objects of the class")


def test_an_ordinary_folder_is_read_without_a_word(tmp_path):
    white = np.where(objects(30) > 0, np.uint8(255), np.uint8(0))
    folder_of(tmp_path / "cell", a=white, b=white // 255, c=white > 0, d=white // 5)
    shots = class_folders.FORMAT.read_shots(tmp_path)
    assert len(shots) == 4 and not shots.skipped.lines


def test_soft_and_transparent_masks_are_said(tmp_path):
    soft = np.kron(np.linspace(0, 255, 32).astype(np.uint8)[None], np.ones((8, 1), np.uint8))
    clear = np.dstack([np.full((*soft.shape, 3), 255, np.uint8), np.where(soft > 127, 255, 0).astype(np.uint8)])
    picture(tmp_path / "cup/c.jpg", soft.shape)
    Image.fromarray(clear).save(tmp_path / "cup/c_mask.png")
    folder_of(tmp_path / "cup", a=soft, b=soft)
    support = read_support(tmp_path)
    assert len(support.shots) == 3
    assert "2 by greys with soft edges, cut in the middle; 1 by their alpha channel" in support.notes[0]


def of_two(first=12, second=18):
    labels = np.zeros((20, 20), np.uint8)
    labels[2:8, 2:8], labels[2:8, 12:18], labels[0] = first, second, 255
    return labels


@pytest.mark.parametrize(
    ("labels", "mode"), [((12, 18), "P"), ((12, 18), "L"), ((1, 2), "P"), ((1, 2), "L"), ((1, 200), "L")]
)
def test_a_mask_of_two_classes_is_refused_and_names_both(labels, mode, tmp_path):
    picture(tmp_path / "dog/a.jpg", (20, 20))
    mask(tmp_path / "dog/a.png", of_two(*labels), mode)
    with pytest.raises(MaskError, match=rf"a\.png: the labels {labels[0]} and {labels[1]} in masks of one class"):
        read(tmp_path)


def test_palettes_of_two_classes_in_two_files_are_refused(tmp_path):
    for name, label in {"a": 12, "b": 12, "c": 18}.items():
        picture(tmp_path / "dog" / f"{name}.jpg")
        mask(tmp_path / "dog" / f"{name}.png", square(label))
    with pytest.raises(MaskError, match=r"a\.png and .*c\.png: the labels 12 and 18"):
        read(tmp_path)


def test_two_objects_are_taken_where_the_name_or_the_depth_says_so(tmp_path):
    picture(tmp_path / "cell/a.jpg", (20, 20))
    mask(tmp_path / "cell/a_labels.png", of_two(3, 9), "L")
    picture(tmp_path / "cell/b.jpg", (20, 20))
    Image.fromarray(of_two(3, 9).astype(np.uint16)).save(tmp_path / "cell/b_mask.png")
    assert len(read(tmp_path)) == 2


def test_classes_in_one_mask_contradict_objects_in_another(tmp_path):
    folder_of(tmp_path / "cell", a=objects(7), b=of_two(12, 18))
    with pytest.raises(MaskError, match=r"b_mask\.png: the labels 12 and 18"):
        read(tmp_path)
