"""What every method defines: `Settings`, a frozen dataclass, and `Task`, a frozen task that scores feature maps.

A method's `Task` is a subclass of the one here with `_fitted` and `_score`. Fitting is a pure function of the supports.
So a task file holds the supports and no state of the method; loading it fits the task again, with the same result.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot import _elsewhere, _plugins
from kshot.errors import (
    BackboneMismatchError,
    PluginError,
    SettingError,
    ShapeError,
    SupportError,
    TaskError,
)
from kshot.io.tensor_file import Learned, digest, read_learned, write_task
from kshot.methods._contract import problem_of
from kshot.methods._supports import KINDS as KINDS
from kshot.methods._supports import Support as Support
from kshot.methods._supports import bounded
from kshot.ops.geometry import FeatureMap
from kshot.ops.object_shapes import ObjectShape
from kshot.ops.presence import presence
from kshot.ops.similarity import reduced_products
from kshot.types import Shot
from kshot.working_size import SizeChoice

LEARNED = "learned."
"""Stands before the names of learned tensors in a task file."""


@dataclass(frozen=True)
class FeatureSpec:
    """How feature maps were made: enough to make more of the same."""

    backbone: str
    """Name or folder."""
    identity: str
    """sha256 over the backbone's weights and settings."""
    layers: tuple[str, ...]
    """Of the backbone; empty for its own choice."""
    size: int
    """Images are resized to about size x size pixels of area."""
    patch: int
    """Side of a patch in pixels."""
    precision: str = "torch.float32"
    """What computed them and at which precision; a task works with every engine that kshot takes, since those agree."""


class Encoder(Protocol):
    """What turns shots into supports: the Segmenter."""

    def encode_each(self, shots: Iterable[Shot], classes: Sequence[str], size: int | None = None) -> Iterator[Support]:
        """Supports whose masks are in the order of `classes`, one after the other. size: the working size, by default
        its own."""
        ...


