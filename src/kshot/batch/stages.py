"""The three steps of one image: read, infer, write. Each can run on a thread or a machine of its own."""

import errno
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.batch.inputs import Job
from kshot.batch.large_images import Windowed
from kshot.batch.statistics import facts_of
from kshot.errors import KshotError, OutputError
from kshot.formats.base import Format, ImageWriter
from kshot.io.images import read_image
from kshot.io.manifest import FAILED, Record
from kshot.io.rasters import Look
from kshot.io.tiff import Page
from kshot.types import Prediction

log = logging.getLogger(__name__)
# What is wrong with one image's name costs this image; a full or read-only disk costs the run.
_OF_THE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


@dataclass
class Work:
    """An image on its way. record: its line of the manifest, with status "failed" until it is done.

    page: of an image that is done in windows, and has no picture.
    """

    job: Job
    record: Record
    seconds: dict[str, float] = field(default_factory=dict)
    picture: NDArray[np.uint8] | None = None
    page: Page | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Steps:
    """How the images of a run are done.

    decide: from a picture (h, w, 3) uint8 to its masks. writers: by format. out: the output folder. look: bands and
    stretch of TIFFs. windowed: does the largest images, where there are tiles. on_gpu: whether deciding needs one.
    """

    decide: Callable[[NDArray[np.uint8]], Prediction]
    writers: Mapping[str, Format]
    out: Path
    max_pixels: int
    look: Look = field(default_factory=Look)
    windowed: Windowed | None = None
    on_gpu: bool = False

    def read(self, job: Job) -> Work:
        """Read and decode the image; what is wrong with it goes into the record."""
        work = Work(job, {"input": job.name, "status": FAILED})
        with _step(work, "read"):
            if job.problem:
                raise job.problem
            work.page = self.windowed.page_of(job) if self.windowed else None
            if work.page:
                with job.path.open("rb") as file:
                    work.record["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            elif job.part:
                work.picture = self._part(job)
                work.record["sha256"] = hashlib.sha256(work.picture.data).hexdigest()
            else:
                data = job.path.read_bytes()
                work.record["sha256"] = hashlib.sha256(data).hexdigest()
                work.picture = read_image(data, max_pixels=self.max_pixels, look=self.look)
        return work

    def infer(self, work: Work) -> Work:
        """Find the masks of a picture that could be read, or all that is to be found in windows."""
        if work.picture is not None:
            with _step(work, "infer"):
                work.prediction = self.decide(work.picture)
        elif work.page and self.windowed:
            with _step(work, "infer"):
                work.record |= self.windowed.label(work.job, work.page)
        return work

    def write(self, work: Work) -> Work:
        """Write the results. Raises `OutputError` when the disk takes no more."""
        if work.prediction is not None:
            with _step(work, "write"):
                work.record |= self._written(work.job, work.prediction)
        work.picture = work.prediction = None
        work.job = replace(work.job, frame=None)
        return work

    def _part(self, job: Job) -> NDArray[np.uint8]:
        if job.frame:
            return job.frame.picture(self.max_pixels)
        return read_image(job.path, max_pixels=self.max_pixels, page=job.page, look=self.look)

    def _written(self, job: Job, prediction: Prediction) -> Record:
        outputs = {}
        for name, writer in self.writers.items():
            if isinstance(writer, ImageWriter):
                outputs[name] = writer.path_of(job.stem)
                writer.write(prediction, self.out / outputs[name])
        return facts_of(prediction, outputs)


@contextmanager
def _step(work: Work, name: str) -> Iterator[None]:
    """Time a step, and turn what goes wrong in it into a reason."""
    started = time.perf_counter()
    try:
        yield
    except OutputError as error:
        if getattr(error.__cause__, "errno", None) not in _OF_THE_NAME:
            raise
        work.record["reason"] = str(error)
    except KshotError as error:
        work.record["reason"] = str(error).removeprefix("the image given as bytes: ")
    except OSError as error:
        if name == "write":
            raise OutputError(f"{work.job.name}: its results cannot be written ({error.strerror or error})") from error
        work.record["reason"] = f"cannot be read: {error.strerror or error}"
    except Exception as error:  # an unattended run survives what nobody foresaw, and says so
        log.exception("%s: unexpected", work.job.name)
        work.record["reason"] = f"unexpected {type(error).__name__}: {error}"
    work.seconds[name] = round(time.perf_counter() - started, 4)
