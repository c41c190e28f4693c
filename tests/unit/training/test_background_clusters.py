"""A universal background is learned from pictures: clusters counted by hand, pure chance, and what is refused."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from kshot.backbones.base import load_backbone
from kshot.errors import TrainingError
from kshot.training.background_clusters import background_prior, cluster, cluster_means, sample
from tests.support.drawing import draw


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        Image.fromarray(draw(seed)[0]).save(folder / f"{seed}.png")
    return folder


def test_clusters_are_the_means_of_their_cells() -> None:
    """Three cells about (1, 0) and one at (-1, 0), whichever two of them the clusters begin with."""
    cells = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6], [-1.0, 0.0]])
    ends = []
    for seed in range(8):
        means, shares, nearest = cluster(cells, 2, 8, seed)
        torch.testing.assert_close(cluster_means(cells, nearest, 2), means)
        assert float(shares.sum()) == 1
        torch.testing.assert_close(shares @ means, cells.mean(0))
        order = shares.argsort()
        ends.append((means[order], shares[order].tolist()))
    found = [means for means, shares in ends if shares == [0.25, 0.75] and float(means[0, 0]) == -1]
    assert found
    torch.testing.assert_close(found[0], torch.tensor([[-1.0, 0.0], [2.6 / 3, 0.0]]))


def test_chance_hangs_on_the_seed_and_the_photograph_alone(photos: Path) -> None:
    toy, files, told = load_backbone("toy", device="cpu"), sorted(photos.iterdir()), list[int]()
    all_of_them = sample(toy, files, 96, 10, 0, told.append)
    assert all_of_them.shape[0] == 40 and told == [1, 2, 3, 4]
    torch.testing.assert_close(sample(toy, files[:1], 96, 10, 0, told.append), all_of_them[:10])
    assert not torch.equal(sample(toy, files[:1], 96, 10, 1, told.append), all_of_them[:10])
    torch.testing.assert_close(all_of_them.norm(dim=1), torch.ones(40), atol=2e-3, rtol=0)
    first = [cluster(all_of_them, 5, 4, 3)[0] for _ in range(2)]
    assert torch.equal(*first)


def test_too_little_to_learn_from_is_told(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 patch tokens for 4 clusters"):
        cluster(torch.eye(3), 4, 1, 0)
    with pytest.raises(TrainingError, match="no photograph is left"):
        background_prior(photos, tmp_path / "out", backbone="toy", without=[photos])
    with pytest.raises(TrainingError, match="8 patch tokens for 1024 clusters"):
        background_prior(photos, tmp_path / "out", backbone="toy", patches=2)
    assert not (tmp_path / "out").exists()
