"""A task as an auto-annotation function of CVAT, which `cvat-cli` runs on this machine over the images of a CVAT task.

`write_cvat_function` writes the file that `cvat-cli` takes; that file makes a `CvatFunction`. CVAT's classes come from
the package cvat-sdk, which is only needed where the function runs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import OutputError, SettingError
from kshot.io.atomic import write_text
from kshot.io.images import read_image
from kshot.ops.components import connected_components
from kshot.ops.polygons import polygons
from kshot.segmenter import Segmenter
from kshot.tasks import load_task

if TYPE_CHECKING:
    from PIL.Image import Image

_TOLERANCE = 1.0  # pixels that a polygon may leave the edge: corners that a person can drag
_FILE = '''"""kshot as an auto-annotation function of CVAT, written by `kshot cvat-function`.

    cvat-cli task auto-annotate TASK_ID --function-file {name} --allow-unmatched-labels

Another task file: -p task=str:FILE.kshot. Another device: -p device=str:cuda.
"""

from kshot.serve.cvat_function import CvatFunction


def create(task: str = {task!r}, device: str = "auto") -> CvatFunction:
    """Called by cvat-cli."""
    return CvatFunction(task, device)
'''


def write_cvat_function(task: str | Path, path: str | Path) -> tuple[str, ...]:
    """Write a function file for a task file; returns the names of its labels.

    Raises `TaskFileError` for what is no task, and `OutputError` where a file is there already or none can be written.
    """
    task, path = Path(task), Path(path)
    classes = load_task(task).classes
    if path.suffix != ".py":
        raise SettingError(f"{path}: cvat-cli takes Python files; choose a name that ends in .py")
    if path.exists():
        raise OutputError(f"{path}: is there already; choose another name, or remove it")
    write_text(path, _FILE.format(name=path, task=str(task.resolve())))
    return classes


class CvatFunction:
    """A detection function as `cvat_sdk.auto_annotation` describes it: an object for each connected component.

    task: file of `kshot fit`. device: as of `Segmenter`. Raises `SettingError` without cvat-sdk, and `TaskError`s.
    """

    def __init__(self, task: str | Path, device: str = "auto"):
        try:
            import cvat_sdk.auto_annotation as cvat
            from cvat_sdk.masks import encode_mask
        except ImportError as error:
            raise SettingError("a function of CVAT needs its SDK; pip install cvat-cli, which brings it") from error
        self.task = load_task(task)
        self.segmenter = Segmenter.for_task(self.task, device=device)
        self._cvat: Any = cvat
        self._encode: Any = encode_mask
        labels = [cvat.label_spec(name, label) for label, name in enumerate(self.task.classes, 1)]
        self._spec = cvat.DetectionFunctionSpec(labels=labels)

    @property
    def spec(self) -> Any:
        """The labels, by name."""
        return self._spec

    def detect(self, context: Any, image: "Image") -> list[Any]:
        """The objects in an image: masks, or polygons where the context wants them, none below its threshold.

        The confidence of an object is the mean score of its class over its pixels.
        """
        found = self.segmenter.predict(self.task, read_image(image))
        least = context.conf_threshold or 0.0
        shapes: list[Any] = []
        for label in range(1, len(found.classes) + 1):
            for place, inside in connected_components(found.mask == label):
                if float(found.scores[label][place][inside].mean()) >= least:
                    shapes += self._shapes(label, place, inside, as_polygons=context.conv_mask_to_poly)
        return shapes

    def _shapes(
        self, label: int, place: tuple[slice, slice], inside: NDArray[np.bool_], *, as_polygons: bool
    ) -> Iterator[Any]:
        rows, columns = place
        if as_polygons:
            for corners in polygons(inside, _TOLERANCE):
                here = corners + np.array([columns.start, rows.start])
                yield self._cvat.polygon(label, here.ravel().tolist())
            return
        runs = self._encode(inside)[:-4]  # the box behind them is that of the component alone
        box = columns.start, rows.start, columns.stop - 1, rows.stop - 1
        yield self._cvat.mask(label, [float(each) for each in (*runs, *box)])
