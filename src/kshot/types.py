"""The three things that travel through kshot: `Shot`, `SupportSet` and `Prediction`.

Numpy only. All are checked when they are made, and a message prints what was expected and what came.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kshot.errors import MaskError, SettingError, ShapeError, SupportError
from kshot.objects import Objects
from kshot.ops.object_shapes import ObjectShape

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    ImageLike: TypeAlias = "str | Path | bytes | NDArray[Any] | Tensor | Image.Image"
    MaskLike: TypeAlias = "str | Path | bytes | NDArray[Any] | Tensor | Image.Image"
else:
    ImageLike = MaskLike = Any

_AREA_EXPECTED = "min_area (--min-area) {}: expected pixels, such as 50, or a share of the image, such as 0.1%"
SPECK_PATCHES = 2
"""Components that cover less than so many patch tokens are no objects in a folder, unless `Thresholds` say otherwise:
an encoder hardly tells what a single token shows, and most of such components are wrong."""
IGNORE = 255
MAX_CLASSES = 254


@dataclass(frozen=True, eq=False)
class Shot:
    """One support: an image and one kind of prompt that says where the class is, or words alone.

    With an image and no prompt at all the salient region of the image is taken.
    Raises `ShapeError`, `MaskError` and `SupportError`.
    """

    image: ImageLike | None = None
    """Path, encoded bytes, PIL image, array (h, w[, 1 | 3 | 4]) or torch tensor, in RGB; None only with `text`."""
    mask: MaskLike | None = None
    """(h, w) truth values or labels, of the image's size, or a path to them; 255 = ignore."""
    label: str | Mapping[int, str] = "object"
    """Class of every marked pixel, or {label in the mask: class} for several classes at once. {} with a mask that
    marks nothing makes the image an example of where none of the classes is."""
    boxes: ArrayLike | None = None
    """(n, 4) xyxy, pixels: around objects of the class."""
    points: ArrayLike | None = None
    """(n, 2) xy, pixels: on the class."""
    negative_points: ArrayLike | None = None
    """(n, 2) xy, pixels: off the class."""
    scribbles: Sequence[ArrayLike] | None = None
    """Polylines on the class, each (n, 2) xy, pixels."""
    negative_scribbles: Sequence[ArrayLike] | None = None
    """Polylines off the class."""
    text: str | None = None
    """Words instead of an image."""
    objects: NDArray[np.integer] | None = field(default=None, repr=False)
    """(h, w) numbers that tell the objects of the mask apart, 0 outside; by default a mask's own, where it has one
    label an object, else its connected components. They tell `instances("learned")` what one object is like."""
    weight: float = 1.0
    """How much this shot counts in a class's vector beside the others, above 0; read by `text`, `image-prompt` and
    `clip-dinoiser`. Shots of one image share the largest."""

    def __post_init__(self) -> None:
        for name, columns in (("boxes", 4), ("points", 2), ("negative_points", 2)):
            _replace(self, name, _rows(getattr(self, name), columns, name))
        for name in ("scribbles", "negative_scribbles"):
            lines = getattr(self, name) or ()
            _replace(self, name, tuple(_rows(line, 2, name) for line in lines) or None)
        _check_labels(self.label)
        if not (isinstance(self.weight, int | float) and 0 < self.weight < math.inf):
            raise SupportError(f"expected a weight above 0, got {self.weight!r}; leave a shot out to give it none")
        self._check_prompts()
        if isinstance(self.mask, np.ndarray) and isinstance(self.image, np.ndarray):
            check_same_size(self.mask.shape[:2], self.image.shape[:2], "the mask")
        if self.objects is not None and isinstance(self.mask, np.ndarray):
            check_same_size(self.objects.shape, self.mask.shape[:2], "the numbers of objects")

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that this shot can show, in the order of their labels."""
        return (self.label,) if isinstance(self.label, str) else tuple(self.label.values())

    @property
    def prompt(self) -> str:
        """The kind of prompt: mask, boxes, points, scribbles, text or none."""
        marks = {"mask": self.mask, "boxes": self.boxes, "points": self.points, "scribbles": self.scribbles}
        return next((kind for kind, value in marks.items() if value is not None), "text" if self.text else "none")

    def _check_prompts(self) -> None:
        kinds = [k for k in ("mask", "boxes", "points", "scribbles", "text") if getattr(self, k) is not None]
        if len(kinds) > 1 and set(kinds) != {"points", "boxes"}:
            raise SupportError(f"a shot takes one kind of prompt, got {' and '.join(kinds)}; make one shot of each")
        if self.image is None and not (self.text and self.text.strip()):
            raise SupportError("a shot needs an image (or text alone): Shot('dog.jpg', mask='dog.png', label='dog')")
        if self.image is not None and self.text:
            raise SupportError("a text shot has no image: make one shot of the text and one of the image")
        if self.mask is None and not isinstance(self.label, str):
            raise SupportError("only a mask can show several classes: give the other kinds of prompt one label each")
        if (self.negative_points is not None or self.negative_scribbles is not None) and not set(kinds) & {
            "points",
            "boxes",
            "scribbles",
        }:
            raise SupportError("negative marks need at least one positive point, scribble or box beside them")


@dataclass(frozen=True, eq=False)
class SupportSet:
    """The shots of one task: N classes (ways) with K shots each, in any mixture of prompts.

    Raises `SupportError` when there is no shot, when a class has none, or beyond 254 classes.
    """

    shots: tuple[Shot, ...]
    """At least one."""
    classes: tuple[str, ...] = ()
    """In the order of their labels 1..N in the masks; by default the order of appearance."""
    source: str = "a list of shots"
    """Where the shots come from, for messages."""
    notes: tuple[str, ...] = ()
    """What a reader of a folder left out or could not read, for people."""
    failures: int = 0
    """How many items of the folder could not be read."""

    def __init__(
        self,
        shots: Iterable[Shot],
        classes: Sequence[str] = (),
        source: str = "a list of shots",
        notes: Sequence[str] = (),
        failures: int = 0,
    ):
        kept = tuple(shots)
        for shot in kept:
            if not isinstance(shot, Shot):
                raise SupportError(f"expected kshot.Shot, got {type(shot).__name__}")
        if not kept:
            raise SupportError(f"no shot in {source}; give at least one image with its mask")
        shown = tuple(dict.fromkeys(name for shot in kept for name in shot.classes))
        if not shown:
            raise SupportError(f"no shot in {source} shows any class; add one that does")
        missing = [name for name in classes if name not in shown]
        if missing:
            raise SupportError(f"no shot shows {', '.join(missing)}; the shots show {', '.join(shown)}")
        ordered = tuple(classes) or shown
        if len(ordered) > MAX_CLASSES:
            raise SupportError(f"{len(ordered)} classes; an index mask holds at most {MAX_CLASSES}")
        _replace(self, "shots", kept)
        _replace(self, "classes", ordered)
        _replace(self, "source", source)
        _replace(self, "notes", tuple(notes))
        _replace(self, "failures", failures)

    def __len__(self) -> int:
        return len(self.shots)

    def __iter__(self) -> Iterator[Shot]:
        return iter(self.shots)

    @classmethod
    def from_folder(cls, folder: str | Path, classes: Sequence[str] = ()) -> "SupportSet":
        """Read a support folder of any layout that a format recognises; `.source` says which it was.

        classes: only these, in this order. Raises `SupportError` with what was looked for.
        """
        from kshot.formats.base import read_support

        return read_support(Path(folder), tuple(classes))

    @classmethod
    def from_paths(cls, pairs: Iterable[tuple[str | Path, str | Path | None]], label: str = "object") -> "SupportSet":
        """Pairs of image and mask paths of one class; None as the mask means the salient region."""
        return cls([Shot(image, mask=mask, label=label) for image, mask in pairs], source="a list of paths")


@dataclass(frozen=True, eq=False)
class Prediction(Objects):
    """What was found in one image; `Objects` says it as objects. Raises `ShapeError`."""

    mask: NDArray[np.uint8]
    """(h, w) at the image's own size; 0 = background, 1..N = `classes`."""
    scores: NDArray[np.float32]
    """(N+1, h, w), non-negative, sums to 1 over the first axis; 0 = background."""
    present: Mapping[str, float]
    """{class: probability in 0..1 that the image shows it}."""
    classes: tuple[str, ...]
    """Names of the labels 1..N."""
    image: NDArray[np.uint8] | None = field(default=None, repr=False)
    """(h, w, 3), the image itself, for overlays."""
    shapes: Mapping[str, ObjectShape] = field(default_factory=dict, repr=False)
    """{class: what the objects of the supports are like}, for `instances("learned")`."""
    specks: int = 0
    """Connected components that `filtered` made background since they are smaller than its `min_area`."""

    def __post_init__(self) -> None:
        ways, size = len(self.classes), self.mask.shape
        if self.mask.ndim != 2 or self.mask.dtype != np.uint8:
            raise ShapeError(f"expected a mask (h, w) of uint8, got {self.mask.shape} of {self.mask.dtype}")
        if self.scores.shape != (ways + 1, *size):
            raise ShapeError(f"expected scores of shape {(ways + 1, *size)}, got {self.scores.shape}")
        if self.image is not None and self.image.shape != (*size, 3):
            raise ShapeError(f"expected an image of shape {(*size, 3)}, got {self.image.shape}")
        if self.mask.max(initial=0) > ways:
            raise ShapeError(f"expected labels in 0..{ways}, got {self.mask.max()}")
        if set(self.present) != set(self.classes):
            raise ShapeError(f"expected a presence for each of {self.classes}, got {tuple(self.present)}")

    @classmethod
    def from_scores(
        cls,
        scores: NDArray[np.float32],
        classes: Sequence[str],
        present: Mapping[str, float] | None = None,
        image: NDArray[np.uint8] | None = None,
        presence_threshold: float = 0.5,
        shapes: Mapping[str, ObjectShape] | None = None,
    ) -> "Prediction":
        """Decide: each pixel takes its best class among those that are present.

        scores: (N+1, h, w), sums to 1. present: by default the highest score of each class.
        """
        names = tuple(classes)
        if present is None:
            present = {name: float(scores[i + 1].max()) for i, name in enumerate(names)}
        kept = [0, *(i + 1 for i, name in enumerate(names) if present[name] >= presence_threshold)]
        return cls(labels_of(scores, kept), scores, dict(present), names, image, dict(shapes or {}))

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.mask.shape[0], self.mask.shape[1]

    @property
    def uncertainty(self) -> float:
        """How far the scores are from the mask, in 0..1; a review begins with the images of highest uncertainty.

        One minus the soft IoU of mask and scores, averaged over the classes found: the loss of IoU to be expected when
        the scores are probabilities. With nothing found, the highest presence.
        """
        sums = []
        for label, scores in enumerate(self.scores[1:], 1):
            inside = self.mask == label
            if inside.any():
                sums.append((float(scores[inside].sum()), float(scores.sum()), int(inside.sum())))
        return uncertainty_of(sums, self.present)

    def areas(self) -> dict[str, int]:
        """{class: pixels} of every class."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes) + 1)
        return {name: int(counts[i + 1]) for i, name in enumerate(self.classes)}

    def mask_of(self, name: str) -> NDArray[np.bool_]:
        """(h, w) truth values of one class."""
        if name not in self.classes:
            raise MaskError(f"no class {name!r} in this prediction; it has {', '.join(self.classes)}")
        found: NDArray[np.bool_] = self.mask == self.classes.index(name) + 1
        return found

    def with_valid_mask(self, valid_mask: NDArray[np.bool_] | None) -> "Prediction":
        """The same, with background for certain where valid_mask (h, w) is False; None changes nothing."""
        if valid_mask is None:
            return self
        check_same_size(valid_mask.shape, self.mask.shape, "the valid mask")
        mask = np.where(valid_mask, self.mask, np.uint8(0))
        return replace(self, mask=mask, scores=background_outside(self.scores, valid_mask))

    def filtered(
        self, *, min_presence: float | None = None, min_score: float = 0.0, min_area: float | str = 0
    ) -> "Prediction":
        """The same scores with a mask of what passes; see `Thresholds`. Raises `SettingError`."""
        limits = Thresholds(min_presence, min_score, min_area)
        mask = self.mask.copy()
        if min_presence is not None:
            kept = [i for i, name in enumerate(self.classes, 1) if self.present[name] >= min_presence]
            mask = labels_of(self.scores, [0, *kept])
        specks = self._remove_components(mask, limits) if limits.of_components else 0
        return replace(self, mask=mask, specks=specks)

    def _remove_components(self, mask: NDArray[np.uint8], limits: "Thresholds") -> int:
        """Returns how many were too small."""
        from kshot.ops.components import connected_components

        least, specks = limits.least_pixels(self.size_hw), 0
        for label, scores in enumerate(self.scores[1:], 1):
            for place, inside in connected_components(mask == label):
                small = bool(inside.sum() < least)
                specks += small
                if small or scores[place][inside].mean(dtype=np.float64) < limits.min_score:
                    mask[place][inside] = 0
        return specks

    def overlay(self, alpha: float = 0.5) -> "Image.Image":
        """The image with each class in its colour and outlined, as a PIL image."""
        from kshot.formats.overlay import draw

        return draw(self, alpha)

    def save(self, path: str | Path) -> Path:
        """Write in the format that the suffix names: .png index mask, .jpg overlay, .npz scores, .json COCO."""
        from kshot.formats.base import save

        return save(self, Path(path))


@dataclass(frozen=True)
class Thresholds:
    """What of a prediction is kept; decided on its scores, so that nothing is fitted anew. Raises `SettingError`."""

    min_presence: float | None = None
    """Probability in 0..1 that a class is in the image, below which the class is left out and its pixels go to the next
    best; in place of the method's own threshold, which None leaves."""
    min_score: float = 0.0
    """Mean score in 0..1 of a connected component, over its pixels, below which it becomes background."""
    min_area: float | str | None = None
    """Area of a connected component below which it becomes background: pixels, or a share of the image, "0.1%". None:
    `SPECK_PATCHES` patch tokens in a folder, where `label_folder` knows their size, and nothing elsewhere."""

    def __post_init__(self) -> None:
        for name in ("min_presence", "min_score"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SettingError(f"{name} (--{name.replace('_', '-')}) {value}: expected a number in 0..1")
        pixels, share = self._area
        if not (0 <= pixels < math.inf and 0 <= share <= 1):
            raise SettingError(_AREA_EXPECTED.format(self.min_area))

    @property
    def of_components(self) -> bool:
        """Whether connected components are judged, where the size of a patch token is not known."""
        return self.min_score > 0 or max(self._area) > 0

    def least_pixels(self, size_hw: Sequence[int], patch_pixels: float = 0.0) -> float:
        """The least area of a component in an image of this height and width.

        patch_pixels: how many of its pixels a patch token covers.
        """
        if self.min_area is None:
            return SPECK_PATCHES * patch_pixels
        pixels, share = self._area
        return pixels + share * size_hw[0] * size_hw[1]

    @property
    def _area(self) -> tuple[float, float]:
        """Pixels and share of the image; one of them is 0."""
        text = "0" if self.min_area is None else str(self.min_area).strip()
        try:
            return (0.0, float(text[:-1]) / 100) if text.endswith("%") else (float(text), 0.0)
        except ValueError as error:
            raise SettingError(_AREA_EXPECTED.format(self.min_area)) from error


def patch_pixels(size_hw: Sequence[int], size: int, patch: int, tile: int | None = None) -> float:
    """How many pixels of an image (or of one of its tiles) a patch token covers, when it is resized to size x size.

    patch: side of a patch token after that. tile: side of the tiles, pixels of the image.
    """
    height, width = (side if tile is None else min(side, tile) for side in size_hw)
    return height * width * (patch / size) ** 2


def check_same_size(got_hw: tuple[int, ...], expected_hw: tuple[int, ...], name: str) -> None:
    """Raise `MaskError` that prints both sizes unless they are the same."""
    if tuple(got_hw) != tuple(expected_hw):
        raise MaskError(
            f"{name} is {got_hw[1]} x {got_hw[0]} pixels and its image {expected_hw[1]} x {expected_hw[0]}; "
            "they must agree (an image with an orientation tag counts as it is displayed)"
        )


def uncertainty_of(sums: Sequence[tuple[float, float, float]], present: Mapping[str, float]) -> float:
    """`Prediction.uncertainty` from sums over the image.

    sums: for each class found, its scores over its own pixels, its scores over all pixels, and how many its own are.
    """
    losses = [1 - inside / (pixels + total - inside) for inside, total, pixels in sums]
    return sum(losses) / len(losses) if losses else max(present.values())


def background_outside(scores: NDArray[np.float32], valid_mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scores (N+1, h, w) with background for certain where valid_mask (h, w) is False."""
    sure = np.where(valid_mask, scores, np.float32(0))
    sure[0][~valid_mask] = 1
    return sure


def labels_of(scores: NDArray[np.float32], kept: Sequence[int]) -> NDArray[np.uint8]:
    """(h, w): at each pixel the label of the best of scores (N+1, h, w) among `kept`, which begins with 0."""
    mask = np.zeros(scores.shape[1:], np.uint8)
    best = scores[0]
    for index in kept[1:]:
        better = scores[index] > best
        mask[better] = index
        if index != kept[-1]:
            best = np.maximum(best, scores[index])
    return mask


def _replace(thing: Any, name: str, value: Any) -> None:
    object.__setattr__(thing, name, value)  # the one door into a frozen dataclass, used while it is made


def _rows(value: ArrayLike | None, columns: int, name: str) -> NDArray[np.float64] | None:
    if value is None:
        return None
    try:
        rows = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"expected {name} as (n, {columns}) numbers, got {value!r}") from error
    if rows.size == 0:
        return None
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or rows.shape[1] != columns or not np.isfinite(rows).all():
        raise ShapeError(f"expected {name} as (n, {columns}) finite pixel numbers, got shape {rows.shape}")
    if columns == 4 and ((rows[:, 2] <= rows[:, 0]) | (rows[:, 3] <= rows[:, 1])).any():
        raise ShapeError(f"expected boxes as x0, y0, x1, y1 with x0 < x1 and y0 < y1, got {rows.tolist()}")
    return rows


def _check_labels(label: str | Mapping[int, str]) -> None:
    named = [label] if isinstance(label, str) else list(label.values())
    if not all(isinstance(name, str) and name.strip() for name in named):
        raise SupportError(f"expected a class name, or {{label: class name}}, got {label!r}")
    if not isinstance(label, str):
        wrong = [key for key in label if not isinstance(key, int | np.integer) or not 0 < key < IGNORE]
        if wrong:
            raise SupportError(f"expected labels in 1..254, got {wrong}; 0 is background and 255 is ignore")
