"""Cycle consistency: a threshold is as good for a query as what its mask finds back in the supports.

The mask that a threshold gives is taken for a support's, and the supports are searched by it: the way back of PANet's
alignment (Wang et al., ICCV 2019, section 3.3), which is trained by it, here asked at test time. A mask that runs over
its object, or holds too little of it, does not find the object back where the supports have it marked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kshot.methods.base import Support
from kshot.methods.density import Seen, Settings
from kshot.ops.geometry import FeatureMap
from kshot.ops.similarity import vmf_means

TRIED = torch.tensor([-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])


class Cycle:
    """The way back to the supports of one class.

    way: its row in their masks. sharpness: a threshold whose IoU is better by one over it counts for e times as much.
    toll: IoU that a threshold costs, times its square. settings: of the densities that search the supports.
    """

    def __init__(self, supports: Sequence[Support], way: int, sharpness: float, toll: float, settings: Settings):
        self.sharpness, self.toll, self.settings = sharpness, toll, settings
        self.seen = [Seen(support.features, settings) for support in supports]
        self.tokens = torch.cat([support.features.tokens for support in supports])
        self.masks = [support.masks[way].flatten() for support in supports]
        self.known = [support.known.flatten() for support in supports]

    def threshold(self, features: FeatureMap, margins: Tensor) -> Tensor:
        """() the mean of those tried, the better ones counting more, as far as any finds anything back.

        margins (gh, gw): logits over the best other class.
        """
        ious = self.ious(features, margins.flatten()[:, None] > TRIED)
        mean: Tensor = (self.sharpness * (ious - self.toll * TRIED**2)).softmax(0) @ TRIED
        return ious.max() * mean

    def ious(self, features: FeatureMap, masks: Tensor) -> Tensor:
        """(t,) IoU of the supports' masks and of what masks (q, t) of a query find there, over all their cells."""
        query = Seen(features, self.settings)
        inside = query.labels(masks.float())  # (r, t)
        labels = torch.stack([query.part[:, None] - inside, inside], 2)  # (r, t, 2)
        means = vmf_means(self.tokens, query.keys, labels.flatten(1), self.settings.kappa)
        densities = means.unflatten(1, labels.shape[1:]).split([len(mask) for mask in self.masks])  # (cells, t, 2) each
        shared, either = torch.zeros(2, masks.shape[1])
        for seen, mask, known, first in zip(self.seen, self.masks, self.known, densities, strict=True):
            found = (seen.settle(first)[..., 1] > 0).float()  # (cells, t)
            hit = mask @ found
            shared, either = shared + hit, either + known @ found + mask.sum() - hit
        ious: Tensor = shared / either.clamp(min=1e-6)
        return ious
