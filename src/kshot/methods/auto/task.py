"""kshot's default: methods blended on the supports, with thresholds, absence and scores calibrated on them.

Each class is sought where it was marked: in each of several supports with the help of the rest, or, of a class that one
support shows, in each half of it with the help of the other. By what `density`, `attention` and `matching` find there
they get their weights and thresholds, and the logits their scale, so that scores mean what they say; where images are
of many places, `density` is asked alone. The threshold of a lone class with one support also moves towards the middle
of what the class and the background score in it, each cell's neighbourhood left out, or, where images are of many
places, of what it scores in the query. Beside the supports' background stands a universal one, as far as it is to be
believed. On demand the threshold also moves towards those whose masks find the support's mask back. The left-out scores
tell how familiar a class looks where it is; a query whose most familiar cells stay far behind is taken not to show it.
A support in which the others find next to nothing is told of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from kshot.io.tensor_file import Learned
from kshot.methods import _leave_one_out, attention, base, density, matching
from kshot.methods._cycle import Cycle
from kshot.methods._support_tokens import Cells
from kshot.methods.auto.background_prior import belief, shipped
from kshot.methods.auto.ensemble import NEVER, Blend, Weighing, blended, scale_of
from kshot.methods.auto.presence import contested, rivals_of
from kshot.methods.auto.thresholds import crowded, largest, middle
from kshot.ops.geometry import FeatureMap

_FINE = 1280  # cells of a support beyond which matching and the way back to it cost more than the encoder
_SURE = 0.5  # belief in the universal background from which on images count as of many places


@dataclass(frozen=True)
class Settings:
    """Chosen on development data; docs/methods.md shows what each part is worth there, and the command.

    regions: average densities over alike cells. second: let the query's confident cells join them. threshold: calibrate
    it on the supports. cycle: move it for each query, by the way back to a lone support. reading: blend other methods
    with `density`. calibration: scale the logits by the supports. presence: judge from the most familiar cells whether
    a class is there at all.
    universal: put a universal background beside the supports' own, and let queries move the threshold.
    shift: how far the threshold of a lone class with one support moves towards the middle of its support's scores;
    lean: towards the query's instead, the more the universal background is believed. weights: file or folder of one; by
    default kshot's own for the backbone, if there is one. trust, favour, sure, least:
    how methods are weighed (`_blend.Weighing`), favour for `density`. toll: part of the best IoU that a threshold
    costs, times its square (of the IoU itself on the way back); tether: the same where halves of a lone support tell
    it. sharpness: one over the IoU by which a way back must be better to count for e times as much. held: most
    supports that are left out in turn. gate: probability of presence below which a class is left out of the mask.
    growth: how many times the cells that show it in a support a class may have in a query, where images look alike.
    part: of the image, its most familiar cells. steep: slope of the probability of presence. centre, usual: log ratio
    of those cells at which a class is as likely there as not, as a part of the left-out one, and at most. rivalry: what
    the log odds of a class gain by each unit of log ratio over the most familiar one that no support shows beside it,
    where the universal background is believed; the gate is doubled there. scale: of all logits, where nothing was left
    out; it changes no mask. firmness: log loss that another scale costs.
    """

    regions: bool = True
    second: bool = True
    threshold: bool = True
    cycle: bool = True
    reading: bool = True
    universal: bool = True
    calibration: bool = True
    presence: bool = True
    shift: float = 0.5
    trust: float = 50.0
    favour: float = 0.02
    sure: float = 0.75
    toll: float = 0.03
    tether: float = 0.15
    least: float = 0.05
    sharpness: float = 20.0
    held: int = 5
    gate: float = 0.2
    part: float = 0.025
    steep: float = 2.1
    centre: float = 0.6
    usual: float = 3.0
    rivalry: float = 0.45
    scale: float = 0.7
    firmness: float = 0.01
    lean: float = 0.4
    growth: float = 5.0
    weights: str = field(default="", repr=False)


class _Fitted(NamedTuple):
    """cells: of all supports. held: what was learnt by leaving some out. tasks: those that `blend` makes one of.

    cycles: the way back of each class that one support shows; None of the others. believed: how far the universal
    background is, in 0..1; 0 without one. rivals: (N, N) bool, classes that no support shows together. largest: (N,)
    the most of a query that each class may fill, in 0..1.
    """

    cells: Cells
    held: _leave_one_out.Held
    tasks: tuple[base.Task, ...]
    blend: Blend
    cycles: tuple[Cycle | None, ...]
    believed: float
    rivals: Tensor
    largest: Tensor


class Task(base.Task):
    """Logits of several methods, each above thresholds of its own, in one."""

    method = "auto"
    Settings = Settings
    learns: ClassVar[str] = "density"

    @property
    def gate(self) -> float:
        """Probability of presence below which a class is left out of the mask."""
        if not self.settings.presence:
            return super().gate
        # Of rivals one is mistaken for the other, so the less likely one does more harm than a class alone.
        return float(self.settings.gate) * (1 + self._contested)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Supports that the others do not recognise."""
        held: _leave_one_out.Held = self.fitted.held
        return held.remarks(self.classes)

    def presence(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """(N,) probabilities: how familiar a class's best cells are, against how familiar they are where it is.

        Among photographs a query that is familiar as one class looks a little like the others too, and how much so
        depends on the query: there classes that no support shows together are also compared with each other.
        """
        if not self.settings.presence:
            return super().presence(features, logits)
        settings, cells, kappa = self.settings, self.fitted.cells, density.Settings().kappa
        seen = _leave_one_out.familiarity(cells, features, logits, settings.part, kappa)
        centre = (settings.centre * self.fitted.held.familiar).clamp(0.1, settings.usual)
        odds = settings.steep * (seen / centre - 1)
        if self._contested:
            against = contested(seen, self.fitted.rivals, settings.rivalry, odds)
            odds = torch.lerp(odds, against, self._contested)
        return torch.sigmoid(odds)

    @property
    def _contested(self) -> float:
        """How far classes are compared with each other, in 0..1: as photographs are, if there are rivals."""
        return self.fitted.believed if bool(self.fitted.rivals.any()) else 0.0

    def _fitted(self) -> _Fitted:
        settings, usual, supports = self.settings, density.Settings(), self.supports
        background = self._background()
        believed = belief(supports, background, usual.kappa) if background is not None else 0.0
        readings = self._readings(background, believed)
        held = _leave_one_out.hold(supports, readings, settings.held, settings.part, usual.kappa)
        blend = self._blend(held, len(readings), believed)
        tasks = tuple(readings[index].fit(supports) for index in blend.used)
        # The usual method has made these cells already; the others compare with all of them.
        cells = tasks[0].fitted if blend.used[0] == 0 else readings[0].fit(supports).fitted
        alike = background is not None and believed < _SURE
        most = settings.growth * largest(supports) if alike else torch.ones(len(self.classes))
        cycles = self._cycles(supports, usual) if alike else ()
        rivals = rivals_of(supports)
        return _Fitted(cells, held, tasks, blend, cycles, believed, rivals, most)

    def _blend(self, held: _leave_one_out.Held, readings: int, believed: float) -> Blend:
        settings = self.settings
        tolls = torch.tensor([settings.toll if left else settings.tether for left in held.left])
        # Where classes compete, cells that one gains are lost to another, and absent ones raise false alarms.
        # Where images are of many places, each query tells its threshold better than a lone support does: see `_moved`;
        # and what served best in some of several places is chance in the next.
        shift = settings.shift * (1 - believed) if len(self.classes) == 1 else 0.0
        if not settings.threshold or (believed >= _SURE and not self._lone):
            tolls, shift = torch.full_like(tolls, NEVER), 0.0
        weighing = Weighing(settings.trust, settings.favour, settings.sure, settings.least)
        blend = blended(held.ious, shift * held.middles, readings, tolls, weighing)
        scale = scale_of(blend, held, settings.scale, settings.firmness) if settings.calibration else settings.scale
        return replace(blend, scale=scale)

    def _score(self, features: FeatureMap) -> Tensor:
        fitted = self.fitted
        logits: Tensor = fitted.blend(task.score(features) for task in fitted.tasks)
        logits[1:] -= self._moved(features, logits)[:, None, None]
        return logits.mul_(fitted.blend.scale)

    def _moved(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """(N,) how far each class's threshold moves for a query, the others' staying where they are."""
        moved = torch.zeros(len(self.classes))
        if not self.settings.threshold:
            return moved
        if len(self.classes) == 1 and self._lone:
            moved += self.settings.lean * self.fitted.believed * middle(logits[1], features, self.settings.part)
        for way in range(len(self.classes)):
            rest = torch.cat([logits[: way + 1], logits[way + 2 :]]).amax(0)
            margin = logits[way + 1] - rest
            cycle = self.fitted.cycles[way] if self.fitted.cycles else None
            if cycle is not None:
                moved[way] += (1 - self.fitted.believed) * cycle.threshold(features, margin)
            moved[way] = moved[way].maximum(crowded(margin, features, float(self.fitted.largest[way])))
        return moved

    @property
    def _lone(self) -> bool:
        """Whether no class is shown by several supports, so that none can be left out."""
        return all(len(_leave_one_out.showing_of(self.supports, way)) <= 1 for way in range(len(self.classes)))

    def _cycles(self, supports: Sequence[base.Support], usual: density.Settings) -> tuple[Cycle | None, ...]:
        """Of classes that one support shows: several set a threshold better by themselves."""
        settings = self.settings
        if not (settings.threshold and settings.cycle):
            return ()
        shown = [_leave_one_out.showing_of(supports, way) for way in range(len(self.classes))]
        return tuple(
            Cycle(supports[of_way[0]], way, settings.sharpness, settings.toll, usual)
            if len(of_way) == 1 and len(supports[of_way[0]].features.tokens) <= _FINE
            else None
            for way, of_way in enumerate(shown)
        )

    def _readings(self, background: Learned | None, believed: float) -> list[_leave_one_out.Reading]:
        """The methods that are blended, the usual one first; the others read textures and small things better."""
        usual = density.Settings()
        usual = replace(usual, universal=usual.universal * believed)
        # Where all images look alike, so do the thing and what is around it, and the average runs over the border.
        if not self.settings.regions or (background is not None and believed < _SURE):
            usual = replace(usual, affinity=0.0)
        if not self.settings.second:
            usual = replace(usual, share=0.0)
        readings = [_leave_one_out.Reading(density.Task, usual, self.classes, self.origin, background)]
        # Images of other places say little of which method reads the next: there the usual one is best alone.
        if self.settings.reading and believed < _SURE:
            others: list[tuple[type[base.Task], Any]] = [(attention.Task, attention.Settings())]
            if all(len(support.features.tokens) <= _FINE for support in self.supports):
                others.append((matching.Task, matching.Settings()))
            readings += [_leave_one_out.Reading(task, chosen, self.classes, self.origin) for task, chosen in others]
        return readings

    def _background(self) -> Learned | None:
        """The universal background: one that was given, or the one that came with kshot for this backbone."""
        if not self.settings.universal:
            return None
        return self.learned or shipped(self.origin.identity)
