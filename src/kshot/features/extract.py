"""From images to `FeatureMap`s: resize, pad, normalise, encode.

The preparation is the same everywhere: bicubic with antialiasing on 8-bit pixels, aspect ratio kept, the padding filled
by repeating the border (the least foreign content for a patch that straddles it).
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import Backbone, Spec, TextEncoder, text_backbones
from kshot.errors import SettingError
from kshot.ops.geometry import FeatureMap, Frame


def extract(backbone: Backbone, image: NDArray[np.uint8], size: int) -> FeatureMap:
    """Features of one image (h, w, 3) uint8, resized to about `size` x `size` pixels of area."""
    return extract_many(backbone, [image], size)[0]


def extract_many(
    backbone: Backbone, images: Sequence[NDArray[np.uint8]], size: int, batch_size: int = 8
) -> list[FeatureMap]:
    """Features of several images, in their order; those of the same grid share a batch."""
    frames = [Frame.fit((i.shape[0], i.shape[1]), size, backbone.spec.patch) for i in images]
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        groups[frame.padded_hw].append(index)
    found: dict[int, FeatureMap] = {}
    for indices in groups.values():
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            prepared = [prepare(images[i], frames[i], backbone.spec)[None] for i in batch]
            pixels = torch.cat(prepared) if len(prepared) > 1 else prepared[0]
            if backbone.device.type == "cuda":  # from pinned memory, so that the copy and the next batch overlap
                pixels = pixels.pin_memory().to(backbone.device, non_blocking=True)
            found.update(zip(batch, _maps(backbone, pixels, [frames[i] for i in batch]), strict=True))
    return [found[index] for index in range(len(images))]


def extract_words(backbone: Backbone, words: Sequence[str]) -> FeatureMap:
    """Embeddings of n texts as a FeatureMap of one row of n patch tokens.

    Raises `SettingError`, which names the backbones that read words, when this one does not.
    """
    if not isinstance(backbone, TextEncoder):
        raise SettingError(
            f"the text {words[0]!r}: backbone {backbone.spec.name} reads no words; these do: "
            f"{', '.join(text_backbones())}, or any folder with a whole CLIP model. "
            "Or give an image of the class, with or without a mask"
        )
    vectors = F.normalize(backbone.encode_text(words).float().cpu(), dim=1)  # (n, c)
    size_hw = backbone.spec.patch, backbone.spec.patch * len(words)
    return FeatureMap(vectors.T[:, None].contiguous(), Frame(size_hw, size_hw, backbone.spec.patch), backbone.identity)


def prepare(image: NDArray[np.uint8], frame: Frame, spec: Spec) -> Tensor:
    """Normalised pixels (3, H, W) float32 of an image (h, w, 3) uint8, resized and padded to a frame."""
    (height, width), std = frame.inner_hw, torch.tensor(spec.std_rgb)[:, None, None]
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    # On bytes torch resizes as Pillow does, but for one level of 255 here and there, in a quarter of the time.
    resized = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True)[0]
    padded = torch.empty(3, *frame.padded_hw)
    padded[:, :height, :width] = resized
    padded[:, height:, :width] = padded[:, height - 1 : height, :width]
    padded[:, :, width:] = padded[:, :, width - 1 : width]
    return padded.mul_(1 / (255 * std)).sub_(torch.tensor(spec.mean_rgb)[:, None, None] / std)


def _maps(backbone: Backbone, pixels: Tensor, frames: Sequence[Frame]) -> list[FeatureMap]:
    encoding = backbone.encode(pixels)
    # One memory layout, so that fresh features, cached ones and those of a task file give the same bits.
    dense = encoding.dense.float()
    lengths = dense.square().sum(1, keepdim=True).sqrt_()  # in half the time of torch's norm along this dimension
    dense = (dense / lengths.clamp_(min=1e-12)).to("cpu").contiguous()
    return [
        FeatureMap(
            dense[i],
            frame,
            backbone.identity,
            None if encoding.token is None else encoding.token[i].float().cpu(),
            None if encoding.objectness is None else encoding.objectness[i].float().cpu(),
        )
        for i, frame in enumerate(frames)
    ]
