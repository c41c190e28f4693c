"""The learnable parts of methods, and the losses by which they learn from episodes."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kshot.errors import SettingError, UnknownNameError
from kshot.methods.base import Support
from kshot.methods.dense_comparison import ComparisonHead, Shape, class_prototypes, log_odds
from kshot.methods.prototype import compare, project, prototypes
from kshot.training.episode_batches import Example
from kshot.training.episodic_recipes import Recipe

SCALE = 20.0  # of cosines, the method's default


class PatchLogits(NamedTuple):
    """Predictions for n patches, and what they show."""

    logits: Tensor  # (n, k), of the background and the classes
    targets: Tensor  # (n, k): the fraction of each patch that shows each class; ignored pixels are in none


class Head(Protocol):
    """A method's learnable part, an `nn.Module`."""

    method: str

    def facts(self) -> dict[str, Any]:
        """What is needed to read its weights."""
        ...

    def predict(self, example: Example, recipe: Recipe) -> dict[str, list[PatchLogits]]:
        """The predictions to learn from, by the name of their loss."""
        ...


class Projection(nn.Module):
    """`prototype`: a linear projection of patch tokens, before they are compared.

    start: "identity", or "random" for a random orthogonal one.
    """

    method = "prototype"

    def __init__(self, channels: int, width: int, start: str):
        super().__init__()
        self.projection = nn.Linear(channels, width, bias=False)
        if start == "identity":
            if width != channels:
                raise SettingError(
                    f"an identity has the features' width, {channels}, and no other; start at random (--start random)"
                )
            nn.init.eye_(self.projection.weight)
        elif start == "random":
            nn.init.orthogonal_(self.projection.weight)
        else:
            raise UnknownNameError("starts", start, ["identity", "random"])

    def facts(self) -> dict[str, Any]:
        """Nothing is needed beside the weights."""
        return {}

    def predict(self, example: Example, recipe: Recipe) -> dict[str, list[PatchLogits]]:
        """Predictions for the query, and for the supports that the query segments in return."""
        supports, query = tuple(self._projected(each) for each in example.supports), self._projected(example.query)
        logits = compare(query.features, prototypes(supports), SCALE)
        found = {"query": [patch_logits(logits, query)]}
        if recipe.align:
            found["align"] = alignment(supports, query, logits, SCALE)
        return found

    def _projected(self, support: Support) -> Support:
        return replace(support, features=project(support.features, self.projection.weight))


class Comparing(ComparisonHead):
    """`dense-comparison`: the network of the method, with the training of its refinement."""

    method = "dense-comparison"

    def facts(self) -> dict[str, Any]:
        """The shape of the network."""
        return {"shape": asdict(self.shape)}

    def predict(self, example: Example, recipe: Recipe) -> dict[str, list[PatchLogits]]:
        """The first prediction for the query and, unless it is dropped at random, the prediction refined once."""
        supports, query = example
        usable = [each for each in class_prototypes(supports) if len(each.shots)]
        if not usable:  # an episode may draw objects smaller than half a patch, which teach nothing
            return {"query": []}
        compared = self.compared(query.features.features, usable)
        first = self.refined(compared, compared.new_zeros(len(compared), 2, *compared.shape[2:]))
        answers = [first]
        if float(torch.rand(())) >= recipe.drop:
            answers.append(self.refined(compared, first.detach().float().softmax(1)))
        return {"query": [patch_logits(self._logits(answer, supports), query) for answer in answers]}

    @staticmethod
    def _logits(answer: Tensor, supports: Sequence[Support]) -> Tensor:
        """Logits (N+1, gh, gw); a class whose supports show nothing on the grid stays at zero."""
        usable = torch.stack([support.masks.flatten(1).amax(1) > 0 for support in supports]).any(0)
        logits = answer.new_zeros(len(usable) + 1, *answer.shape[2:])
        logits[1:][usable] = log_odds(answer)
        return logits


def make_head(method: str, channels: int, *, start: str, width: int | None, cosines: bool, seed: int) -> nn.Module:
    """A new head. width: of the projection (default: the features' own) or of the comparison (64)."""
    torch.manual_seed(seed)
    if method == "prototype":
        return Projection(channels, width or channels, start)
    if method == "dense-comparison":
        return Comparing(Shape(channels, width or 64, cosines=cosines))
    raise UnknownNameError("learnable methods", method, ["prototype", "dense-comparison"])


def patch_logits(logits: Tensor, image: Support) -> PatchLogits:
    """Logits (N+1, gh, gw) beside what a labelled image shows."""
    targets = torch.cat([image.background[None], image.masks])
    return PatchLogits(logits.flatten(1).T, targets.flatten(1).T)


def presence_weights(targets: Tensor, power: float) -> Tensor:
    """Class weights (k,) from each class's fraction of the labelled area: fraction ** -power, 0 for absent classes.

    They are scaled to a mean of 1 over the labelled area. At power 1 all classes that are present count the same,
    however small; at 0 all pixels do.
    """
    fraction = targets.sum(0) / targets.sum().clamp(min=1e-6)
    weights = torch.where(fraction > 0, fraction.clamp(min=1e-6) ** -power, 0.0)
    return weights / (fraction * weights).sum().clamp(min=1e-6)


def cross_entropy(predictions: Sequence[PatchLogits], power: float) -> Tensor:
    """Cross-entropy over all patches of a batch, with `presence_weights`; zero where nothing is labelled.

    A patch with several classes counts for each by its fraction.
    """
    logits = torch.cat([each.logits for each in predictions]).float()
    targets = torch.cat([each.targets for each in predictions])
    weights = presence_weights(targets, power)
    weighted = -(targets * weights * logits.log_softmax(1)).sum()
    return weighted / targets.sum().clamp(min=1e-6)


def alignment(supports: Sequence[Support], query: Support, logits: Tensor, scale: float) -> list[PatchLogits]:
    """PANet's prototype alignment (section 3.4): the query, with its predicted mask, segments its supports in return.

    logits: (N+1, gh, gw) of the query. Each class that was predicted anywhere is segmented against the background in
    each of its supports. The predicted mask passes no gradient, as in the paper.
    """
    found = logits.detach().argmax(0)
    labelled = (query.valid_mask > 0).float()
    aligned = []
    for way in range(1, len(logits)):
        mask = (found == way).float() * labelled
        if not bool(mask.any()):
            continue
        either = labelled * ((found == way) | (found == 0))
        rows = prototypes([Support(query.features, mask[None], either)])
        for support in supports:
            if bool(support.masks[way - 1].any()):
                own = Support(support.features, support.masks[way - 1 : way], support.valid_mask)
                aligned.append(patch_logits(compare(support.features, rows, scale), own))
    return aligned
