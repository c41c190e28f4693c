"""How the threshold of a class moves for one query: its scores there, cycle consistency and a cap on its area."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kshot.methods._support_tokens import soft_ious
from kshot.methods.base import Support
from kshot.methods.density import PooledTokens, QueryAffinity, Settings
from kshot.ops.geometry import FeatureMap, coverage
from kshot.ops.similarity import for_products, vmf_means

_BACKGROUND_QUANTILE = 0.2  # patches of an image below it are taken not to show the class
# Of the softmax over IoUs; halved or doubled, it moves no development set by half a point (see `ensemble`).
_CYCLE_INV_TEMPERATURE = 20.0
_CYCLE_THRESHOLDS = torch.tensor([-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])


def query_midpoint(plane: Tensor, features: FeatureMap, fraction: float) -> Tensor:
    """() middle between the best `fraction` of a class's scores (gh, gw) in a query and their lowest fifth."""
    scores = plane[coverage(features.frame) > 0]
    best = scores.topk(max(1, round(fraction * len(scores)))).values.mean()
    return (best + scores.quantile(_BACKGROUND_QUANTILE)) / 2


def max_area_fractions(supports: Sequence[Support]) -> Tensor:
    """(N,) the largest fraction of a support's patches that show something of each class."""
    return torch.stack([(s.masks > 0).sum((1, 2)) / coverage(s.features.frame).sum() for s in supports]).amax(0)


def area_cap_threshold(margin: Tensor, features: FeatureMap, max_fraction: float) -> Tensor:
    """() the threshold on margins (gh, gw) above which a class covers at most `max_fraction` of the image."""
    scores = margin[coverage(features.frame) > 0]
    count = round(max_fraction * len(scores))
    return scores.topk(count + 1).values[-1] if count < len(scores) else scores.new_tensor(-torch.inf)


class CycleConsistency:
    """Thresholds for a query whose masks find the mask of a class's only support again.

    The mask that a threshold gives is taken as a support, and the support image is segmented with it, as in PANet's
    alignment (Wang et al., ICCV 2019, section 3.3), but at test time. A mask that runs over its object, or holds too
    little of it, does not find the support's mask.

    way: row of the class in the support's masks. penalty: IoU that a threshold costs, times its square. settings: of
    the densities.
    """

    def __init__(self, support: Support, way: int, penalty: float, settings: Settings):
        self.penalty, self.settings = penalty, settings
        self.tokens = for_products(support.features.tokens)
        self.mask, self.valid_mask = support.masks[way].flatten(), support.valid_mask.flatten()
        self.affinity = QueryAffinity(support.features, settings)

    def threshold(self, features: FeatureMap, margins: Tensor) -> Tensor:
        """() mean of the candidate thresholds, weighted by IoU, times the best IoU.

        margins: (gh, gw) the class's logits over those of the best other class.
        """
        candidates = _CYCLE_THRESHOLDS
        ious = self.ious(features, margins.flatten()[:, None] > candidates)
        mean: Tensor = (_CYCLE_INV_TEMPERATURE * (ious - self.penalty * candidates**2)).softmax(0) @ candidates
        return ious.max() * mean

    def ious(self, features: FeatureMap, masks: Tensor) -> Tensor:
        """(t,) IoU of the support's mask with what each of the query's masks (q, t) finds in the support."""
        query = PooledTokens(features, self.settings)
        inside = query.labels(masks.float())  # (r, t)
        labels = torch.stack([query.sizes[:, None] - inside, inside], 2)  # (r, t, 2)
        means = vmf_means(self.tokens, query.keys, labels.flatten(1), self.settings.kappa)  # (s, 2t)
        found = (self.affinity.refine(means.view(-1, *labels.shape[1:]))[..., 1] > 0).float()  # (s, t)
        return soft_ious(found.T, self.mask, self.valid_mask)
