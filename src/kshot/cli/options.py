"""Options that several commands share, and the things that they make."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from kshot.annotations.model import Export
from kshot.batch import Shard, ray_engine
from kshot.batch.inputs import root_of
from kshot.errors import SettingError, SupportError
from kshot.formats.base import annotated
from kshot.io.images import MAX_PIXELS
from kshot.ops.components import METHODS
from kshot.segmenter import Segmenter, names
from kshot.types import Shot, SupportSet


def _option(*flags: str, panel: str, help: str, env: str | None = None, **more: Any) -> Any:
    return typer.Option(*flags, help=help, envvar=f"KSHOT_{env}" if env else None, rich_help_panel=panel, **more)


_MODEL, _PROMPTS, _RUN = "Model", "Supports without a folder (NAME= names the class)", "Run"

# Read from the files' names: asking each format would import it whenever help is printed.
_READ_ONLY = {"class-folders", "index-masks", "kshot-run", "support-yaml"}
_PER_IMAGE = {"overlay", "png", "scores"}
_FORMATS = [name for name in names("formats") if name not in _READ_ONLY]
WRITTEN = ", ".join(_FORMATS)
CONVERTED = ", ".join(["png", *(name for name in _FORMATS if name not in _PER_IMAGE)])

Backbone: TypeAlias = Annotated[
    str | None, _option("--backbone", panel=_MODEL, env="BACKBONE", help="Short name, Hub id or local folder.")
]
Method: TypeAlias = Annotated[
    str | None, _option("--method", panel=_MODEL, env="METHOD", help="How classes are told apart.")
]
Refiner: TypeAlias = Annotated[
    str | None,
    _option("--refiner", panel=_MODEL, env="REFINER", help="How masks meet edges: edges, crf, sam, none."),
]
Set: TypeAlias = Annotated[
    list[str] | None,
    _option("--set", panel=_MODEL, help="A setting of the method or refiner: method.kappa=15, refiner.band=2."),
]
Size: TypeAlias = Annotated[
    int | None,
    _option("--size", panel=_MODEL, env="SIZE", help="Side of the working area in pixels. [default: the backbone's]"),
]
Layers: TypeAlias = Annotated[
    str | None, _option("--layers", panel=_MODEL, env="LAYERS", help="Layers of the backbone, e.g. 10,12,k12.")
]
Device: TypeAlias = Annotated[str, _option("--device", panel=_MODEL, env="DEVICE", help="auto, cpu, cuda, cuda:1, ...")]
Dtype: TypeAlias = Annotated[str, _option("--dtype", panel=_MODEL, env="DTYPE", help="float32 or bfloat16.")]
MaxPixels: TypeAlias = Annotated[
    int, _option("--max-pixels", panel=_RUN, env="MAX_PIXELS", help="Refuse larger images.")
]
Formats: TypeAlias = Annotated[str, _option("--format", panel=_RUN, env="FORMAT", help=f"Comma-separated: {WRITTEN}.")]
Out: TypeAlias = Annotated[Path, _option("--out", "-o", panel=_RUN, help="Folder for the results.")]
_SHAPES = "Shapes"
Instances: TypeAlias = Annotated[
    str | None, _option("--instances", panel=_SHAPES, help="Split masks into objects: components or watershed.")
]
Polygons: TypeAlias = Annotated[
    bool, _option("--polygons", panel=_SHAPES, help="Polygons where a format holds masks too (coco, labelme, ...).")
]
Tolerance: TypeAlias = Annotated[
    float, _option("--tolerance", panel=_SHAPES, min=0, help="Pixels that a polygon may leave the edge; 0 is exact.")
]
CopyImages: TypeAlias = Annotated[
    bool, _option("--copy-images", panel=_SHAPES, help="Copy the images into yolo and voc, instead of links.")
]
Resume: TypeAlias = Annotated[bool, _option("--resume", panel=_RUN, help="Continue a run that was stopped.")]
Overwrite: TypeAlias = Annotated[bool, _option("--overwrite", panel=_RUN, help="Replace the results in the folder.")]
Limit: TypeAlias = Annotated[int | None, _option("--limit", panel=_RUN, min=1, help="Stop after this many images.")]
OnlyUnannotated: TypeAlias = Annotated[
    bool, _option("--only-unannotated", panel=_RUN, help="Leave out images that have labels beside them already.")
]
Tile: TypeAlias = Annotated[
    int | None, _option("--tile", panel=_RUN, help="Cut images into tiles of this side, in pixels; 512 suits most.")
]
Overlap: TypeAlias = Annotated[
    int, _option("--overlap", panel=_RUN, help="How far tiles reach into each other, in pixels.")
]
Bands: TypeAlias = Annotated[
    str | None,
    _option("--bands", panel=_MODEL, env="BANDS", help="Bands of TIFFs as red, green, blue: 4,3,2; or one, as grey."),
]
Stretch: TypeAlias = Annotated[
    str | None,
    _option("--stretch", panel=_MODEL, env="STRETCH", help="Values of TIFFs that are black and white: 0,3000."),
]
Every: TypeAlias = Annotated[int, _option("--every", panel=_RUN, min=1, help="Take each N-th frame of videos.")]
Watch: TypeAlias = Annotated[bool, _option("--watch", panel=_RUN, help="Keep looking for new images until Ctrl-C.")]
Workers: TypeAlias = Annotated[
    int | None,
    _option("--workers", panel=_RUN, env="WORKERS", min=0, help="Threads that read, and that write; actors of Ray."),
]
EngineName: TypeAlias = Annotated[
    str, _option("--engine", panel=_RUN, env="ENGINE", help="local, or ray: a Ray cluster, see RAY_ADDRESS.")
]
InShard: TypeAlias = Annotated[
    str | None, _option("--shard", panel=_RUN, help="One part of the images, e.g. 2/4, for several machines.")
]
DryRun: TypeAlias = Annotated[bool, _option("--dry-run", panel=_RUN, help="Say what would be done, and stop.")]
Json: TypeAlias = Annotated[bool, _option("--json", panel=_RUN, help="Print one JSON document on stdout.")]
Supports: TypeAlias = Annotated[
    list[str] | None, _option("--support", panel=_PROMPTS, help="[NAME=]IMAGE:MASK, or IMAGE alone.")
]
Boxes: TypeAlias = Annotated[list[str] | None, _option("--box", panel=_PROMPTS, help="[NAME=]IMAGE:x0,y0,x1,y1")]
Points: TypeAlias = Annotated[
    list[str] | None, _option("--point", panel=_PROMPTS, help="[NAME=]IMAGE:x,y; off the class: IMAGE:x,y,-")
]
Texts: TypeAlias = Annotated[
    list[str] | None, _option("--text", panel=_PROMPTS, help="[NAME=]words; alone, they name the class.")
]
ClassNames: TypeAlias = Annotated[
    list[str] | None,
    _option("--class", panel=_PROMPTS, help="Name of the class of such supports; with a folder: keep these alone."),
]


def make_segmenter(
    *,
    backbone: str | None,
    method: str | None,
    refiner: str | None,
    size: int | None,
    layers: str | None,
    set_: Sequence[str] | None = None,
    **rest: Any,
) -> Segmenter:
    """A Segmenter of those options that were given."""
    given: dict[str, Any] = {"backbone": backbone, "method": method, "refiner": refiner, "size": size}
    given["layers"] = parse_layers(layers)
    given |= parse_settings(set_ or ())
    return Segmenter(**{name: value for name, value in given.items() if value is not None}, **rest)


def reading(max_pixels: int, bands: str | None, stretch: str | None) -> dict[str, Any]:
    """What a Segmenter is told of how images are read."""
    return {"max_pixels": max_pixels, "bands": parse_bands(bands), "stretch": parse_stretch(stretch)}


def parse_layers(text: str | None) -> tuple[str, ...] | None:
    """Layers from "10,12,k12"."""
    if text is None:
        return None
    layers = tuple(part.strip() for part in text.split(","))
    if not all(part[part[:1] in ("k", "v") :].isdecimal() for part in layers):
        raise SettingError(f"--layers {text}: expected block numbers such as 10,12, k12 (keys) or v12 (values)")
    return layers


def parse_bands(text: str | None) -> tuple[int, ...] | None:
    """Bands from "4,3,2"."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise SettingError(f"--bands {text}: expected one or three band numbers from 1, such as 4,3,2")
    return tuple(int(part) for part in parts)


