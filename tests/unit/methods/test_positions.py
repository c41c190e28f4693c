"""Positional debiasing: which directions are taken out, what is left of features, and where they come from."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kshot
from kshot.backbones.base import load_backbone
from kshot.errors import SettingError
from kshot.features import extract
from kshot.io.tensor_file import FILE, Learned, write_learned
from kshot.methods import auto
from kshot.methods._positions import background_without, directions, without
from kshot.methods.auto.background_prior import shipped
from kshot.training.background_prior import positions
from tests.support.drawing import draw
from tests.support.hand import ORIGIN, random_support, row, support

FOUND = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # squared lengths 4 and 1


def learned(found: torch.Tensor = FOUND) -> Learned:
    facts = {"method": "density", "identity": "hand", "backbone": "hand"}
    return Learned(facts, {"means": torch.zeros(1, found.shape[1]), "shares": torch.ones(1), "positions": found})


def test_the_fewest_directions_that_hold_the_part_are_taken() -> None:
    for part, rank in ((0.0, 0), (0.1, 1), (0.8, 1), (0.81, 2), (1.0, 2)):
        rows = directions(learned(), part, 3, "hand")
        assert rows.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]][:rank], part
    assert directions(learned(FOUND[:0]), 0.9, 3, "hand").shape == (0, 3)


def test_what_cannot_be_taken_out_is_told() -> None:
    for part in (-0.1, 1.5):
        with pytest.raises(SettingError, match="from 0 to 1"):
            directions(learned(), part, 3, "hand")
    with pytest.raises(SettingError, match="what hand says of places; `kshot train background`"):
        directions(None, 0.5, 3, "hand")
    with pytest.raises(SettingError, match="lack 'positions' and hold none"):
        directions(Learned({"method": "density"}, {}), 0.5, 3, "hand")
    shown = support(row((1, 0), (0, 1)), [1, 0])
    with pytest.raises(SettingError, match="what hand says of places"):
        auto.Task(("a",), (shown,), ORIGIN, auto.Settings(debias=0.5))


@given(seed=st.integers(0, 99), rank=st.integers(0, 3))
def test_nothing_is_left_along_them_and_again_changes_nothing(seed: int, rank: int) -> None:
    features = random_support(seed).features
    rows = torch.linalg.qr(torch.randn(8, max(rank, 1), generator=torch.Generator().manual_seed(seed)))[0].T[:rank]
    once = without(features, rows)
    assert float((once.tokens @ rows.T).abs().amax()) < 1e-5 if rank else once is features
    torch.testing.assert_close(once.tokens.norm(dim=1), torch.ones(60), atol=1e-5, rtol=0)
    torch.testing.assert_close(without(once, rows).features, once.features, atol=1e-5, rtol=0)


def test_means_of_the_universal_background_keep_their_length() -> None:
    wide = Learned({"method": "density"}, {"means": torch.tensor([[0.3, 0.4]]), "shares": torch.ones(1)})
    fewer = background_without(wide, torch.tensor([[1.0, 0.0]]))
    assert fewer is not None and fewer.tensor("shares") is wide.tensor("shares")
    torch.testing.assert_close(fewer.tensor("means"), torch.tensor([[0.0, 0.5]]))
    assert background_without(None, torch.eye(2)) is None


def test_a_class_that_position_hides_is_found() -> None:
    """The support's class lies left, the query's right: with the place in the features, the place is what is found."""
    here, there, thing, other = (2.0, 0.0), (-2.0, 0.0), (0.0, 0.5), (0.0, -0.5)

    def cells(*what: tuple[tuple[float, float], tuple[float, float]]) -> kshot.ops.geometry.FeatureMap:
        told = [(place[0] + content[0], place[1] + content[1]) for place, content in what]
        return row(*((x / math.hypot(x, y), y / math.hypot(x, y)) for x, y in told))

    shown = support(cells((here, thing), (here, other), (there, other), (there, other)), [1, 0, 0, 0])
    query = cells((here, other), (here, other), (there, thing), (there, other))
    known = learned(torch.tensor([[1.0, 0.0]]))
    settings = {"threshold": False, "reading": False, "regions": False, "second": False, "universal": False}
    best = [
        int(auto.Task(("a",), (shown,), ORIGIN, auto.Settings(debias=part, **settings), known).score(query)[1].argmax())
        for part in (0.0, 0.9)
    ]
    assert best == [0, 2]


def test_a_picture_of_one_colour_tells_what_a_backbone_says_of_places(toy: kshot.Segmenter) -> None:
    tiny = load_backbone("tiny", device="cpu")
    found = positions(tiny, 128)
    gram = found @ found.T
    lengths = gram.diagonal().sqrt()
    assert 8 <= len(found) <= 64 and bool((lengths.diff() <= 1e-6).all()) and float(lengths[-1]) > 0
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), atol=1e-5, rtol=0)
    # Another grey says the same of places, and so what is left of them is hardly anything.
    blank = extract(tiny, np.full((128, 128, 3), 100, np.uint8), 128).tokens
    rows = found / lengths[:, None]
    assert float((blank - blank @ rows.T @ rows).var(0).sum()) < 0.01 * float(blank.var(0).sum())
    assert len(positions(toy.backbone, 96)) == 0  # filters alone know no place


def test_shipped_backgrounds_know_places_and_tasks_keep_them(tmp_path: Path) -> None:
    segmenter = kshot.Segmenter(backbone="tiny", size=128, method_settings={"debias": 0.9})
    known = shipped(segmenter.backbone.identity)
    assert known is not None and known.tensor("positions").shape[1] == segmenter.backbone.spec.dim
    image, mask = draw(0)
    task = segmenter.fit([kshot.Shot(image, mask=mask == 1, label="disc")])
    assert 1 < len(task.fitted.places) < 64
    again = kshot.load_task(task.save(tmp_path / "disc.kshot"))
    features = segmenter.features(draw(1)[0])
    assert torch.equal(again.score(features), task.score(features))
    own = Learned(known.facts, {**known.tensors, "positions": known.tensor("positions")[:1]})
    write_learned(tmp_path / FILE, own)
    chosen = {"debias": 0.9, "weights": str(tmp_path)}
    fewer = kshot.Segmenter(backbone="tiny", size=128, method_settings=chosen)
    assert len(fewer.fit([kshot.Shot(image, mask=mask == 1, label="disc")]).fitted.places) == 1
