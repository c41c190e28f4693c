"""VOC folders whose masks are colours, as CVAT's "Segmentation mask 1.1" has them."""

import numpy as np
import pytest
from PIL import Image

from kshot.data.base import load_dataset
from kshot.errors import DatasetError, MaskError, SupportError
from kshot.formats import voc
from kshot.formats.base import read_labels
from tests.support.files import picture, text

SIZE = (20, 30)
LEAF, STONE, EDGE = (250, 50, 83), (50, 183, 250), (224, 224, 192)
LINES = ["background:0,0,0::", "leaf:250,50,83::", "stone:50,183,250::"]


def labels(stone=2, leaf=1):
    drawn = np.zeros(SIZE, np.uint8)
    drawn[:4, :5], drawn[10:, 20:] = leaf, stone
    return drawn


def coloured(other=None):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[labels() == 1], pixels[labels() == 2] = LEAF, STONE
    if other:
        pixels[-1, 0] = other
    return pixels


def export(root, masks, lines=LINES):
    """A VOC folder of {name: mask image}."""
    for name, drawn in masks.items():
        picture(root / "JPEGImages" / f"{name}.jpg", SIZE)
        path = root / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (drawn if isinstance(drawn, Image.Image) else Image.fromarray(drawn)).save(path)
    if lines:
        text(root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")
    return root


def paletted(indices, colours):
    image = Image.fromarray(indices)
    image.putpalette([band for colour in colours for band in colour])
    return image


def areas(root):
    """{class: pixels} of each image, and the pixels that are ignored."""
    found, _ = read_labels(root)
    drawn = [image.labels(found.classes) for image in found.images]
    return [
        {n: int((d == i).sum()) for i, n in enumerate(found.classes, 1)} | {"?": int((d == 255).sum())} for d in drawn
    ]


@pytest.mark.parametrize("lines", [LINES, LINES[::-1], [LINES[1], LINES[0], LINES[2]]])
def test_colours_are_labels_in_any_order_of_the_list(lines, tmp_path):
    export(tmp_path, {"one": coloured(), "two": coloured(EDGE), "three": np.zeros((*SIZE, 3), np.uint8)}, lines)
    seen = {"leaf": 20, "stone": 100}
    assert areas(tmp_path) == [seen | {"?": 0}, {"leaf": 0, "stone": 0, "?": 0}, seen | {"?": 1}]
    one, _ = voc.FORMAT.read_shots(tmp_path)
    assert sorted(one.label.values()) == ["leaf", "stone"]
    assert {name: int((one.mask == label).sum()) for label, name in one.label.items()} == seen
    dataset = load_dataset("voc", tmp_path)
    assert sorted(dataset.classes) == ["leaf", "stone"] and len(dataset.ids()) == 3
    leaf = dataset.classes.index("leaf") + 1
    assert (dataset.truth("one") == leaf).sum() == 20 and dataset.shortfalls(dataset) == ()


def test_a_colour_that_is_not_listed_is_an_error(tmp_path):
    export(tmp_path, {"one": coloured((1, 2, 3))})
    with pytest.raises(MaskError, match=r"one\.png: colours that .*labelmap\.txt does not list: 1,2,3"):
        areas(tmp_path)
    with pytest.raises(MaskError, match="1,2,3"):
        voc.FORMAT.read_shots(tmp_path)
    with pytest.raises(DatasetError, match="1,2,3"):
        load_dataset("voc", tmp_path).truth("one")


def test_indices_go_on_being_labels_and_a_palette_counts_by_its_colours(tmp_path):
    swapped = paletted(labels(stone=1, leaf=2), [(0, 0, 0), STONE, LEAF])
    indexed = paletted(labels(), [(n, n, 255 - n) for n in range(256)])
    export(tmp_path, {"grey": labels(), "indexed": indexed, "swapped": swapped})
    assert areas(tmp_path) == [{"leaf": 20, "stone": 100, "?": 0}] * 3
    shots = voc.FORMAT.read_shots(tmp_path)
    assert [isinstance(shot.mask, np.ndarray) for shot in shots] == [False, False, True]


def test_indices_are_refused_where_the_background_is_not_the_first_line(tmp_path):
    export(tmp_path, {"grey": labels()}, LINES[::-1])
    with pytest.raises(MaskError, match=r"grey\.png: holds indices or greys, but .*not the background first"):
        areas(tmp_path)


def test_vocs_own_colours_need_no_list(tmp_path):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:4, :5], pixels[10:, 20:] = (64, 0, 128), EDGE  # label 12
    export(tmp_path, {"one": pixels}, lines=None)
    assert {name: n for name, n in areas(tmp_path)[0].items() if n} == {"dog": 20, "?": 100}


def test_objects_may_be_colours_too(tmp_path):
    export(tmp_path, {"one": coloured()})
    objects = coloured()
    objects[10:15, 20:] = (9, 9, 9)
    path = tmp_path / "SegmentationObject/one.png"
    path.parent.mkdir()
    Image.fromarray(objects).save(path)
    found, _ = read_labels(tmp_path)
    (image,) = found.images
    assert sorted((one.label, one.area) for one in image.annotations) == [("leaf", 20), ("stone", 50), ("stone", 50)]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([*LINES, "tree:250,50,83::"], "the colour 250,50,83 stands there twice"),
        (LINES[1:], "one background"),
        (["leaf:::", "background:::"], "background has to come first"),
    ],
)
def test_lists_that_say_two_things_are_refused(lines, says, tmp_path):
    export(tmp_path, {"one": coloured()}, lines)
    with pytest.raises(SupportError, match=says):
        areas(tmp_path)
    with pytest.raises(DatasetError, match=says):
        load_dataset("voc", tmp_path)