def parse_stretch(text: str | None) -> tuple[float, ...] | None:
    """Two numbers from "0,3000"."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(f"--stretch {text}: expected two numbers LOW,HIGH, such as 0,3000") from error


_SWITCH = {"true": True, "false": False}


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, int | float | str]]:
    """`method_settings` and `refiner_settings` from texts such as "method.kappa=15"; the last of a name counts."""
    found: dict[str, dict[str, int | float | str]] = {"method_settings": {}, "refiner_settings": {}}
    for text in texts:
        name, equals, value = text.partition("=")
        family, _, key = name.strip().partition(".")
        if not equals or not key or f"{family}_settings" not in found:
            raise SettingError(f"--set {text}: expected method.NAME=VALUE or refiner.NAME=VALUE")
        found[f"{family}_settings"][key] = _value(value.strip())
    return {name: values for name, values in found.items() if values}


def _value(text: str) -> int | float | str:
    if text.lower() in _SWITCH:
        return _SWITCH[text.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats from "png,label-studio"; an unknown one lists the choices."""
    chosen = tuple(part.strip().replace("_", "-") for part in text.split(",") if part.strip())
    for name in chosen:
        if name not in _FORMATS:
            raise SettingError(f"no format is called {name!r}; choices: {WRITTEN}")
    return tuple(name.replace("-", "_") for name in chosen)


