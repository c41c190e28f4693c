"""The three stages of one image, read, infer and write, and how those of many images overlap."""

import errno
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.statistics import record_of
from kshot.batch.inputs import Input
from kshot.batch.lanes import Lanes
from kshot.batch.large_images import LargeImages
from kshot.errors import KshotError, OutputError
from kshot.formats.base import Format, ImageWriter
from kshot.formats.kshot_run import ObjectWriter
from kshot.io.images import read_image
from kshot.io.manifest import FAILED, Record
from kshot.io.names import below
from kshot.io.ome_zarr import is_zarr
from kshot.io.rasters import BandSelection
from kshot.io.tiff import Page
from kshot.io.valid_pixels import valid_pixels
from kshot.ops.geometry import FeatureMap
from kshot.types import Prediction

Item = TypeVar("Item")
Made = TypeVar("Made")
log = logging.getLogger(__name__)
# What is wrong with one image's name costs this image; a full or read-only disk costs the run.
_OF_THE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


class Predict(Protocol):
    """From an image (h, w, 3) uint8 and where it has data (h, w) to its masks; films want to know which frame it is."""

    def __call__(
        self,
        source: Input,
        image: NDArray[np.uint8],
        valid_mask: NDArray[np.bool_] | None,
        features: FeatureMap | None = None,
    ) -> Prediction:
        """features: of the image, where they are known already."""
        ...


@dataclass
class ImageResult:
    """One image on its way through the stages."""

    source: Input
    record: Record
    """Its line of the manifest; the status is "failed" until all is done."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage took."""
    image: NDArray[np.uint8] | None = None
    """(h, w, 3) RGB, from reading until writing."""
    valid_mask: NDArray[np.bool_] | None = None
    """(h, w): where the image has data; None where it has it everywhere, or is not read whole."""
    page: Page | None = None
    """Instead of the image, where it is so large that it is done in windows."""
    features: FeatureMap | None = None
    """Of the image, where it was encoded together with others."""
    prediction: Prediction | None = None
    """From inference until writing."""


