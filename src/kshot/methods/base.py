"""What every method is: settings, and a frozen `Task` that scores features.

A method's file defines `Settings`, a frozen dataclass, and `Task`, a subclass of the one here with `_fitted` and
`_score`. Fitting is a pure function of the supports, so a task file holds the supports and nothing of the method's
own: what was saved by one version is fitted anew, and exactly, by the next.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot import _plugins
from kshot.errors import BackboneMismatchError, SettingError, ShapeError, SupportError, TaskFileError
from kshot.io.tensor_file import Learned, digest, read_learned, read_task, write_task
from kshot.ops.geometry import FeatureMap, Frame
from kshot.ops.presence import presence
from kshot.types import Shot

KINDS = ("mask", "image", "text")
_LEARNED = "learned."  # before the names of learned tensors in a task file


@dataclass(frozen=True, eq=False)
class Support:
    """One encoded support image, or words.

    features: its FeatureMap. masks: (N, gh, gw) in 0..1, the part of each cell that shows each class.
    known: (gh, gw) in 0..1, the part that is labelled at all: ignored pixels and padding are not.
    kind: "mask" when somebody marked the image, "image" for a whole image, whose masks are its salient region, "text"
    for words. Of words every cell is the embedding of one text; those that stand for no class are background words.
    weight: above 0, how much it counts in a class's vector.
    """

    features: FeatureMap
    masks: Tensor
    known: Tensor
    kind: str = "mask"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ShapeError(f"expected a support of kind {', '.join(KINDS)}, got {self.kind!r}")
        grid_hw = self.features.grid_hw
        if self.masks.ndim != 3 or tuple(self.masks.shape[1:]) != grid_hw:
            raise ShapeError(f"expected masks (N, *{grid_hw}), got {tuple(self.masks.shape)}")
        if tuple(self.known.shape) != grid_hw:
            raise ShapeError(f"expected known {grid_hw}, got {tuple(self.known.shape)}")

    @property
    def background(self) -> Tensor:
        """(gh, gw): the part of each cell that is labelled and shows none of the classes."""
        return (self.known - self.masks.sum(0)).clamp(min=0)

    def with_ways(self, ways: int) -> "Support":
        """The same with empty masks for classes that came later."""
        extra = self.masks.new_zeros(ways - self.masks.shape[0], *self.masks.shape[1:])
        return replace(self, masks=torch.cat([self.masks, extra]))


@dataclass(frozen=True)
class Origin:
    """How the features were made: enough to make more of the same.

    backbone: name or folder. identity: sha256 over its weights and settings. size: side in pixels.
    """

    backbone: str
    identity: str
    layers: tuple[str, ...]
    size: int
    patch: int


class Encoder(Protocol):
    """Who turns shots into supports; the Segmenter does."""

    def encode(self, shots: Iterable[Shot], classes: Sequence[str]) -> tuple[Support, ...]:
        """Supports with masks in the order of `classes`."""
        ...


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """A fitted task: frozen, so threads may share it, and saveable.

    classes: N names. supports: encoded, in their order. settings: the method's. origin: of the features.
    learned: trained tensors, for methods that have some; by default those that `settings.weights` names. They travel
    in the task file, so a saved task needs no other.
    A method that can use supports of words says so with `reads_text`; the others refuse them with `SettingError`.
    """

    classes: tuple[str, ...]
    supports: tuple[Support, ...]
    origin: Origin
    settings: Any = None
    learned: Learned | None = field(default=None, repr=False)
    fitted: Any = field(init=False, repr=False)

    method: ClassVar[str]
    Settings: ClassVar[type]
    reads_text: ClassVar[bool] = False
    learns: ClassVar[str] = ""  # the method whose trained tensors it takes, where these are not its own

    def __post_init__(self) -> None:
        if self.settings is None:
            object.__setattr__(self, "settings", self.Settings())
        if not self.supports:
            raise SupportError("a task needs at least one support")
        if not self.reads_text and any(support.kind == "text" for support in self.supports):
            raise SettingError(_no_words(self.method))
        ways = {support.masks.shape[0] for support in self.supports}
        if ways != {len(self.classes)}:
            raise ShapeError(f"expected support masks of {len(self.classes)} classes, got {sorted(ways)}")
        place: str = getattr(self.settings, "weights", "")
        if self.learned is None and place:
            object.__setattr__(self, "learned", read_learned(place))
        if self.learned is not None:
            self.learned.check_for(self.learns or self.method, self.origin.identity, self.origin.backbone)
        with torch.inference_mode():
            object.__setattr__(self, "fitted", self._fitted())

    def score(self, features: FeatureMap, picture: NDArray[np.uint8] | None = None) -> Tensor:
        """Class logits (N+1, gh, gw): row 0, the background, is zero, and a class wins where it is above zero.

        picture: (h, w, 3), what the features are of; few methods look at it. Raises `BackboneMismatchError` for
        features of another backbone, and `SettingError` when a method needs the picture and gets none.
        """
        if features.identity != self.origin.identity:
            raise BackboneMismatchError(
                f"this task was fitted on {self.origin.backbone} ({self.origin.identity[:12]}), "
                f"the features come from another backbone ({features.identity[:12]}); "
                f"use backbone={self.origin.backbone!r} with the same weights and layers, or fit again"
            )
        with torch.inference_mode():
            return self._score(features) if picture is None else self._score_seen(features, picture)

    @property
    def gate(self) -> float:
        """Probability of presence below which a class is left out of the mask."""
        return 0.5

    @property
    def remarks(self) -> tuple[str, ...]:
        """What fitting noticed about the supports that a person should look at."""
        return ()

    def presence(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """Probability (N,) in 0..1 that each class is in the image, from what `score` made of its features."""
        return presence(logits, features.frame)

    def with_shots(self, shots: Iterable[Shot], encoder: Encoder) -> Self:
        """A new task with more shots or classes; the old supports are not encoded again.

        encoder: the Segmenter. New classes come after the old ones.
        """
        added = tuple(shots)
        shown = [name for shot in added for name in shot.classes]
        classes = tuple(dict.fromkeys([*self.classes, *shown]))
        old = tuple(support.with_ways(len(classes)) for support in self.supports)
        return replace(self, classes=classes, supports=old + encoder.encode(added, classes))

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file with a JSON header; raises `OutputError`."""
        header = {
            "method": self.method,
            "settings": asdict(self.settings),
            "classes": self.classes,
            "origin": asdict(self.origin),
            "frames": [asdict(support.features.frame) for support in self.supports],
            "supports": self._facts(),
        }
        if self.learned is not None:
            header["learned"] = dict(self.learned.facts)
        write_task(Path(path), header, self._tensors())
        return Path(path)

    def digest(self) -> str:
        """sha256 over everything that decides the masks, for manifests."""
        told = (self.method, self.settings, self.classes, self.origin, self._facts())
        facts = repr(told if self.learned is None else (*told, self.learned.digest)).encode()
        return hashlib.sha256(facts + digest(self._tensors()).encode()).hexdigest()

    def _facts(self) -> list[dict[str, Any]]:
        return [{"kind": support.kind, "weight": support.weight} for support in self.supports]

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for index, support in enumerate(self.supports):
            parts = {
                "features": support.features.features,
                "masks": support.masks,
                "known": support.known,
                "token": support.features.token,
                "objectness": support.features.objectness,
            }
            # Cloned: a file of tensors takes none that share their memory, as a token and a single cell may.
            tensors |= {
                f"{index}.{name}": part.clone().contiguous() for name, part in parts.items() if part is not None
            }
        learned = self.learned.tensors if self.learned is not None else {}
        return tensors | {f"{_LEARNED}{name}": tensor.clone() for name, tensor in learned.items()}

    @abstractmethod
    def _fitted(self) -> Any:
        """What scoring needs of the supports, computed once."""

    @abstractmethod
    def _score(self, features: FeatureMap) -> Tensor:
        """(N+1, gh, gw) logits."""

    def _score_seen(self, features: FeatureMap, picture: NDArray[np.uint8]) -> Tensor:
        """(N+1, gh, gw) logits of a method that looks at the picture as well; most don't."""
        return self._score(features)


