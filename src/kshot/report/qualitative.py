"""Episodes as pictures, chosen by rule: supports with their masks, query, prediction, truth and score map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.episodes.sampler import Episode, Episodes
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.result import Result
from kshot.report.labelling import hex_colour
from kshot.report.pictures import data_uri, heat, outlined, shrunk
from kshot.types import IGNORE

_SIDE = 280
RULES = ("best", "median", "worst", "random")
RULE = (
    "Best, median and worst by mean IoU of the ways that occur in the truth or the mask, among episodes whose query "
    "holds one of its classes; random by numpy's default_rng(0), among all. No query is shown twice."
)


@dataclass(frozen=True)
class Pane:
    """A picture of a panel; kind: support, query, found, truth or score."""

    kind: str
    caption: str
    source: str


@dataclass(frozen=True)
class Panel:
    """An episode: why it was chosen, its number, IoU, ways as (name, colour), and its panes."""

    rule: str
    index: int
    query: str
    iou: float
    ways: tuple[tuple[str, str], ...]
    panes: tuple[Pane, ...]


def choose(result: Result, queries: Sequence[str], each: int = 2) -> list[tuple[str, int]]:
    """(rule, episode) by `RULES`, `each` of every rule, ties to the lower number.

    queries: of all episodes; none is shown twice, so each rule takes the next episode then.
    """
    ious = result.episode_ious()
    shown = np.flatnonzero((result.counts.counts.truth[:, 1:] > 0).any(1))
    order = [int(n) for n in shown[np.lexsort((shown, ious[shown]))]]
    shuffled = [int(n) for n in np.random.default_rng(0).permutation(len(ious))]
    middle = sorted(range(len(order)), key=lambda place: (abs(place - (len(order) - 1) / 2), place))
    ranked = {"best": order[::-1], "median": [order[place] for place in middle], "worst": order, "random": shuffled}
    chosen: list[tuple[str, int]] = []
    taken: set[str] = set()
    for rule in RULES * each:  # by turns, so that few episodes still show every rule
        for n in ranked[rule]:
            if queries[n] not in taken:
                taken.add(queries[n])
                chosen.append((rule, int(result.counts.index[n])))
                break
    return sorted(chosen, key=lambda pair: RULES.index(pair[0]))


def panel(runner: EpisodeRunner, episode: Episode, rule: str, iou: float) -> Panel:
    """Run an episode again and draw it."""
    outcome = runner.outcome(episode)
    prediction, names = outcome.prediction, outcome.prediction.classes
    picture = runner.picture(episode.query)
    panes = [
        Pane(
            "support", f"support, {names[way]}", _drawn(runner.picture(image), _own(runner, image, episode, way), names)
        )
        for way, images in enumerate(episode.supports)
        for image in images
    ]
    everything = np.asarray(shrunk(Image.fromarray(1 - prediction.scores[0]), _SIDE))
    panes += [
        Pane("query", "query", _uri(Image.fromarray(picture))),
        Pane("found", "prediction", _drawn(picture, prediction.mask, names)),
        Pane("truth", "ground truth", _drawn(picture, outcome.truth, names)),
        Pane("score", "score", _uri(Image.fromarray(heat()[np.rint(255 * everything.clip(0, 1)).astype(np.uint8)]))),
    ]
    ways = tuple((name, hex_colour(label)) for label, name in enumerate(names, 1))
    return Panel(rule, episode.index, episode.query, iou, ways, tuple(panes))


def panels(runner: EpisodeRunner, episodes: Episodes, result: Result, each: int = 2) -> list[Panel]:
    """The chosen episodes of a run as pictures."""
    ious = dict(zip(result.counts.index.tolist(), result.episode_ious().tolist(), strict=True))
    chosen = choose(result, [episode.query for episode in episodes], each)
    return [panel(runner, episodes[index], rule, ious[index]) for rule, index in chosen]


def _own(runner: EpisodeRunner, image: str, episode: Episode, way: int) -> NDArray[np.uint8]:
    """What a support shows: its own way under that way's label."""
    labels = runner.labels(image, episode.classes)
    return np.where((labels == way + 1) | (labels == IGNORE), labels, np.uint8(0))


def _drawn(picture: NDArray[np.uint8], labels: NDArray[np.uint8], names: Sequence[str]) -> str:
    """The labels over the picture; what is ignored goes pale."""
    small = shrunk(Image.fromarray(picture), _SIDE)
    here = np.asarray(Image.fromarray(labels).resize(small.size, Image.Resampling.NEAREST))
    pixels = np.array(small)
    pixels[here == IGNORE] = pixels[here == IGNORE] // 2 + 127
    return _uri(outlined(pixels, np.where(here == IGNORE, np.uint8(0), here), names, 0.5))


def _uri(picture: Image.Image) -> str:
    return data_uri(shrunk(picture, _SIDE)) or ""