@dataclass(frozen=True)
class Stages:
    """The stages that each image of a run passes: read, predict, write.

    Each may run on a thread, or on another machine.
    """

    predict: Predict
    writers: Mapping[str, Format]
    """What writes each format, by its name."""
    out: Path
    max_pixels: int
    """Larger images are refused."""
    selection: BandSelection = field(default_factory=BandSelection)
    """Bands and stretch of TIFFs."""
    large_images: LargeImages | None = None
    """Does the largest images window by window; only with tiles."""
    on_gpu: bool = False
    """Whether inference needs a GPU."""
    features_of: Callable[[Sequence[NDArray[np.uint8]]], list[FeatureMap]] | None = None
    """Encodes several images at once."""
    batch: int = 1
    """How many."""
    lanes: int = 1
    """How many images may be inferred at once, see `Lanes`."""
    lane_pixels: int = 2**26
    """Pixels of all images that are inferred at once, at most; larger ones are inferred alone."""

    def read(self, source: Input) -> ImageResult:
        """Read and decode the image; what is wrong with it goes into the record."""
        result = ImageResult(source, {"input": source.name, "status": FAILED})
        with _stage(result, "read"):
            if source.problem:
                raise source.problem
            result.page = self.large_images.page_of(source) if self.large_images else None
            if result.page:
                with source.path.open("rb") as file:
                    result.record["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            elif source.is_page_or_frame or is_zarr(source.path):
                result.image = self._page_or_frame(source)
                result.valid_mask = None if source.frame else valid_pixels(source.path, source.page)
                result.record["sha256"] = hashlib.sha256(result.image.data).hexdigest()
            else:
                data = source.path.read_bytes()
                result.record["sha256"] = hashlib.sha256(data).hexdigest()
                result.image = read_image(data, max_pixels=self.max_pixels, selection=self.selection)
                result.valid_mask = valid_pixels(source.path)
        return result

    def encode(self, results: Sequence[ImageResult]) -> None:
        """Encode images that could be read together; what is left without features, `infer` encodes alone."""
        several = [each for each in results if each.image is not None and not each.source.is_page_or_frame]
        if self.features_of is None or len(several) < 2:
            return
        try:
            found = self.features_of([each.image for each in several if each.image is not None])
        except Exception as error:  # which image it is, and whether the memory suffices for one, shows in `infer`
            log.info("%d images cannot be encoded together: %s", len(several), error)
            return
        for result, features in zip(several, found, strict=True):
            result.features = features

    def infer(self, result: ImageResult) -> ImageResult:
        """Find the masks of an image that could be read; one that is done in windows is written, too."""
        if result.image is not None:
            with _stage(result, "infer"):
                result.prediction = self.predict(result.source, result.image, result.valid_mask, result.features)
            result.features = None
        elif result.page and self.large_images:
            with _stage(result, "infer"):
                result.record |= self.large_images.label(result.source, result.page)
        return result

    def is_alone(self, result: ImageResult) -> bool:
        """Whether an image is inferred after all before it and before all that follow: a frame, or a large one."""
        if result.image is None or result.source.is_page_or_frame:
            return True
        height, width = result.image.shape[:2]
        return bool(height * width * self.lanes > self.lane_pixels)

    def write(self, result: ImageResult) -> ImageResult:
        """Write the masks in all formats. Raises `OutputError` when the disk takes no more."""
        if result.prediction is not None and not result.source.done:
            with _stage(result, "write"):
                result.record |= self._written(result.source, result.prediction)
        result.image = result.valid_mask = result.prediction = None
        result.source = replace(result.source, frame=None)
        return result

    def _page_or_frame(self, source: Input) -> NDArray[np.uint8]:
        if source.frame:
            return source.frame.image(self.max_pixels)
        return read_image(source.path, max_pixels=self.max_pixels, page=source.page or 1, selection=self.selection)

    def _written(self, source: Input, prediction: Prediction) -> Record:
        outputs, objects = {}, None
        for name, writer in self.writers.items():
            if isinstance(writer, ImageWriter):
                outputs[name] = writer.path_of(source.stem)
                path = below(self.out, self.out / outputs[name])
                if isinstance(writer, ObjectWriter):
                    objects = writer.write_counted(prediction, path)
                else:
                    writer.write(prediction, path)
        return record_of(prediction, outputs, objects)


def overlapped(
    items: Iterable[Item | None],
    read: Callable[[Item], Made],
    infer: Callable[[Made], Made],
    write: Callable[[Made], Made],
    workers: int = 1,
    encode: Callable[[Sequence[Made]], None] | None = None,
    batch: int = 1,
    lanes: Lanes | None = None,
    is_alone: Callable[[Made], bool] = lambda _: False,
) -> Generator[Made]:
    """`write(infer(read(item)))` of each item, in their order.

    encode: called before `infer` with `batch` items that are read, fewer at the end. lanes: threads that infer several
    items at once, but for those of which `is_alone` says otherwise.

    Otherwise `infer` runs in the caller's thread, one item at a time, because it keeps all cores (or the GPU) busy by
    itself; `workers` threads read and as many write beside it, and never more than `workers` items, and a batch, wait
    between two stages, so memory does not grow with the items. 0 does one stage after the other, unless there are
    batches. A None among the items says that the next may take long: what is on its way is finished first. Whatever a
    stage raises ends the iteration.
    """
    encode = encode if batch > 1 else None
    if workers == 0 and encode is None:
        yield from (write(infer(read(item))) for item in items if item is not None)
        return
    workers, lanes = max(1, workers), lanes or Lanes(1)
    readers = ThreadPoolExecutor(workers, "kshot-read")
    writers = ThreadPoolExecutor(workers, "kshot-write")
    reading: deque[Future[Made]] = deque()
    inferring: deque[Future[Made]] = deque()
    writing: deque[Future[Made]] = deque()

    def finished(at_most: int) -> Iterator[Made]:
        while writing and (len(writing) > at_most or writing[0].done()):
            yield writing.popleft().result()

    def written(made: Made) -> Iterator[Made]:
        # Room is made before the next is handed over: a prediction is far larger than its image.
        yield from finished(workers)
        writing.append(writers.submit(write, made))

    def inferred(at_most: int) -> Iterator[Made]:
        while len(inferring) > at_most:
            yield from written(inferring.popleft().result())

    def moved(at_most: int) -> Iterator[Made]:
        while len(reading) > at_most:
            group = [reading.popleft().result() for _ in range(min(batch, len(reading)))]
            if encode is not None:
                encode(group)
            for made in group:
                if lanes.count > 1 and not is_alone(made):
                    inferring.append(lanes.submit(infer, made))
                    yield from inferred(lanes.count)
                else:
                    yield from inferred(0)
                    with lanes.all_threads():
                        result = infer(made)
                    yield from written(result)

    try:
        for item in items:
            if item is None:
                yield from moved(0)
                yield from inferred(0)
                yield from finished(0)
            else:
                reading.append(readers.submit(read, item))
                yield from moved(workers + batch - 1)
        yield from moved(0)
        yield from inferred(0)
        yield from finished(0)
    finally:
        readers.shutdown(cancel_futures=True)
        lanes.close()
        writers.shutdown(cancel_futures=True)


@contextmanager
def _stage(result: ImageResult, name: str) -> Iterator[None]:
    """Time a stage, and turn what goes wrong in it into a reason."""
    started = time.perf_counter()
    try:
        yield
    except OutputError as error:
        if getattr(error.__cause__, "errno", None) not in _OF_THE_NAME:
            raise
        result.record["reason"] = str(error)
    except KshotError as error:
        result.record["reason"] = str(error).removeprefix("the image given as bytes: ")
    except OSError as error:
        if name == "write":
            raise OutputError(
                f"{result.source.name}: its results cannot be written ({error.strerror or error})"
            ) from error
        result.record["reason"] = f"cannot be read: {error.strerror or error}"
    except Exception as error:  # an unattended run survives what nobody foresaw, and says so
        log.exception("%s: unexpected", result.source.name)
        result.record["reason"] = f"unexpected {type(error).__name__}: {error}"
    result.seconds[name] = round(time.perf_counter() - started, 4)
