"""Large images: tile by tile, so that the network sees details; TIFFs larger than memory also window by window.

The scores of tiles are blended, so that no seam shows. A class is present when some tile shows it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.statistics import RunningStatistics
from kshot.batch.inputs import Input
from kshot.errors import ImageTooLargeError, SettingError
from kshot.features.tiles import Tiling
from kshot.formats.base import Format, ImageWriter, RowWriter
from kshot.formats.kshot_run import OBJECTS
from kshot.io import rasters
from kshot.io.manifest import Record
from kshot.io.names import below
from kshot.io.rasters import MOST_PIXELS, Raster
from kshot.io.strips import StripStore
from kshot.io.tiff import Page, pages
from kshot.methods.base import Task
from kshot.segmenter import Segmenter
from kshot.types import Prediction, Thresholds, labels_of

# Smaller ones fit the memory with their scores, and whole images can be written in every format.
FROM_PIXELS = 2**26
_UPRIGHT, _WHOLE_BYTES = {0, 1}, {8, 16, 32, 64}  # of orientation tags; of bits a pixel
_WHITE_IS_ZERO = 0
_ROWS = 64  # that are counted at once
# The scores (N+1, th, tw) of a tile at some rows and columns.
TileScores = Callable[[slice, slice], NDArray[np.float32]]


def predict_tiled(
    segmenter: Segmenter,
    task: Task,
    tiling: Tiling,
    image: NDArray[np.uint8],
    valid_mask: NDArray[np.bool_] | None = None,
) -> Prediction:
    """Masks of an image (h, w, 3) from its tiles. One that fits a single tile is predicted as it is without tiles.

    valid_mask: (h, w), where the image has data; elsewhere is background, and tiles without any are not predicted.
    """
    present = dict.fromkeys(task.classes, 0.0)
    scores_of = _tile_scores(
        segmenter,
        task,
        present,
        lambda rows, cols: np.ascontiguousarray(image[rows, cols]),
        lambda rows, cols: None if valid_mask is None else valid_mask[rows, cols],
    )
    size_hw = image.shape[0], image.shape[1]
    scores = np.empty((len(task.classes) + 1, *size_hw), np.float32)
    top = 0
    for strip in _blended(tiling, size_hw, len(task.classes), scores_of):
        scores[:, top : top + strip.shape[1]] = strip
        top += strip.shape[1]
    return Prediction.from_scores(scores, task.classes, present, image, task.presence_threshold, task.object_shapes)


@dataclass(frozen=True)
class LargeImages:
    """Predicts images that are too large for the memory, a strip of tiles at a time."""

    segmenter: Segmenter
    task: Task
    tiling: Tiling
    writers: Mapping[str, Format]
    """What writes each format, by its name."""
    out: Path
    thresholds: Thresholds
    """What of the masks is kept."""
    least_pixels: Callable[[Sequence[int]], float]
    """The least area of a component in an image of some height and width, in pixels."""

    def page_of(self, source: Input) -> Page | None:
        """The page of an image that is done in windows; None for one that is read whole.

        Above the pixel limit, or above `FROM_PIXELS`. A page with an orientation tag, or with bits packed into bytes,
        is read whole.
        """
        found = pages(source.path) if source.frame is None else []
        if not found:
            return None
        page = found[max(source.page, 1) - 1]
        plain = page.orientation in _UPRIGHT and page.bits in _WHOLE_BYTES and page.photometric != _WHITE_IS_ZERO
        height, width = page.size_hw
        return page if plain and height * width > min(self.segmenter.max_pixels, FROM_PIXELS) else None

    def label(self, source: Input, page: Page) -> Record:
        """Write the outputs of an image and return its record. Raises `InputError`s and `OutputError`."""
        writers = {name: writer for name in self.writers if (writer := self._row_writer(name, source))}
        outputs = {name: writer.path_of(source.stem) for name, writer in writers.items()}
        with rasters.opened(source.path, page, self.segmenter.band_selection, source.name) as raster:
            self._check(raster)
            kept: Sequence[int] = range(len(self.task.classes) + 1)
            present = dict.fromkeys(self.task.classes, 0.0)
            while True:
                try:
                    return self._label_once(raster, kept, present, writers, outputs)
                except _AbsentError as absent:
                    # Only the last tile says that a class is absent. The pixels it won go to their next best class,
                    # whose scores are gone by then, so all tiles are predicted again. That is rare.
                    kept = absent.kept

    def _label_once(
        self,
        raster: Raster,
        kept: Sequence[int],
        present: dict[str, float],
        writers: Mapping[str, RowWriter],
        outputs: Mapping[str, str],
    ) -> Record:
        """Write each pixel's best label among `kept`; `present` takes what tiles say. Raises `_AbsentError`.

        The labels wait on the disk, since only the last row of a component tells whether it passes the thresholds.
        """
        classes, least = self.task.classes, self.thresholds.min_presence
        least = self.task.presence_threshold if least is None else least
        statistics = RunningStatistics(classes)
        scores_of = _tile_scores(self.segmenter, self.task, present, raster.window, raster.valid)
        if len(kept) == 1:
            scores_of = partial(_no_scores, len(classes))
        with StripStore(self.out) as store:
            for scores in _blended(self.tiling, raster.size_hw, len(classes), scores_of):
                # A few rows at a time: counting takes several times the memory of what is counted.
                for top in range(0, scores.shape[1], _ROWS):
                    rows = scores[:, top : top + _ROWS]
                    labels = labels_of(rows, kept)
                    statistics.add(labels, rows)
                    store.append(labels)
            table = statistics.components.join()
            gone = [index for index in kept[1:] if present[classes[index - 1]] < least]
            if np.isin(table.labels, gone).any():
                raise _AbsentError([index for index in kept if index not in gone])
            least_pixels = self.least_pixels(raster.size_hw)
            passing = table.passing(least_pixels, self.thresholds.min_score)
            with ExitStack() as stack:
                sinks = [
                    stack.enter_context(writers[name].open_rows(below(self.out, self.out / where), raster, classes))
                    for name, where in outputs.items()
                ]
                for labels in statistics.components.sieve(store, table, passing):
                    statistics.add_kept(labels)
                    for sink in sinks:
                        sink(labels)
        specks = int((table.areas < least_pixels).sum())
        return statistics.record(raster.size_hw, present, dict(outputs), table, passing, specks)

    def _row_writer(self, name: str, source: Input) -> RowWriter | None:
        """The format as one of rows; None for one that is made of the masks at the end. Raises `SettingError`."""
        writer = self.writers[name]
        if isinstance(writer, RowWriter):
            return writer
        if isinstance(writer, ImageWriter):
            option = "instances (--instances)" if name == OBJECTS else f"the format {name} (--format {name})"
            raise SettingError(
                f"{source.name}: is read in windows, and {option} needs the scores of the whole image; leave it out"
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
                f"{FROM_PIXELS:,}; take smaller tiles (tiling, --tile)"
            )


class _AbsentError(Exception):
    """Some class has pixels and is absent; kept: the labels of the others."""

    def __init__(self, kept: Sequence[int]):
        super().__init__(kept)
        self.kept = kept


def _tile_scores(
    segmenter: Segmenter,
    task: Task,
    present: dict[str, float],
    window: Callable[[slice, slice], NDArray[np.uint8]],
    valid: Callable[[slice, slice], NDArray[np.bool_] | None],
) -> TileScores:
    """The scores of tiles that `window` reads; `present` takes the highest presence of each class.

    valid: which pixels of a tile have data; a tile without any is background.
    """

    def scores_of(rows: slice, columns: slice) -> NDArray[np.float32]:
        valid_mask = valid(rows, columns)
        if valid_mask is not None and not valid_mask.any():
            nothing = _no_scores(len(task.classes), rows, columns)
            nothing[0] = 1
            return nothing
        found = segmenter.predict(task, window(rows, columns)).with_valid_mask(valid_mask)
        present.update({name: max(present[name], found.present[name]) for name in present})
        return found.scores

    return scores_of


def _no_scores(ways: int, rows: slice, columns: slice) -> NDArray[np.float32]:
    return np.zeros((ways + 1, rows.stop - rows.start, columns.stop - columns.start), np.float32)


def _blended(
    tiling: Tiling, size_hw: tuple[int, int], ways: int, scores_of: TileScores
) -> Iterator[NDArray[np.float32]]:
    """Blended scores (N+1, r, w) of the next rows, from top to bottom; a strip holds until the next is asked for.

    No more than a row of tiles is in memory.
    """
    height, width = size_hw
    down, across = tiling.spans(height), tiling.spans(width)
    ends = [rows.start for rows, _ in down[1:]] + [height]
    strip = np.zeros((ways + 1, min(tiling.tile, height), width), np.float32)
    for (rows, fall), end in zip(down, ends, strict=True):
        for columns, along in across:
            strip[:, :, columns] += scores_of(rows, columns) * (fall[:, None] * along)
        done, left = end - rows.start, rows.stop - end
        yield strip[:, :done]
        # Class by class: a copy of what is left of all would be a second strip where tiles overlap by half.
        for plane in strip:
            plane[:left] = plane[done:].copy()
            plane[left:] = 0
