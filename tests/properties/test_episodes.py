"""Laws 1 and 2: episodes are pure in (seed, i); query and supports never meet; base and novel never meet."""

import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kshot.episodes.csv import read_episodes, write_episodes
from kshot.episodes.protocols import PROTOCOLS
from kshot.episodes.sampler import draw_episodes
from kshot.errors import DatasetError
from tests.support.dataset_layouts import from_areas

FEW = settings(max_examples=25, deadline=None)


@st.composite
def runs(draw, repeats=False):
    """A made-up data set and a run on it, of any protocol, way and shot that it can give."""
    n_classes = draw(st.integers(1, 4))
    areas = st.dictionaries(st.integers(1, n_classes), st.sampled_from([2, 9, 9]), min_size=1, max_size=3)
    table = draw(st.lists(areas, min_size=8, max_size=20))
    ids = [f"image {n}" for n in range(len(table))]
    cut = draw(st.integers(4, len(ids)))
    splits = {"val": tuple(ids[:cut]), "train": tuple(ids[cut // 2 :])}
    dataset = from_areas(
        dict(zip(ids, table, strict=True)),
        n_classes,
        splits=splits,
        query_split="val",
        support_split="train",
        min_area=draw(st.sampled_from([1, 8])),
        by_class=draw(st.booleans()),
    )
    try:
        return dataset, draw_episodes(
            dataset,
            draw(st.sampled_from(sorted(PROTOCOLS))),
            way=draw(st.integers(1, min(2, n_classes))),
            shot=draw(st.integers(1, 3)),
            count=16,
            seed=draw(st.integers(0, 2**40)),
            drop_small=True,
            allow_repeats=repeats and draw(st.booleans()),
        )
    except DatasetError:
        assume(False)


@FEW
@given(runs(repeats=True), st.randoms(use_true_random=False))
def test_law_1_an_episode_is_pure_in_seed_and_number(run, random):
    _, found = run
    straight = [found[i] for i in range(len(found))]
    order = list(range(len(found)))
    random.shuffle(order)
    assert [e for _, e in sorted((i, found[i]) for i in order)] == straight
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(found.__getitem__, range(len(found)))) == straight
    elsewhere = pickle.loads(pickle.dumps(found))
    assert list(elsewhere) == straight


@FEW
@given(runs(repeats=True))
def test_law_1_a_csv_repeats_the_run(run):
    dataset, found = run
    with tempfile.TemporaryDirectory() as folder:
        write_episodes(Path(folder) / "episodes.csv", found)
        again = read_episodes(Path(folder) / "episodes.csv", dataset)
    assert list(again) == list(found) and again.settings == found.settings


@FEW
@given(runs())
def test_law_2_the_query_is_no_support_and_supports_are_distinct(run):
    dataset, found = run
    settings = found.settings
    enough = {(p.image, p.class_id) for p in dataset.pairs(settings.support_split)}
    holds = {(p.image, p.class_id) for p in dataset.areas(settings.split)}
    for e in found:
        assert len(set(e.classes)) == len(e.supports) == settings.way
        for class_id, images in zip(e.classes, e.supports, strict=True):
            assert e.query not in images
            assert len(set(images)) == len(images) == settings.shot
            assert all((image, class_id) in enough for image in images)
        assert e.present == tuple((e.query, c) in holds for c in e.classes)
        assert settings.protocol == "fs-cs" or any(e.present)


@FEW
@given(st.integers(1, 4), st.integers(1, 9), st.data())
def test_law_2_base_and_novel_classes_are_disjoint(n_folds, n_classes, data):
    numbers = [data.draw(st.integers(0, n_folds - 1)) for _ in range(n_classes)]
    folds = tuple(tuple(c for c, f in enumerate(numbers, start=1) if f == fold) for fold in range(n_folds))
    dataset = from_areas({"a": {1: 1}}, n_classes, folds=folds, fold=0)
    for fold in range(n_folds):
        novel, base = set(dataset.fold_classes(fold)), set(dataset.base_classes(fold))
        assert not novel & base and novel | base == set(range(1, n_classes + 1))


@FEW
@given(st.sampled_from(sorted(PROTOCOLS)), st.integers(0, 2**40), st.integers(1, 2**40))
def test_another_seed_gives_other_episodes(protocol, seed, step):
    dataset = from_areas({f"i{n}": {n % 3 + 1: 5} for n in range(30)}, 3)
    one, two = (draw_episodes(dataset, protocol, way=2, shot=3, count=12, seed=s) for s in (seed, seed + step))
    assert list(one) != list(two)
