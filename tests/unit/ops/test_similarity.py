"""Products of patch tokens in bfloat16: where they are allowed, and how near they come."""

import threading

import pytest
import torch
from torch.nn import functional as F

from kshot.ops import similarity
from kshot.ops.similarity import cosines, reduced_products, vmf_means


def tokens(count: int, seed: int) -> torch.Tensor:
    """Tokens about one direction, as those of an image are."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.linspace(-2, 2, 64) + 0.7 * torch.randn(count, 64, generator=generator), dim=1)


@pytest.fixture
def matrix_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "has_matrix_units", lambda: True)


@pytest.mark.usefixtures("matrix_units")
def test_reduced_products_stay_close() -> None:
    left, right = tokens(300, 1), tokens(500, 2)
    weights = torch.rand(500, 3)
    exact, cosine = vmf_means(left, right, weights, 20.0), torch.cat(list(cosines(left, right)))
    with reduced_products(True):
        found, near = vmf_means(left, right, weights, 20.0), torch.cat(list(cosines(left, right)))
    assert found.dtype == near.dtype == torch.float32 and not torch.equal(found, exact)
    torch.testing.assert_close(near, cosine, atol=4e-3, rtol=0)
    torch.testing.assert_close(found.log(), exact.log(), atol=0.02, rtol=0)


@pytest.mark.usefixtures("matrix_units")
def test_only_where_allowed_and_in_this_thread() -> None:
    left, right = tokens(30, 1), tokens(50, 2)
    exact = torch.cat(list(cosines(left, right)))
    found: list[torch.Tensor] = []
    with reduced_products(True):
        thread = threading.Thread(target=lambda: found.extend(cosines(left, right)))
        thread.start()
        thread.join()
        with reduced_products(False):
            found.extend(cosines(left, right))
    found.extend(cosines(left, right))
    assert len(found) == 3 and all(torch.equal(one, exact) for one in found)


def test_processors_without_matrix_units_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "has_matrix_units", lambda: False)
    left, right = tokens(30, 1), tokens(50, 2)
    exact = torch.cat(list(cosines(left, right)))
    with reduced_products(True):
        assert torch.equal(torch.cat(list(cosines(left, right))), exact)
