"""Which images a run takes, in which order, and what their results are called."""

import os
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from kshot.errors import InputError, KshotError, SettingError
from kshot.io.names import odd_characters, printable
from kshot.io.ome_zarr import SUFFIX as ZARR
from kshot.io.ome_zarr import is_zarr, opened
from kshot.io.paths import file_of, list_images, may_hold_several, root_of
from kshot.io.stems import unique_stems
from kshot.io.tiff import pages
from kshot.io.videos import SUFFIXES as VIDEOS
from kshot.io.videos import VideoFrame, check_every, frames, is_video

_WATCH_SECONDS = 1.0
# A folder, a glob pattern or a file, or several of them.
Images: TypeAlias = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Input:
    """One image that a run takes: a file, a page of a TIFF or a frame of a video."""

    name: str
    """In the manifest: the path relative to the folder of images, and the page or frame."""
    path: Path
    stem: str
    """Path of its outputs, relative to a format's folder and without a suffix."""
    page: int = 0
    """From 1, where it is one of several in a TIFF."""
    frame: VideoFrame | None = None
    """Where it is one of a video."""
    problem: KshotError | None = None
    """Why there is no image."""
    done: bool = False
    """Whether an earlier run wrote its results, so that it only enters the memory of its film."""

    @property
    def is_page_or_frame(self) -> bool:
        """Whether it is one of several images of its file."""
        return bool(self.page) or self.frame is not None


@dataclass(frozen=True)
class Shard:
    """Shard `number` (from 1) of the `count` that a folder is split into.

    An image's name decides its shard, so machines agree whatever else lies in the folder. Raises `SettingError`.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SettingError(f"shard {self}: expected I/N with 1 <= I <= N, such as 1/4")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, source: Input) -> bool:
        """Whether the image belongs to this shard; all frames of a video do, or none, since they follow each other."""
        name = file_of(source.name) if is_video(source.path) else source.name
        return zlib.crc32(name.encode("utf-8", "surrogateescape")) % self.count == self.number - 1


class Inputs:
    """The images of a run, in order; with `watch` the iteration never ends, but waits for new images.

    skip: resolved paths of images to leave out. every: of a video each `every`-th frame is an image. The pages or
    frames of a file are counted when it is reached, so the length grows. `planned` counts the files of all shards,
    without a limit; 0 with `watch`. given: {name: stem} of images of earlier runs.
    Raises `InputError` when there is no image, except with `watch`, and `SettingError`.
    """

    def __init__(
        self,
        images: Images,
        out: Path,
        *,
        limit: int | None = None,
        watch: bool = False,
        shard: Shard | None = None,
        skip: Collection[Path] = (),
        every: int = 1,
        given: Mapping[str, str] | None = None,
    ):
        check_every(every)
        self._given = dict(given or {})
        self.images, self.out, self.limit, self.watch = images, out, limit, watch
        self.shard, self.skip, self.every = shard, skip, every
        planned = [] if watch else plan(images, out, self._given)
        self.files, self.planned = self._wanted(planned), len(planned)
        self.given, self.left = 0, len(self.files)
        # While watching: date and size of files that may be on their way, and when they were seen so first.
        self._unsettled: dict[str, tuple[tuple[int, int], float]] = {}

    def __len__(self) -> int:
        count = self.given + self.left
        return count if self.limit is None else min(count, self.limit)

    def __iter__(self) -> Iterator[Input | None]:
        """Each image; None, while watching, means that none is there now and the next may take long to come."""
        yield from self._images(list(self.files))
        while self.watch and not self._enough():
            yield from self._images(self._new())
            yield None
            time.sleep(_WATCH_SECONDS)

    def _images(self, files: list[Input]) -> Iterator[Input]:
        """The images of this run in some files."""
        for file in files:
            if self._enough():
                return
            if self.watch:
                self.files.append(file)
                self.left += 1
            self.left -= 1
            for source in split(file, self.every):
                if self._enough():
                    return
                if self.shard is None or self.shard.holds(source):
                    self.given += 1
                    yield source

    def _enough(self) -> bool:
        return self.limit is not None and self.given >= self.limit

    def _wanted(self, files: list[Input]) -> list[Input]:
        ours = [file for file in files if self.shard is None or may_hold_several(file.name) or self.shard.holds(file)]
        return [file for file in ours if file.path.resolve() not in self.skip] if self.skip else ours

    def _new(self) -> list[Input]:
        self._given |= {file.name: file.stem for file in self.files}
        try:
            files = self._wanted(plan(self.images, self.out, self._given))
        except InputError:  # no image yet; one may still come
            return []
        before = {file.name for file in self.files}
        return [file for file in files if file.name not in before and self._is_settled(file)]

    def _is_settled(self, file: Input) -> bool:
        """Whether nobody has written to a file for `_WATCH_SECONDS`; one written to just now may be on its way.

        Its date tells that, or where that lies ahead of this machine's clock, that nothing has changed since it was
        first seen.
        """
        stat = file.path.stat()
        if stat.st_mtime < time.time() - _WATCH_SECONDS:
            return True
        now, seen = time.monotonic(), (stat.st_mtime_ns, stat.st_size)
        if self._unsettled.get(file.name, (None, 0.0))[0] != seen:
            self._unsettled[file.name] = seen, now
        return now - self._unsettled[file.name][1] >= _WATCH_SECONDS


def plan(images: Images, out: Path, given: Mapping[str, str] | None = None) -> list[Input]:
    """The files that a run over `images` will read, in order, without those in the output folder `out`.

    given: {name: stem} of the images of earlier runs; no other image gets one of these stems. An image whose name some
    format or report cannot hold gets a `problem`, and its name is escaped. Raises `InputError` when there is no image,
    or when all of them lie in `out`.
    """
    lies_inside = partial(_lies_in, out.resolve(), {})
    paths = {name: path for name, path in _named(images).items() if not lies_inside(path)}
    if not paths:
        listed = ", ".join(str(where) for where in _several(images)[:3])
        raise InputError(f"{listed}: lies in the output folder {out}, where results are written; give another -o")
    problems = {name: _problem(odd) for name in paths if (odd := odd_characters(name))}
    shown = [printable(name) if name in problems else name for name in paths]
    stems = unique_stems(shown, given)
    each = zip(paths.items(), shown, strict=True)
    return [Input(name, path, stems[name], problem=problems.get(real)) for (real, path), name in each]


def _lies_in(folder: Path, known: dict[Path, bool], path: Path) -> bool:
    """Whether a file lies in a resolved folder, or below; known: whether the folders of earlier files do."""
    if path.is_symlink():
        return folder in path.resolve().parents
    if path.parent not in known:
        real = path.parent.resolve()
        known[path.parent] = folder in (real, *real.parents)
    return known[path.parent]


def _problem(odd: str) -> InputError:
    return InputError(f"its name has {odd}, which files of results cannot hold; rename it and --resume")


def roots_of(images: Images) -> list[Path]:
    """The folder of each place that images are read from."""
    return [root_of(Path(where)) for where in _several(images)]


def common_root(images: Images) -> Path:
    """The folder that the names of a run's images are relative to; of several places, the one that holds them all."""
    roots = {os.path.normpath(Path.cwd() / root): root for root in roots_of(images)}
    return next(iter(roots.values())) if len(roots) == 1 else Path(os.path.commonpath(roots))


