"""Whether a lone support and a query are images that look alike, as slides from one microscope do.

Three facts of the two tell, each standardised by what pairs of unlabelled photographs have, so that photographs alone
are needed to learn them (one-class classification: Moya and Hush, Neural Networks 9, 1996):

1. how much better the support predicts its own background from far away than the background prior does: a slide is
   alike all over, but so is a lawn;
2. how much better it predicts the query than the prior does: another lawn is another green;
3. how usual its patches are among photographs: only what is unusual counts.

Where their sum is above that of nine in ten pairs of similar photographs, the two images look alike.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.io.tensor_file import Learned
from kshot.methods.auto.background_prior import by_prior, mean_log_ratio
from kshot.methods.base import Support
from kshot.ops.geometry import FeatureMap, coverage, near_pairs
from kshot.ops.similarity import for_products, vmf_means

_NEAR = 0.28  # fraction of the grid's longer side within which tokens of one image resemble each other in any case
_STRIDE = 3  # one in so many patches of a query is looked at: more cost time and tell nothing else
_BEYOND = 0.1  # fraction of pairs of photographs that count as alike
# Means and spreads of the three facts, and the limit of their sum, where a prior does not hold them: those of `tiny`.
_USUAL = (4.14, 1.62, 0.951, 0.93, 1.0, 0.07, 2.35)


class LoneSupport:
    """What a lone support and the photographs of a background prior say about queries."""

    def __init__(self, support: Support, prior: Learned, kappa: float):
        """prior: means (k, c) and shares (k,), and `pairs` (7,) from `pairs_of_photographs`; kappa: of the kernel."""
        self._kappa, self._shares = kappa, prior.tensor("shares")[:, None]
        self._tokens = for_products(support.features.tokens.float())
        self._photographs = for_products(prior.tensor("means").float())
        self._shown = _covered(support.features)
        model = prior.tensor("pairs") if "pairs" in prior.tensors else torch.tensor(_USUAL)
        self._means, self._spreads, self._limit = model[:3], model[3:6], float(model[6])
        self._within = within(support, prior, kappa)
        self._typicality = typicality(support.features, prior)
        self._last: tuple[FeatureMap, bool] | None = None

    def looks_like(self, query: FeatureMap) -> bool:
        """Whether the query's image looks like the support's."""
        last = self._last
        if last is None or last[0] is not query:  # a query is asked for by its score, its presence and its pixels
            last = self._last = query, bool(self.likeness(query) > self._limit)
        return last[1]

    def facts(self, query: FeatureMap) -> Tensor:
        """(3,) log ratios within the support, and between it and the query, and the typicality of its patches."""
        tokens, inside = query.tokens[::_STRIDE].float(), _covered(query)[::_STRIDE]
        own = vmf_means(tokens, self._tokens, self._shown[:, None], self._kappa)[:, 0]
        photographs = vmf_means(tokens, self._photographs, self._shares, self._kappa)[:, 0]
        between = mean_log_ratio(own, photographs, inside)
        return torch.stack([self._within, between, self._typicality])

    def likeness(self, query: FeatureMap) -> Tensor:
        """() the sum of the standardised facts."""
        return _likeness((self.facts(query) - self._means) / self._spreads)


def pairs_of_photographs(photographs: Sequence[FeatureMap], prior: Learned, kappa: float) -> Tensor:
    """(7,) means and spreads of the three facts over pairs of photographs, and the limit of their sum.

    photographs: not those of the prior. Each makes a pair with the most similar of the others, by mean patch tokens, as
    a query that shows the class of a support is more similar to it than most photographs.
    """
    tokens = F.normalize(torch.stack([each.tokens.float().mean(0) for each in photographs]), dim=1)
    nearest = (tokens @ tokens.T).fill_diagonal_(-2).argmax(1).tolist()
    told = []
    for shown, place in zip(photographs, nearest, strict=True):
        nothing = torch.zeros(1, *shown.grid_hw)
        lone = LoneSupport(Support(shown, nothing, coverage(shown.frame)), prior, kappa)
        told.append(lone.facts(photographs[place]))
    facts = torch.stack(told)
    means, spreads = facts.mean(0), facts.std(0, correction=0).clamp(min=1e-3)
    limit = _likeness((facts - means) / spreads).quantile(1 - _BEYOND)
    return torch.cat([means, spreads, limit[None]])


def within(support: Support, prior: Learned, kappa: float) -> Tensor:
    """() mean log ratio of the density of a background under its own patches far away to that under the prior."""
    tokens, background = support.features.tokens.float(), support.background.flatten()
    grid_hw = support.features.grid_hw
    far = (~near_pairs(grid_hw, max(1, int(_NEAR * max(grid_hw))))).float()
    kernel = ((tokens @ tokens.T - 1) * kappa).exp() * far
    own = (kernel @ background) / (far @ background).clamp(min=1e-6)
    return mean_log_ratio(own, by_prior(tokens, prior, kappa), background)


def typicality(features: FeatureMap, prior: Learned) -> Tensor:
    """() mean cosine of an image's patches with the nearest mean, relative to that of photographs' patches."""
    means = prior.tensor("means").to(features.tokens)
    nearest = (features.tokens @ F.normalize(means, dim=1).T).amax(1).mean()
    relative: Tensor = nearest / (prior.tensor("shares") @ means.norm(dim=1))
    return relative


def _likeness(standardised: Tensor) -> Tensor:
    """(...) the sum of standardised facts (..., 3)."""
    return standardised[..., 0] + standardised[..., 1] + (-standardised[..., 2]).clamp(min=0)


def _covered(features: FeatureMap) -> Tensor:
    """(n,) fraction of each patch that lies in the image."""
    return coverage(features.frame).flatten()
