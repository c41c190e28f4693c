"""Images larger than memory: TIFFs that are read, predicted and written window by window."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.batch.inputs import Job
from kshot.batch.statistics import Tally
from kshot.batch.tiled import blended
from kshot.errors import ImageTooLargeError, SettingError
from kshot.features.tiles import Tiling
from kshot.formats.base import Format, ImageWriter, RowWriter
from kshot.formats.kshot_run import OBJECTS
from kshot.io import rasters
from kshot.io.manifest import Record
from kshot.io.rasters import MOST_PIXELS, Raster
from kshot.io.tiff import Page, is_tiff, pages
from kshot.methods.base import Task
from kshot.segmenter import Segmenter
from kshot.types import labels_of

# Smaller ones fit the memory with their scores, and whole images can be written in every format.
FROM_PIXELS = 2**26
_SHOWN_AS_IT_LIES, _BITS = {0, 1}, {8, 16, 32, 64}
_WHITE_IS_ZERO = 0
_ROWS = 64


@dataclass(frozen=True)
class Windowed:
    """How a run does its largest images. writers: by format. out: the output folder."""

    segmenter: Segmenter
    task: Task
    tiling: Tiling
    writers: Mapping[str, Format]
    out: Path

    def page_of(self, job: Job) -> Page | None:
        """The page of a job that is done in windows; None for one that is read whole.

        Above the pixel limit, or above `FROM_PIXELS`. A page with an orientation tag, or with bits packed into bytes,
        is read whole.
        """
        if job.frame is not None or not is_tiff(job.path):
            return None
        found = pages(job.path)
        page = found[max(job.page, 1) - 1]
        plain = page.turn in _SHOWN_AS_IT_LIES and page.bits in _BITS and page.colours != _WHITE_IS_ZERO
        height, width = page.size_hw
        return page if plain and height * width > min(self.segmenter.max_pixels, FROM_PIXELS) else None

    def label(self, job: Job, page: Page) -> Record:
        """Write the outputs of an image and return its facts. Raises `InputError`s and `OutputError`."""
        row_writers = {name: writer for name in self.writers if (writer := self._row_writer(name, job))}
        outputs = {name: writer.path_of(job.stem) for name, writer in row_writers.items()}
        with rasters.opened(job.path, page, self.segmenter.look, job.name) as raster:
            self._check(raster)
            kept: Sequence[int] = range(len(self.task.classes) + 1)
            present = dict.fromkeys(self.task.classes, 0.0)
            while True:
                try:
                    return self._once(raster, kept, present, row_writers, outputs)
                except _AbsentError as absent:
                    # Pixels of a class that is absent go to the next best, which is forgotten by then: all is looked
                    # at again. That is rare: hardly a class wins pixels that no tile holds to be present.
                    kept = absent.kept

    def _once(
        self,
        raster: Raster,
        kept: Sequence[int],
        present: dict[str, float],
        row_writers: Mapping[str, RowWriter],
        outputs: Mapping[str, str],
    ) -> Record:
        """Write the labels of the best among `kept`; `present` takes what tiles say. Raises `_AbsentError`."""
        classes = self.task.classes
        tally = Tally(classes)

        def part(rows: slice, columns: slice) -> NDArray[np.float32]:
            found = self.segmenter.predict(self.task, raster.window(rows, columns))
            present.update({name: max(present[name], found.present[name]) for name in classes})
            return found.scores

        def nothing(rows: slice, columns: slice) -> NDArray[np.float32]:
            return np.zeros((len(classes) + 1, rows.stop - rows.start, columns.stop - columns.start), np.float32)

        with ExitStack() as stack:
            sinks = [
                stack.enter_context(row_writers[name].open_rows(self.out / where, raster, classes))
                for name, where in outputs.items()
            ]
            scored = part if len(kept) > 1 else nothing
            for scores in blended(self.tiling, raster.size_hw, len(classes), scored):
                # A few rows at a time: counting takes several times the memory of what is counted.
                for top in range(0, scores.shape[1], _ROWS):
                    rows = scores[:, top : top + _ROWS]
                    labels = labels_of(rows, kept)
                    tally.add(labels, rows)
                    for sink in sinks:
                        sink(labels)
            gone = [index for index in kept[1:] if present[classes[index - 1]] < self.task.gate]
            if any(tally.pixels[index] for index in gone):
                raise _AbsentError([index for index in kept if index not in gone])
        return tally.facts(raster.size_hw, present, dict(outputs))

    def _row_writer(self, name: str, job: Job) -> RowWriter | None:
        """The format as one of rows; None for one that is made of the masks at the end. Raises `SettingError`."""
        writer = self.writers[name]
        if isinstance(writer, RowWriter):
            return writer
        if isinstance(writer, ImageWriter):
            option = "--instances" if name == OBJECTS else f"--format {name}"
            raise SettingError(
                f"{job.name}: is read in windows, and {option} needs the scores of the whole image; leave it out"
            )
        return None

    def _check(self, raster: Raster) -> None:
        """Refuse what would not fit the memory after all, or never end."""
        (height, width), block_hw = raster.size_hw, raster.block_hw
        if height * width > MOST_PIXELS:
            raise ImageTooLargeError(
                f"{raster.name}: {width} x {height} = {width * height:,} pixels, over the limit of {MOST_PIXELS:,} "
                "for images that are read in windows; cut it up"
            )
        if block_hw[0] * block_hw[1] > FROM_PIXELS:
            raise ImageTooLargeError(
                f"{raster.name}: stored in blocks of {block_hw[1]} x {block_hw[0]} pixels, which cannot be read in "
                "windows; store it in tiles (gdal_translate -co TILED=YES)"
            )
        if width * min(self.tiling.tile, height) > FROM_PIXELS:
            raise ImageTooLargeError(
                f"{raster.name}: a row of tiles is {width} x {self.tiling.tile} pixels, over the limit of "
                f"{FROM_PIXELS:,}; take a smaller --tile"
            )


class _AbsentError(Exception):
    """Some class has pixels and is absent; kept: the labels of the others."""

    def __init__(self, kept: Sequence[int]):
        super().__init__(kept)
        self.kept = kept
