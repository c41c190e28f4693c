"""Mean patch tokens of labelled images, by kind of thing: what linear discriminants are learned from."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import Backbone
from kshot.features import extract
from kshot.io.images import read_image
from kshot.ops.geometry import coverage, to_grid
from kshot.training.mask_sources import Source
from kshot.types import IGNORE

_LEAST = 1.0  # patches of a kind, below which an image does not count as showing it


def class_tokens(
    backbone: Backbone, sources: Sequence[Source], size: int, step: Callable[[int, int], None]
) -> tuple[Tensor, list[str]]:
    """Mean patch tokens (n, c) of unit length, one for each image and kind of thing in it, and the n kinds.

    A kind is a class, whichever sources have it, or the background of one source, since sources differ in what they
    label. step: called with (images done, images in all).
    """
    places = [(source, image) for source in sources for image in sorted({i for s in source.images.values() for i in s})]
    tokens, kinds = [], []
    for done, (source, image) in enumerate(places, 1):
        data = source.data
        features = extract(backbone, read_image(data.image_path(image)), size)
        labels = data.truth(image)
        rest = coverage(features.frame).flatten()
        shown = [int(label) for label in np.unique(labels) if label > 0]
        of_image = []
        for label in shown:
            mask = to_grid(torch.from_numpy((labels == label).astype(np.float32)), features.frame).flatten()
            rest = rest - mask
            if label != IGNORE and label not in source.ignored:
                of_image.append((data.classes[label - 1], mask))
        for kind, mask in [*of_image, (f"{source.name}|background", rest.clamp(min=0))]:
            if float(mask.sum()) >= _LEAST:
                tokens.append(F.normalize(mask @ features.tokens, dim=0).half())
                kinds.append(kind)
        step(done, len(places))
    return torch.stack(tokens).float(), kinds
