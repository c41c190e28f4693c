"""Films and stacks in a run: frames in their order, each predicted with a memory of those before it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.batch.inputs import Input
from kshot.errors import SettingError
from kshot.memory import DEFAULT_FRAMES, FrameMemory
from kshot.ops.geometry import FeatureMap
from kshot.segmenter import Segmenter
from kshot.types import Prediction


@dataclass(frozen=True)
class Films:
    """Which images of a run follow each other, and how many earlier ones count."""

    frames: int = DEFAULT_FRAMES
    """Of the memory; 0 for none."""
    pages: bool = False
    """Whether pages of a TIFF follow each other, as those of a stack do; those of a scan do not."""
    sequence: bool = False
    """Whether all images are frames of one film, or slices of one stack."""

    @classmethod
    def of(cls, memory: int | None, sequence: bool, *, tiled: bool, spread: bool) -> "Films":
        """From what a person asked for: pages follow each other where a memory was asked for.

        tiled: images are cut into tiles. spread: several machines share the images, films alone stay whole then.
        Raises `SettingError` where the order or the whole images that a memory needs are missing.
        """
        if memory and tiled:
            raise SettingError(
                f"a memory of {memory} frames (--memory) with tiles (--tile): frames are then done whole"
            )
        if (memory or sequence) and spread:
            raise SettingError(
                "a memory (--memory) or a sequence (--sequence) needs one machine that does all images in order: "
                "without --shard and --engine ray"
            )
        frames = (0 if tiled else DEFAULT_FRAMES) if memory is None else memory
        return cls(frames, memory is not None or sequence, sequence)

    def film_of(self, source: Input) -> Path | None:
        """What an image is a frame of; None of one by itself."""
        if self.sequence:
            return Path()
        return source.path if source.frame is not None or (self.pages and source.page) else None


@dataclass
class FilmPredictor:
    """Predicts frames with a memory of those before them, and other images by themselves."""

    segmenter: Segmenter
    memory: FrameMemory
    films: Films
    _film: Path | None = field(default=None, init=False)

    def __call__(self, source: Input, image: NDArray[np.uint8], features: FeatureMap | None = None) -> Prediction:
        """The masks of an image (h, w, 3), from its features where they are known."""
        film = self.films.film_of(source)
        if film is None:
            if features is not None:
                return self.segmenter.decide(self.memory.task, features, image)
            return self.segmenter.predict(self.memory.task, image)
        if film != self._film:
            self.memory.clear()
            self._film = film
        return self.segmenter.predict_frame(self.memory, image)


def with_earlier_frames(
    sources: Iterable[Input | None], is_done: Callable[[Input], bool], films: Films
) -> Iterator[Input | None]:
    """What is left to do, and before it the frames that its result depends on, although they are done already.

    So a film that is gone on with gives what it gives in one go.
    """
    before: deque[Input] = deque(maxlen=films.frames)
    for source in sources:
        if source is None:
            yield None
            continue
        film = films.film_of(source)
        if before and films.film_of(before[-1]) != film:
            before.clear()
        if not is_done(source):
            yield from (replace(each, done=True) for each in before)
            before.clear()
            yield source
        elif film is not None:
            before.append(source)
