"""Options that several commands share, each defined once.

A frozen dataclass is a group of options: a command takes it as one parameter, and `grouped` makes options of its
fields. Help must be there at once, so whatever is heavy is imported by the function that needs it.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial, wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from kshot import _plugins
from kshot._elsewhere import installed
from kshot.cli import parsing
from kshot.errors import SettingError

if TYPE_CHECKING:
    from kshot.annotations.model import Export
    from kshot.methods.base import Task
    from kshot.segmenter import Segmenter
    from kshot.types import Thresholds

_Command = TypeVar("_Command", bound=Callable[..., Any])


def grouped(*without: str) -> Callable[[_Command], _Command]:
    """Shows the fields of each parameter that is a group as options, and calls the command with groups made of them.

    without: fields that the command does not offer; they keep their defaults.
    """

    def wrap(command: _Command) -> _Command:
        parameters = signature(command).parameters.values()
        groups = {
            parameter.name: [field for field in fields(parameter.annotation) if field.name not in without]
            for parameter in parameters
            if is_dataclass(parameter.annotation)
        }

        @wraps(command)
        def call(**values: Any) -> Any:
            for parameter in parameters:
                if parameter.name in groups:
                    given = {field.name: values.pop(field.name) for field in groups[parameter.name]}
                    values[parameter.name] = parameter.annotation(**given)
            return command(**values)

        shown = []
        for parameter in parameters:
            shown += [
                parameter.replace(name=field.name, default=field.default, annotation=field.type)
                for field in groups.get(parameter.name, ())
            ] or [parameter]
        vars(call)["__signature__"] = Signature(shown)
        return call  # type: ignore[return-value]

    return wrap


def option(panel: str, help: str, *flags: str, env: str = "", **more: Any) -> Any:
    """An option under the title `panel` of the help. env: KSHOT_`env` is an environment variable that sets it."""
    help = help.replace("[", r"\[")  # or rich takes what stands in brackets for markup
    return typer.Option(*flags, help=help, envvar=f"KSHOT_{env}" if env else None, rich_help_panel=panel, **more)


def complete_backbone(incomplete: str) -> list[str]:
    """Short names of backbones."""
    return _beginning(incomplete, [*parsing.BACKBONES, *installed("backbones")])


def complete_method(incomplete: str) -> list[str]:
    """Names of methods."""
    return _beginning(incomplete, _plugins.choices("methods"))


def complete_refiner(incomplete: str) -> list[str]:
    """Names of refiners."""
    return _beginning(incomplete, _plugins.choices("refiners"))


def complete_formats(incomplete: str) -> list[str]:
    """A list of formats, with each name that its last part may become."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _beginning(last, parsing.written())]


def complete_converted(incomplete: str) -> list[str]:
    """Names of formats that `convert` writes."""
    return _beginning(incomplete, [*parsing.CONVERTED.split(", "), *installed("formats")])


def _beginning(text: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(text)]


_model, _run, _shapes, _masks = (partial(option, panel) for panel in ("Model", "Run", "Shapes", "Masks"))
_prompts = partial(option, "Supports without a folder (NAME= names the class)")
_METHODS, _REFINERS = (", ".join(_plugins.option_names(family)) for family in ("methods", "refiners"))
_BACKBONES = f"{', '.join(parsing.BACKBONES)}, a Hub id or a local folder."

