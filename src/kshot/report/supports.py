"""The supports of a run as images: what the user marked, and what the method made of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kshot.formats.overlay import colour_of
from kshot.io.atomic import atomic_path, write_text
from kshot.io.class_masks import read_class_mask
from kshot.io.images import read_mask
from kshot.io.jsonl import read_object
from kshot.io.names import below
from kshot.methods.base import Support, Task
from kshot.ops.geometry import to_pixels
from kshot.prompts import ShotReader
from kshot.report.thumbnails import outlined
from kshot.types import MaskLike, Shot, SupportSet

FOLDER, LIST = "supports", "supports.json"
_SIDE = 800  # pixels of the longest side: small images are enlarged so that the marks come out fine
_FILL = 0.6


def save_supports(out: Path, support: SupportSet, task: Task, reader: ShotReader) -> None:
    """Write supports/<n>.jpg, one per support image, and supports/supports.json for the report.

    The fill is the soft mask on the grid, which is what the method sees, of the supports that the task keeps
    (`Task.keep`); lines, boxes and dots are what was given.
    Words are in the list alone. reader: the `Segmenter.shot_reader` of the fit.
    Raises `OutputError`.
    """
    lines: list[dict[str, Any]] = []
    images = reader.by_image(support, lambda pixels, name: (*_small(pixels), name))
    encoded_images = [each for each in task.supports if each.kind != "bank"]
    known = {each.number or place: each for place, each in enumerate(encoded_images, start=1)}
    for index, ((small, scale, image), shots) in enumerate(images):
        encoded = known.get(index + 1)
        name = f"{FOLDER}/{index}.jpg"
        with atomic_path(below(out, out / name)) as beside:
            drawn = _drawn(small, scale, shots, encoded, task.classes, reader.max_pixels)
            drawn.save(beside, "JPEG", quality=90, subsampling=0)
        lines.append({"image": _name(image, shots[0]), "overlay": name, "marks": _marks(shots)})
    lines += [{"text": shot.text, "marks": _marks([shot])} for shot in support if shot.text]
    facts = {"task": task.digest(), "source": support.source, "supports": lines}
    write_text(out / FOLDER / LIST, json.dumps(facts, indent=2) + "\n")


def read_supports(out: Path, task: str | None) -> list[dict[str, Any]]:
    """The lines that `save_supports` wrote; none when the folder holds those of another task."""
    facts = read_object(out / FOLDER / LIST)
    lines = facts.get("supports", [])
    return lines if isinstance(lines, list) and task in {None, facts.get("task")} else []


def _drawn(
    small: Image.Image,
    scale: float,
    shots: Sequence[Shot],
    encoded: Support | None,
    classes: Sequence[str],
    max_pixels: int,
) -> Image.Image:
    canvas = _filled(np.asarray(small), encoded) if encoded is not None else np.asarray(small)
    for shot in shots:
        if shot.mask is not None:
            labels = _labels(shot, shot.mask, classes, max_pixels)
            resized = Image.fromarray(labels).resize(small.size, Image.Resampling.NEAREST)
            canvas = np.asarray(outlined(canvas, np.asarray(resized), classes, 0.0))
    drawn = Image.fromarray(canvas)
    for shot in (shot for shot in shots if shot.classes):
        _draw_marks(ImageDraw.Draw(drawn), shot, colour_of(classes.index(shot.classes[0]) + 1), scale)
    return drawn


def _small(pixels: NDArray[np.uint8]) -> tuple[Image.Image, float]:
    """An image at the size that is drawn on, and its pixels for one of the original."""
    image = Image.fromarray(pixels)
    scale = _SIDE / max(image.size)
    return image.resize((round(image.width * scale) or 1, round(image.height * scale) or 1)), scale


def _filled(image: NDArray[np.uint8], encoded: Support) -> NDArray[np.uint8]:
    """The image under its classes' colours, as strong as the soft masks; what is not labelled goes dark."""
    out_hw = image.shape[0], image.shape[1]
    known = to_pixels(encoded.valid_mask, encoded.features.frame, out_hw).numpy()[..., None]
    strength = _FILL * to_pixels(encoded.masks, encoded.features.frame, out_hw).numpy()[..., None]
    canvas = image * (0.4 + 0.6 * known.clip(0, 1))
    for label, opacity in enumerate(strength, 1):
        canvas = canvas * (1 - opacity) + opacity * np.array(colour_of(label))
    filled: NDArray[np.uint8] = np.rint(canvas).clip(0, 255).astype(np.uint8)
    return filled


def _labels(shot: Shot, mask: MaskLike, classes: Sequence[str], max_pixels: int) -> NDArray[np.uint8]:
    """A mask's own labels as the task's."""
    if isinstance(shot.label, str):
        marked = read_class_mask(mask, max_pixels=max_pixels).pixels == 1
        return np.where(marked, np.uint8(classes.index(shot.label) + 1), np.uint8(0))
    own = read_mask(mask, max_pixels=max_pixels)
    labels = np.zeros_like(own)
    for label, name in shot.label.items():
        if name in classes:
            labels[own == label] = classes.index(name) + 1
    return labels


def _draw_marks(pen: ImageDraw.ImageDraw, shot: Shot, colour: tuple[int, int, int], scale: float) -> None:
    for x0, y0, x1, y1 in np.asarray(shot.boxes if shot.boxes is not None else []).reshape(-1, 4) * scale:
        pen.rectangle((x0, y0, x1, y1), outline="white", width=5)
        pen.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline=colour, width=3)
    for lines, ink in ((shot.scribbles, colour), (shot.negative_scribbles, (0, 0, 0))):
        for line in lines or ():
            path = [(float(x), float(y)) for x, y in np.asarray(line) * scale]
            pen.line(path, fill="white", width=7, joint="curve")
            pen.line(path, fill=ink, width=4, joint="curve")
    for points, ink in ((shot.points, colour), (shot.negative_points, (0, 0, 0))):
        for x, y in np.asarray(points if points is not None else []).reshape(-1, 2) * scale:
            pen.circle((float(x), float(y)), 9, fill="white")
            pen.circle((float(x), float(y)), 6, fill=ink)


def _marks(shots: Sequence[Shot]) -> list[dict[str, str]]:
    """Which class was shown by what."""
    return [{"class": name, "prompt": shot.prompt} for shot in shots for name in shot.classes]


def _name(image: str, shot: Shot) -> str:
    return Path(image).name if isinstance(shot.image, str | Path) else image
