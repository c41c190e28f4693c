"""From shots to supports: read each image once, encode it, and turn its prompts into soft masks on the grid.

Texts become supports too: one patch token for each, and one support of background words, which stand for no class and
give text classes something to lose against.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot._shot_marks import Marks, check_known
from kshot.errors import EmptyMaskError, SettingError, SupportError
from kshot.features.lru import BoundedCache
from kshot.io.images import MAX_PIXELS, name_of, read_image
from kshot.io.rasters import BandSelection
from kshot.io.valid_pixels import valid_pixels
from kshot.methods.base import Support
from kshot.ops.components import connected_components
from kshot.ops.geometry import FeatureMap, Frame, coverage, to_grid
from kshot.ops.object_shapes import ObjectShape
from kshot.ops.pixel_features import sample_pixels
from kshot.ops.support_crops import support_windows
from kshot.types import IGNORE, ImageLike, Shot, check_same_size

# A mask must cover at least this much, in patches: less is dominated by whatever else those patches show.
_MIN_PATCHES = 0.5
# Two classes contradict each other when they share more than this fraction of the smaller one.
_CONTRADICTORY = 0.5
# Decoded images of shots that stay in memory, for a report after the fit.
_IMAGE_BYTES = 128 * 2**20
# What most images show besides objects, in plain words (open-vocabulary methods on CLIP use lists like it).
BACKGROUND_WORDS = ("background", "sky", "ground", "wall", "floor", "grass", "trees", "water", "road", "building")
_MIN_WHOLE = 3  # objects inside the image from which on those that its border cuts tell nothing of their shape
Made = TypeVar("Made")


class ShotReader:
    """Reads the images of shots, each once: those read last stay in memory. Threads may share it.

    max_pixels: larger images are refused. selection: bands and stretch of TIFFs.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, selection: BandSelection | None = None):
        self.max_pixels, self.selection = max_pixels, selection or BandSelection()
        self._lock = threading.Lock()
        self._read = BoundedCache[tuple[NDArray[np.uint8], bytes]](_IMAGE_BYTES, lambda read: read[0].nbytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return ShotReader, (self.max_pixels, self.selection)  # what is in memory stays with this process

    def by_image(
        self, shots: Iterable[Shot], make: Callable[[NDArray[np.uint8], str], Made]
    ) -> list[tuple[Made, list[Shot]]]:
        """The shots of each distinct image, and what `make` gives for its pixels (h, w, 3) and its name.

        Images are distinct when their pixels are; they come in the order of their first shots. Shots of words alone
        are left out. Raises the `InputError`s of reading.
        """
        images: dict[bytes, tuple[Made, list[Shot]]] = {}
        for shot in shots:
            if shot.image is None:
                continue
            pixels, key = self._pixels(shot.image)
            if key not in images:
                images[key] = make(pixels, name_of(shot.image)), []
            images[key][1].append(shot)
        return list(images.values())

    def pixels(self, shot: Shot) -> NDArray[np.uint8]:
        """(h, w, 3) of a shot with an image. Raises the `InputError`s of reading."""
        if shot.image is None:
            raise SupportError("a shot of words has no pixels")
        return self._pixels(shot.image)[0]

    def _pixels(self, image: ImageLike) -> tuple[NDArray[np.uint8], bytes]:
        """Pixels (h, w, 3) and their hash."""
        if not isinstance(image, str | Path):
            return self._decode(image)
        try:
            facts = Path(image).stat()
        except (OSError, ValueError):  # the reader says what is wrong
            return self._decode(image)
        with self._lock:
            return self._read.get((str(image), facts.st_mtime_ns, facts.st_size), lambda: self._decode(image))

    def _decode(self, image: ImageLike) -> tuple[NDArray[np.uint8], bytes]:
        pixels = read_image(image, max_pixels=self.max_pixels, selection=self.selection)
        digest = hashlib.sha256(np.ascontiguousarray(pixels).data)
        digest.update(repr(pixels.shape).encode())
        return pixels, digest.digest()


def encode_shots(
    shots: Iterable[Shot],
    classes: Sequence[str],
    features_of: Callable[[NDArray[np.uint8]], FeatureMap],
    reader: ShotReader,
    words_of: Callable[[Sequence[str]], FeatureMap] | None = None,
    *,
    pixels: bool = False,
    crop: bool = False,
) -> Iterator[Support]:
    """One support per image, then those of words, with masks (N, gh, gw) in the order of `classes`, one by one.

    Shots that share an image share its encoding, and one's foreground is no background of the other. words_of: embeds
    n texts as a row of n patch tokens. pixels: draw single pixels too, of images of which each shot is a mask. crop:
    encode parts of the images around what is shown too.
    Raises the `InputError`s of reading, `MaskError`, `EmptyMaskError`, `SupportError` where masks of one image
    contradict each other, and what `words_of` raises for a backbone that reads no words.
    """
    given = tuple(shots)
    texts = [shot for shot in given if shot.text]
    if texts and words_of is None:
        raise SettingError(f"the text {texts[0].text!r}: nothing here reads words; give an image of the class")
    words = _encode_words(texts, classes, words_of) if words_of and texts else ()
    images = reader.by_image(given, lambda _, name: name)
    missing = {name for _, group in images for shot in group for name in shot.classes}
    for name, group in images:
        image = reader.pixels(group[0])
        support = _encode(image, name, group, classes, features_of, reader.max_pixels, pixels=pixels, crop=crop)
        missing -= {shown for shown, mask in zip(classes, support.masks, strict=True) if bool(mask.any())}
        yield support
    for name in (name for name in classes if name in missing):
        raise EmptyMaskError(_too_small("every support", name, 1.0, support.features.frame.patch))
    yield from words


@dataclass(frozen=True, eq=False)
class MaskedImage:
    """An image of which every shot is a mask."""

    name: str
    """For messages."""
    size_hw: tuple[int, int]
    """In pixels."""
    shots: tuple[Shot, ...]
    """At least one."""

    def labels(self, classes: Sequence[str], max_pixels: int) -> NDArray[np.uint8]:
        """(h, w): w + 1 for class w, 0 for everything else, 255 where nothing is known; later masks lie above.

        Raises the `InputError`s of reading a mask, and `MaskError`.
        """
        found, valid = np.zeros(self.size_hw, np.uint8), valid_pixels(self.shots[0].image)
        for shot in self.shots:
            mark = Marks.of(shot, self.size_hw, self.name, max_pixels, valid)
            if mark.labels is not None:
                drawn = _class_labels(mark.labels, mark.wanted, classes)
                found = np.where(drawn > 0, drawn, found)
        return found


def masked_images(shots: Iterable[Shot], reader: ShotReader) -> list[MaskedImage]:
    """The distinct images of which every shot is a mask. Raises the `InputError`s of reading."""
    images = reader.by_image(shots, lambda pixels, name: (name, (pixels.shape[0], pixels.shape[1])))
    return [
        MaskedImage(name, size_hw, tuple(group))
        for (name, size_hw), group in images
        if all(shot.prompt == "mask" for shot in group)
    ]


def grid_mask(mask: NDArray[np.bool_] | Tensor, frame: Frame) -> Tensor:
    """The fraction of each patch that a mask of pixels covers: (..., h, w) truth values to (..., gh, gw) in 0..1.

    What a patch has of padding counts as not covered.
    """
    shares = to_grid(torch.as_tensor(mask).float(), frame).clamp(max=1)  # sums of products may come out just above it
    return shares * coverage(frame)


def _encode_words(
    shots: Sequence[Shot], classes: Sequence[str], words_of: Callable[[Sequence[str]], FeatureMap]
) -> tuple[Support, ...]:
    """One support per text, and one of the background words."""
    texts = [str(shot.text).strip() for shot in shots]
    supports = []
    for shot, text in zip(shots, texts, strict=True):
        masks = torch.zeros(len(classes), 1, 1)
        if shot.classes[0] in classes:
            masks[classes.index(shot.classes[0])] = 1
        supports.append(Support(words_of([text]), masks, torch.ones(1, 1), "text", float(shot.weight)))
    row = words_of(BACKGROUND_WORDS)
    nothing = torch.zeros(len(classes), *row.grid_hw)
    return (*supports, Support(row, nothing, torch.ones(row.grid_hw), "text"))


def labelled_support(
    labels: NDArray[np.uint8], wanted: Mapping[int, str], classes: Sequence[str], features: FeatureMap, name: str
) -> Support:
    """The support of a label map (h, w): `wanted` names its labels, 255 is ignored, any other but 0 is refused.

    Raises `MaskError` and `EmptyMaskError`, which call the image `name`.
    """
    check_same_size(labels.shape, features.frame.size_hw, f"the mask of {name}")
    shown, valid_mask = _from_labels(labels, wanted, features.frame, name)
    masks = torch.zeros(len(classes), *features.grid_hw)
    for class_name, mask in shown.items():
        if class_name in classes:
            masks[classes.index(class_name)] = mask
    return Support(features, _share(masks, valid_mask), valid_mask)


def _encode(
    image: NDArray[np.uint8],
    name: str,
    shots: Sequence[Shot],
    classes: Sequence[str],
    features_of: Callable[[NDArray[np.uint8]], FeatureMap],
    max_pixels: int,
    *,
    pixels: bool,
    crop: bool,
) -> Support:
    """The support of one image (h, w, 3) from all its shots."""
    size_hw = image.shape[0], image.shape[1]
    valid = valid_pixels(shots[0].image)
    marks = [Marks.of(shot, size_hw, name, max_pixels, valid) for shot in shots]
    support, objects, samples = _seen(features_of(image), marks, classes, name), dict[str, ObjectShape](), None
    if pixels and all(mark.labels is not None for mark in marks):
        drawn = [_class_labels(mark.labels, mark.wanted, classes) for mark in marks if mark.labels is not None]
        samples = sample_pixels(image, drawn)
    for mark in marks:
        if mark.labels is not None:
            objects |= object_shapes(mark.labels, mark.wanted, mark.numbers)
    crops: list[Support] = []
    if crop and all(shot.prompt != "none" for shot in shots):  # else the whole image is the support
        shown = np.any([mark.shown(support.features) for mark in marks], axis=0)
        crops += [
            _seen(features_of(window.of(image)), [mark.within(window) for mark in marks], classes, name)
            for window in support_windows(shown)
        ]
    kind = "image" if all(shot.prompt == "none" for shot in shots) else "mask"
    weight = max(float(shot.weight) for shot in shots)
    support, *crops = (replace(each, kind=kind, weight=weight) for each in (support, *crops))
    return replace(support, objects=objects, pixels=samples, crops=tuple(crops))


def _seen(features: FeatureMap, marks: Sequence[Marks], classes: Sequence[str], name: str) -> Support:
    """The support of an image, or of a part of it, and of marks on it."""
    masks, valid_mask = torch.zeros(len(classes), *features.grid_hw), coverage(features.frame)
    for mark in marks:
        shown = _shown(mark, classes, features, name)
        valid_mask, masks = torch.minimum(valid_mask, shown.valid_mask), torch.maximum(masks, shown.masks)
    if all(mark.labels is not None for mark in marks):
        _check_consistent(masks, valid_mask, classes, name)
    return Support(features, _share(masks, valid_mask), valid_mask)


def _shown(mark: Marks, classes: Sequence[str], features: FeatureMap, name: str) -> Support:
    """What the marks of one shot say of an image, or of the part of it that was encoded."""
    if mark.labels is not None:
        return labelled_support(mark.labels, mark.wanted, classes, features, name)
    masks = torch.zeros(len(classes), *features.grid_hw)
    if mark.shot.classes[0] in classes:
        masks[classes.index(mark.shot.classes[0])] = mark.grown(features)
    everywhere = coverage(features.frame)
    valid_mask = everywhere if mark.valid_mask is None else grid_mask(mark.valid_mask, features.frame)
    return Support(features, masks, valid_mask)


def _check_consistent(masks: Tensor, valid_mask: Tensor, classes: Sequence[str], name: str) -> None:
    """Refuse masks that give the same pixels to two classes; a rim that two people drew differently is shared."""
    shown = [(index, mask) for index, mask in enumerate(masks) if bool(mask.any())]
    for (i, first), (j, second) in combinations(shown, 2):
        twice = float((first + second - valid_mask).clamp(min=0).sum())
        if twice > _CONTRADICTORY * min(float(first.sum()), float(second.sum())):
            raise SupportError(
                f"{name}: the masks of {classes[i]!r} and {classes[j]!r} cover the same region; "
                "a pixel is of one class: take it out of one of them, or set it to 255 (ignore) in both"
            )


def object_shapes(
    labels: NDArray[np.uint8], wanted: Mapping[int, str], numbers: NDArray[np.integer] | None
) -> dict[str, ObjectShape]:
    """{class: what its objects are like} of a label map (h, w), `wanted` naming its labels.

    numbers: (h, w), of objects; None takes connected components for them.
    """
    found = {}
    for label, name in wanted.items():
        inside = labels == label
        if numbers is None:
            objects = list(connected_components(inside))
        else:
            from scipy.ndimage import find_objects  # slow to import, and seldom needed

            kept = np.unique(np.where(inside, numbers, 0), return_inverse=True)[1].reshape(inside.shape)
            places = enumerate(find_objects(kept), start=1)
            objects = [(place, kept[place] == number) for number, place in places if place]
        # What the border cuts is smaller than the object.
        whole = [
            mask
            for (y, x), mask in objects
            if min(y.start, x.start) > 0 and y.stop < inside.shape[0] and x.stop < inside.shape[1]
        ]
        shape = ObjectShape.of(whole if len(whole) >= _MIN_WHOLE else [mask for _, mask in objects])
        if shape:
            found[name] = shape
    return found


def _from_labels(
    labels: NDArray[np.uint8], wanted: Mapping[int, str], frame: Frame, name: str
) -> tuple[dict[str, Tensor], Tensor]:
    """{class: (gh, gw)} of a label map (h, w), and the fraction (gh, gw) of each patch that is labelled."""
    check_known(labels, wanted, name)
    valid_mask = grid_mask(labels != IGNORE, frame)
    shown = {}
    for label, class_name in wanted.items():
        mask = grid_mask(labels == label, frame)
        if float(mask.sum()) >= _MIN_PATCHES:
            shown[class_name] = mask
        elif len(wanted) == 1:
            raise EmptyMaskError(_too_small(name, class_name, float(mask.sum()), frame.patch))
        else:  # a speck of one class among others teaches nothing, and is no background either
            valid_mask = valid_mask - mask
    return shown, valid_mask


def _class_labels(labels: NDArray[np.uint8], wanted: Mapping[int, str], classes: Sequence[str]) -> NDArray[np.uint8]:
    """A label map (h, w) with w + 1 for class w, 0 for everything else and 255 for what is ignored."""
    table = np.zeros(IGNORE + 1, np.uint8)
    table[IGNORE] = IGNORE
    for label, class_name in wanted.items():
        if class_name in classes:
            table[label] = classes.index(class_name) + 1
    found: NDArray[np.uint8] = table[labels]
    return found


def _too_small(where: str, class_name: str, patches: float, patch: int) -> str:
    if patches == 0:
        return f"the mask of {where}: {class_name!r} marks no pixel; mark the object, or leave the image out"
    return (
        f"the mask of {where}: {class_name!r} covers no {patch}x{patch} patch; "
        "mark more of the object, raise size (--size), or leave it out"
    )


def _share(masks: Tensor, valid_mask: Tensor) -> Tensor:
    """Divide the labelled fraction of a patch among the classes that overlap in it."""
    total = masks.sum(0).clamp(min=1e-6)
    return masks * torch.minimum(total, valid_mask) / total