Backbone: TypeAlias = Annotated[str | None, _model(_BACKBONES, env="BACKBONE", autocompletion=complete_backbone)]
Size: TypeAlias = Annotated[
    int | None, _model("Side of the working area in pixels. [default: the backbone's]", env="SIZE")
]
Layers: TypeAlias = Annotated[str | None, _model("Layers of the backbone, e.g. 10,12,k12.", env="LAYERS")]
Device: TypeAlias = Annotated[str, _model("auto, cpu, cuda, cuda:1, ...", env="DEVICE")]
Dtype: TypeAlias = Annotated[str, _model("float32 or bfloat16.", env="DTYPE")]
InferenceEngine: TypeAlias = Annotated[
    str, _model("What computes features on a CPU: auto, torch, openvino, autocast.", env="INFERENCE_ENGINE")
]
Out: TypeAlias = Annotated[Path, _run("Folder for the results.", "--out", "-o")]
Formats: TypeAlias = Annotated[
    str, _run(f"Comma-separated: {parsing.WRITTEN}.", env="FORMAT", autocompletion=complete_formats)
]
Resume: TypeAlias = Annotated[bool, _run("Continue a run that was stopped.", "--resume")]
Overwrite: TypeAlias = Annotated[bool, _run("Replace the results in the folder.", "--overwrite")]
Json: TypeAlias = Annotated[bool, _run("Print one JSON document on stdout.", "--json")]
JsonAlone: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@dataclass(frozen=True)
class Model:
    """Backbone, method and refiner, and how images are read for them."""

    backbone: Backbone = None
    method: Annotated[
        str | None,
        _model(
            f"How classes are told apart: {_METHODS}; or a Python file of your own, ./mine.py.",
            env="METHOD",
            autocompletion=complete_method,
        ),
    ] = None
    refiner: Annotated[
        str | None, _model(f"How masks meet edges: {_REFINERS}.", env="REFINER", autocompletion=complete_refiner)
    ] = None
    set_: Annotated[
        list[str] | None, _model("A setting of the method or refiner: method.presence=false, refiner.band=2.", "--set")
    ] = None
    size: Annotated[
        str | None,
        _model(
            "Side of the working area in pixels; auto: 1, 1.5 or 2 times the backbone's own, by leave-one-out. "
            "[default: the backbone's]",
            env="SIZE",
        ),
    ] = None
    layers: Layers = None
    device: Device = "auto"
    dtype: Dtype = "float32"
    inference_engine: InferenceEngine = "auto"
    max_pixels: Annotated[int | None, _run("Refuse larger images. [default: 200000000]", env="MAX_PIXELS")] = None
    bands: Annotated[str | None, _model("Bands of TIFFs as red, green, blue: 4,3,2; or one, as grey.", env="BANDS")] = (
        None
    )
    stretch: Annotated[str | None, _model("Values of TIFFs that are black and white: 0,3000.", env="STRETCH")] = None

    @property
    def method_file(self) -> str | None:
        """The method, where it is a Python file."""
        return self.method if self.method and self.method.endswith(".py") else None

    def settings(self) -> dict[str, Any]:
        """Those keyword arguments of `Segmenter` that were given. Raises `SettingError`."""
        given = asdict(self)
        given |= parsing.parse_settings(given.pop("set_") or ())
        given["engine"] = given.pop("inference_engine")
        given |= {"size": parsing.parse_size(self.size), "layers": parsing.parse_layers(self.layers)}
        given |= {"bands": parsing.parse_bands(self.bands), "stretch": parsing.parse_stretch(self.stretch)}
        return {name: value for name, value in given.items() if value is not None}

    def segmenter(self) -> "Segmenter":
        """The Segmenter of these options."""
        settings = self.settings()
        from kshot.segmenter import Segmenter

        return Segmenter(**settings)

    def segmenter_of(self, task: "Task") -> "Segmenter":
        """The Segmenter that a task was fitted with, but for the options that were given."""
        settings = self.settings()
        if "method_settings" in settings:
            raise SettingError(
                "a task keeps its method's settings; fit anew for others (here, --set takes refiner.NAME)"
            )
        from kshot.segmenter import Segmenter

        return Segmenter.for_task(task, **settings)


@dataclass(frozen=True)
class Prompts:
    """Supports without a folder; false where there are none."""

    support: Annotated[list[str] | None, _prompts("[NAME=]IMAGE:MASK, or IMAGE alone.")] = None
    box: Annotated[list[str] | None, _prompts("[NAME=]IMAGE:x0,y0,x1,y1")] = None
    point: Annotated[list[str] | None, _prompts("[NAME=]IMAGE:x,y; off the class: IMAGE:x,y,-")] = None
    scribble: Annotated[
        list[str] | None, _prompts("A line: [NAME=]IMAGE:x,y;x,y;...; off the class: IMAGE:x,y;x,y;-")
    ] = None
    text: Annotated[list[str] | None, _prompts("[NAME=]words; alone, they name the class.")] = None
    class_: Annotated[
        list[str] | None, _prompts("Name of the class of such supports; with a folder: keep these alone.", "--class")
    ] = None

    def __bool__(self) -> bool:
        return any((self.support, self.box, self.point, self.scribble, self.text))


