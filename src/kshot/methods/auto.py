"""kshot's default: a method chosen on the supports, with thresholds and absence calibrated on them.

Usually it is `density`; `attention` and `matching` stand in where the supports say that they read a task better. A
class that several supports show is sought in each with the help of the rest: so the method is chosen, and the class's
threshold. Of a class that one support shows, halves of it seek each other, for the choice of the method alone; and
each of its cells is compared with the others, its neighbourhood left out: the threshold moves towards the middle of
what the class and the background score there. On demand each query has a say in it too: the threshold moves towards
those whose masks find the support's mask back. The left-out scores also tell how familiar a class looks where it is; a
query whose most familiar cells stay far behind is taken not to show it. A support in which the others find next to
nothing is told of.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kshot.methods import _left_out, attention, base, density, matching
from kshot.methods._cells import Cells
from kshot.methods._cycle import Cycle
from kshot.ops.geometry import FeatureMap


@dataclass(frozen=True)
class Settings:
    """Chosen on development data; docs/methods.md shows what each part is worth there, and the command.

    regions: average densities over alike cells. second: let the query's confident cells join them. threshold: calibrate
    it on the supports. cycle: move it for each query, by the way back to a lone support. reading: choose the method on
    the supports. presence: judge from the most familiar cells whether a class is there at all.
    shift: how far the threshold of a lone class with one support moves towards the middle. gain: mean IoU in the
    supports that another method or threshold must win. toll: IoU that a threshold costs, times its square. sure:
    standard errors that what is won must amount to. sharpness: one over the IoU by which a way back must be
    better to count for e times as much. held: most supports that are left out in turn. gate: probability of presence
    below which a class is left out of the mask. part: of the image, its most familiar cells. steep: slope of the
    probability of presence. centre, usual: log ratio of those cells at which a class is as likely there as not, as a
    part of the left-out one, and at most. scale: of all logits, so that scores are calibrated; it changes no mask.
    """

    regions: bool = True
    second: bool = True
    threshold: bool = True
    cycle: bool = False
    reading: bool = True
    presence: bool = True
    shift: float = 0.5
    gain: float = 0.03
    toll: float = 0.02
    sure: float = 2.0
    sharpness: float = 20.0
    held: int = 5
    gate: float = 0.2
    part: float = 0.025
    steep: float = 2.1
    centre: float = 0.6
    usual: float = 3.0
    scale: float = 0.7


class _Fitted(NamedTuple):
    """cells: of all supports. held: what was learnt by leaving some out. task, thresholds (N,): what came of it.

    cycles: the way back of each class that one support shows; None of the others.
    """

    cells: Cells
    held: _left_out.Held
    task: base.Task
    thresholds: Tensor
    cycles: tuple[Cycle | None, ...]


class Task(base.Task):
    """Logits of the chosen method above thresholds of their own."""

    method = "auto"
    Settings = Settings

    @property
    def gate(self) -> float:
        """Probability of presence below which a class is left out of the mask."""
        return float(self.settings.gate) if self.settings.presence else super().gate

    @property
    def remarks(self) -> tuple[str, ...]:
        """Supports that the others do not recognise."""
        held: _left_out.Held = self.fitted.held
        return held.remarks(self.classes)

    def presence(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """(N,) probabilities: how familiar a class's best cells are, against how familiar they are where it is."""
        if not self.settings.presence:
            return super().presence(features, logits)
        settings, cells, kappa = self.settings, self.fitted.cells, density.Settings().kappa
        seen = _left_out.familiarity(cells, features, logits, settings.part, kappa)
        centre = (settings.centre * self.fitted.held.familiar).clamp(0.1, settings.usual)
        return torch.sigmoid(settings.steep * (seen / centre - 1))

    def _fitted(self) -> _Fitted:
        settings, readings, usual = self.settings, self._readings(), density.Settings()
        held = _left_out.hold(self.supports, readings, settings.held, settings.part, usual.kappa)
        toll = settings.toll if settings.threshold else _left_out.NEVER
        # Where classes compete, cells that one gains are lost to another, and absent ones raise false alarms.
        shift = settings.shift if len(self.classes) == 1 else 0.0
        choice = held.choose(shift, settings.gain, toll, settings.sure)
        thresholds = choice.thresholds if settings.threshold else torch.zeros(len(self.classes))
        task = readings[choice.reading].fit(self.supports)
        # The usual method has made these cells already; the others compare with all of them.
        cells = density.fit(self.supports, usual) if choice.reading else task.fitted
        return _Fitted(cells, held, task, thresholds, self._cycles(usual))

    def _score(self, features: FeatureMap) -> Tensor:
        logits: Tensor = self.fitted.task.score(features)
        logits[1:] -= self.fitted.thresholds[:, None, None]
        logits[1:] -= self._moved(features, logits)[:, None, None]
        return logits.mul_(self.settings.scale)

    def _moved(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """(N,) how far each class's threshold moves for a query, the others' staying where they are."""
        moved = torch.zeros(len(self.classes))
        for way, cycle in enumerate(self.fitted.cycles):
            if cycle is not None:
                rest = torch.cat([logits[: way + 1], logits[way + 2 :]]).amax(0)
                moved[way] = cycle.threshold(features, logits[way + 1] - rest)
        return moved

    def _cycles(self, usual: density.Settings) -> tuple[Cycle | None, ...]:
        """Of classes that one support shows: several set a threshold better by themselves."""
        settings = self.settings
        if not (settings.threshold and settings.cycle):
            return ()
        shown = [_left_out.showing_of(self.supports, way) for way in range(len(self.classes))]
        return tuple(
            Cycle(self.supports[of_way[0]], way, settings.sharpness, settings.toll, usual) if len(of_way) == 1 else None
            for way, of_way in enumerate(shown)
        )

    def _readings(self) -> list[_left_out.Reading]:
        """The methods to choose from, the usual one first; the others read textures and small things better."""
        usual = density.Settings()
        if not self.settings.regions:
            usual = replace(usual, affinity=0.0)
        if not self.settings.second:
            usual = replace(usual, share=0.0)
        chosen: list[tuple[type[base.Task], Any]] = [(density.Task, usual)]
        if self.settings.reading:
            chosen += [(attention.Task, attention.Settings()), (matching.Task, matching.Settings())]
        return [_left_out.Reading(task, settings, self.classes, self.origin) for task, settings in chosen]
