"""What every data set promises, on made-up copies of the layouts and on the development data."""

import pickle
import random

import numpy as np
import pytest

from kshot import _plugins
from kshot.data.base import Dataset, load_dataset
from kshot.episodes.protocols import PROTOCOLS
from kshot.episodes.sampler import draw_episodes
from kshot.errors import DatasetError
from tests.support import dataset_layouts

MAKERS = {
    "voc": lambda root: dataset_layouts.whole_voc(root, per_class=4),
    "coco": lambda root: dataset_layouts.whole_coco(root, 2014, per_class=4),
    "fss1000": lambda root: dataset_layouts.make_fss(root / "fss", 12),
    "folder": lambda root: dataset_layouts.make_class_folders(root, {"cat": 5, "dog": 6, "cow": 7}),
}
SHARED = {"voc": "VOCdevkit", "coco-mini": "coco-mini", "wbc": "wbc", "crack": "crack"}


def test_every_family_is_under_contract():
    assert sorted(MAKERS) == _plugins.names("data")


@pytest.fixture(scope="module", params=[*MAKERS, *(f"shared {name}" for name in SHARED)])
def dataset(request, tmp_path_factory) -> Dataset:
    made, _, name = request.param.rpartition(" ")
    if not made:
        return load_dataset(name, MAKERS[name](tmp_path_factory.mktemp(name)))
    shared = request.getfixturevalue("shared")
    return load_dataset("auto", shared / "data" / SHARED[name], cache=tmp_path_factory.mktemp("areas"))


def run(dataset: Dataset, protocol: str, way: int, shot: int):
    try:
        return draw_episodes(dataset, protocol, way, shot, count=40, drop_small=True)
    except DatasetError as error:
        assert "can be drawn" in str(error)
        return None


def test_label_maps_hold_classes_and_have_their_pictures(dataset):
    for image in dataset.ids()[:5]:
        truth = dataset.truth(image)
        assert truth.ndim == 2 and truth.dtype == np.uint8
        assert set(np.unique(truth)) <= {*range(len(dataset.classes) + 1), 255}
        assert dataset.image_path(image).is_file()


def test_pairs_are_what_the_label_maps_hold(dataset):
    first = dataset.ids()[0]
    truth = dataset.truth(first)
    assert {p.class_id: p.area for p in dataset.areas() if p.image == first} == {
        int(c): int((truth == c).sum()) for c in np.unique(truth) if c not in (0, 255)
    }
    assert {p.image for p in dataset.pairs()} <= set(dataset.ids())
    assert all(p.area >= dataset.min_area for p in dataset.pairs())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_episodes_are_pure(dataset, protocol):
    for way, shot in ((1, 1), (2, 1), (1, 3)):
        found = run(dataset, protocol, way, shot)
        if found is None:
            continue
        straight = list(found)
        order = random.Random(0).sample(range(40), 40)
        copy = pickle.loads(pickle.dumps(found))
        assert sorted((i, copy[i]) for i in order) == list(enumerate(straight))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_query_and_supports_never_meet(dataset, protocol):
    for way, shot in ((1, 1), (2, 2), (1, 3)):
        for episode in run(dataset, protocol, way, shot) or ():
            used = [image for images in episode.supports for image in images]
            assert episode.query not in used
            assert all(len(set(images)) == shot for images in episode.supports)
            truth = set(np.unique(dataset.truth(episode.query)).tolist()) if episode.index < 5 else None
            assert truth is None or episode.present == tuple(c in truth for c in episode.classes)


def test_base_and_novel_classes_are_disjoint(dataset):
    everything = set(range(1, len(dataset.classes) + 1))
    for fold in range(len(dataset.folds)):
        novel, base = set(dataset.fold_classes(fold)), set(dataset.base_classes(fold))
        assert novel and not novel & base and novel | base == everything
        assert {p.class_id for p in dataset.pairs(fold=fold)} <= novel


def test_the_report_counts_what_is_there(dataset):
    report = dataset.report()
    assert [c.name for c in report.classes] == list(dataset.classes)
    assert sum(c.pairs for c in report.classes) == len(dataset.pairs())
    assert report.splits[report.split] == len(dataset.ids())
    assert report.lines()[0].startswith(dataset.name)


def test_it_travels_to_another_process(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    image = dataset.ids()[0]
    assert np.array_equal(copy.truth(image), dataset.truth(image))
    assert copy.digest() == dataset.digest()
