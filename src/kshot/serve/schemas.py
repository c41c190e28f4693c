"""What the HTTP API takes and gives."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["todo", "predicted", "doubtful", "drawn", "accepted", "rejected", "failed"]
Sort = Literal["uncertainty", "name", "area"]
Threshold = Annotated[
    int, Field(ge=1, le=255, description="Certainty, of 255, from which a pixel shows its class; 128 is even odds.")
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ClassOut(BaseModel):
    """A class."""

    name: str
    colour: str


class ClassIn(_Body):
    """A class to be named."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    colour: Annotated[str | None, Field(pattern="^#[0-9a-fA-F]{6}$")] = None


class ClassEdit(_Body):
    """What changes of a class."""

    name: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    colour: Annotated[str | None, Field(pattern="^#[0-9a-fA-F]{6}$")] = None


class ImageOut(BaseModel):
    """An image as the gallery shows it."""

    index: int
    name: str
    state: State
    revision: int
    ready: bool
    """Whether its features are there."""
    support: bool
    """Whether it is an example."""
    uncertainty: float | None = None
    areas: dict[str, float] = {}
    """{class: fraction of the image}"""
    present: dict[str, float] = {}
    """{class: probability}"""
    reason: str = ""
    """Why it failed."""


class ImageDetail(ImageOut):
    """An image that is opened."""

    width: int
    height: int
    marks: list[dict[str, Any]]


class ImageList(BaseModel):
    """Some of the images, in the order that was asked for."""

    total: int
    offset: int
    images: list[ImageOut]
    order: list[int]
    """Numbers of all images that fit, when they were asked for."""


class Steps(BaseModel):
    """How many steps this window can take."""

    undo: int
    redo: int


class Status(BaseModel):
    """All that is not about one image."""

    version: int
    title: str
    out: str
    read_only: bool
    live: bool
    classes: list[ClassOut]
    images: int
    counts: dict[str, int]
    examples: list[int]
    ready: int
    fitting: bool
    fits: int
    """Number of the newest fit, 0 before the first."""
    left: int
    """Images that the newest fit has not reached."""
    idle: bool
    problem: str
    steps: Steps


class Changes(BaseModel):
    """What has changed since a version."""

    status: Status
    changed: list[int] | None
    """Images; null where there are many, so that all should be asked for again."""


class Accept(_Body):
    """What was looked at when the mask was accepted."""

    threshold: Threshold = 128
    revision: int | None = None


class Support(_Body):
    """Whether the image is an example."""

    support: bool
    threshold: Threshold = 128


class Look(_Body):
    """Which images a page shows, the open one first."""

    images: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=500)]


class Live(_Body):
    """Whether the other images follow what is drawn."""

    live: bool


class Stepped(BaseModel):
    """The image of the step that was taken back, or taken again."""

    index: int


class Changed(BaseModel):
    """What has become of an image."""

    image: ImageOut


class ExportIn(_Body):
    """A format and its options, as of `kshot convert`."""

    format: str
    instances: Literal["components", "watershed"] | None = None
    polygons: bool = False
    tolerance: Annotated[float, Field(ge=0, le=1000)] = 0.0
    copy_images: bool = False
    accepted_only: bool = False
    overwrite: bool = False


class ExportOut(BaseModel):
    """What was written, and the command that does the same."""

    path: str
    images: int
    command: str
    notes: list[str]


class Format(BaseModel):
    """A format that can be exported."""

    name: str
    about: str
    command: str
    """Without options."""


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
