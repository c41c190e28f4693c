"""kshot's default: density ratios, with thresholds and absence calibrated on the supports themselves.

Foreground and background densities, the average over alike regions and the query's own confident cells are those of
`density`. Added is what the supports say of each other. A class that several of them show is sought in each with the
help of the rest, and its threshold moves where that finds more of it. A class that one support shows is sought in that
support's own cells, each with its neighbourhood left out, and the threshold moves towards the middle of what the class
and the background score there. The same left-out scores tell how familiar a class looks where it is; a query whose
most familiar cells stay far behind is taken not to show it. A support in which the others find next to nothing is
told of.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from kshot.methods import _left_out, base, density
from kshot.methods._cells import Cells
from kshot.ops.geometry import FeatureMap


@dataclass(frozen=True)
class Settings:
    """Chosen on development data; docs/methods.md shows what each part is worth there, and the command.

    regions: average over alike cells. second: let the query's confident cells join the supports. threshold: calibrate
    it on the supports. reading: choose among several settings of the densities on the supports. presence: judge from
    the most familiar cells whether a class is there at all.
    shift: how far the threshold of a class with one support moves towards the middle. gain: mean IoU in the supports
    that another reading or threshold must win. toll: IoU that a threshold costs, times its square. sure: standard
    errors that what is won must amount to. held: most supports
    that are left out in turn. gate: probability of presence below which a class is left out of the mask. part: of the
    image, its most familiar cells. steep: slope of the probability of presence. centre, usual: log ratio of those
    cells at which a class is as likely there as not, as a part of the left-out one, and at most. scale: of all logits,
    for scores that are calibrated; it changes no decision.
    """

    regions: bool = True
    second: bool = True
    threshold: bool = True
    reading: bool = True
    presence: bool = True
    shift: float = 0.5
    gain: float = 0.03
    toll: float = 0.02
    sure: float = 2.0
    held: int = 5
    gate: float = 0.2
    part: float = 0.025
    steep: float = 2.1
    centre: float = 0.6
    usual: float = 3.0
    scale: float = 0.7


class _Fitted(NamedTuple):
    """cells: of all supports. held: what was learnt by leaving some out. reading, thresholds: what came of it."""

    cells: Cells
    held: _left_out.Held
    reading: density.Settings
    thresholds: Tensor


class Task(base.Task):
    """Density ratios above thresholds of their own."""

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
        settings, readings = self.settings, _readings(self.settings)
        held = _left_out.hold(self.supports, readings, settings.held, settings.part)
        toll = settings.toll if settings.threshold else _left_out.NEVER
        choice = held.choose(settings.shift, settings.gain, toll, settings.sure)
        thresholds = choice.thresholds if settings.threshold else torch.zeros(len(self.classes))
        cells = density.fit(self.supports, readings[0])
        return _Fitted(cells, held, readings[choice.reading], thresholds)

    def _score(self, features: FeatureMap) -> Tensor:
        logits = density.readout(self.fitted.cells, features, self.fitted.reading)
        logits[1:] -= self.fitted.thresholds[:, None, None]
        return logits.mul_(self.settings.scale)


def _readings(settings: Settings) -> list[density.Settings]:
    """The settings of the densities to choose from, the usual ones first."""
    usual = density.Settings()
    if not settings.regions:
        usual = replace(usual, affinity=0.0)
    if not settings.second:
        usual = replace(usual, share=0.0)
    if not settings.reading:
        return [usual]
    # One estimate alone, and sharper regions of single cells: for textures and small things.
    return [usual, replace(usual, share=0.0), replace(usual, pool=1, affinity=2 * usual.affinity)]
