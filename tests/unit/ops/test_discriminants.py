"""Linear discriminants: scikit-learn's, what the cosine of joined tokens is, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch.nn import functional as F

from kshot.errors import TrainingError
from kshot.ops.discriminants import Discriminants, fit_discriminants


def kinds_of_things(images: int, kinds: int = 5, size: int = 8, seed: int = 0) -> tuple[torch.Tensor, list[str]]:
    """Unit tokens around one centre for each kind, which vary far more in the first two dimensions."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(kinds, size, generator=rng)
    spread = torch.tensor([3.0, 3.0] + [0.2] * (size - 2))
    tokens = centres[:, None] + spread * torch.randn(kinds, images, size, generator=rng)
    return F.normalize(tokens.reshape(-1, size), dim=1), [f"kind {i}" for i in range(kinds) for _ in range(images)]


def test_they_are_those_of_scikit_learn() -> None:
    tokens, kinds = kinds_of_things(30)
    found = fit_discriminants(tokens, kinds, 3, shrinkage=0.0)
    theirs = LinearDiscriminantAnalysis(solver="eigen", n_components=3).fit(tokens.double().numpy(), kinds)
    mine = ((tokens.double() - found.mean) @ found.directions.double()).numpy()
    other = theirs.transform(tokens.double().numpy())
    other -= other.mean(0)
    mine -= mine.mean(0)
    correlations = np.abs((mine * other).sum(0)) / np.sqrt((mine**2).sum(0) * (other**2).sum(0))
    np.testing.assert_allclose(correlations, 1, atol=1e-4)
    np.testing.assert_allclose(mine.std(0), other.std(0), rtol=1e-3)


def test_they_tell_kinds_apart_where_most_dimensions_do_not() -> None:
    tokens, kinds = kinds_of_things(30)
    fresh, _ = kinds_of_things(30, seed=0)
    found = fit_discriminants(tokens[::2], kinds[::2], 3)
    same = torch.tensor([[a == b for b in kinds[1::2]] for a in kinds[1::2]])
    apart = []
    for seen in (fresh[1::2], found.project(fresh[1::2])):
        cosines = seen @ seen.T
        apart.append(float((cosines[same].mean() - cosines[~same].mean()) / cosines.std()))
    assert apart[1] > 2 * apart[0]


def test_a_kind_counts_alike_however_many_images_show_it() -> None:
    tokens, kinds = kinds_of_things(6)
    again = torch.cat([tokens, tokens[:6], tokens[:6]]), [*kinds, *kinds[:6], *kinds[:6]]
    one, two = fit_discriminants(tokens, kinds, 3), fit_discriminants(*again, 3)
    torch.testing.assert_close(one.mean, two.mean)
    torch.testing.assert_close(one.project(tokens) @ one.project(tokens).T, two.project(tokens) @ two.project(tokens).T)


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_cosine_of_joined_tokens_is_the_weighted_mean(share: float, seed: int) -> None:
    tokens, kinds = kinds_of_things(4, seed=seed)
    plain = fit_discriminants(tokens, kinds, 3)
    joined = Discriminants(plain.mean, plain.directions, share).join(tokens)
    projected = plain.project(tokens)
    assert joined.shape == (20, 11)
    expected = (1 - share) * tokens @ tokens.T + share * projected @ projected.T
    torch.testing.assert_close(joined @ joined.T, expected, atol=1e-5, rtol=0)


def test_fewer_kinds_give_fewer_directions_and_too_few_are_refused() -> None:
    tokens, kinds = kinds_of_things(4, kinds=4)
    assert fit_discriminants(tokens, kinds).directions.shape == (8, 3)
    alone = ["one", "two", "three", *["four"] * 13]
    with pytest.raises(TrainingError, match=r"1 kinds of things with several images: .*\(--discriminants\)"):
        fit_discriminants(tokens, alone)
