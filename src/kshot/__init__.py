"""kshot: few-shot semantic segmentation on frozen backbones.

Show one to five example images of a class, get that class's masks in all your other images::

    import kshot

    seg = kshot.Segmenter()
    task = seg.fit(kshot.SupportSet.from_folder("support/"))
    seg.predict(task, "query.jpg").save("query.png")

Importing this package loads nothing heavy: torch and the rest come with the first name that needs them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from kshot._version import __version__

_HOMES = {
    "Instance": "kshot.objects",
    "Prediction": "kshot.types",
    "Segmenter": "kshot.segmenter",
    "Shot": "kshot.types",
    "SupportSet": "kshot.types",
    "Task": "kshot.methods.base",
    "errors": "kshot",
    "evaluate": "kshot.evaluation",
    "load_dataset": "kshot.data.base",
    "load_task": "kshot.tasks",
    "names": "kshot.segmenter",
    "to_table": "kshot.batch.object_table",
}

__all__ = ["Instance", "Prediction", "Segmenter", "Shot", "SupportSet", "Task", "__version__"]
__all__ += ["errors", "evaluate", "load_dataset", "load_task", "names", "to_table"]

if TYPE_CHECKING:
    from kshot import errors
    from kshot.batch.object_table import to_table
    from kshot.data.base import load_dataset
    from kshot.evaluation import evaluate
    from kshot.methods.base import Task
    from kshot.objects import Instance
    from kshot.segmenter import Segmenter, names
    from kshot.tasks import load_task
    from kshot.types import Prediction, Shot, SupportSet


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("kshot.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'kshot' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
