"""Cycle consistency: a threshold is as good for a query as what its mask finds back in the support.

The mask that a threshold gives is taken for a support's, and the support is searched by it: the way back of PANet's
alignment (Wang et al., ICCV 2019, section 3.3), which is trained by it, here asked at test time. A mask that runs over
its object, or holds too little of it, does not find the object back where the support has it marked.
"""

import torch
from torch import Tensor

from kshot.methods._support_tokens import soft_ious
from kshot.methods.base import Support
from kshot.methods.density import Seen, Settings
from kshot.ops.geometry import FeatureMap
from kshot.ops.similarity import vmf_means

TRIED = torch.tensor([-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])


class Cycle:
    """The way back to the one support of a class.

    way: its row in the support's masks. sharpness: a threshold whose IoU is better by one over it counts for e times as
    much. toll: IoU that a threshold costs, times its square. settings: of the densities that search the support.
    """

    def __init__(self, support: Support, way: int, sharpness: float, toll: float, settings: Settings):
        self.sharpness, self.toll, self.settings = sharpness, toll, settings
        self.tokens = support.features.tokens.contiguous()
        self.mask, self.known = support.masks[way].flatten(), support.known.flatten()
        self.seen = Seen(support.features, settings)

    def threshold(self, features: FeatureMap, margins: Tensor) -> Tensor:
        """() the mean of those tried, the better ones counting more, as far as any finds anything back.

        margins (gh, gw): logits over the best other class.
        """
        ious = self.ious(features, margins.flatten()[:, None] > TRIED)
        mean: Tensor = (self.sharpness * (ious - self.toll * TRIED**2)).softmax(0) @ TRIED
        return ious.max() * mean

    def ious(self, features: FeatureMap, masks: Tensor) -> Tensor:
        """(t,) IoU of the support's mask and of what masks (q, t) of a query find there."""
        query = Seen(features, self.settings)
        inside = query.labels(masks.float())  # (r, t)
        labels = torch.stack([query.part[:, None] - inside, inside], 2)  # (r, t, 2)
        means = vmf_means(self.tokens, query.keys, labels.flatten(1), self.settings.kappa)  # (s, 2t)
        found = (self.seen.settle(means.view(-1, *labels.shape[1:]))[..., 1] > 0).float()  # (s, t)
        return soft_ious(found.T, self.mask, self.known)
