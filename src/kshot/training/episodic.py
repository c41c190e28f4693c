"""`kshot train episodic`: a method learns on episodes of base classes, on frozen features.

Nothing but the method's own head has a gradient: the encoder is not part of the model, and its features are read from
a cache. Validation runs the method as inference does, on fixed episodes of the novel classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kshot.episodes.sampler import Episodes
from kshot.errors import SettingError, UnknownNameError
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.result import Result
from kshot.io.tensor_file import Learned
from kshot.methods import _comparison
from kshot.methods.base import Origin, Support
from kshot.methods.dense_comparison import shown
from kshot.methods.prototype import compare, project, prototypes
from kshot.ops.geometry import FeatureMap
from kshot.training.class_splits import Sampler
from kshot.training.episode_batches import Example, Examples
from kshot.training.episode_losses import Cells, alignment, cells_of, cross_entropy
from kshot.training.episodic_recipes import Recipe

SCALE = 20.0  # of cosines, as the method's default


class Head(Protocol):
    """A method's learnable part."""

    method: str

    def facts(self) -> dict[str, Any]:
        """What its tensors must be read with."""
        ...

    def cells(self, example: Example, recipe: Recipe) -> dict[str, list[Cells]]:
        """What an example teaches, by the name of the loss."""
        ...


class Projection(nn.Module):
    """`prototype`: cells are projected before they are compared. The identity at first, or by chance (orthogonal)."""

    method = "prototype"

    def __init__(self, channels: int, width: int, start: str):
        super().__init__()
        self.projection = nn.Linear(channels, width, bias=False)
        if start == "identity":
            if width != channels:
                raise SettingError(f"an identity has no other width than the features' {channels}; use --start random")
            nn.init.eye_(self.projection.weight)
        elif start == "random":
            nn.init.orthogonal_(self.projection.weight)
        else:
            raise UnknownNameError("starts", start, ["identity", "random"])

    def facts(self) -> dict[str, Any]:
        """Nothing but the tensor is needed."""
        return {}

    def cells(self, example: Example, recipe: Recipe) -> dict[str, list[Cells]]:
        """The query's cells, and those of the supports that it segments in return."""
        supports, query = tuple(self._seen(each) for each in example.supports), self._seen(example.query)
        logits = compare(query.features, prototypes(supports), SCALE)
        found = {"query": [cells_of(logits, query)]}
        if recipe.align:
            found["align"] = alignment(supports, query, logits, SCALE)
        return found

    def _seen(self, support: Support) -> Support:
        return replace(support, features=project(support.features, self.projection.weight))


class Comparing(_comparison.Comparison):
    """`dense-comparison`: the head, and how its refinement is trained."""

    method = "dense-comparison"

    def facts(self) -> dict[str, Any]:
        """The shape of the network."""
        return {"shape": asdict(self.shape)}

    def cells(self, example: Example, recipe: Recipe) -> dict[str, list[Cells]]:
        """The query's cells, as first answered and, unless what was believed is dropped, as refined once."""
        supports, query = example
        seen = [each for each in shown(supports) if len(each.shots)]
        if not seen:  # objects smaller than half a cell, which an episode may draw, teach nothing
            return {"query": []}
        compared = self.compared(query.features.features, seen)
        first = self.refined(compared, compared.new_zeros(len(compared), 2, *compared.shape[2:]))
        answers = [first]
        if float(torch.rand(())) >= recipe.drop:
            answers.append(self.refined(compared, first.detach().float().softmax(1)))
        return {"query": [cells_of(self._logits(answer, supports), query) for answer in answers]}

    @staticmethod
    def _logits(answer: Tensor, supports: Sequence[Support]) -> Tensor:
        """(N+1, gh, gw); a class whose supports show nothing on the grid stays at zero."""
        seen = torch.stack([support.masks.flatten(1).amax(1) > 0 for support in supports]).any(0)
        logits = answer.new_zeros(len(seen) + 1, *answer.shape[2:])
        logits[1:][seen] = _comparison.odds(answer)
        return logits


def make_head(method: str, channels: int, *, start: str, width: int | None, cosines: bool, seed: int) -> nn.Module:
    """A new head. width: of the projection (default: the features' own) or of the comparison (64)."""
    torch.manual_seed(seed)
    if method == "prototype":
        return Projection(channels, width or channels, start)
    if method == "dense-comparison":
        return Comparing(_comparison.Shape(channels, width or 64, cosines=cosines))
    raise UnknownNameError("learnable methods", method, ["prototype", "dense-comparison"])


@dataclass(eq=False)
class Episodic:
    """The job. examples, sampler: of base classes. runner, validation: of novel classes, as in evaluation.

    told: more facts for the learned file, such as the classes.
    """

    model: nn.Module
    examples: Examples
    sampler: Sampler
    runner: EpisodeRunner
    validation: Episodes
    recipe: Recipe
    device: torch.device
    told: dict[str, Any]

    def __post_init__(self) -> None:
        self.model = self.model.to(self.device)

    def batch(self, step: int, part: int, size: int) -> list[Example]:
        """`size` episodes of base classes."""
        numbers = range(part * size, (part + 1) * size)
        return [self.examples.make(self.sampler[number], number) for number in numbers]

    def losses(self, batch: Sequence[Example]) -> dict[str, Tensor]:
        """Weighted cross-entropies by name; "loss" adds the alignment with its weight."""
        head: Any = self.model
        parts: dict[str, list[Cells]] = {}
        for example in batch:
            for name, cells in head.cells(example.to(self.device), self.recipe).items():
                parts.setdefault(name, []).extend(cells)
        # Named in every step, as the log's columns are; where nothing can be learned from, there is no gradient.
        nothing = next(self.model.parameters()).sum() * 0
        found = {name: cross_entropy(cells, self.recipe.balance) if cells else nothing for name, cells in parts.items()}
        return {"loss": found["query"] + self.recipe.align * found.get("align", nothing), **found}

    def validate(self) -> dict[str, float]:
        """mIoU and FB-IoU (0..1) of the novel classes, by the protocol of the validation."""
        self.runner.learned = self.learned(self.model.state_dict(), self.runner.segmenter.origin)
        rows = tuple(self.runner.run(episode) for episode in self.validation)
        plan = self.validation.settings
        classes = tuple(sorted({c for episode in self.validation for c in episode.classes}))
        result = Result(rows, self.validation.classes, classes, {"way": plan.way, "protocol": plan.protocol})
        return {"miou": result.miou, "fb_iou": result.fb_iou}

    def learned(self, tensors: dict[str, Tensor], origin: Origin) -> Learned:
        """What inference reads."""
        head: Any = self.model
        facts = {"method": head.method, "backbone": origin.backbone, "identity": origin.identity, "size": origin.size}
        kept = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        return Learned(facts | head.facts() | self.told, kept)


def channels_of(features: FeatureMap) -> int:
    """Channels of a cell."""
    return int(features.features.shape[0])
