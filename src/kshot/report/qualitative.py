"""Episodes to look at, chosen by rule: supports with their masks, query, prediction, truth and score map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.episodes.sampler import Episode, Episodes
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.result import Result
from kshot.report.rendering import hex_colour
from kshot.report.thumbnails import data_uri, heat_map, outlined, shrunk
from kshot.types import IGNORE

_SIDE = 280
RULES = ("best", "median", "worst", "random")
RULE = (
    "Best, median and worst by mean IoU of the ways that occur in the truth or the mask, among episodes whose query "
    "holds one of its classes; random by numpy's default_rng(0), among all. No query is shown twice."
)


@dataclass(frozen=True)
class Pane:
    """An image of a panel."""

    kind: str
    """support, query, found, truth or score."""
    caption: str
    source: str
    """The image as a data URI."""


@dataclass(frozen=True)
class Panel:
    """An episode as images."""

    rule: str
    """Why it was chosen, one of `RULES`."""
    index: int
    """The episode's number."""
    query: str
    iou: float
    ways: tuple[tuple[str, str], ...]
    """(class, colour)."""
    panes: tuple[Pane, ...]


def panels(runner: EpisodeRunner, episodes: Episodes, result: Result, each: int = 2) -> list[Panel]:
    """The chosen episodes of a run as images, `each` of every rule."""
    ious = dict(zip(result.counts.index.tolist(), result.episode_ious().tolist(), strict=True))
    chosen = choose(result, [episode.query for episode in episodes], each)
    return [panel(runner, episodes[index], rule, ious[index]) for rule, index in chosen]


def choose(result: Result, queries: Sequence[str], each: int = 2) -> list[tuple[str, int]]:
    """(rule, episode) by `RULES`, `each` of every rule, ties to the lower number.

    queries: of all episodes; none is shown twice, so each rule takes the next episode then.
    """
    ious = result.episode_ious()
    shown = np.flatnonzero((result.counts.counts.truth[:, 1:] > 0).any(1))
    order = shown[np.lexsort((shown, ious[shown]))].tolist()
    by_middle = sorted(range(len(order)), key=lambda place: (abs(place - (len(order) - 1) / 2), place))
    ranked = {
        "best": order[::-1],
        "median": [order[place] for place in by_middle],
        "worst": order,
        "random": np.random.default_rng(0).permutation(len(ious)).tolist(),
    }
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
    result = runner.predict(episode)
    prediction, names = result.prediction, result.prediction.classes
    image = runner.image(episode.query)
    panes = [
        Pane("support", f"support, {names[way]}", overlay_uri(runner.image(support), labels, names))
        for way, images in enumerate(episode.supports)
        for support in images
        for labels in [_of_way(runner.labels(support, episode.classes), way + 1)]
    ]
    foreground = np.asarray(shrunk(Image.fromarray(1 - prediction.scores[0]), _SIDE))
    panes += [
        Pane("query", "query", _uri(Image.fromarray(image))),
        Pane("found", "prediction", overlay_uri(image, prediction.mask, names)),
        Pane("truth", "ground truth", overlay_uri(image, result.truth, names)),
        Pane("score", "score", _uri(heat_map(foreground))),
    ]
    ways = tuple((name, hex_colour(label)) for label, name in enumerate(names, 1))
    return Panel(rule, episode.index, episode.query, iou, ways, tuple(panes))


def overlay_uri(image: NDArray[np.uint8], labels: NDArray[np.uint8], names: Sequence[str]) -> str:
    """A small data URI of the labels over the image; what is ignored goes pale."""
    small = shrunk(Image.fromarray(image), _SIDE)
    here = np.asarray(Image.fromarray(labels).resize(small.size, Image.Resampling.NEAREST))
    pixels = np.array(small)
    pixels[here == IGNORE] = pixels[here == IGNORE] // 2 + 127
    return _uri(outlined(pixels, np.where(here == IGNORE, np.uint8(0), here), names, 0.5))


def _of_way(labels: NDArray[np.uint8], way: int) -> NDArray[np.uint8]:
    """The labels of one way, 1..N, and what is ignored."""
    return np.where((labels == way) | (labels == IGNORE), labels, np.uint8(0))


def _uri(image: Image.Image) -> str:
    return data_uri(shrunk(image, _SIDE)) or ""