class Scorer(Protocol):
    """What decides the masks of an image: a `Task`, or one that looks at other images too."""

    @property
    def classes(self) -> tuple[str, ...]:
        """N names."""
        ...

    @property
    def presence_threshold(self) -> float:
        """Probability of presence below which a class is left out of the mask."""
        ...

    @property
    def object_shapes(self) -> Mapping[str, ObjectShape]:
        """{class: what its objects in the supports are like}."""
        ...

    def score(self, features: FeatureMap, image: NDArray[np.uint8] | None = None) -> Tensor:
        """Class logits (N+1, gh, gw)."""
        ...

    def presence(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """(N,) probability in 0..1 that each class is in the image."""
        ...

    def with_pixels(self, logits: Tensor, features: FeatureMap, image: NDArray[np.uint8]) -> Tensor:
        """The refined logits (N+1, h, w), and what it makes of single pixels of an image (h, w, 3) with these
        features."""
        ...


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """A fitted task of N classes: frozen, so threads may share it, and saveable.

    Raises `SupportError` without supports, `SettingError` for words where the method does not read them, `ShapeError`
    for masks of another number of classes, and `BackboneMismatchError` for weights of another backbone.
    """

    classes: tuple[str, ...]
    """N names."""
    supports: tuple[Support, ...]
    """At least one, encoded, in the order in which they were given; of many, those that `keep` keeps."""
    feature_spec: FeatureSpec
    """Of the supports' features, and of those that can be scored."""
    settings: Any = None
    """The method's `Settings`; by default the published ones."""
    learned: Learned | None = field(default=None, repr=False)
    """Trained tensors, for methods that have some; by default those that `settings.weights` names. They are saved with
    the task."""
    size_choice: SizeChoice | None = field(default=None, repr=False)
    """Why the supports are of this working size, where it was chosen for them (`Segmenter(size="auto")`)."""
    fitted: Any = field(init=False, repr=False)
    """The result of fitting; its type is the method's own."""

    method: ClassVar[str]
    Settings: ClassVar[type]
    reads_text: ClassVar[bool] = False  # whether supports may be words
    reads_pixels: ClassVar[bool] = False  # whether it learns from single pixels of supports with masks
    crops_supports: ClassVar[bool] = False  # whether it looks at `Support.crops`, see `ops.support_crops`
    reads_banks: ClassVar[bool] = False  # whether supports may be a bank: patch tokens of many images, in no order
    learns: ClassVar[str] = ""  # the method whose trained tensors this one takes, where they are not its own
    source: ClassVar[_elsewhere.Source | None] = None  # where the method comes from, when it is not kshot's own

    def __post_init__(self) -> None:
        if self.settings is None:
            object.__setattr__(self, "settings", self.Settings())
        if not self.supports:
            raise SupportError("a task needs at least one support")
        if not self.reads_text and any(support.kind == "text" for support in self.supports):
            raise SettingError(_text_refused(self.method))
        ways = {support.masks.shape[0] for support in self.supports}
        if ways != {len(self.classes)}:
            raise ShapeError(f"expected support masks of {len(self.classes)} classes, got {sorted(ways)}")
        weights: str = getattr(self.settings, "weights", "")
        if self.learned is None and weights:
            object.__setattr__(self, "learned", read_learned(weights))
        if self.learned is not None:
            self.learned.check_for(self.learns or self.method, self.feature_spec.identity, self.feature_spec.backbone)
        with torch.inference_mode(), self._products():
            object.__setattr__(self, "fitted", self._fitted())

    def score(self, features: FeatureMap, image: NDArray[np.uint8] | None = None) -> Tensor:
        """Class logits (N+1, gh, gw): row 0, the background, is zero, and a class wins where it is above zero.

        image: (h, w, 3), from which the features were made; few methods need it. Raises `BackboneMismatchError` for
        features of another backbone, `SettingError` when a method needs the image and gets none, and `TaskError` when
        the logits are not finite, as from a backbone that overflows.
        """
        self.check_backbone(features.identity)
        with torch.inference_mode(), self._products():
            logits = self._score(features) if image is None else self._score_with_image(features, image)
        expected = (len(self.classes) + 1, *features.grid_hw)
        if tuple(logits.shape) != expected:
            raise TaskError(f"{self.method}: its scores have the shape {tuple(logits.shape)}, expected {expected}")
        if not bool(logits.isfinite().all()):
            raise TaskError(
                f"{self.method}: its scores are not finite; change its settings, or the backbone or its dtype"
            )
        return logits

    def check_backbone(self, identity: str) -> None:
        """Raise `BackboneMismatchError` unless the task was fitted on features of the backbone with this identity."""
        if identity != self.feature_spec.identity:
            raise BackboneMismatchError(
                f"this task was fitted on {self.feature_spec.backbone} ({self.feature_spec.identity[:12]}), "
                f"the features come from another backbone ({identity[:12]}); "
                f"use backbone={self.feature_spec.backbone!r} with the same weights and layers, or fit again"
            )

    @property
    def object_shapes(self) -> dict[str, ObjectShape]:
        """{class: what its objects in all supports are like}, of the classes that masks show."""
        found = {
            name: ObjectShape.pooled(support.objects[name] for support in self.supports if name in support.objects)
            for name in self.classes
        }
        return {name: shape for name, shape in found.items() if shape}

    @property
    def presence_threshold(self) -> float:
        """Probability of presence below which a class is left out of the mask."""
        return 0.5

    @property
    def warnings(self) -> tuple[str, ...]:
        """What fitting noticed about the supports that a person should check, a line each."""
        return ()

    def presence(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """(N,) probability in 0..1 that each class is in the image; logits: from `score` of these features."""
        return presence(logits, features.frame)

    def with_pixels(self, logits: Tensor, features: FeatureMap, image: NDArray[np.uint8]) -> Tensor:
        """The refined logits (N+1, h, w) and what the method makes of single pixels of an image (h, w, 3) with these
        features."""
        return logits

    def with_shots(self, shots: Iterable[Shot], encoder: Encoder) -> Self:
        """A new task with more shots or classes, which come after the old ones; old supports are not encoded again.

        encoder: the Segmenter. Of many supports it keeps what `keep` says, in whatever steps they came.
        """
        added = tuple(shots)
        classes = tuple(dict.fromkeys([*self.classes, *(name for shot in added for name in shot.classes)]))
        old = (support.with_ways(len(classes)) for support in self.supports)
        new = encoder.encode_each(added, classes, self.feature_spec.size)
        return replace(self, classes=classes, supports=self.keep(chain(old, new)))

    @classmethod
    def keep(cls, supports: Iterable[Support]) -> tuple[Support, ...]:
        """The supports that a task holds of all that are given: the 32 of each class whose hashes are the lowest, and
        of all others a bank of 1,024 patch tokens of the background and of each class, which is the last.

        Of methods that read no bank all stay.
        """
        return bounded(supports) if cls.reads_banks else tuple(supports)

    @property
    def support_count(self) -> int:
        """Supports that were given, background words not counted."""
        return sum(each.count for each in self.supports if each.kind != "text" or bool(each.masks.any()))

    @classmethod
    def source_facts(cls) -> dict[str, Any]:
        """For files that say what made them: `method_source`, the distribution or file of a method not kshot's own."""
        return {} if cls.source is None else {"method_source": dict(cls.source.facts)}

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file with a JSON header; raises `OutputError`."""
        header = {
            "method": self.method,
            "settings": asdict(self.settings),
            "classes": self.classes,
            "feature_spec": asdict(self.feature_spec),
            "frames": [asdict(support.features.frame) for support in self.supports],
            "crops": [[asdict(crop.features.frame) for crop in support.crops] for support in self.supports],
            "supports": [
                facts | {"objects": {name: asdict(shape) for name, shape in support.objects.items()}}
                for facts, support in zip(self._support_facts(), self.supports, strict=True)
            ],
        }
        header |= self.source_facts()
        if self.size_choice is not None:
            header["size_choice"] = self.size_choice.to_dict()
        if self.learned is not None:
            header["learned"] = dict(self.learned.facts)
        write_task(Path(path), header, self._tensors())
        return Path(path)

    def digest(self) -> str:
        """sha256 over everything that decides the masks, for manifests."""
        facts: tuple[Any, ...] = (self.method, self.settings, self.classes, self.feature_spec, self._support_facts())
        facts += () if self.learned is None else (self.learned.digest,)
        facts += () if self.source is None else (self.source.facts,)
        text = repr(facts)
        return hashlib.sha256((text + digest(self._tensors())).encode()).hexdigest()

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.source is None or self.source.path is None:
            return super().__reduce_ex__(protocol)
        # Another process cannot import the class of a file: it runs the file, and fits again as `load_task` does.
        parts = (self.classes, self.supports, self.feature_spec, self.learned, self.size_choice)
        return _refitted, (self.source, asdict(self.settings), *parts)

    def _products(self) -> AbstractContextManager[None]:
        """Within it, products with the supports' features need be no more precise than those are."""
        return reduced_products(self.feature_spec.precision.endswith("bfloat16"))

    def _support_facts(self) -> list[dict[str, Any]]:
        facts: list[dict[str, Any]] = []
        for support in self.supports:
            of_many = {"number": support.number, "count": support.count}
            told = of_many if support.number or support.kind == "bank" else {}
            facts.append({"kind": support.kind, "weight": support.weight} | told)
        return facts

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for index, support in enumerate(self.supports):
            own = {
                "features": support.features.features,
                "masks": support.masks,
                "valid_mask": support.valid_mask,
                "token": support.features.token,
                "objectness": support.features.objectness,
            }
            if support.pixels is not None:
                own |= {f"pixel_{name}": tensor for name, tensor in vars(support.pixels).items()}
            for number, crop in enumerate(support.crops):
                own |= {f"crop{number}.features": crop.features.features, f"crop{number}.masks": crop.masks}
                own[f"crop{number}.valid_mask"] = crop.valid_mask
            # Cloned: safetensors refuses tensors that share memory, as an image token and a single patch token may.
            tensors |= {f"{index}.{name}": t.clone().contiguous() for name, t in own.items() if t is not None}
        learned = self.learned.tensors if self.learned is not None else {}
        return tensors | {f"{LEARNED}{name}": tensor.clone() for name, tensor in learned.items()}

    @abstractmethod
    def _fitted(self) -> Any:
        """What scoring needs from the supports, computed once."""

    @abstractmethod
    def _score(self, features: FeatureMap) -> Tensor:
        """(N+1, gh, gw) logits."""

    def _score_with_image(self, features: FeatureMap, image: NDArray[np.uint8]) -> Tensor:
        """(N+1, gh, gw) logits of a method that looks at the image too; image: (h, w, 3)."""
        return self._score(features)


def load_method(method: str | Path) -> Any:
    """The module of a method, given by its name, or as a Python file (x.py) of your own, whose code is run.

    Raises `UnknownNameError`; `SettingError` when there is no such file; `PluginError` when the method of a file or of
    an installed distribution cannot be used.
    """
    if str(method).endswith(".py"):
        return _checked(_plugins.load_file("methods", Path(method)))
    return method_named(str(method))


def method_named(name: str) -> Any:
    """As `load_method`, of a name alone: what a task file says must not make a file's code run."""
    return _checked(_plugins.load("methods", name))


def _checked(module: Any) -> Any:
    """A method that is not kshot's own must define what it has to. Raises `PluginError`."""
    source = _elsewhere.source_of(module)
    if source is not None:
        if problem := problem_of(module, source.name, Task):
            raise PluginError(f"the method {source.name!r} of {source}: {problem}; docs/adding.md has an example")
        module.Task.source = source
    return module


def settings_of(module: Any, values: Mapping[str, Any]) -> Any:
    """The `Settings` of a method's or refiner's module from keyword values.

    Raises `SettingError` for an unknown name, with those that there are, and for a value of another type or one that
    is not finite.
    """
    defaults = {f.name: f.default for f in fields(module.Settings)}
    unknown, name = sorted(set(values) - set(defaults)), _plugins.name_of(module)
    if unknown:
        raise SettingError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(defaults) or 'none'}")
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingError(f"the setting {key} of {name} is {value}; expected a finite number")
        if not _same_type(defaults[key], value):
            kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}[type(defaults[key])]
            raise SettingError(f"the setting {key} of {name} is {kind}, such as {defaults[key]!r}; got {value!r}")
    return module.Settings(**values)


def _same_type(default: Any, value: Any) -> bool:
    """Whether a value can replace a default; types other than numbers and names are not checked."""
    if not isinstance(default, int | float | str):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return type(default) is type(value)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _refitted(source: _elsewhere.Source, settings: dict[str, Any], *parts: Any) -> Task:
    """A task that another process has sent, of a method in a file."""
    module = load_method(source.reference)
    if module.Task.source != source:
        raise TaskError(f"{source.path}: has changed since the task was fitted; fit again")
    classes, supports, spec, learned, choice = parts
    task: Task = module.Task(classes, supports, spec, settings_of(module, settings), learned, choice)
    return task


def _text_refused(method: str) -> str:
    readers = [
        name.replace("_", "-")
        for name, module in _plugins.members("methods", method_named).items()
        if module.Task.reads_text
    ]
    return (
        f"method {method} cannot use words as a support; give it an image of the class, "
        f"or take one that reads them: {', '.join(readers)}"
    )
