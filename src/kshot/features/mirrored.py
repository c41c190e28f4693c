"""A second look at a query: its mirror image, smaller, so that it costs about half of the first.

What is there looks alike from left and right and at another size; what a backbone makes of places and sizes does not.
The mean of both cells keeps the first and loses some of the second (test-time augmentation by flips and scales, as in
Chen et al., "DeepLab", TPAMI 2018, section 4.1, but of features, so that they are scored only once).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from kshot.backbones.base import Backbone
from kshot.features.extract import extract
from kshot.ops.geometry import FeatureMap, to_cells


def with_mirror(features: FeatureMap, backbone: Backbone, picture: NDArray[np.uint8], size: int) -> FeatureMap:
    """Features of a picture (h, w, 3) uint8, each cell the mean, of unit length, with what lies there in the mirror.

    size: side of the mirror image in pixels, as in `extract`; one patch at least.
    """
    turned = np.ascontiguousarray(picture[:, ::-1])
    seen = extract(backbone, turned, max(size, backbone.spec.patch))
    other = to_cells(seen.features, seen.frame, features.frame, mirrored=True)
    return replace(features, features=F.normalize(features.features + other, dim=0))
