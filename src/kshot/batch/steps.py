"""The three steps of one image: read, infer, write. Each can run on a thread or a machine of its own."""

import errno
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.batch.jobs import Job
from kshot.errors import KshotError, OutputError
from kshot.formats.images import read_image
from kshot.ops.regions import count_regions
from kshot.types import Prediction

log = logging.getLogger(__name__)
MASKS = "png"
Record = dict[str, Any]
# What is wrong with one image's name costs this image; a full or read-only disk costs the run.
_OF_THE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


@dataclass
class Work:
    """An image on its way. record: its line of the manifest, with status "failed" until it is done."""

    job: Job
    record: Record
    seconds: dict[str, float] = field(default_factory=dict)
    picture: NDArray[np.uint8] | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Steps:
    """How the images of a run are done.

    decide: from a picture (h, w, 3) uint8 to its masks. writers: by format. out: the output folder.
    on_gpu: whether deciding needs one.
    """

    decide: Callable[[NDArray[np.uint8]], Prediction]
    writers: Mapping[str, Any]
    out: Path
    max_pixels: int
    on_gpu: bool = False

    def read(self, job: Job) -> Work:
        """Read and decode the image; what is wrong with it goes into the record."""
        work = Work(job, {"input": job.name, "status": "failed"})
        with _step(work, "read"):
            data = job.path.read_bytes()
            work.record["sha256"] = hashlib.sha256(data).hexdigest()
            work.picture = read_image(data, max_pixels=self.max_pixels)
        return work

    def infer(self, work: Work) -> Work:
        """Find the masks of a picture that could be read."""
        if work.picture is not None:
            with _step(work, "infer"):
                work.prediction = self.decide(work.picture)
        return work

    def write(self, work: Work) -> Work:
        """Write the results. Raises `OutputError` when the disk takes no more."""
        if work.prediction is not None:
            with _step(work, "write"):
                work.record |= self._written(work.job, work.prediction)
        work.picture = work.prediction = None
        return work

    def _written(self, job: Job, prediction: Prediction) -> Record:
        outputs = {}
        for name, writer in self.writers.items():
            if hasattr(writer, "FOLDER"):
                outputs[name] = f"{writer.FOLDER}/{job.stem}{writer.WRITES[0]}"
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


def facts_of(prediction: Prediction, outputs: dict[str, str]) -> Record:
    """What a manifest says of an image that was done."""
    areas, regions = prediction.areas(), count_regions(prediction.mask)
    classes = {}
    for index, name in enumerate(prediction.classes, 1):
        inside = prediction.scores[index][prediction.mask == index]
        classes[name] = {
            "present": round(float(prediction.present[name]), 4),
            "pixels": areas[name],
            "regions": regions.get(index, 0),
            "score": round(float(inside.mean()), 4) if inside.size else 0.0,
        }
    return {
        "status": "done" if prediction.mask.any() else "empty",
        "size_hw": list(prediction.size_hw),
        "uncertainty": round(prediction.uncertainty, 4),
        "mask": outputs[MASKS],
        "outputs": outputs,
        "classes": classes,
    }