@dataclass(frozen=True)
class Shapes:
    """How labels are written, for the formats that leave a choice."""

    instances: Annotated[
        str | None, _shapes("Split masks into objects: components, watershed, learned (from supports).")
    ] = None
    polygons: Annotated[
        bool, _shapes("Polygons where a format holds masks too (coco, labelme, ...).", "--polygons")
    ] = False
    tolerance: Annotated[float, _shapes("Pixels that a polygon may leave the edge; 0 is exact.", min=0)] = 0.0
    copy_images: Annotated[bool, _shapes("Copy the images into yolo and voc, instead of links.", "--copy-images")] = (
        False
    )

    def export(self) -> "Export":
        """These options for the writers. Raises `SettingError`."""
        from kshot.annotations.model import Export

        return Export(**asdict(self))


@dataclass(frozen=True)
class Table:
    """A table of all objects."""

    table: Annotated[
        str | None, _shapes("A row per object, in the results' folder: objects.csv, or .parquet (extra `table`).")
    ] = None
    pixel_size: Annotated[
        str | None, _shapes("Of all images, for sizes in units: 0.65um, 2mm, 300dpi. [default: what TIFFs say]")
    ] = None

    def settings(self) -> dict[str, Any]:
        """These options for `label_folder`. Raises `SettingError`, before anything is read."""
        if self.table is not None or self.pixel_size is not None:
            from kshot.batch.object_table import check_table

            check_table(self.table, self.pixel_size)
        return asdict(self)


@dataclass(frozen=True)
class Limits:
    """What of the masks is kept."""

    min_presence: Annotated[
        float | None,
        _masks("Leave out classes that are less likely in the image. [default: the method's threshold]", min=0, max=1),
    ] = None
    min_score: Annotated[float, _masks("Leave out components of a lower mean score.", min=0, max=1)] = 0.0
    min_area: Annotated[
        str | None,
        _masks("Leave out smaller components: pixels, or a share of the image: 0.1%. [default: two patch tokens]"),
    ] = None

    def thresholds(self) -> "Thresholds":
        """These options for predictions. Raises `SettingError`."""
        from kshot.types import Thresholds

        return Thresholds(**asdict(self))


@dataclass(frozen=True)
class Run:
    """Which images of a folder are done, by whom, and what is printed."""

    resume: Resume = False
    overwrite: Overwrite = False
    limit: Annotated[int | None, _run("Stop after this many images.", min=1)] = None
    only_unannotated: Annotated[
        bool, _run("Leave out images that have labels beside them already.", "--only-unannotated")
    ] = False
    tile: Annotated[int | None, _run("Cut images into tiles of this side, in pixels; 512 suits most.")] = None
    overlap: Annotated[int, _run("How far tiles reach into each other, in pixels.")] = 64
    every: Annotated[int, _run("Take each N-th frame of videos.", min=1)] = 1
    memory: Annotated[
        int | None,
        _run("Frames of a film (pages of a TIFF) that the next is compared with; 0: none. [default: 5]", min=0),
    ] = None
    sequence: Annotated[
        bool, _run("All images are frames of one film, or slices of one stack, by name.", "--sequence")
    ] = False
    watch: Annotated[bool, _run("Keep looking for new images until Ctrl-C.", "--watch")] = False
    workers: Annotated[
        str, _run("Threads that read, and that write; actors of Ray: a number, or auto.", env="WORKERS")
    ] = "auto"
    batch_size: Annotated[
        str, _run("Images of one shape that are encoded together: a number, or auto: 8 on a GPU, 1 on a CPU.")
    ] = "auto"
    engine: Annotated[str, _run("local, or ray: a Ray cluster, see RAY_ADDRESS.", env="ENGINE")] = "local"
    shard: Annotated[str | None, _run("One part of the images, e.g. 2/4, for several machines.")] = None
    dry_run: Annotated[bool, _run("Say what would be done, and stop.", "--dry-run")] = False
    json: Json = False
