"""Episodes on paper: what was written comes back, and what does not fit is refused."""

import pytest

from kshot.episodes.csv import read_episodes, write_episodes
from kshot.episodes.sampler import draw_episodes
from kshot.errors import DatasetError
from tests.support.dataset_layouts import from_areas


def many(n_classes=4, per_class=8):
    """Each image holds its class and a little of the next."""
    table = {f"i{c}{n}": {c: 50, c % n_classes + 1: 2} for c in range(1, n_classes + 1) for n in range(per_class)}
    return from_areas(table, n_classes, min_area=10)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "runs" / "episodes.csv"
    found = draw_episodes(many(), "fs-cs", way=2, shot=2, count=7, seed=5, drop_small=True)
    write_episodes(path, found)
    return path, found


def test_a_csv_comes_back(written):
    path, found = written
    again = read_episodes(path, many())
    assert again.settings == found.settings and list(again) == list(found)
    write_episodes(path.with_name("again.csv"), again)
    assert path.with_name("again.csv").read_bytes() == path.read_bytes()
    head = path.read_text().splitlines()
    assert head[:3] == ["# kshot episodes 1", "# dataset: made-up", "# split: all"]
    assert "episode,query,class_1,present_1,support_1_1,support_1_2,class_2," in path.read_text()


def test_a_csv_of_another_data_set_is_refused(written):
    path, _ = written
    with pytest.raises(DatasetError, match=r"another copy of made-up: its classes or the image ids of all differ"):
        read_episodes(path, many(per_class=9))
    other = from_areas({"x": {1: 2}}, 1, splits={"val": ("x",)})
    with pytest.raises(DatasetError, match="drawn from the list 'all', which made-up does not have here"):
        read_episodes(path, other)
    path.write_text(path.read_text().replace("dataset: made-up", "dataset: voc"))
    with pytest.raises(DatasetError, match="these are episodes of voc, but the data set is made-up"):
        read_episodes(path, many())


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("# kshot episodes 1", "# kshot episodes 9", "its first line should be"),
        ("# shot: 2", "# shot: two", "its head should give dataset, split"),
        ("# digest", "# digets", "'digest' is missing"),
        ("# count: 7", "# count: 8", "it should have 8"),
        ("episode,query", "episode,image", "do not fit its head"),
        ("\n3,", "\n4,", "episode 3: expected number 3"),
        ("\n0,i1", "\n0,j1", "is not in the data set"),
        (",class 3,", ",class 9,", "is not in the data set"),
    ],
)
def test_a_damaged_csv_says_where(written, old, new, told):
    path, _ = written
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DatasetError, match=told):
        read_episodes(path, many())


def test_a_query_among_its_supports_is_refused(written):
    path, found = written
    episode = found[0]
    path.write_text(path.read_text().replace(episode.supports[0][0], episode.query))
    with pytest.raises(DatasetError, match="query and support at once"):
        read_episodes(path, many())


def test_no_csv_at_all(tmp_path):
    with pytest.raises(DatasetError, match="a CSV of episodes was expected here"):
        read_episodes(tmp_path / "none.csv", many())