def make_export(instances: str | None, polygons: bool, tolerance: float, copy_images: bool) -> Export:
    """How labels are written; refuses what would have no effect."""
    if instances is not None and instances not in METHODS:
        raise SettingError(f"--instances {instances}: choices: {', '.join(METHODS)}")
    return Export(instances, polygons, tolerance, copy_images)


def parse_shard(text: str | None) -> Shard | None:
    """A shard from "2/4"."""
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise SettingError(f"--shard {text}: expected I/N, such as 2/4")
    return Shard(int(number), int(count))


def parse_engine(text: str, workers: int | None, watch: bool) -> dict[str, Any]:
    """What `label_folder` is told of the engine and its workers; by default, Ray takes what the cluster has."""
    if text == "local":
        return {"workers": 1 if workers is None else workers}
    if text != "ray":
        raise SettingError(f"--engine {text}: choices: local, ray")
    if watch:
        raise SettingError("--watch with --engine ray: a Ray run ends with its images; use the local engine to watch")
    ray_engine.load()  # before there is an output folder
    return {"workers": workers or 0, "engine": ray_engine.on_ray}


def images_to_skip(images: str, supports: SupportSet | None) -> frozenset[Path]:
    """Images that --only-unannotated leaves out: those with labels beside them, and the supports."""
    shown = [Path(shot.image) for shot in supports or () if isinstance(shot.image, str | Path)]
    folder = root_of(Path(images))
    return annotated(folder) | {path.resolve() for path in shown}


def read_supports(
    folder: str | None,
    supports: Sequence[str] | None,
    boxes: Sequence[str] | None,
    points: Sequence[str] | None,
    texts: Sequence[str] | None,
    classes: Sequence[str] | None,
) -> SupportSet:
    """A support set from a folder, or from --support, --box, --point and --text."""
    if folder is not None:
        if any((supports, boxes, points, texts)):
            raise SupportError("give a support folder or --support/--box/--point/--text, not both")
        return SupportSet.from_folder(folder, classes=tuple(classes or ()))
    if classes and len(classes) > 1:
        raise SupportError("several classes: name each support's own with NAME=, as in --box cat=a.jpg:10,20,90,80")
    label = classes[0] if classes else "object"
    shots = [_mask_shot(text, label) for text in supports or ()]
    shots += [_box_shot(text, label) for text in boxes or ()]
    shots += _point_shots(points or (), label)
    shots += [_text_shot(text, classes[0] if classes else None) for text in texts or ()]
    return SupportSet(shots, source="the command line")


def _named(text: str, label: str) -> tuple[str, str]:
    name, found, rest = text.partition("=")
    # A path may hold "=", but a class name never holds a slash, a dot or a colon.
    return (name, rest) if found and not set(name) & set("/\\.:") else (label, text)


def _text_shot(text: str, label: str | None) -> Shot:
    name, words = _named(text, label or text)
    return Shot(text=words, label=name)


def _mask_shot(text: str, label: str) -> Shot:
    label, rest = _named(text, label)
    image, found, mask = rest.rpartition(":")
    if not found or (len(image) == 1 and mask[:1] in "/\\"):  # C:\images\a.jpg is one path
        return Shot(rest, label=label)
    return Shot(image, mask=mask, label=label)


def _box_shot(text: str, label: str) -> Shot:
    label, image, numbers = _located(text, label, "--box", "IMAGE:x0,y0,x1,y1")
    if len(numbers) != 4:
        raise SupportError(f"--box {text}: expected IMAGE:x0,y0,x1,y1")
    return Shot(image, boxes=[numbers], label=label)


def _point_shots(texts: Sequence[str], label: str) -> list[Shot]:
    """Points on the same image and class make one shot."""
    groups: dict[tuple[str, str], tuple[list[list[float]], list[list[float]]]] = {}
    for text in texts:
        off = text.endswith(",-")
        name, image, numbers = _located(text.removesuffix(",-").removesuffix(",+"), label, "--point", "IMAGE:x,y")
        if len(numbers) != 2:
            raise SupportError(f"--point {text}: expected IMAGE:x,y or IMAGE:x,y,-")
        groups.setdefault((name, image), ([], []))[off].append(numbers)
    return [
        Shot(image, points=on or None, negative_points=off or None, label=name)
        for (name, image), (on, off) in groups.items()
    ]


def _located(text: str, label: str, flag: str, form: str) -> tuple[str, str, list[float]]:
    label, rest = _named(text, label)
    image, _, numbers = rest.rpartition(":")
    try:
        return label, image, [float(number) for number in numbers.split(",")]
    except ValueError as error:
        raise SupportError(f"{flag} {text}: expected {form}") from error


DEFAULT_MAX_PIXELS = MAX_PIXELS
