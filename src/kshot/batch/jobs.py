"""Which images a run takes, in which order, and what their results are called."""

import time
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from kshot.errors import InputError, SettingError
from kshot.formats.folders import list_images
from kshot.formats.trees import unique_stems

_WATCH_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """One image: its name in the manifest (relative to the input folder), its path, its outputs' stem."""

    name: str
    path: Path
    stem: str


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count` parts of a folder.

    An image's name decides its part, so machines agree whatever else lies in the folder. Raises `SettingError`.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SettingError(f"shard {self}: expected I/N with 1 <= I <= N, such as 1/4")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, job: Job) -> bool:
        """Whether the job belongs to this part."""
        return zlib.crc32(job.name.encode("utf-8", "surrogateescape")) % self.count == self.number - 1


class Jobs:
    """The jobs of a run as they come; with `watch` there is always a next one to wait for.

    skip: resolved paths of images to leave out. Raises `InputError` when there is no image, except with `watch`.
    """

    def __init__(
        self,
        images: str | Path,
        out: Path,
        *,
        limit: int | None = None,
        watch: bool = False,
        shard: Shard | None = None,
        skip: Collection[Path] = (),
    ):
        self.images, self.out, self.limit, self.watch = images, out, limit, watch
        self.shard, self.skip = shard, skip
        self.found = [] if watch else self._wanted(plan(images, out))[:limit]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Job | None]:
        """Each job; None says that nobody knows when the next one comes."""
        yield from list(self.found)
        while self.watch and (self.limit is None or len(self.found) < self.limit):
            for job in self._new():
                self.found.append(job)
                yield job
            yield None
            time.sleep(_WATCH_SECONDS)

    def _wanted(self, jobs: list[Job]) -> list[Job]:
        ours = [job for job in jobs if self.shard is None or self.shard.holds(job)]
        return [job for job in ours if job.path.resolve() not in self.skip] if self.skip else ours

    def _new(self) -> list[Job]:
        try:
            jobs = self._wanted(plan(self.images, self.out))
        except InputError:  # an empty folder may fill
            return []
        seen, settled = {job.name for job in self.found}, time.time() - _WATCH_SECONDS
        room = None if self.limit is None else self.limit - len(self.found)
        # A file that was written to just now may still be on its way.
        return [job for job in jobs if job.name not in seen and job.path.stat().st_mtime < settled][:room]


def plan(images: str | Path, out: Path) -> list[Job]:
    """What a run over `images` will do, in order; what lies in `out` itself is left out.

    Raises `InputError` when there is no image, or when all of them lie in `out`.
    """
    inside, found = out.resolve(), list_images(images)
    paths = [path for path in found if inside not in path.resolve().parents]
    if not paths:
        raise InputError(f"{images}: lies in the output folder {out}, where results are written; give another -o")
    root = root_of(Path(images))
    names = [path.relative_to(root).as_posix() for path in paths]
    # a.jpg beside a.png: both keep their suffix, so that neither overwrites the other's results.
    stems = unique_stems(names)
    return [Job(name, path, stems[name]) for name, path in zip(names, paths, strict=True)]


def root_of(images: Path) -> Path:
    """The folder that output paths are relative to; of a glob pattern, the part before the first wildcard."""
    if images.is_dir():
        return images
    parts = images.parent.parts
    fixed = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    return Path(*parts[:fixed])
