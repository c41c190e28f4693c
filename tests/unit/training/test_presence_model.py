"""The presence model: what logistic regression finds, and cues of real episodes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from kshot.data.base import load_dataset
from kshot.errors import TrainingError
from kshot.io.tensor_file import read_learned
from kshot.methods.auto.presence import CUES, modelled_log_odds
from kshot.segmenter import Segmenter
from kshot.training import background_prior
from kshot.training.presence_model import fit_presence
from kshot.types import Shot
from tests.support.disc_episodes import COLOURS, make_colours
from tests.support.photographs import folder_of


def made_up(count: int, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two cues that tell presence and one that is noise, at scales far apart."""
    rng = torch.Generator().manual_seed(0)
    present = (torch.rand(count, generator=rng) < share).float()
    noise = torch.randn(count, 3, generator=rng)
    return (noise + present[:, None] * torch.tensor([1.5, 0.8, 0.0])) * torch.tensor([1.0, 0.01, 30.0]), present


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_it_agrees_with_scikit_learn(share: float) -> None:
    cues, present = made_up(2000, share)
    mine = modelled_log_odds(cues, fit_presence(cues, present, torch.zeros(len(present)))).numpy()
    scaled = (cues - cues.mean(0)) / cues.std(0)
    # The same penalty: 1e-2 times the squared weights beside a mean, where C weighs a sum against half of them.
    other = LogisticRegression(C=1 / (2 * 1e-2 * len(present)), class_weight="balanced", tol=1e-8, max_iter=1000)
    theirs = other.fit(scaled.numpy(), present.numpy()).decision_function(scaled.numpy())
    np.testing.assert_allclose(mine, theirs, atol=5e-3)


def test_what_a_kind_of_episodes_draws_more_often_is_no_likelier_there() -> None:
    """One kind draws queries with the class four times in five, the other one time in five; a third cue tells them
    apart, and says nothing. scikit-learn, with the same weights, agrees."""
    parts, kinds = [made_up(4000, share) for share in (0.8, 0.2)], torch.arange(2).repeat_interleave(4000)
    cues = torch.cat([torch.cat([found for found, _ in parts]), kinds[:, None].float()], 1)
    present = torch.cat([told for _, told in parts])
    model = fit_presence(cues, present, kinds)
    one = modelled_log_odds(cues[:4000], model)
    other = modelled_log_odds(cues[4000:], model)
    for odds, told in ((one, present[:4000]), (other, present[4000:])):
        false_alarms, hits = (float((odds[told == there] > 0).float().mean()) for there in (0, 1))
        assert hits > 0.7 and hits + false_alarms == pytest.approx(1, abs=0.05)
    scaled = (cues - cues.mean(0)) / cues.std(0)
    weights = np.empty(8000)
    for kind in range(2):
        share = float(present[kinds == kind].mean())
        weights[kinds == kind] = np.where(present[kinds == kind] > 0, 0.5 / share, 0.5 / (1 - share))
    sk = LogisticRegression(C=1 / (2 * 1e-2 * 8000), tol=1e-8, max_iter=1000)
    theirs = sk.fit(scaled.numpy(), present.numpy(), sample_weight=weights).decision_function(scaled.numpy())
    np.testing.assert_allclose(modelled_log_odds(cues, model).numpy(), theirs, atol=5e-3)


def test_kinds_of_one_outcome_alone_are_kept_as_they_are() -> None:
    cues, present = made_up(400, 0.5)
    assert bool(fit_presence(cues, present, present).isfinite().all())


def test_a_cue_that_never_changes_does_no_harm() -> None:
    cues, present = made_up(400, 0.5)
    model = fit_presence(torch.cat([cues, torch.zeros(400, 1)], 1), present, torch.zeros(400))
    assert bool(model.isfinite().all())
    odds = modelled_log_odds(torch.cat([cues, torch.zeros(400, 1)], 1), model)
    assert float(((odds > 0) == (present > 0)).float().mean()) > 0.8


def test_a_background_prior_with_labelled_photographs_knows_presence(tmp_path: Path) -> None:
    make_colours(tmp_path / "pets", 4)
    data = load_dataset("auto", tmp_path / "pets")
    settings = {"backbone": "toy", "size": 96, "clusters": 8, "patches": 16, "episodes": 20}
    made = background_prior(folder_of(tmp_path / "photos", 8), tmp_path / "run", masks=[data], **settings)
    assert made.decisions >= 50
    learned = read_learned(made.weights)
    assert learned.facts["cues"] == list(CUES) and learned.tensor("presence").shape == (len(CUES) + 1,)
    plain = background_prior(tmp_path / "photos", tmp_path / "plain", **settings)
    assert plain.decisions == 0 and "presence" not in read_learned(plain.weights).tensors


def test_a_background_prior_with_many_classes_knows_discriminants(tmp_path: Path) -> None:
    """They change what `auto` and `density` score, and only there."""
    make_colours(tmp_path / "pets", 4)
    data = load_dataset("auto", tmp_path / "pets")
    settings = {"backbone": "toy", "size": 96, "clusters": 8, "patches": 16}
    photos = folder_of(tmp_path / "photos", 8)
    made = background_prior(photos, tmp_path / "run", discriminants=[data], **settings)
    learned = read_learned(made.weights)
    kinds = len(COLOURS) + 1  # and the background
    assert learned.facts["kinds"] == kinds and learned.facts["discriminants"] == [data.name]
    size = learned.tensor("mean").shape[0]
    assert learned.tensor("directions").shape == (size, kinds - 1)
    assert learned.tensor("projected").shape == (len(learned.tensor("means")), kinds - 1)
    seen = {}
    for share in (0.0, 0.3):
        segmenter = Segmenter(
            backbone="toy",
            size=96,
            method="density",
            refiner="none",
            method_settings={"weights": str(made.weights), "discriminant_share": share},
        )
        shown, query = data.ids()[:2]
        task = segmenter.fit([Shot(data.image_path(shown), mask=data.truth(shown) > 0)])
        seen[share] = segmenter.predict(task, data.image_path(query)).scores
    assert not np.allclose(seen[0.0], seen[0.3], atol=1e-3)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    make_colours(tmp_path / "pets", 4)
    data = load_dataset("auto", tmp_path / "pets")
    with pytest.raises(TrainingError, match="too few to fit presence to"):
        background_prior(
            folder_of(tmp_path / "photos", 8),
            tmp_path / "run",
            masks=[data],
            backbone="toy",
            size=96,
            clusters=8,
            patches=16,
            episodes=1,
        )
