"""Each protocol's own rules; what all protocols share is in tests/properties/test_episodes.py."""

from collections import Counter

import pytest

from kshot.data.base import load_dataset
from kshot.episodes.protocols import PROTOCOLS
from kshot.episodes.sampler import draw_episodes
from kshot.errors import DatasetError, SettingError, UnknownNameError
from tests.support.dataset_layouts import from_areas, whole_coco, whole_voc


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    dataset = load_dataset("voc", whole_voc(tmp_path_factory.mktemp("voc"), per_class=4), fold=0)
    dataset.areas()
    return dataset


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return load_dataset("coco", whole_coco(tmp_path_factory.mktemp("coco")), fold=1)


def many(n_classes=4, per_class=8):
    """Each image holds its class and a little of the next."""
    table = {f"i{c}{n}": {c: 50, c % n_classes + 1: 2} for c in range(1, n_classes + 1) for n in range(per_class)}
    return from_areas(table, n_classes, min_area=10)


def test_hsnet_goes_through_the_list_by_turns(voc):
    found = draw_episodes(voc, "hsnet", shot=2)
    entries = [(pair.image, (pair.class_id,)) for pair in voc.pairs()]
    assert len(found) == 1000 and len(entries) == 20
    assert [(e.query, e.classes) for e in list(found)[:45]] == (entries * 3)[:45]
    assert all(e.present == (True,) for e in found)


def test_hsnet_on_coco_is_uniform_over_classes(coco):
    found = list(draw_episodes(coco, "hsnet"))
    assert len(found) == 1000
    times = Counter(c for e in found for c in e.classes)
    assert set(times) == set(coco.fold_classes()) and min(times.values()) > 20


def test_hsnet_with_more_ways_adds_classes_anywhere():
    found = list(draw_episodes(many(), "hsnet", way=3, count=300))
    assert all(len(set(e.classes)) == 3 and any(e.present) for e in found)
    own = Counter(e.classes.index(int(e.query[1])) for e in found)
    assert set(own) == {0, 1, 2} and min(own.values()) > 60


def test_pfenet_takes_each_image_once_and_a_class_that_it_holds(voc):
    dataset = many()
    found = list(draw_episodes(dataset, "pfenet", count=64))
    assert [e.query for e in found[:32]] == list(dataset.ids())
    assert Counter(e.classes[0] == int(e.query[1]) for e in found).keys() == {True, False}
    assert all(e.present == (True,) for e in found)
    assert len(draw_episodes(voc, "pfenet")) == 5000


def test_pfenet_on_coco_has_20000(coco):
    assert len(draw_episodes(coco, "pfenet")) == 20000


def test_panet_asks_the_same_supports_once_per_class():
    found = draw_episodes(many(), "panet", way=2, shot=3, seed=1234)
    assert len(found) == 2000 and PROTOCOLS["panet"].seeds == (1234, 1235, 1236, 1237, 1238)
    for first, second in ((found[i], found[i + 1]) for i in range(0, 100, 2)):
        assert (first.classes, first.supports) == (second.classes, second.supports)
        assert first.present[0] and second.present[1]
        used = {image for images in first.supports for image in images}
        assert not used & {first.query, second.query}


def test_fs_cs_asks_for_absent_classes_too():
    alone = from_areas({f"i{c}{n}": {c: 50} for c in range(1, 6) for n in range(6)}, 5)
    one = list(draw_episodes(alone, "fs-cs", count=1000))
    share = sum(e.present[0] for e in one) / 1000
    assert 0.45 < share < 0.55  # the query's class has half of the weight
    two = Counter(sum(e.present) for e in draw_episodes(many(), "fs-cs", way=2, count=500))
    assert set(two) == {0, 1, 2}


def test_fs_cs_with_one_class_is_never_absent():
    found = draw_episodes(from_areas({f"i{n}": {1: 5} for n in range(4)}, 1), "fs-cs", count=20)
    assert all(e.present == (True,) for e in found)


