"""From labelled images to shots, and back."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kshot.annotations.model import Annotation, AnnotationSet, ImageBuilder, LabelledImage, LazyImages
from kshot.annotations.skipped import Skipped
from kshot.errors import SupportError
from kshot.io.class_masks import read_class_mask
from kshot.io.images import image_size, name_of, read_mask
from kshot.io.names import leads_out, safe
from kshot.io.stems import unique_stems
from kshot.types import IGNORE, Shot, check_same_size


class ShotList(list[Shot]):
    """The shots of a folder, and what its reader left out or could not read."""

    def __init__(self, shots: Iterable[Shot] = (), skipped: Skipped | None = None):
        super().__init__(shots)
        self.skipped = skipped or Skipped()


def shots_of(annotations: AnnotationSet) -> ShotList:
    """Shots of the labelled images: one with a mask where there are outlines, else one per class and kind of prompt.

    A box in an image with a mask is marked as ignore there, since it covers an object that nobody outlined; it makes
    a shot of its own when its class has no outline, and is counted where it has. An image that fails, such as one that
    is not there, fails alone.
    Raises `SupportError` and `MaskError` where that leaves no shot.
    """
    shots = ShotList(skipped=annotations.skipped)
    for image in annotations.images:
        with shots.skipped.alone():
            shots += list(_shots(image, annotations, shots.skipped))
    if not shots:
        shots.skipped.raise_first()
    return shots


def _shots(image: LabelledImage, annotations: AnnotationSet, skipped: Skipped) -> Iterator[Shot]:
    prompts, classes, objects = image.prompts, annotations.classes, annotations.objects
    shown: dict[int, str] = {}
    if image.annotations or prompts:
        _ = image.found  # before anything of its size is made
    if image.annotations:
        mask = image.labels(classes)
        for row in (row for rows in prompts.boxes.values() for row in rows):
            x0, y0, x1, y1 = (max(0, round(side)) for side in row)
            mask[y0:y1, x0:x1][mask[y0:y1, x0:x1] == 0] = IGNORE
        shown = {index: name for index, name in enumerate(classes, start=1) if (mask == index).any()}
        if shown:
            yield Shot(image.found, mask=mask, label=shown, objects=image.numbers() if objects else None)
    for name in dict.fromkeys([*prompts.boxes, *prompts.points, *prompts.scribbles]):
        if name in shown.values():
            for kind, marks in (("box", prompts.boxes), ("point", prompts.points), ("line", prompts.scribbles)):
                if count := len(marks.get(name, ())):
                    kept = ", whose area counts as undecided" if kind == "box" else ""
                    skipped.leave_out(
                        f"{kind} of a class that its image outlines{kept}", f"{image.name}: {name}", count
                    )
            continue
        boxes, points = prompts.boxes.get(name), prompts.points.get(name)
        if boxes or points:
            yield Shot(image.found, boxes=boxes or None, points=points or None, label=name)
        if name in prompts.scribbles:
            yield Shot(image.found, scribbles=prompts.scribbles[name], label=name)


def annotations_of(shots: Sequence[Shot], root: Path) -> AnnotationSet:
    """The labels of shots that have masks, boxes, points or scribbles, by the paths of their images below `root`."""
    by_image: dict[Path, list[Shot]] = {}
    skipped = shots.skipped if isinstance(shots, ShotList) else Skipped()
    for place, shot in enumerate(shots, start=1):
        if isinstance(shot.image, Path) and shot.prompt not in {"text", "none"}:
            by_image.setdefault(shot.image, []).append(shot)
        else:
            kind = "text" if shot.image is None else "an image that is no file, or has no marks"
            skipped.leave_out(f"shot of {kind}", f"{root}: shot {place}")
        for name in ("negative_points", "negative_scribbles"):
            if (rows := getattr(shot, name)) is not None:
                skipped.leave_out(name.replace("_", " "), f"{root}: shot {place}", len(rows))
    names = {path: _name(path, root) for path in by_image}
    stems = unique_stems(names.values())

    def read(path: Path) -> LabelledImage:
        builder = ImageBuilder(image_size(path))
        for shot in by_image[path]:
            _add(builder, shot)
        return builder.build(names[path], path, stems[names[path]])

    return AnnotationSet(
        class_order([shot for group in by_image.values() for shot in group]),
        LazyImages(list(by_image), read, skipped),
        skipped=skipped,
    )


def _name(path: Path, root: Path) -> str:
    """The name of an image below the folder; of one elsewhere, what of its path is safe."""
    name = Path(os.path.relpath(path, root)).as_posix()
    return safe(name) if leads_out(name) else name


def _add(builder: ImageBuilder, shot: Shot) -> None:
    if not shot.classes:
        return
    label = shot.classes[0]
    if shot.boxes is not None:
        builder.prompts.boxes.setdefault(label, []).extend(np.asarray(shot.boxes).tolist())
    if shot.points is not None:
        builder.prompts.add_points(label, np.asarray(shot.points).tolist())
    for line in shot.scribbles or ():
        builder.prompts.add_scribble(label, np.asarray(line).tolist())
    if shot.mask is None:
        return
    of_one = isinstance(shot.label, str)
    mask = read_class_mask(shot.mask).pixels if of_one else read_mask(shot.mask)
    check_same_size(mask.shape, builder.size_hw, f"the mask of {name_of(shot.image)}")
    named = {1: shot.label} if isinstance(shot.label, str) else shot.label
    for index, name in named.items():
        builder.add(Annotation.from_mask(mask == index, name))
    builder.add(Annotation.from_mask(mask == IGNORE, "", ignore=True))


def class_order(shots: Sequence[Shot]) -> tuple[str, ...]:
    """The classes that shots show: by their labels where masks have labels, then in the order of the shots."""
    labels = {name: label for shot in shots if not isinstance(shot.label, str) for label, name in shot.label.items()}
    return tuple(dict.fromkeys((*sorted(labels, key=labels.__getitem__), *(n for shot in shots for n in shot.classes))))


def only_classes(shots: Sequence[Shot], classes: Sequence[str], source: str) -> list[Shot]:
    """Shots of these classes alone; others become background. Raises `SupportError` when none shows one of them."""
    shown = dict.fromkeys(name for shot in shots for name in shot.classes)
    missing = [name for name in classes if name not in shown]
    if missing:
        raise SupportError(f"{source}: no shot shows {', '.join(missing)}; it has {', '.join(shown) or 'none'}")
    return [kept for kept in (_restricted(shot, classes) for shot in shots) if kept is not None]


def _restricted(shot: Shot, classes: Sequence[str]) -> Shot | None:
    """The shot with these classes alone; None when it shows none of them."""
    if isinstance(shot.label, str):
        return shot if shot.label in classes else None
    wanted = {label: name for label, name in shot.label.items() if name in classes}
    if len(wanted) == len(shot.label) or not wanted or shot.mask is None:
        return shot if wanted else None
    # A label that is left out of the mapping would be refused as undeclared, so the array itself says background.
    mask = read_mask(shot.mask, drawn=False)
    mask = np.where(np.isin(mask, list(shot.label.keys() - wanted.keys())), np.uint8(0), mask)
    return replace(shot, mask=mask, label=wanted)
