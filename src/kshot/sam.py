"""Segment Anything models: an image is encoded once, then points and boxes become masks (Kirillov et al., ICCV 2023).

Images are prepared here and not by transformers' processor, which asks for torchvision: the longest side is resized to
the model's own, colours are normalised, and the right and the bottom are padded.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from kshot.errors import BackboneError
from kshot.io.hub import find_folder, load_model

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_BATCH = 16  # prompts decoded at once


class Proposals(NamedTuple):
    """Masks of p prompts, m for each."""

    masks: Tensor
    """(p, m, h, w) bool."""
    quality: Tensor
    """(p, m): the IoU that the model expects of each mask."""


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """An encoded image."""

    embedding: Tensor
    """The output of the image encoder."""
    size_hw: tuple[int, int]
    """Of the image, pixels."""
    inner_hw: tuple[int, int]
    """Of the resized image without its padding, pixels."""
    scale: tuple[float, float]
    """Pixels of the resized image for a pixel of the image, (x, y)."""


class Promptable:
    """A SAM of transformers. Safe to share between threads: nothing is kept between calls."""

    def __init__(self, model: Any):
        self.model = model
        self.side = int(model.config.vision_config.image_size)
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode an image (h, w, 3)."""
        height, width = image.shape[:2]
        scale = self.side / max(height, width)
        inner = max(1, round(height * scale)), max(1, round(width * scale))
        resized = np.array(Image.fromarray(image).resize((inner[1], inner[0]), Image.Resampling.BILINEAR))
        pixels = (torch.from_numpy(resized).float() - torch.tensor(_MEAN)) / torch.tensor(_STD)
        padded = F.pad(pixels.permute(2, 0, 1), (0, self.side - inner[1], 0, self.side - inner[0]))
        embedding = self.model.get_image_embeddings(padded[None].to(self.device))
        return ImageEmbedding(embedding, (height, width), inner, (inner[1] / width, inner[0] / height))

    @torch.inference_mode()
    def propose(
        self,
        image: ImageEmbedding,
        points_xy: Tensor,
        labels: Tensor,
        boxes_xyxy: Tensor | None = None,
        *,
        out_hw: tuple[int, int] | None = None,
    ) -> Proposals:
        """Masks of p prompts: points (p, n, 2) in pixels with labels (p, n), 1 on the object, 0 off it, -10 for none.

        boxes_xyxy: (p, 4) in pixels. out_hw: size of the masks, the image's own by default.
        """
        found = []
        for start in range(0, len(points_xy), _BATCH):
            batch = slice(start, start + _BATCH)
            boxes = None if boxes_xyxy is None else boxes_xyxy[batch]
            found.append(self._decode(image, points_xy[batch], labels[batch], boxes, out_hw or image.size_hw))
        return Proposals(torch.cat([f.masks for f in found]), torch.cat([f.quality for f in found]))

    def _decode(
        self,
        image: ImageEmbedding,
        points_xy: Tensor,
        labels: Tensor,
        boxes_xyxy: Tensor | None,
        out_hw: tuple[int, int],
    ) -> Proposals:
        scale = torch.tensor(image.scale)
        out = self.model(
            image_embeddings=image.embedding,
            input_points=(points_xy.float() * scale)[None].to(self.device),
            input_labels=labels.long()[None].to(self.device),
            input_boxes=None if boxes_xyxy is None else (boxes_xyxy.float() * scale.repeat(2))[None].to(self.device),
            multimask_output=True,
        )
        # The masks are a quarter of the padded square; what is padding goes before the resize.
        logits = F.interpolate(out.pred_masks[0], (self.side, self.side), mode="bilinear", align_corners=False)
        logits = logits[..., : image.inner_hw[0], : image.inner_hw[1]]
        logits = F.interpolate(logits, out_hw, mode="bilinear", align_corners=False)
        return Proposals((logits > 0).cpu(), out.iou_scores[0].float().cpu())


@lru_cache(maxsize=2)
def load(name: str) -> Promptable:
    """A SAM by Hub id or local folder, on the GPU when there is one; kept, as each image asks for it again.

    Raises `WeightsNotFoundError` within a second when it is neither here nor reachable, and `BackboneError` for
    another kind of model.
    """
    folder = find_folder(name, name, instead="method density and refiner crf (--method density --refiner crf)")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"{folder}: no readable config.json ({error}); give a SAM that transformers saved"
        ) from error
    if kind != "sam":
        raise BackboneError(f"{folder}: a model of type {kind!r}; here only 'sam' goes, such as facebook/sam-vit-base")
    model = load_model(folder, "SamModel")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Promptable(model.to(device).eval().requires_grad_(False))