def test_seed_takes_supports_from_train_and_queries_of_any_size(voc):
    found = list(draw_episodes(voc, "seed", way=2, shot=2, count=200, fold=None))
    assert all(e.query.startswith("2007") for e in found)
    assert all(image.startswith("2008") for e in found for images in e.supports for image in images)
    areas = {(pair.image, pair.class_id): pair.area for pair in voc.areas()}
    seen = {areas.get((e.query, c), 0) for e in found for c in e.classes}
    assert 64 in seen and 2048 in seen  # 64 pixels make no pair, but a query
    assert all(any(e.present) for e in found)


def test_a_class_with_too_few_images_is_named_or_dropped():
    table = {f"a{n}": {1: 5} for n in range(6)} | {f"b{n}": {2: 5} for n in range(3)}
    dataset = from_areas(table, 3)
    with pytest.raises(
        DatasetError, match=r"made-up, all: class 2 has 3 of the 6 images that 5-shot needs; leave small"
    ):
        draw_episodes(dataset, shot=5)
    found = draw_episodes(dataset, shot=5, drop_small=True, count=30)
    assert found.dropped == ("class 2 has 3 of the 6 images that 5-shot needs",)
    assert {e.classes for e in found} == {(1,)} and {e.query[0] for e in found} == {"a"}
    assert draw_episodes(dataset, shot=2).dropped == ()


def test_a_split_of_its_own_for_supports_needs_no_spare_image():
    table = {"q": {1: 5}, "s": {1: 5}}
    splits = {"val": ("q",), "train": ("s",)}
    dataset = from_areas(table, 1, splits=splits, query_split="val", support_split="train")
    assert draw_episodes(dataset, "seed", count=1)[0].supports == (("s",),)
    with pytest.raises(DatasetError, match="class 1 has 1 of the 2"):
        draw_episodes(dataset, "hsnet")


def test_too_many_ways_say_how_many_there_are():
    with pytest.raises(DatasetError, match=r"made-up, all: 5-way, but 4 classes can be drawn"):
        draw_episodes(many(), way=5)
    folded = from_areas({f"i{n}": {1: 5} for n in range(4)}, 2, folds=((1,), (2,)), fold=1)
    with pytest.raises(DatasetError, match="1-way, but 0 classes of fold 1 can be drawn"):
        draw_episodes(folded)


def test_supports_repeat_only_on_request():
    dataset = from_areas({f"i{n}": {1: 5} for n in range(3)}, 1)
    with pytest.raises(DatasetError):
        draw_episodes(dataset, shot=5)
    found = list(draw_episodes(dataset, shot=5, allow_repeats=True, count=50))
    assert all(len(e.supports[0]) == 5 and e.query not in e.supports[0] for e in found)
    assert any(len(set(e.supports[0])) < 5 for e in found)


def test_ways_share_an_image_only_when_they_must():
    both = from_areas({f"i{n}": {1: 5, 2: 5} for n in range(9)}, 2)
    for e in draw_episodes(both, way=2, shot=4, count=40):
        assert not set(e.supports[0]) & set(e.supports[1])
    tight = from_areas({f"i{n}": {1: 5, 2: 5} for n in range(5)}, 2)
    for e in draw_episodes(tight, way=2, shot=4, count=40):
        assert all(len(set(images)) == 4 and e.query not in images for images in e.supports)


@pytest.mark.parametrize("wrong", [{"way": 0}, {"shot": 0}, {"count": 0}, {"seed": -1}])
def test_settings_are_checked(wrong):
    with pytest.raises(SettingError, match=f"expected {next(iter(wrong))} of at least"):
        draw_episodes(many(), **wrong)


def test_unknown_protocols_are_refused():
    with pytest.raises(UnknownNameError, match=r"no protocol is called 'hsent'\. Did you mean 'hsnet'"):
        draw_episodes(many(), "hsent")


def test_indexing_is_bounded():
    found = draw_episodes(many(), count=3)
    assert len(list(found)) == 3
    for index in (3, -1):
        with pytest.raises(IndexError):
            found[index]