def count_images(inputs: Inputs) -> tuple[int, int]:
    """How many images a run will do, a page of a TIFF each, and how many videos it will look at beside them."""
    videos = sum(is_video(file.path) for file in inputs.files)
    images = (source for file in inputs.files if not is_video(file.path) for source in split(file))
    count = sum(inputs.shard is None or inputs.shard.holds(source) for source in images)
    return (count if inputs.limit is None else min(count, inputs.limit)), videos


def _several(images: Images) -> Sequence[str | Path]:
    return [images] if isinstance(images, str | Path) else images


def _named(images: Images) -> dict[str, Path]:
    """The files of all places by their names: paths relative to `common_root`, in order."""
    name_of = partial(_relative, common_root(images), {})
    found = (path for where in _several(images) for path in list_images(where, {*VIDEOS, ZARR}))
    return dict(sorted((name_of(path), path) for path in found))


def _relative(root: Path, known: dict[Path, str], path: Path) -> str:
    """The path of a file relative to a folder, with slashes; known: those of the folders of earlier files."""
    folder = path.parent
    if folder not in known:
        known[folder] = Path(os.path.relpath(folder, root)).as_posix()
    return path.name if known[folder] == "." else f"{known[folder]}/{path.name}"


def split(file: Input, every: int = 1) -> Iterator[Input]:
    """The images of a file: itself, the pages of a TIFF or OME-Zarr with several, or frames of a video, one at a time.

    A video that cannot be decoded gives one image with a `problem`; one that breaks off gives its frames, then that.
    """
    if file.problem:
        yield file
        return
    if is_video(file.path):
        try:
            for frame in frames(file.path, every):
                number = f"{frame.number:06}"
                yield replace(file, name=f"{file.name}#{number}", stem=f"{file.stem}/{number}", frame=frame)
        except KshotError as error:
            yield replace(file, problem=error)
        return
    if not may_hold_several(file.name):
        yield file
        return
    try:
        count = opened(file.path).planes if is_zarr(file.path) else len(pages(file.path))
    except KshotError as error:
        yield replace(file, problem=error)
        return
    if count < 2:
        yield file
        return
    for page in range(1, count + 1):
        yield replace(file, name=f"{file.name}#page{page:04}", stem=f"{file.stem}/page{page:04}", page=page)
