"""Episodes that each choose their working size."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

import kshot
from kshot.data.base import Dataset, load_dataset
from kshot.episodes.sampler import draw_episodes
from kshot.errors import SettingError
from kshot.evaluation import evaluate, load_result
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache
from tests.support.disc_folders import make_discs

SIZES = (96, 144, 192)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("folder", make_discs(tmp_path_factory.mktemp("data") / "discs"))


@pytest.fixture(scope="module")
def auto(toy: kshot.Segmenter) -> kshot.Segmenter:
    backbone = copy.copy(toy.backbone)
    backbone.spec = replace(backbone.spec, size=96)
    return kshot.Segmenter(backbone=backbone, method="density", refiner="none", size="auto")


@pytest.mark.parametrize("way", [1, 2])
def test_an_episode_is_what_it_is_at_its_own_size(
    auto: kshot.Segmenter, data: Dataset, way: int, tmp_path: Path
) -> None:
    result = evaluate(auto, data, way=way, shot=3, episodes=4, out=tmp_path / "run", cache=tmp_path / "cache")
    assert result.settings["sizes"] == list(SIZES) and result.settings["backbone"]["size"] == 96
    plain = {size: evaluate(auto.at_size(size), data, way=way, shot=3, episodes=4).rows for size in SIZES}
    for row in result.rows:
        assert row == plain[row["size"]][row["episode"]] | {"size": row["size"]}
    assert load_result(tmp_path / "run").rows == result.rows


def test_the_choice_leaves_each_support_out(auto: kshot.Segmenter, data: Dataset) -> None:
    runner = EpisodeRunner(auto, data, FeatureCache(None))
    three, one = (draw_episodes(data, "hsnet", 1, shot, 1, 0)[0] for shot in (3, 1))
    assert {len(ious) for ious in runner.choice(three).ious.values()} == {3}
    assert runner.choice(one).size == 96 and not runner.choice(one).ious


def test_a_row_of_another_size_is_refused(auto: kshot.Segmenter, data: Dataset, tmp_path: Path) -> None:
    evaluate(auto, data, shot=2, episodes=2, out=tmp_path)
    path = next(tmp_path.glob("rows-*.jsonl"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["size"] = 100
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SettingError, match="'size' as one of 96, 144, 192"):
        load_result(tmp_path)


def test_a_run_of_one_size_is_another_run(auto: kshot.Segmenter, data: Dataset, tmp_path: Path) -> None:
    evaluate(auto, data, shot=2, episodes=2, out=tmp_path)
    with pytest.raises(SettingError, match=r"other settings \(sizes\)"):
        evaluate(auto.at_size(96), data, shot=2, episodes=2, out=tmp_path)
