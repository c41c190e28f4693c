"""Task files: from a file to a `Task`, which `Task.save` wrote. They hold data; loading one runs no code of its own.

The method that made it is taken by its name. When that is a Python file of somebody's own, a person has to name the
file, and it has to be the one that the task was fitted with.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from kshot import _elsewhere
from kshot.errors import TaskError, TaskFileError
from kshot.io.tensor_file import Learned, read_task
from kshot.methods.base import LEARNED, FeatureSpec, Support, Task, load_method, method_named, settings_of
from kshot.ops.geometry import FeatureMap, Frame
from kshot.ops.object_shapes import ObjectShape
from kshot.ops.pixel_features import PixelSamples
from kshot.working_size import SizeChoice


def load_task(path: str | Path, method: str | Path | None = None) -> Task:
    """Read a task file.

    method: of the task. Only needed when it is a Python file of your own that no Segmenter of this process has.
    Raises `TaskFileError` (missing, damaged, no task), `TaskVersionError`, `TaskError` when the method is another one
    or not here, and `PluginError` when it cannot be used.
    """
    header, tensors = read_task(Path(path))
    try:
        return _build(_method_of(header, path, method), header, tensors)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TaskFileError(f"{path}: damaged header ({error}); copy or fit it again") from error


def task_of(task: Any) -> Task:
    """The task itself, or that of a task file. Raises `TaskError` for anything else."""
    if isinstance(task, str | Path):
        return load_task(task)
    if not isinstance(task, Task):
        raise TaskError(
            f"expected a Task (from Segmenter.fit or kshot.load_task) or the path of a task file, "
            f"got {type(task).__name__}; the task comes first: segmenter.predict(task, image)"
        )
    return task


def _method_of(header: Mapping[str, Any], path: str | Path, method: str | Path | None) -> Any:
    """The module of a task's method."""
    name, source = header["method"], header.get("method_source", {})
    if method is None:
        module = _file_method(path, source) if "file" in source else _named_method(path, name, source)
    else:
        module = load_method(method)
    own = module.Task.source
    if module.Task.method != name:
        raise TaskError(f"{path}: a task of the method {name}, not of {module.Task.method}; fit again for another")
    if "file" in source and (own is None or own.facts != source):
        raise TaskError(
            f"{path}: {method} is not the {source['file']} that the task was fitted with (sha256 "
            f"{source['sha256'][:12]}...); take that one, or fit again"
        )
    return module


def _file_method(path: str | Path, source: Mapping[str, str]) -> Any:
    """The module of a Python file that was loaded here before."""
    module, file = _elsewhere.loaded_file(source), source["file"]
    if module is None:
        raise TaskError(
            f"{path}: its method is a Python file, {file}, and a task file never makes code run; name the file: "
            f"--method {file}, or load_task({str(path)!r}, method={file!r}) in Python"
        )
    return module


def _named_method(path: str | Path, name: str, source: Mapping[str, str]) -> Any:
    if source and name.replace("_", "-") not in _elsewhere.installed("methods"):
        raise TaskError(
            f"{path}: its method {name} is of {source['distribution']} {source['version']}, which is not installed; "
            f"pip install {source['distribution']}"
        )
    return method_named(name)


def _build(module: Any, header: dict[str, Any], tensors: dict[str, Tensor]) -> Task:
    spec = FeatureSpec(**(header["feature_spec"] | {"layers": tuple(header["feature_spec"]["layers"])}))
    supports = []
    of_crops = header.get("crops", [[]] * len(header["frames"]))
    described = zip(header["frames"], header["supports"], of_crops, strict=True)
    for index, (frame, facts, parts) in enumerate(described):
        features = FeatureMap(
            tensors[f"{index}.features"],
            _frame(frame),
            spec.identity,
            tensors.get(f"{index}.token"),
            tensors.get(f"{index}.objectness"),
        )
        crops = tuple(
            Support(
                FeatureMap(tensors[f"{index}.crop{number}.features"], _frame(part), spec.identity),
                tensors[f"{index}.crop{number}.masks"],
                tensors[f"{index}.crop{number}.valid_mask"],
                facts["kind"],
                facts["weight"],
            )
            for number, part in enumerate(parts)
        )
        objects = {name: ObjectShape(**shape) for name, shape in facts.pop("objects", {}).items()}
        pixels = None
        if f"{index}.pixel_features" in tensors:
            pixels = PixelSamples(*(tensors[f"{index}.pixel_{each.name}"] for each in fields(PixelSamples)))
        masks, valid_mask = tensors[f"{index}.masks"], tensors[f"{index}.valid_mask"]
        supports.append(Support(features, masks, valid_mask, **facts, objects=objects, pixels=pixels, crops=crops))
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in header["settings"].items()}
    learned = None
    if "learned" in header:
        own = {name.removeprefix(LEARNED): part for name, part in tensors.items() if name.startswith(LEARNED)}
        learned = Learned(header["learned"], own)
    choice = SizeChoice.from_dict(header["size_choice"]) if "size_choice" in header else None
    classes, made = tuple(header["classes"]), settings_of(module, settings)
    task: Task = module.Task(classes, tuple(supports), spec, made, learned, choice)
    return task


def _frame(facts: dict[str, Any]) -> Frame:
    return Frame(tuple(facts["size_hw"]), tuple(facts["inner_hw"]), facts["patch"])