def load_task(path: str | Path) -> Task:
    """Read a task file. Raises `TaskFileError` (missing, damaged, no task) and `TaskVersionError`."""
    header, tensors = read_task(Path(path))
    try:
        return _build(header, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise TaskFileError(f"{path}: damaged header ({error}); copy or fit it again") from error


def settings_of(module: Any, values: Mapping[str, Any]) -> Any:
    """A method's or refiner's settings from keyword values; an unknown one lists the choices.

    Raises `SettingError` for a value of another kind than the default's.
    """
    known = {f.name: f.default for f in fields(module.Settings)}
    unknown, name = sorted(set(values) - set(known)), module.__name__.rpartition(".")[2]
    if unknown:
        raise SettingError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    for key, value in values.items():
        if not _same_kind(known[key], value):
            kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}[type(known[key])]
            raise SettingError(f"the setting {key} of {name} is {kind}, such as {known[key]!r}; got {value!r}")
    return module.Settings(**values)


def _same_kind(default: Any, value: Any) -> bool:
    """Whether a value can stand where a default does; other kinds than numbers and names are not looked at."""
    if not isinstance(default, int | float | str):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return type(default) is type(value)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _build(header: dict[str, Any], tensors: dict[str, Tensor]) -> Task:
    origin = header["origin"] | {"layers": tuple(header["origin"]["layers"])}
    module = _plugins.load("methods", header["method"])
    supports = []
    facts = header.get("supports") or [{}] * len(header["frames"])  # older files hold images alone
    for index, (frame, fact) in enumerate(zip(header["frames"], facts, strict=True)):
        lies = Frame(tuple(frame["size_hw"]), tuple(frame["inner_hw"]), frame["patch"])
        features = FeatureMap(
            tensors[f"{index}.features"],
            lies,
            origin["identity"],
            tensors.get(f"{index}.token"),
            tensors.get(f"{index}.objectness"),
        )
        supports.append(Support(features, tensors[f"{index}.masks"], tensors[f"{index}.known"], **fact))
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in header["settings"].items()}
    learned = None
    if "learned" in header:
        own = {name.removeprefix(_LEARNED): part for name, part in tensors.items() if name.startswith(_LEARNED)}
        learned = Learned(header["learned"], own)
    task: Task = module.Task(
        tuple(header["classes"]), tuple(supports), Origin(**origin), settings_of(module, settings), learned
    )
    return task


def _no_words(method: str) -> str:
    readers = [name.replace("_", "-") for name, module in _plugins.members("methods").items() if module.Task.reads_text]
    return (
        f"method {method} cannot use words as a support; give it an image of the class, "
        f"or take one that reads them: {', '.join(readers)}"
    )
