"""The flow: support images in, a frozen task; a query image in, its masks out."""

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kshot import _plugins
from kshot._size_choice import choose_size_for
from kshot.backbones import base as backbones
from kshot.backbones.base import Backbone
from kshot.errors import SettingError
from kshot.features import accelerate, extract, extract_many, extract_words, precision_of
from kshot.io import videos
from kshot.io.images import MAX_PIXELS, read_image
from kshot.io.ome_zarr import SUFFIX as ZARR
from kshot.io.paths import list_images
from kshot.io.rasters import BandSelection
from kshot.io.tensor_file import read_learned
from kshot.io.valid_pixels import valid_pixels
from kshot.memory import DEFAULT_FRAMES, FrameMemory
from kshot.methods.base import FeatureSpec, Scorer, Support, Task, load_method, settings_of
from kshot.ops.geometry import FeatureMap
from kshot.prompts import ShotReader, encode_shots
from kshot.refiners.base import Refiner
from kshot.tasks import task_of
from kshot.types import ImageLike, Prediction, Shot, SupportSet
from kshot.working_size import AUTO, candidate_sizes

log = logging.getLogger(__name__)


class Segmenter:
    """Everything that does not change between images: backbone, method, refiner and their settings.

    backbone: short name, Hub id, local folder, or a loaded Backbone.
    method: a name, see `kshot.names`, or a Python file of your own, whose code is run. refiner: a name.
    size: images are resized to about size x size pixels of area, aspect ratio kept; by default the backbone's own size.
    "auto" takes 1, 1.5 or 2 times that, whichever finds left-out supports best, see `kshot.working_size.choose_size`:
    `fit` takes many times as long then, and a task of a larger size longer for each image.
    layers: of the backbone, such as ("10", "12", "k12"): outputs and attention keys of blocks.
    device: auto, cpu, cuda, cuda:N. dtype: float32 or bfloat16.
    engine: what computes the features on a CPU: torch, openvino, autocast, or auto for the fastest that is here and
    agrees with float32, see `kshot.features.engines`. A loaded Backbone stays as it is.
    method_settings, refiner_settings: values other than the default ones.
    max_pixels: larger images are refused.
    bands: of TIFFs, three numbers from 1 (red first) or one; by default the first three.
    stretch: (low, high), values of TIFFs that become black and white; by default the bit depth decides.

    Raises `UnknownNameError`, `SettingError`, `WeightsNotFoundError`, `BackboneError` and `PluginError`.
    """

    def __init__(
        self,
        *,
        backbone: str | Backbone = backbones.DEFAULT,
        method: str | Path = "auto",
        refiner: str = "edges",
        size: int | str | None = None,
        layers: Sequence[int | str] | None = None,
        device: str = "auto",
        dtype: str = "float32",
        engine: str = "auto",
        method_settings: Mapping[str, Any] | None = None,
        refiner_settings: Mapping[str, Any] | None = None,
        max_pixels: int = MAX_PIXELS,
        bands: Sequence[int] | None = None,
        stretch: Sequence[float] | None = None,
    ):
        self.method: Any = load_method(method)
        self.refiner: Refiner = _plugins.load("refiners", refiner)
        self.settings = settings_of(self.method, method_settings or {})
        self.refiner_settings = settings_of(self.refiner, refiner_settings or {})
        for module, chosen in ((self.method, self.settings), (self.refiner, self.refiner_settings)):
            # What is missing is reported now, not at the first image.
            if hasattr(module, "prepare"):
                module.prepare(chosen)
            if getattr(chosen, "weights", ""):
                read_learned(chosen.weights)
        self.max_pixels, self.band_selection = max_pixels, BandSelection.of(bands, stretch)
        self.shot_reader = ShotReader(max_pixels, self.band_selection)
        if isinstance(backbone, str):
            loaded = backbones.load_backbone(backbone, device=device, dtype=dtype, layers=layers)
            backbone = accelerate(loaded, engine)
        self.backbone = backbone
        self.chooses_size, self.sizes = size == AUTO, _sizes(size, backbone)
        self.size = self.sizes[0]
        where = f"{backbone.device}, {precision_of(backbone)}"
        log.info("backbone %s on %s, method %s, refiner %s", backbone.spec.name, where, method, refiner)

    @classmethod
    def for_task(cls, task: Task, **settings: Any) -> "Segmenter":
        """The Segmenter that a saved task was fitted with; keyword settings override.

        Raises `BackboneMismatchError` where they make another backbone of it, and `SettingError` for another size.
        """
        spec = task.feature_spec
        if settings.get("size") not in (None, spec.size):
            raise SettingError(
                f"size {settings['size']} (--size): this task was fitted at {spec.size}, and its images are encoded at "
                "the size of its supports; leave the size out, or fit again"
            )
        made = {"backbone": spec.backbone, "layers": spec.layers or None, "size": spec.size}
        made["method"] = task.source.reference if task.source else task.method
        if settings.get("backbone", spec.backbone) != spec.backbone:
            del made["layers"]  # another model may have the same weights, or none of these layers
        segmenter = cls(**(made | settings))
        task.check_backbone(segmenter.feature_spec.identity)
        return segmenter

    def __getstate__(self) -> dict[str, Any]:
        # Modules do not pickle, nor do classes of a file; worker processes load them again.
        source = self.method.Task.source
        method = source.reference if source else _plugins.name_of(self.method)
        refiner = _plugins.name_of(self.refiner)
        return vars(self) | {"method": method, "refiner": refiner, "settings": asdict(self.settings)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.method, self.refiner = load_method(state["method"]), _plugins.load("refiners", state["refiner"])
        self.settings = settings_of(self.method, state["settings"])

    def fit(self, support: SupportSet | Iterable[Shot]) -> Task:
        """A frozen task, fitted on the support set; raises `InputError`s that name the shot.

        Where the size is "auto", `task.size_choice` says which one was taken and why. Of many supports the task keeps
        what `Task.keep` says, so that neither it nor its file grows with them.
        """
        shots = support if isinstance(support, SupportSet) else SupportSet(support)
        choice = choose_size_for(self, shots) if self.chooses_size else None
        sized = self.at_size(choice.size) if choice else self
        supports = self.method.Task.keep(sized.encode_each(shots, shots.classes))
        log.info("fitting %s on %d supports", ", ".join(shots.classes), sum(each.count for each in supports))
        task: Task = self.method.Task(shots.classes, supports, sized.feature_spec, self.settings, size_choice=choice)
        return task

    def at_size(self, size: int) -> "Segmenter":
        """The same Segmenter at one working size, with the same loaded backbone. Raises `SettingError`."""
        other = copy.copy(self)
        other.chooses_size, other.sizes, other.size = False, _sizes(size, self.backbone), size
        return other

    def predict(self, task: Task | str | Path, image: ImageLike) -> Prediction:
        """Masks of one image, which is encoded at the task's own size.

        task: or the path of a task file, which is then read for this image alone.
        image: path, encoded bytes, PIL image, array (h, w, 3) or torch tensor (h, w, 3) or (3, h, w), in RGB. OpenCV's
        images are BGR: give `image[..., ::-1]`. Pixels of a TIFF without data (nodata) are background.
        Raises the `InputError`s of reading, `TaskError`, and `BackboneMismatchError` for a task of another backbone.
        """
        task = task_of(task)
        task.check_backbone(self.feature_spec.identity)
        pixels = read_image(image, max_pixels=self.max_pixels, selection=self.band_selection)  # (h, w, 3) uint8
        features = self.features(pixels, task.feature_spec.size)  # (c, gh, gw)
        return self.decide(task, features, pixels).with_valid_mask(valid_pixels(image))

    def decide(
        self, task: Scorer, features: FeatureMap, image: NDArray[np.uint8], *, min_presence: float | None = None
    ) -> Prediction:
        """The cheap part: from the features of an image (h, w, 3) uint8 to its masks.

        min_presence: probability below which a class is left out; None takes the task's own threshold.
        """
        with torch.inference_mode():
            logits = task.score(features, image)  # (n+1, gh, gw), 0 = background
            present = task.presence(features, logits)  # (n,)
            fine = self.refiner.refine(logits, features.frame, image, self.refiner_settings)  # (n+1, h, w)
            scores = task.with_pixels(fine, features, image).softmax(0).numpy()
        named = dict(zip(task.classes, present.tolist(), strict=True))
        threshold = task.presence_threshold if min_presence is None else min_presence
        return Prediction.from_scores(scores, task.classes, named, image, threshold, task.object_shapes)

    def predict_many(self, task: Task | str | Path, images: str | Path | Iterable[ImageLike]) -> Iterator[Prediction]:
        """Masks of a folder (with its sub-folders), a glob pattern or any iterable of images, one by one in order.

        task: or the path of a task file. A TIFF gives its first page; `kshot.batch.label_folder` does all pages, and
        videos.
        """
        task = task_of(task)
        found = list_images(images, {ZARR}) if isinstance(images, str | Path) else images
        for image in found:
            yield self.predict(task, image)

    def stream(
        self,
        source: int | str | Path | Iterable[ImageLike],
        task: Task | str | Path,
        *,
        memory: int = DEFAULT_FRAMES,
        newest: bool | None = None,
    ) -> Iterator[Prediction]:
        """Masks of the frames of a film, a camera or any iterable of images, each compared with `memory` earlier ones.

        source: path of a video, number of a camera of this machine, or images in order, such as those of a generator.
        newest: take the newest frame each time, and drop those that came meanwhile; by default of cameras alone.
        memory: 0 predicts each frame by itself. Raises as `predict` does, `SettingError` and `ImageReadError`.
        """
        frames: Iterable[ImageLike]
        if isinstance(source, str | Path):
            frames = (frame.image(self.max_pixels) for frame in videos.frames(source))
        else:
            frames = videos.camera(source) if isinstance(source, int) else source
        film = FrameMemory(task_of(task), memory)
        for image in videos.newest(frames) if newest or (newest is None and isinstance(source, int)) else frames:
            yield self.predict_frame(film, image)

    def predict_frame(self, film: FrameMemory, image: ImageLike) -> Prediction:
        """Masks of the next frame of a film, which then joins the memory. Raises as `predict` does."""
        film.task.check_backbone(self.feature_spec.identity)
        pixels = read_image(image, max_pixels=self.max_pixels, selection=self.band_selection)  # (h, w, 3) uint8
        return self.decide(film, self.features(pixels, film.task.feature_spec.size), pixels)

    def features(self, image: NDArray[np.uint8], size: int | None = None) -> FeatureMap:
        """The expensive part: features of an image (h, w, 3) uint8. size: a task's, by default this Segmenter's."""
        return extract(self.backbone, image, size or self.size)

    def features_of(self, images: Sequence[NDArray[np.uint8]], size: int | None = None) -> list[FeatureMap]:
        """The same of several images, in their order; those of one shape go through the backbone together."""
        return extract_many(self.backbone, images, size or self.size, max(1, len(images)))

    def encode(self, shots: Iterable[Shot], classes: Sequence[str], size: int | None = None) -> tuple[Support, ...]:
        """Supports of shots, with soft masks on the grid in the order of `classes`.

        size: of the task that they join, by default this Segmenter's. Raises `InputError`s that name the shot, and
        `SettingError` for words when the backbone reads none.
        """
        return tuple(self.encode_each(shots, classes, size))

    def encode_each(self, shots: Iterable[Shot], classes: Sequence[str], size: int | None = None) -> Iterator[Support]:
        """The same one after the other, so that no more of many stay in memory than are kept."""
        words_of = partial(extract_words, self.backbone)
        task = self.method.Task
        return encode_shots(
            shots,
            classes,
            partial(self.features, size=size),
            self.shot_reader,
            words_of,
            pixels=task.reads_pixels,
            crop=task.crops_supports,
        )

    @property
    def feature_spec(self) -> FeatureSpec:
        """How this Segmenter makes features: what a task keeps, to refuse features of another kind."""
        spec = self.backbone.spec
        layers = tuple(getattr(self.backbone, "layers", ()))
        precision = precision_of(self.backbone)
        return FeatureSpec(spec.name, self.backbone.identity, layers, self.size, spec.patch, precision)


def _sizes(size: int | str | None, backbone: Backbone) -> tuple[int, ...]:
    """The working sizes of a Segmenter; several where one is to be chosen. Raises `SettingError`."""
    spec = backbone.spec
    if size == AUTO:
        return candidate_sizes(spec.size, spec.patch)
    if isinstance(size, str):
        raise SettingError(f"size {size!r}: expected a number of pixels, or {AUTO!r}")
    size = spec.size if size is None else size
    if size < spec.patch:
        raise SettingError(f"size {size} is smaller than one patch of {spec.patch} pixels")
    return (size,)


def names(family: str) -> list[str]:
    """What can be chosen: "backbones", "methods", "refiners", "formats" or "datasets"."""
    if family == "backbones":
        return sorted(backbones.specs())
    return sorted(_plugins.choices({"datasets": "data"}.get(family, family)))
