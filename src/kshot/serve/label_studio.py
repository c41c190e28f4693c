"""A machine learning backend of Label Studio over the served folder.

Label Studio asks `/predict` for the masks of tasks whose images lie in the folder, and tells `/webhook` of each
annotation that a person finished: those are the examples. Images are found by their names, as `kshot label` finds those
of an export; none is fetched from an address.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from defusedxml import ElementTree
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from kshot._version import __version__
from kshot.annotations.model import Annotation, AnnotationSet, Export, LabelledImage
from kshot.annotations.pairing import ImageFinder
from kshot.annotations.skipped import Skipped
from kshot.errors import KshotError, SupportError
from kshot.formats import label_studio
from kshot.serve.marks import Box
from kshot.serve.workspace import Workspace

_SESSION = "label-studio"
_FINISHED = {"ANNOTATION_CREATED", "ANNOTATION_UPDATED"}
_SHAPES = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}


class _Asked(BaseModel):
    """Label Studio sends more than is read here, and other versions of it send other things."""

    model_config = ConfigDict(extra="allow")


class Setup(_Asked):
    """What Label Studio sends when it connects."""

    label_config: str = ""


class Predict(_Asked):
    """The tasks whose masks are asked for."""

    tasks: list[dict[str, Any]] = []
    label_config: str | None = None


class Webhook(_Asked):
    """An event of a project."""

    action: str = ""
    task: dict[str, Any] = {}
    annotation: dict[str, Any] = {}


def add_label_studio(app: FastAPI, workspace: Workspace) -> None:
    """Add the backend's routes to the application."""

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the backend is there."""
        return {"status": "UP", "model_class": "kshot"}

    @app.post("/setup")
    def setup(body: Setup) -> dict[str, str]:
        """The version of the model; the labels of the project become classes."""
        for name in _labels_of(body.label_config):
            if name not in workspace.folder.names:
                workspace.add_class(name)
        return {"model_version": _version(workspace)}

    @app.post("/predict")
    def predict(body: Predict) -> dict[str, Any]:
        """The masks of each task, none where its image is not in the folder or nothing is learned yet."""
        control = _control_of(body.label_config or "")
        found = [_prediction(workspace, place, task, control) for place, task in enumerate(body.tasks, 1)]
        return {"results": found, "model_version": _version(workspace)}

    @app.post("/webhook", status_code=201)
    def webhook(body: Webhook) -> dict[str, str]:
        """Take a finished annotation as an example."""
        if body.action not in _FINISHED or body.annotation.get("was_cancelled"):
            return {"status": "left out"}
        _take(workspace, body.task | {"annotations": [body.annotation]})
        return {"status": "taken"}


def _version(workspace: Workspace) -> str:
    fit = workspace.predictions.fit_now
    return f"kshot {__version__} {fit.task.digest()[:8]}" if fit else f"kshot {__version__}"


def _read(workspace: Workspace, task: Mapping[str, Any]) -> tuple[int, LabelledImage, AnnotationSet]:
    """The number of a task's image, and its labels. Raises `SupportError` where they are not to be had."""
    root, skipped = workspace.images.root, Skipped()
    found = label_studio.annotations_of_tasks([dict(task)], ImageFinder(root, root), "Label Studio", skipped)
    images = list(found.images)
    skipped.raise_first()
    path = images[0].path if images else None
    index = workspace.images.index_of(path) if path else None
    if index is None:
        raise SupportError(f"the image of task {task.get('id')} is not in {root}; serve the folder that holds it")
    return index, images[0], found


def _prediction(
    workspace: Workspace, place: int, task: Mapping[str, Any], control: tuple[str, str, str] | None
) -> dict[str, Any]:
    try:
        index, image, _ = _read(workspace, {"id": task.get("id"), "data": task.get("data") or {}, "annotations": []})
        fit = workspace.predictions.fit_now
        if fit is None:
            return {"result": [], "score": 0.0, "model_version": _version(workspace)}
        found = workspace.predictions.prediction(fit, index)
    except KshotError as error:
        workspace.folder.problem = str(error)
        return {"result": [], "score": 0.0, "model_version": _version(workspace)}
    annotations = []
    for label, name in enumerate(found.classes, 1):
        inside = found.mask == label
        if inside.any():
            annotations.append(Annotation.from_mask(inside, name, float(found.scores[label][inside].mean())))
    labelled = LabelledImage(image.name, found.size_hw, tuple(annotations), image.path)
    export = Export(polygons=control is not None and control[2] == "polygonlabels")
    made = label_studio.prediction_of(place, labelled, export) | {"model_version": _version(workspace)}
    for region in made["result"] if control else []:
        region["from_name"], region["to_name"] = control[:2] if control else ("", "")
    return {"score": round(1 - found.uncertainty, 6)} | made


def _take(workspace: Workspace, task: Mapping[str, Any]) -> None:
    """Masks of an annotation are accepted; boxes alone are drawn."""
    index, image, found = _read(workspace, task)
    for name in found.classes:
        if name not in workspace.folder.names:
            workspace.add_class(name)
    if image.annotations or not image.prompts.boxes:
        workspace.accept_mask(_SESSION, index, image.labels(workspace.folder.names))
        return
    for name, boxes in image.prompts.boxes.items():
        for x0, y0, x1, y1 in boxes:
            mark = Box(kind="box", class_index=workspace.folder.names.index(name), box_xyxy=(x0, y0, x1, y1))
            workspace.mark(_SESSION, index, mark)


def _tags(config: str) -> Iterator[Any]:
    try:
        yield from ElementTree.fromstring(config).iter() if config.strip() else ()
    except (ElementTree.ParseError, ValueError) as error:
        raise SupportError(f"the labelling set-up is no XML that is read ({error})") from error


def _labels_of(config: str) -> Sequence[str]:
    names = [tag.get("value") for tag in _tags(config) if tag.tag == "Label"]
    return list(dict.fromkeys(name for name in names if name))


def _control_of(config: str) -> tuple[str, str, str] | None:
    """Name, target and kind of the control that takes masks: brushes before polygons."""
    found = {tag.tag: tag for tag in _tags(config) if tag.tag in _SHAPES}
    for kind in _SHAPES:
        if kind in found:
            return found[kind].get("name", "label"), found[kind].get("toName", "image"), _SHAPES[kind]
    return None
