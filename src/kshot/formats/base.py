"""What an annotation format is; and how a folder, a prediction and an option find theirs.

A format is one file beside this one. It defines a class, which inherits from the classes below what it can do, and one
object of it called `FORMAT`. `annotations.model` says what is read and written.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from kshot import _elsewhere, _plugins
from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export, LabelledImage, passing
from kshot.annotations.pairing import without_ending
from kshot.annotations.shots import ShotList, annotations_of, class_order, only_classes, shots_of
from kshot.errors import DamagedFilesError, InputError, KshotError, OutputError, PluginError, SettingError, SupportError
from kshot.io.paths import visible, walk
from kshot.io.rasters import Raster
from kshot.types import Prediction, Shot, SupportSet, Thresholds

# Layouts are tried in this order, others by name between the two. A run folder may hold a COCO file and a VOC folder of
# its own, without the images that only its settings know; class folders fit almost any folder.
_FIRST, _LAST = ("support_yaml", "kshot_run", "voc", "coco"), ("index_masks", "class_folders")


_Found = TypeVar("_Found")
_Labels = TypeVar("_Labels", ShotList, AnnotationSet)

# What labels hold beside masks of objects.
BESIDE_MASKS = ("boxes", "points", "lines", "ignored areas", "scores")


class Format:
    """An annotation format, by what it can do: one or more of the classes below."""

    @property
    def name(self) -> str:
        """The name of its file, which is that of the option."""
        return _plugins.name_of(sys.modules[type(self).__module__]).replace("-", "_")

    def prepare(self) -> None:
        """Raise `OutputError` before a run, rather than at its end, when something that writing needs is missing."""


class SupportReader(Format, ABC):
    """Reads the shots of a folder."""

    layout: ClassVar[str]
    """One line, "NAME: what is looked for", for messages."""

    @property
    def title(self) -> str:
        """The name of the layout in messages."""
        return self.layout.partition(":")[0]

    @abstractmethod
    def read_shots(self, folder: Path) -> list[Shot] | None:
        """The shots of a folder, a `ShotList` where something may be left out; None when it has another layout.

        Raises `SupportError` that names the file and the entry when it is this layout, but damaged.
        """


class AnnotationReader(SupportReader):
    """Reads all that a folder of labels, or one annotation file, says of its images."""

    @abstractmethod
    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """The labels of a folder, or of one annotation file; None when it is of another format.

        images: the folder of the images, when they are not where the format has them. Raises `SupportError` as
        `read_shots` does, some formats only when an image is asked for.
        """

    def read_shots(self, folder: Path) -> list[Shot] | None:
        """The shots of a folder: all that its labels outline or mark."""
        found = self.read_annotations(folder)
        return None if found is None else shots_of(found)


class ScoredReader(AnnotationReader):
    """Reads labels that have scores, so that thresholds can be other ones than when they were made."""

    @abstractmethod
    def read_objects(
        self, where: Path, images: Path | None = None, thresholds: Thresholds | None = None
    ) -> AnnotationSet | None:
        """`read_annotations` with an annotation per object, of what passes. Raises `SettingError` without scores."""


class AnnotationWriter(Format, ABC):
    """Writes the labels of a whole folder of images."""

    output: ClassVar[str | None]
    """The file or folder below the output folder that it writes. None when it fills the output folder itself, so that
    only `kshot convert` can write it and no run, which has other files there."""
    holds: ClassVar[frozenset[str]] = frozenset()
    """What it holds beside masks, of `BESIDE_MASKS`."""

    @abstractmethod
    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write labels below `out`; returns the path of what `read_annotations` reads. Raises `OutputError`."""


def refuse_names(path: Path, unfit: Iterable[str]) -> None:
    """Raise `OutputError` for the first class name, if any, that a format cannot hold; path: the file to be written."""
    for name in unfit:
        raise OutputError(f"{path}: cannot hold the class name {name!r}; rename the class, or choose another format")


class PredictionWriter(Format, ABC):
    """Writes one prediction as one file; `Prediction.save` finds it by the suffix."""

    suffixes: ClassVar[tuple[str, ...]]
    """Of its files, in lower case; the first is what a run writes."""

    @abstractmethod
    def write(self, prediction: Prediction, path: Path) -> None:
        """Write a prediction. Raises `OutputError`."""


class ImageWriter(PredictionWriter):
    """Writes a prediction for each image of a run, as soon as it is made."""

    folder: ClassVar[str]
    """Where its files lie below the output folder."""

    def path_of(self, stem: str) -> str:
        """Where the file of an image lies, relative to the output folder."""
        return f"{self.folder}/{stem}{self.suffixes[0]}"


class RowWriter(Format, ABC):
    """Writes labels as they come, a few rows at a time, for images larger than the memory."""

    @abstractmethod
    def path_of(self, stem: str) -> str:
        """Where the file of an image lies, relative to the output folder."""

    @abstractmethod
    def open_rows(
        self, path: Path, source: Raster, classes: Sequence[str]
    ) -> AbstractContextManager[Callable[[NDArray[np.uint8]], None]]:
        """A file that grows by each call with rows of labels, (r, w) uint8 from the top; it is there when all are.

        source: the image. Raises `OutputError`.
        """


def load_format(name: str) -> Format:
    """The format of a name; `-` and `_` are the same.

    Raises `UnknownNameError`, and `PluginError` when it is of an installed distribution and cannot be used.
    """
    module = _plugins.load("formats", name)
    source, found = _elsewhere.source_of(module), getattr(module, "FORMAT", None)
    if not isinstance(found, Format):
        raise PluginError(f"the format {name!r} of {source}: its FORMAT is no object of a kshot.formats.base.Format")
    if source and found.name != source.name.replace("-", "_"):
        raise PluginError(f"the format {name!r} of {source}: the class of its FORMAT belongs into {module.__name__}")
    return found


@cache
def all_formats() -> tuple[Format, ...]:
    """Every format: kshot's own by name, then those of installed distributions."""
    return tuple(_plugins.members("formats", load_format).values())


def readers() -> list[SupportReader]:
    """The formats that read supports, in the order in which they are tried."""
    having = {one.name: one for one in all_formats() if isinstance(one, SupportReader)}
    between = [name for name in having if name not in _FIRST + _LAST]
    return [having[name] for name in (*_FIRST, *between, *_LAST)]


def read_support(folder: Path, classes: Sequence[str] = ()) -> SupportSet:
    """Read the shots of a folder of any known layout; `source` says which it was.

    classes: keep these alone, in this order; other classes become background in masks that show both. By default all
    that some shot shows, by their labels where the masks have labels, as the class list has them.
    Raises `SupportError`: no such folder, nothing in it, no layout known (what was looked for and what is there),
    no shot of a wanted class; what a layout refuses comes from its reader.
    """
    if folder.name == "support.yaml" and folder.is_file():  # named itself; its layout is the first that is looked for
        folder = folder.parent
    if not folder.is_dir():
        problem = (
            "a file, where a support folder or its support.yaml was expected"
            if folder.exists()
            else "no such folder; check the path"
        )
        raise SupportError(f"{folder}: {problem}")
    entries = visible(folder)
    if not entries:
        raise SupportError(f"{folder}: the folder is empty; put images and their masks there")
    first = _first_that_reads(folder, partial(_shots, folder))
    if first is not None:
        reader, shots = first
        source = f"{reader.title} in {folder.as_posix().rstrip('/')}/"
        kept = only_classes(shots, classes, source) if classes else shots
        shown = tuple(dict.fromkeys(classes)) or class_order(shots)
        return SupportSet(kept, shown, source, shots.skipped.lines, len(shots.skipped.failures))
    found = ", ".join(path.name + ("/" if path.is_dir() else "") for path in entries[:5])
    more = f" and {len(entries) - 5} more" if len(entries) > 5 else ""
    raise SupportError(f"{folder}: no layout that is known; looked for\n{_looked_for()}\nand found {found}{more}")


def read_labels(
    where: Path, images: Path | None = None, thresholds: Thresholds | None = None
) -> tuple[AnnotationSet, str]:
    """The labels of a folder of any known layout, or of one annotation file, and which layout it was.

    images: where its images are, when not beside it. thresholds: which objects are kept. Layouts that are read as
    supports alone give their masks and boxes, without images that show nothing. Raises `SupportError` as `read_support`
    does, and when no label is of any class, and `SettingError` for thresholds without scores.
    """
    if not where.exists():
        raise SupportError(f"{where}: no such file or folder; check the path")

    def read(reader: SupportReader, damaged: bool) -> AnnotationSet | None:
        if isinstance(reader, ScoredReader):
            return reader.read_objects(where, images, thresholds)
        if isinstance(reader, AnnotationReader):
            return reader.read_annotations(where, images)
        shots = _shots(where, reader, damaged) if where.is_dir() else None
        return None if shots is None else annotations_of(shots, where)

    first = _first_that_reads(where, read)
    if first is None:
        raise SupportError(f"{where}: no labels of a layout that is known; looked for\n{_looked_for()}")
    reader, found = first
    if thresholds and not isinstance(reader, ScoredReader):
        found = passing(found, thresholds)
    source = f"{reader.title} in {where.as_posix()}"
    if not found.classes:
        told = "".join(f"\n  {line}" for line in found.skipped.lines)
        raise SupportError(f"{source}: no label of any class{told}")
    return found, source


class CheckedImages:
    """Images on their way to a writer; a pass counts what it cannot hold, and keeps which images are not there."""

    def __init__(self, annotations: AnnotationSet, writer: AnnotationWriter):
        self.annotations, self.writer = annotations, writer
        self.count = 0
        """How many images the last pass gave."""

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __iter__(self) -> Iterator[LabelledImage]:
        self.count = 0
        for image in self.annotations.images:
            self.count += 1
            self._check(image)
            yield image

    def _check(self, image: LabelledImage) -> None:
        prompts, skipped = image.prompts, self.annotations.skipped
        beside_masks = (prompts.boxes.values(), prompts.points.values(), prompts.scribbles.values())
        counts = [*(sum(map(len, found)) for found in beside_masks), sum(one.ignore for one in image.annotations)]
        counts.append(sum(one.score is not None for one in image.annotations))
        for kind, count in zip(BESIDE_MASKS, counts, strict=True):
            if count and kind not in self.writer.holds:
                skipped.leave_out(f"{kind}, which {self.writer.name} does not hold", image.name, count)
        if image.path is None and image.data is None:
            skipped.fail(SupportError(f"{image.name}: no such image beside its labels or in images/"))


def _first_that_reads(
    where: Path, read: Callable[[SupportReader, bool], _Labels | None]
) -> tuple[SupportReader, _Labels] | None:
    """The first layout that is there, with what it holds; files that nothing could read are kept as its failures.

    read: gets whether there were such files. Raises `DamagedFilesError` where they leave nothing else.
    """
    damaged = list[InputError]()
    for reader in readers():
        try:
            found = _guarded(reader, where, partial(read, reader, bool(damaged)))
        except DamagedFilesError as error:
            damaged += error.errors
            continue
        if found is not None:
            for each in damaged:
                found.skipped.fail(each)
            return reader, found
    if damaged:
        raise DamagedFilesError(damaged)
    return None


def _shots(folder: Path, reader: SupportReader, damaged: bool) -> ShotList | None:
    """The shots of a folder. damaged: images alone are none then, since the damaged files may be their labels."""
    shots = reader.read_shots(folder)
    if shots is None or (damaged and any(shot.prompt == "none" for shot in shots)):
        return None
    return shots if isinstance(shots, ShotList) else ShotList(shots)


def _guarded(reader: SupportReader, where: Path, read: Callable[[], _Found | None]) -> _Found | None:
    """What a reader finds; one of an installed distribution that fails as nobody foresaw is left out, and said."""
    try:
        return read()
    except KshotError:
        raise
    except Exception as error:
        source = _elsewhere.source_of(sys.modules[type(reader).__module__])
        if source is None:
            raise
        _plugins.warn(f"{where}: not read as {reader.name} of {source} ({type(error).__name__}: {error})")
        return None


def _looked_for() -> str:
    return "\n".join(f"  {reader.layout}" for reader in readers())


def annotated(where: Path) -> frozenset[Path]:
    """Resolved paths of the images of a folder that have labels there, and of masks beside them; none without labels.

    Labels are those of any layout that tells which image they belong to, else a PNG beside an image of its name
    (x.png, x_mask.png). Raises `SupportError` when labels are damaged.
    """
    if not where.is_dir():
        return frozenset()
    damaged: DamagedFilesError | None = None
    for reader in readers():
        if not isinstance(reader, AnnotationReader):
            continue
        try:
            found = _guarded(reader, where, partial(reader.read_annotations, where))
        except DamagedFilesError as error:
            damaged = damaged or error
            continue
        if found is not None:
            labelled = (image for image in found.images if image.annotations or image.prompts)
            return frozenset(image.path.resolve() for image in labelled if image.path)
    if damaged:
        raise damaged
    # Class folders are too strict here: most images have no mask, and lie where they like.
    groups: dict[Path, list[Path]] = {}
    for path in walk(where):
        groups.setdefault(path.with_name(without_ending(path.stem)), []).append(path)
    pairs = [group for group in groups.values() if len(group) > 1 and any(p.suffix.lower() == ".png" for p in group)]
    return frozenset(path.resolve() for group in pairs for path in group)


def save(prediction: Prediction, path: Path) -> Path:
    """Write one prediction in the first format, by name, that has the path's suffix; returns the path.

    Raises `SettingError` for another suffix.
    """
    writers: dict[str, PredictionWriter] = {}
    for writer in (one for one in all_formats() if isinstance(one, PredictionWriter)):
        for suffix in writer.suffixes:
            writers.setdefault(suffix, writer)
    if path.suffix.lower() not in writers:
        raise SettingError(
            f"{path}: no format writes {path.suffix or 'a name without suffix'}; use {', '.join(writers)}"
        )
    writers[path.suffix.lower()].write(prediction, path)
    return path
